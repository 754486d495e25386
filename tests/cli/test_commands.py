"""The commands, run like a user runs them."""

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli.command import Command
from photometry_tasks.cli.main import main
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from tests.support.commands import Call
from tests.support.lists import checksum, empty_list, many, query, result_of
from tests.support.paths import ROOT
from tests.support.target_lists import MIT

GOOD = "tests.support.functions:good"


def test_from_a_list_to_results(call: Call, tmp_path: Path) -> None:
    """`init`, `run` and `status` lead from a target list to counted results."""
    (tmp_path / "list.csv").write_text(MIT)
    created = call("init", "todo.sqlite", "list.csv", "--datasource", "both")
    next_step = "Run pending tasks with `photometry-tasks run todo.sqlite MODULE:FUNCTION`.\n"
    assert created.stdout == f"4 tasks added to todo.sqlite, 0 already listed. {next_step}"
    again = call("init", "todo.sqlite", "list.csv", "--datasource", "both")
    assert again.stdout == f"0 tasks added to todo.sqlite, 4 already listed. {next_step}"
    run = call("run", "todo.sqlite", GOOD, "--jobs", "1", "--summary", "out/summary.json", "--datasource", "ffi")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("2 results (0 errors) in ")
    assert run.stdout.endswith(f" 2 tasks pending. {next_step}")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["OK"] == 2
    status = call("status", "todo.sqlite")
    rows = [[word for word in line.split() if word.isalnum()] for line in status.stdout.splitlines()]
    assert ["2", "2", "4"] in rows  # pending, OK, all
    assert status.stdout.count("50 % of 2") == 2


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--camera", "1", "--camera", "3", "--tmag-max", "5"], "camera IN (1, 3) AND tmag <= 5"),
        (["--sector", "2"], "sector = 2"),
        (["--priority", "3", "--priority", "4"], "priority IN (3, 4)"),
        (["--starid", "105"], "starid = 105"),
        (["--cadence", "120", "--tmag-min", "2"], "cadence = 120 AND tmag >= 2"),
        (["--cadence", "ffi"], "datasource = 'ffi'"),
        (["--datasource", "tpf", "--ccd", "2"], "datasource = 'tpf' AND ccd = 2"),
        (["--cbv-area", "111"], "cbv_area = 111"),
        (["--limit", "2", "--in-memory"], "priority <= 2"),
    ],
)
def test_constraints(todo: Callable[..., Path], call: Call, options: list[str], chosen: str) -> None:
    """Each option chooses exactly the tasks that it names."""
    rows = [
        {
            "tmag": float(number),
            "camera": 1 + number % 4,
            "ccd": 1 + number % 2,
            "sector": 1 + number % 3,
            "datasource": "tpf" if number % 2 else "ffi",
            "cadence": 120 if number % 2 else 1800,
            "cbv_area": 110 + number % 3,
        }
        for number in range(12)
    ]
    path = todo(*rows)
    run = call("run", path, GOOD, "--jobs", "1", *options)
    assert run.returncode == 0, run.stderr
    wanted = query(path, f"SELECT priority FROM todolist WHERE {chosen} ORDER BY 1")
    assert wanted
    assert query(path, "SELECT priority FROM todolist WHERE status = 1 ORDER BY 1") == wanted


#: Options that exclude all tasks, and what is said of them; `run` has only the first.
CONSTRAINTS = [
    ("--camera 7", "No task has camera 7; the list has 1–3, 5."),
    ("--camera 7,8 --ccd 1", "No task has camera 7, 8; the list has 1–3, 5."),
    ("--camera 1 --tmag-max 1", "No task matches all of these at once: camera, tmag_max."),
    ("--starid 5", "No task has starid 5; the list has 101 to 130."),
    ("--sector 2", "No task has sector 2; the list has 1."),
    ("--cbv-area 444", "No task has cbv_area 444; the list has 110."),
    ("--cadence 20", "No task has cadence 20; the list has 1800."),
    ("--datasource TPF", "No task has the datasource 'tpf'; all have 'ffi'."),
    ("--tmag-min 35", "No task has a magnitude of 35 or more; the list has 1 to 30."),
    ("--tmag-max 0.5", "No task has a magnitude of 0.5 or less; the list has 1 to 30."),
]
CHOICES = [
    ("--status ABORT,UNKNOWN", "No task has the status ABORT or UNKNOWN; the list has 28 PENDING, 1 OK, 1 ERROR."),
    ("--kind timeout", "No task failed with the kind timeout; the list has not given."),
    ("--made-by v2", "No task has a result of the version v2; the list has 'v1'."),
    ("--not-made-by v1", "No task has a result of a version other than v1; the list has 'v1'."),
    ("--error-like no", "No task has 'no' in its errors."),
    ("--attempts-min 4", "No task has 4 attempts."),
]


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        *(("run", *case) for case in CONSTRAINTS),
        *((command, *case) for command in ("export", "reset") for case in CONSTRAINTS + CHOICES),
    ],
)
def test_no_match(todo: Callable[..., Path], command: str, options: str, says: str) -> None:
    """If no task matches, a command says which option excludes all tasks, and what the list has instead."""
    path = todo(*({"tmag": float(n), "starid": 100 + n, "camera": (1, 2, 3, 5)[n % 4]} for n in range(1, 31)))
    with TaskManager(path, version="v1") as manager:
        manager.save_results([result_of({"priority": 1}), result_of({"priority": 2}, STATUS.ERROR, errors=["x"])])
    more = {"run": [GOOD, "--jobs", "1", "--retries", "0"], "export": [str(path.with_name("out.csv"))], "reset": []}
    before = checksum(path)
    run = CliRunner().invoke(main, [command, str(path), *more[command], *options.split()])
    assert run.exit_code == 0, run.output
    assert f"{says}\n" in run.output
    assert checksum(path) == before  # a run would return failed tasks to pending


def test_status_as_json(todo: Callable[..., Path], call: Call) -> None:
    """`status --json` prints counts by status, and by camera and CCD, which add up."""
    path = todo({"status": 1}, {"status": None}, {"status": 2, "camera": 2}, {"status": None, "camera": 2, "ccd": 4})
    found = json.loads(call("status", path, "--json").stdout)
    assert (found["todo_file"], found["numtasks"]) == (str(path), 4)
    assert {name: number for name, number in found["status"].items() if number} == {"PENDING": 2, "OK": 1, "ERROR": 1}
    ccds = [(ccd["camera"], ccd["ccd"], ccd["PENDING"], ccd["OK"], ccd["ERROR"]) for ccd in found["ccds"]]
    assert ccds == [(1, 1, 1, 1, 0), (2, 1, 0, 0, 1), (2, 4, 1, 0, 0)]


def test_status_changes_nothing(todo: Callable[..., Path], call: Call) -> None:
    """`status` does not change the file: no status is reset, and no file is left beside it."""
    path = todo({"status": 6})
    before = path.read_bytes()
    assert call("status", path).returncode == 0
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_status_while_a_manager_works(opened: Callable[..., TaskManager], call: Call) -> None:
    """`status` works while the file is in use, and shows the saved results."""
    manager = opened(*many(3))
    manager.save_result(result_of({"priority": 1}))
    assert json.loads(call("status", manager.todo_file, "--json").stdout)["status"]["OK"] == 1
    manager.save_result(result_of({"priority": 2}))


def test_a_run_goes_on(todo: Callable[..., Path], call: Call) -> None:
    """A second run takes the tasks that are pending or failed."""
    path = todo(*many(9))
    first = call("run", path, "tests.support.functions:every_third_raises", "--jobs", "1", "--limit", "5")
    assert "5 results (1 error)" in first.stdout
    second = call("run", path, GOOD, "--jobs", "1")
    assert "5 results (0 errors)" in second.stdout
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, 9)]


def test_a_module_in_the_current_directory(todo: Callable[..., Path], call: Call, tmp_path: Path) -> None:
    """A function in a module of the current directory is found."""
    text = "def photometry(task): return {'status': 1, 'method_used': 'mine'}\n"
    (tmp_path / "mypipeline.py").write_text(text)
    path = todo({})
    run = call("run", path, "mypipeline:photometry", "--jobs", "1")
    assert run.returncode == 0, run.stderr
    assert query(path, "SELECT method_used FROM diagnostics") == [("mine",)]


def test_looking_cannot_write(todo: Callable[..., Path]) -> None:
    """The connection of `status` is read-only."""
    with (
        closing(SQLiteDatabase.open_read_only(todo({}))) as database,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        database.dbapi.execute("DELETE FROM todolist")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "nothing.sqlite"], "does not exist. Create a TODO-file with"),
        (["run", "nothing.sqlite", GOOD], "photometry-tasks init"),
        (["status", "foreign.sqlite"], "it has no table todolist"),
        (["run", "todo.sqlite", "tests.support.functions"], "give it as package.module:function"),
        (["run", "todo.sqlite", "no_such_module:f"], "there is no module no_such_module; give a module"),
        (["run", "todo.sqlite", "tests.support.functions:no_such"], "no_such"),
        (["run", "todo.sqlite", "tests.support.functions:__doc__"], "is not a function"),
        (["run", "todo.sqlite", GOOD, "--jobs", "0"], "--jobs"),
        (["run", "todo.sqlite", GOOD, "--camera", "x"], "--camera"),
        (["run", "todo.sqlite", GOOD, "--cadence", "tpf"], "--cadence"),
        (["run", "todo.sqlite", GOOD, "--cadence", "ffi", "--cadence", "120"], "'ffi' cannot be combined"),
        (["run", "todo.sqlite", GOOD, "--tmag-min", "nan"], "--tmag-min=nan"),
        (["run", "todo.sqlite", GOOD, "--grace", "-1"], "--grace"),
        (["run", "todo.sqlite", GOOD, "--stop-after", "1h"], "--stop-after"),
        (["run", "todo.sqlite", GOOD, "--executor", "mpi4py.futures:No", "--jobs", "2"], "--executor"),
        (["run", "todo.sqlite", GOOD, "--executor", "mpi4py.futures:MPIPoolExecutor"], "--executor needs --jobs"),
        (["run", "todo.sqlite", GOOD, "--executor", "concurrent.futures:ProcessPool"], "try ProcessPoolExecutor"),
        (["run", "todo.sqlite", GOOD, "--log-dir", "good.csv"], "is a file"),
        (
            ["run", "todo.sqlite", GOOD, "--executor", "math:sqrt", "--jobs", "1", "--task-timeout", "5"],
            "leave --task-t",
        ),
        (["run", "todo.sqlite", GOOD, "--task-timeout", "nan"], "--task-timeout"),
        (["run", "todo.sqlite", GOOD, "--stop-after", "inf"], "--stop-after"),
        (["report", "todo.sqlite", "-o", "todo.sqlite"], "this is the TODO-file"),
        (["report", "todo.sqlite", "-o", "todo.sqlite-wal"], "this is the TODO-file or belongs to it"),
        (["report", "todo.sqlite", "-o", "/dev/null"], "--output='/dev/null': it is no regular file"),
        (["report", "todo.sqlite", "-o", "nowhere/report.html"], "This directory does not exist; create it first: '"),
        (["export", "todo.sqlite", "nowhere/out.csv"], "This directory does not exist; create it first: '"),
        (["export", "todo.sqlite", "camera=1.txt"], "target='camera=1.txt': give a file name"),
        (["export", "todo.sqlite", "out.txt"], "ends with .csv or .csv.gz, .ecsv or"),
        (["export", "todo.sqlite", "-", "--format", "fits"], "--format fits is no text"),
        (
            ["export", "todo.sqlite", "out.csv", "--tmag-max", "5", "--tmag-min", "12"],
            "--tmag-min=12.0: it is larger than the upper limit, 5.0",
        ),
        (["export", "todo.sqlite", "out.csv", "--datasource", "ffi", "--datasource", "tpf"], "--datasource is given 2"),
        (["run", "todo.sqlite", GOOD, "--executor", "threads"], "'threads' is no executor; give it as package.module"),
        (["export", "todo.sqlite", "out.csv", "--status", "DONE"], "'DONE' is not one of"),
        (["reset", "todo.sqlite"], "No tasks are chosen. Give --status"),
        (["report", "todo.sqlite"], "--output"),
        (["report", "nothing.sqlite", "-o", "out.html"], "photometry-tasks init"),
        (["status", "postgresql://me:secret@127.0.0.1:1/db"], "connection failed"),
        (["work", "todo.sqlite", GOOD], "`work` needs a PostgreSQL URL"),
        (["init", "new.sqlite", "no_such.csv"], "No such file or directory: 'no_such.csv'"),
        (["init", "new.sqlite", "bad.csv"], "bad.csv, line 2: column Camera: 'x'"),
        (["init", "new.sqlite"], "LIST.csv"),
        (["init", "nowhere/new.sqlite", "good.csv"], "This directory does not exist"),
        (["init", "foreign.sqlite", "good.csv"], "it has no table todolist"),
    ],
)
def test_errors(
    todo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    """An error that a user can correct is printed without a traceback, and no file is created."""
    path = todo({"status": 2}, *many(5))
    foreign(tmp_path / "foreign.sqlite")
    (tmp_path / "bad.csv").write_text("TICID,Camera,CCD,Tmag\n1,x,1,9\n")
    (tmp_path / "good.csv").write_text(MIT)
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    run = CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)
    assert isinstance(run.exception, SystemExit)
    assert run.exit_code in (1, 2)
    assert says in run.output  # not stderr, which click 8.1 does not separate
    assert sorted(tmp_path.iterdir()) == before
    # Opening the file would have returned the ERROR to pending.
    assert query(path, "SELECT count(*) FROM todolist WHERE status = 2") == [(1,)]


@pytest.mark.parametrize("program", ["photometry_tasks", "photometry_tasks.cli"])
def test_all_commands(program: str) -> None:
    """The help describes every command in a line of at most 80 characters, which is not cut."""
    command, environment = [sys.executable, "-m", program, "-h"], {**os.environ, "COLUMNS": "80"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT).stdout
    lines = shown.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == sorted(main.commands)
    assert not any(len(line) > 80 or line.endswith(("...", "…")) for line in lines)


@pytest.mark.sample(4)
@pytest.mark.parametrize("command", sorted(main.commands))
def test_help(
    todo: Callable[..., Path], call: Call, tmp_path: Path, command: str, request: pytest.FixtureRequest
) -> None:
    """The help of every command has an example, which runs."""
    assert type(main.commands[command]) is Command
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(main, [command, "-h"], prog_name="photometry-tasks").stdout
    assert f"Usage: photometry-tasks {command}" in shown
    example = shown.partition("Example:\n")[2].partition("\n\nOptions:")[0]
    assert all(line.endswith(" \\") for line in example.splitlines()[:-1])
    assert max(map(len, example.splitlines())) <= 80
    example = example.replace("\\\n", " ")
    name, *arguments = shlex.split(example)
    assert (name, arguments[0]) == ("photometry-tasks", command)
    (tmp_path / "all_targets_S001_v1.csv").write_text(MIT)
    if command == "work":
        engine: Engine = request.getfixturevalue("server_database")
        arguments[1] = empty_list(engine, many(3))
    elif command != "init":
        with TaskManager(todo({"status": 2}, {"camera": 2}, {"camera": 1})) as manager:
            manager.save_result(result_of({"priority": 3}))
            manager.reset_tasks(priority=3 if command == "undo" else [])
    if command == "serve":  # until Ctrl-C: see tests/web
        return
    run = call(*arguments)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_demo(call: Call) -> None:
    """The demo measures its whole invented sector, skips neighbours, and prints the path of the results."""
    run = call("demo")
    assert run.returncode == 0, run.stderr
    assert "invented" in run.stdout
    path = Path(run.stdout.splitlines()[-1].removeprefix("The results are in ").partition(". ")[0])
    counts: dict[Any, int] = dict(query(path, "SELECT status, count(*) FROM todolist GROUP BY 1"))
    assert set(counts) == {1, 5}
    assert counts[1] + counts[5] == 640
    assert counts[5] > 10
    skipped = query(path, "SELECT count(DISTINCT priority) FROM photometry_skipped")
    assert skipped == [(counts[5],)]
    # For stars without neighbours in the aperture, fluxes are 70 % to 110 % of those from the magnitudes.
    fluxes = query(
        path,
        "SELECT mean_flux, tmag FROM diagnostics JOIN todolist USING (priority)"
        " WHERE status = 1 AND contamination < 0.01 AND tmag < 11",
    )
    assert len(fluxes) > 100
    assert all(0.7 < flux / 10 ** (-0.4 * (tmag - 20.44)) < 1.1 for flux, tmag in fluxes)
