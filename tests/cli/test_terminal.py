"""The output of the commands on every terminal, for any texts in a list, any arguments and any module."""

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.storage.sqlite.result_log import ResultLog
from tests.support.commands import COMMAND, Call
from tests.support.lists import empty_list, make_file, result_of
from tests.support.paths import ROOT
from tests.support.processes import running_command
from tests.support.target_lists import MIT

GOOD = "tests.support.functions:good"

#: Changes the colour, clears the screen, sets the title, rings, returns, deletes, reverses the direction, hides a text.
HOSTILE = "\x1b[31m\x1b[2J\x1b]0;title\x07\r\x08\x9b1m\u202e\u2066\x7f[red]"
CONTROLS = re.compile("[\0-\t\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def invoke(*arguments: object, **how: Any) -> Result:
    """Run a command in this process; only our own errors are caught."""
    result = CliRunner(**how).invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Create a file whose path, texts and numbers hold control characters."""
    path = make_file(tmp_path / f"{HOSTILE}.sqlite", [{"status": 6, "datasource": HOSTILE}, {"status": 2}, {}])
    with closing(sqlite3.connect(path)) as connection, connection:
        sql = "INSERT INTO diagnostics (priority, lightcurve, method_used, elaptime, errors) VALUES (2, ?, ?, 1, ?)"
        connection.execute(sql, (HOSTILE, HOSTILE, f"first\n{HOSTILE} last"))
        connection.execute("UPDATE todolist SET camera = ? WHERE priority = 3", (HOSTILE,))
        connection.execute(f'CREATE TABLE "{HOSTILE}" (a)')
    return path


# --- texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["status", "{path}"], "last"),
        (["status", "{path}", "--json"], "last"),
        (["status", "{path}.none"], "does not exist"),
        (["check", "{path}"], "1 fault found"),
        (["upgrade", "{path}"], "is up to date"),
        (["copy", "{path}", "{path}.copy"], "Not copied, because another program added it"),
        (["copy", "{path}", "{path}"], "is not replaced"),
        (["export", "{path}", "{path}.csv"], "todolist.camera is"),
        (["export", "{path}", "{path}/out.csv"], "does not exist"),
        (["report", "{path}", "-o", "{path}.html"], "Report written"),
        (["reset", "{path}", "--error-like", HOSTILE], "1 task (1 ERROR) returned to pending"),
        (["run", "{path}", GOOD, "--limit", "1", "--jobs", "1"], "1 result (0 errors)"),
        (["run", "{path}", HOSTILE], "it names no function"),
        (["run", "{path}", f"{HOSTILE}.py:f"], "does not exist"),
        (["try", "{path}", GOOD, "--priority", "1"], "Nothing was saved"),
        (["errors", "{path}"], "last"),
        (["errors", "{path}", "--priority", "2"], "last"),
        (["show", "{path}", "102"], "last"),
        (["init", "{path}", "{path}.csv"], "No such file"),
        ([HOSTILE], "No such command"),
        (["check", "{path}", HOSTILE], "unexpected extra argument"),
    ],
)
def test_no_control_character_reaches_the_terminal(hostile: Path, arguments: Sequence[str], shown: str) -> None:
    """Paths, table names and stored texts are shown with their control characters escaped."""
    result = invoke(*(argument.replace("{path}", str(hostile)) for argument in arguments))
    assert shown in result.output
    assert not CONTROLS.search(result.output)


def test_texts_of_a_server(server_database: Engine) -> None:
    """The errors of an attempt at a task on a server are escaped too."""
    url = empty_list(server_database, [{}])
    with TaskManager(url) as manager:
        (task,) = manager.claim_tasks(1)
        manager.save_result(result_of(task, STATUS.ERROR, errors=[f"{HOSTILE} wrong"]))
    for result in (invoke("status", url, "--task", 1), invoke("status", url)):
        assert "wrong" in result.output
        assert not CONTROLS.search(result.output)


def test_logged_and_warned(hostile: Path, call: Call) -> None:
    """The library's log messages and warnings are escaped too."""
    with TaskManager(hostile, load_into_memory=True) as manager:
        manager.save_result(result_of({"priority": 3}))
        log = ResultLog(hostile).path
        kept = log.read_bytes()
    log.write_bytes(kept)
    module = f"import warnings\nwarnings.warn({HOSTILE!r}, stacklevel=1)\ndef photometry(task): return {{}}\n"
    hostile.with_name("warning.py").write_text(module)
    run = call("run", hostile, "warning:photometry", "--jobs", "1", "--stop-after", "0")
    assert "UserWarning: " in run.stderr
    assert "its log of results belongs to another file" in run.stderr
    assert not CONTROLS.search(run.stderr + run.stdout)


# --- terminals -------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", sorted({*main.commands} - {"demo", "work", "estimate", "plan", "serve"}))
def test_every_encoding(
    todo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, charset: str
) -> None:
    """Characters that the encoding of the terminal lacks are shown as escapes, of the help and of results."""
    monkeypatch.chdir(tmp_path)
    todo({"status": 2, "datasource": "σ–"}, {}).rename("σ–.sqlite")
    Path("σ–.csv").write_text(MIT)
    with closing(sqlite3.connect("σ–.sqlite")) as connection, connection:
        sql = "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (1, 'σ', 1, 'kein σ – 🌟')"
        connection.execute(sql)
    more = {
        "init": ["σ–.csv"],
        "run": [GOOD, "--jobs", "1"],
        "try": [GOOD, "--priority", "1"],
        "show": ["101"],
        "report": ["-o", "σ–.html"],
        "reset": ["--camera", "1", "--yes"],
        "export": ["σ–.ecsv"],
        "copy": ["–σ.sqlite"],
    }
    assert invoke(command, "--help", charset=charset).exit_code == 0
    if command == "undo":
        invoke("reset", "σ–.sqlite", "--everything", "--yes")
    result = invoke(command, "σ–.sqlite", *more.get(command, []), charset=charset)
    assert result.exit_code in (0, command == "check"), result.output
    assert r"\u03c3" in result.stdout


@pytest.mark.parametrize("command", sorted(main.commands))
def test_examples(command: str) -> None:
    """The example of a command can be copied from its help, and no line of it ends between an option and its value."""
    text = invoke(command, "--help").stdout
    example = text.partition("Example:\n")[2].partition("\n\n")[0]
    words = shlex.split(example)
    assert words[:2] == ["photometry-tasks", command]
    assert not re.search(r"--(?!watch|json|check|yes|dry-run|everything|in-memory|force)[a-z-]+ \\\n", example)


def test_the_c_locale(todo: Callable[..., Path]) -> None:
    """In a batch job without a locale, the status is shown."""
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    path = todo({"status": 6, "datasource": "σ"})
    run = subprocess.run([COMMAND, "status", path], env=environment, capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"")
    assert rb"\u03c3" in run.stdout


@pytest.mark.parametrize("columns", ["0", "1", "-5", "", "wide", "²", "1000000000"])
@pytest.mark.parametrize("terminal", ["dumb", "", "nonsense"])
def test_odd_terminals(todo: Callable[..., Path], columns: str, terminal: str) -> None:
    """Whatever COLUMNS, LINES and TERM hold, the tables can be read."""
    result = invoke("status", todo({"status": 6}), env={"COLUMNS": columns, "LINES": columns, "TERM": terminal})
    assert "STARTED" in result.stdout


def run_in_terminal(rows: int, columns: int, *command: str, **variables: str) -> str:
    """Run a command in a terminal of this size, and return what it prints there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    how = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "env": {**environment, "TERM": "xterm", **variables}}
    with running_command([COMMAND, *command], **how) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the command has closed the terminal
            while chunk := os.read(ours, 65536):
                shown += chunk
        assert process.wait(60) == 0
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


#: A code that sets a colour, and any code.
COLOUR, CODE = re.compile(r"\x1b\[[0-9;]*3[0-7]m"), re.compile(r"\x1b[\[(][0-9;?]*[a-zA-Z]")

ERROR = "ValueError: the stamp of the star lies outside the image of camera 1 and CCD 3 in row 123"


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a list with many errors and many running tasks."""
    path = make_file(tmp_path_factory.mktemp("failing") / "todo.sqlite", [{"camera": 1 + n % 4} for n in range(60)])
    with TaskManager(path, version="v1") as manager:
        for priority in range(1, 31):
            details = {"kind": f"Kind{priority % 7}", "errors": [ERROR]} if priority % 2 else {}
            manager.save_result(result_of({"priority": priority}, STATUS.ERROR if details else STATUS.OK, **details))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE todolist SET status = 6 WHERE priority > 40")
    return path


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("rows", "columns", "variables"),
    [
        (24, 80, {}),
        (24, 80, {"NO_COLOR": "1"}),
        (24, 80, {"TERM": "dumb"}),
        (24, 80, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        (24, 40, {}),
        (60, 120, {}),
    ],
)
def test_sizes_of_terminals(failing: Path, rows: int, columns: int, variables: dict[str, str]) -> None:
    """The status fits the terminal: errors come first, no line is wider, and lists are as long as the height lets."""
    text = run_in_terminal(rows, columns, "status", str(failing), **variables)
    assert bool(CODE.search(text)) == ("dumb" not in variables.values())
    assert bool(COLOUR.search(text)) == (not {"dumb", "1"}.intersection(variables.values()))
    lines = CODE.sub("", text).splitlines()
    assert max(map(len, lines)) <= columns
    starts = [next(n for n, line in enumerate(lines) if line.startswith(word)) for word in ("Last errors", "Finished")]
    assert starts == sorted(starts)
    end = next((n for n, line in enumerate(lines) if line.startswith("Interrupted tasks")))
    assert end < max(rows, 35 if columns == 40 else 0)
    assert starts[1] - starts[0] - 3 == (10 if rows == 60 else 1)
    assert text.isascii() == ("LC_ALL" in variables)


def test_a_pipe(failing: Path) -> None:
    """In a pipe no line is folded or shortened, and there are no codes."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    run = subprocess.run([COMMAND, "status", failing], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.count(ERROR) == 10
    assert not CONTROLS.search(run.stdout)


@pytest.mark.sample(3)
@pytest.mark.parametrize("command", [["status"], ["export", "-"], ["reset", "--status", "OK"]])
def test_closed_streams(failing: Path, command: list[str]) -> None:
    """A command works without any of the three streams, as a service may start it."""
    line = shlex.join([COMMAND, command[0], str(failing), *command[1:]])
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        run = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True, timeout=60)
        assert run.returncode == (2 if command[0] == "reset" else 0), run.stderr
        assert "Traceback" not in run.stderr


def test_a_reader_that_has_enough(todo: Callable[..., Path]) -> None:
    """If a program such as `head` reads only a part of the output, no error is printed."""
    ours, theirs = os.pipe()
    os.close(ours)
    run = subprocess.run([COMMAND, "status", todo({}), "--json"], stdout=theirs, stderr=subprocess.PIPE, timeout=60)
    os.close(theirs)
    assert (run.returncode, run.stderr) == (1, b"")


# --- mistakes --------------------------------------------------------------------------------------------

FACTORIES = """
import os
def missing(jobs): return os.environ['NO_SUCH_VARIABLE']
def wrong(): pass
"""


@pytest.mark.parametrize(
    ("executor", "says"),
    [
        ("factories:miss", "--executor='factories:miss': factories has no function miss; try missing."),
        ("factories.py:missing", "made no executor: KeyError: 'NO_SUCH_VARIABLE' ({folder}/factories.py, line 3)"),
        ("factories:wrong", "'factories:wrong' made no executor: TypeError: wrong() takes 0 positional"),
    ],
)
def test_a_wrong_executor(
    todo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, says: str
) -> None:
    """A mistake in the factory of an executor is shown as a line, with its place in the module."""
    (tmp_path / "factories.py").write_text(FACTORIES)
    monkeypatch.delitem(sys.modules, "factories", raising=False)
    monkeypatch.chdir(tmp_path)
    result = invoke("run", todo({}), GOOD, "--executor", executor, "--jobs", "1")
    assert result.exit_code in (1, 2)
    assert says.replace("{folder}", str(tmp_path)) in " ".join(result.stderr.split())


ODD = [
    *("", " ", ".", "..", "/proc", "-", "--", "~", "*", ":", "::", "a:b:c", "é\udcff", "x" * 300, "x/" * 3000, "a\nb"),
    *(
        "postgresql://",
        "://",
        "sqlite:///",
        "postgresql://[",
        "mysql://h/d",
        "file:todo.sqlite",
        "/dev/null",
        "todo.csv",
    ),
    *("nan", "inf", "1e999", "1e308", "-1", "0", "1.5", "99999999999999999999", "١", "0x10", "1_000", "None", HOSTILE),
]

CONSTRAINTS = ["--starid", "1", "--sector", "1", "--cadence", "120", "--datasource", "ffi", "--tmag-max", "9"]
COMMANDS = {
    "init": ["new.sqlite", "list.csv", "--sector", "1", "--cadence", "120", "--datasource", "ffi"],
    "run": [
        *(
            "empty.sqlite",
            GOOD,
            "--jobs",
            "1",
            "--limit",
            "1",
            "--task-timeout",
            "9",
            "--grace",
            "9",
            "--stop-after",
            "9",
        ),
        *("--summary", "summary.json", *CONSTRAINTS),
    ],
    "work": ["postgresql://127.0.0.1:1/d", GOOD, "--lease", "9"],
    "try": ["todo.sqlite", GOOD, *CONSTRAINTS],
    "status": ["todo.sqlite", "--task", "1"],
    "estimate": ["todo.sqlite", "--jobs", "2", *CONSTRAINTS],
    "plan": ["todo.sqlite", "--jobs", "2", "--hours", "1", *CONSTRAINTS],
    "errors": ["todo.sqlite", *CONSTRAINTS],
    "show": ["todo.sqlite", "101"],
    "report": ["empty.sqlite", "-o", "report.html"],
    "reset": ["todo.sqlite", "--status", "OK", "--error-like", "x", "--dry-run", *CONSTRAINTS],
    "reset-uncovered": ["todo.sqlite", "--dry-run"],
    "undo": ["todo.sqlite"],
    "export": ["todo.sqlite", "out.csv", "--status", "OK", *CONSTRAINTS],
    "copy": ["todo.sqlite", "copy.sqlite"],
    "upgrade": ["todo.sqlite"],
    "check": ["todo.sqlite"],
}


def test_the_sweep_has_every_command() -> None:
    """The sweep covers each command that takes arguments."""
    assert COMMANDS.keys() == main.commands.keys() - {"demo", "serve"}


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_odd_arguments(
    todo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, step: int
) -> None:
    """No argument of any command leads to a traceback, nor to a control character in the terminal."""
    monkeypatch.chdir(tmp_path)
    todo({"status": 2}, {})
    make_file(tmp_path / "empty.sqlite", [])
    (tmp_path / "list.csv").write_text(MIT)
    for place, value in enumerate(COMMANDS[command]):
        for odd in ODD[place % step :: step] if not value.startswith("-") else ():
            arguments = [*COMMANDS[command][:place], odd, *COMMANDS[command][place + 1 :]]
            result = invoke(command, *arguments)
            assert result.exit_code in (0, 1, 2), arguments
            assert not CONTROLS.search(result.output), arguments


INTERRUPTS = """
import os, signal, sys

module = sys.argv.pop(1)

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from photometry_tasks.cli.__main__ import main
sys.exit(main())
"""


@pytest.mark.sample(7)
@pytest.mark.parametrize(
    ("module", "command"),
    [
        *((module, "upgrade") for module in ("click", "sqlalchemy", "photometry_tasks.schema", "filelock")),
        *(("sqlite3", name) for name in ("check", "errors", "export", "reset", "status", "undo", "upgrade")),
        *((module, "run") for module in ("rich.progress", "photometry_tasks.runner.run", "tests.support.functions")),
        ("multiprocessing.popen_spawn_posix", "run"),
        ("multiprocessing.spawn", "run"),
        ("photometry_tasks.ingest", "init"),
        ("photometry_tasks.storage.postgresql.url", "work"),
        ("photometry_tasks.demo", "demo"),
        ("jinja2", "report"),
        ("rich.table", "status"),
    ],
)
def test_ctrl_c_while_the_command_starts(todo: Callable[..., Path], module: str, command: str) -> None:
    """Ctrl-C in an import, or while workers start, ends a command with the usual exit code and a line."""
    path = todo({"status": 2}, {})
    more = {
        "init": ["list.csv"],
        "run": [GOOD, "--jobs", "1"],
        "work": [GOOD],
        "report": ["-o", str(path.with_name("report.html"))],
        "reset": ["--status", "ERROR"],
        "export": [str(path.with_name("out.csv"))],
        "copy": [str(path.with_name("copy.sqlite"))],
        "show": ["101"],
        "try": [GOOD],
        "demo": [],
    }
    arguments = [command, *([str(path)] if command != "demo" else []), *more.get(command, [])]
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTS, module, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    lines = [line for line in run.stderr.splitlines() if not line.startswith(("Measuring: ", "Stopped: ", str(path)))]
    assert (run.returncode, lines) == (130, ["Interrupted."])
    assert not path.with_name("copy.sqlite").exists()


def test_ctrl_c_at_a_question(failing: Path) -> None:
    """Ctrl-C at the question of `reset` ends the command as anywhere else, and changes nothing."""
    ours, theirs = pty.openpty()
    command, before = [COMMAND, "reset", str(failing), "--status", "OK"], failing.read_bytes()
    with running_command(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"Continue?" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while not select.select([ours], [], [], 1)[0]:  # Python's `input` misses a signal just before it reads
            process.send_signal(signal.SIGINT)
        with suppress(OSError):  # EIO: the command has closed the terminal
            while chunk := os.read(ours, 65536):
                shown += chunk
        assert process.wait(60) == 130
    os.close(ours)
    assert shown.endswith(b"[y/N]: \r\nInterrupted.\r\n")
    assert failing.read_bytes() == before


COMPLETE = """
compopt() {{ echo "$@"; }}
source <({command})
cd {folder}
complete_line() {{
    COMP_WORDS=($1) COMP_CWORD=$(( $(wc -w <<< "$1") - 1 )) COMPREPLY=()
    [[ $1 == *" " ]] && COMP_WORDS+=("") && COMP_CWORD=$((COMP_CWORD + 1))
    _photometry_tasks_completion photometry-tasks
    echo "${{COMPREPLY[*]}}"
}}
"""


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("photometry-tasks und", "undo"),
        ("photometry-tasks reset todo.sqlite --error", "--error-like"),
        ("photometry-tasks export todo.sqlite out.csv --status SK", "SKIPPED"),
        ("photometry-tasks export todo.sqlite out.csv --status OK,w", "OK,WARNING"),
        ("photometry-tasks export todo.sqlite out.csv --datasource t", "tpf"),
        ("photometry-tasks status tod", "-o default"),  # the option by which bash completes names of files
    ],
)
def test_completion_in_bash(tmp_path: Path, line: str, found: str) -> None:
    """The documented line makes bash complete commands, options, their words and names of files."""
    documented = "_PHOTOMETRY_TASKS_COMPLETE=bash_source photometry-tasks"
    assert documented in (ROOT / "docs" / "cli.md").read_text()
    script = COMPLETE.format(command=documented, folder=tmp_path) + f"complete_line {shlex.quote(line)}"
    environment = {**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == found, run.stderr
