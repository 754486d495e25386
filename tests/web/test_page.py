"""The live page in a real browser: every view, updates, filters, the keyboard, hostile texts, and interruptions."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from sqlalchemy.exc import DBAPIError

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.report import write_report
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import begin_reading
from tests.support.commands import COMMAND, Call
from tests.support.lists import checksum, make_file, result_of
from tests.support.processes import running_command

HOSTILE = [
    "<script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "<svg onload=hacked()>",
    '"><script>hacked()</script>',
    "'><img src=x onerror='hacked()'>",
    '" onmouseover="hacked()" x="',
    "javascript:hacked()",
    "</pre></td></table><script>hacked()</script>",
    "</title><script>hacked()</script>",
    "<!--<script>hacked()//-->",
    "<style>*{background:url(http://example.org/x)}</style>",
    "<iframe srcdoc='<script>parent.hacked()</script>'>",
    "<a href='javascript:hacked()'>x</a>",
    "<base href=http://example.org/>",
    "<meta http-equiv=refresh content='0;url=http://example.org/'>",
    "<object data=http://example.org/x>",
    "<math><mtext></style><img src=x onerror=hacked()>",
    "{{ 7 * 7 }}{% raw %}",
    "${hacked()}`",
    "&lt;script&gt;hacked()&lt;/script&gt;",
    "\u202e\x1b[2J\x00\u2028",
    "<details open ontoggle=hacked()>",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


class Look:
    """A page in a browser; at its end it must have no error, and no request to another host."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, colours: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.are_expected = False
        self.page.add_init_script("window.hacked = () => { window.wasHacked = true }")
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._check_host)
        self._host = url.split("?")[0]
        self.page.goto(url)

    def _check_host(self, request: Any) -> None:
        if not request.url.startswith(self._host):
            self.faults.append(request.url)

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert self.page.evaluate("window.wasHacked === undefined")
            assert self.faults == [] or self.are_expected
        self.context.close()


@contextmanager
def serving(
    target: object, *options: str, token: str | None = None, **how: Any
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a list, and yield the address and the process."""
    environment = os.environ | ({} if token is None else {"PHOTOMETRY_TASKS_TOKEN": token})
    command = [COMMAND, "serve", str(target), *(options or ("--port", "0"))]
    with running_command(command, stdout=subprocess.PIPE, text=True, env=environment, **how) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """Return a function that serves a list until the end of the test."""
    with ExitStack() as served:
        yield lambda *arguments, **options: served.enter_context(serving(*arguments, cwd=tmp_path, **options))


def make_survey(path: Path) -> Path:
    """Create a list with results on all CCDs, failures of two kinds, warnings, and pending tasks."""
    make_file(path, [{"camera": 1 + n % 4, "ccd": 1 + n // 4 % 4, "tmag": 5 + n / 40} for n in range(320)])
    with TaskManager(path, version="v1") as manager:
        for number, task in enumerate(manager.claim_tasks(200)):
            status = STATUS.ERROR if number % 10 == 3 else STATUS.WARNING if number % 10 == 4 else STATUS.OK
            errors = (
                [f"Traceback\n  File 'pipe.py'\nno stamp for TIC {task['starid']}"] if number % 10 in (3, 4) else []
            )
            kind = {"kind": "ValueError"} if status is STATUS.ERROR else {}
            extra = {"ra": 300 + number % 20, "dec": -50 + number / 20}
            result = result_of(task, status, errors=errors, rms_hour=50.0 + number, extra=extra, **kind)
            manager.save_result({**result, "time": (3.0 if task["camera"] == 2 else 1.0) * (90 if number == 50 else 1)})
    return path


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survey(tmp_path_factory.mktemp("survey") / "todo.sqlite")


@pytest.fixture(scope="module")
def survey_url(survey: Path) -> Iterator[str]:
    """Serve the survey for all tests that only look at it."""
    with serving(survey) as (url, _):
        yield url


# --- views -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (400, "dark")])
def test_every_view(browser: Any, survey_url: str, survey: Path, tmp_path: Path, width: int, colours: str) -> None:
    """Each view is drawn at each width, in both colours, without an error or a request elsewhere; nothing changes."""
    before = checksum(survey)
    views = {
        "": "200",
        "&camera=2": "Only tasks with camera 2",
        "&colour=failed&tmag_min=6&tmag_max=8": "Only tasks with tmag_min 6.0, tmag_max 8.0",
        "&star=104": "no stamp for TIC 104",
        "&star=7": "The list has no task of TIC 7",
        "&star=x": "'x' is no number of a star",
        "&camera=two": "camera='two': one integer or several with commas are expected",
        "&tmag_min=9&tmag_max=1": "exchange the two",
    }
    with Look(browser, survey_url, width=width, colours=colours) as page:
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (colours == "light")
        for view, says in views.items():
            page.goto(survey_url + view)
            assert says in page.inner_text("main"), view
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    report = tmp_path / "report.html"
    write_report(survey, report)
    with Look(browser, report.as_uri(), width=width, colours=colours) as page:
        assert page.locator("svg").count() == 5
        assert page.locator("a, button, input, script").count() == 0
    assert (checksum(survey), len(list(survey.parent.iterdir()))) == (before, 1)


@pytest.mark.slow
def test_a_large_list(browser: Any, serve: Callable[..., Any], tmp_path: Path) -> None:
    """A list of 168,000 tasks has the same page, in an update's time."""
    path = make_file(
        tmp_path / "todo.sqlite",
        [{"camera": 1 + n % 4, "ccd": 1 + n // 4 % 4, "tmag": 5 + n / 20_000} for n in range(168_000)],
    )
    with TaskManager(path) as manager:
        manager.save_results([{**result_of(task, rms_hour=50.0), "time": 3.0} for task in manager.claim_tasks(84_000)])
        (task,) = manager.claim_tasks(1)
        url, _ = serve(path)
        for width in (1280, 400):
            with Look(browser, url, width=width) as page:
                assert "50.0 %" in page.inner_text(".tiles")
                assert page.locator("svg").count() >= 3
        manager.save_result(result_of(task, STATUS.ERROR, errors=["Traceback", "too late"]))
        with Look(browser, url) as page:
            page.get_by_text("too late").first.wait_for(state="attached")


def test_odd_lists(browser: Any, serve: Callable[..., Any], tmp_path: Path) -> None:
    """A folder shows its lists, also those that are empty, odd or no lists."""
    folder = tmp_path / "lists"
    folder.mkdir()
    make_file(folder / "empty.sqlite", [])
    odd = make_file(folder / "odd <b>&.sqlite", [{"camera": 7, "tmag": None, "status": 42}, {"status": 6, "tmag": 1e9}])
    with closing(sqlite3.connect(odd)) as connection, connection:
        connection.execute("UPDATE todolist SET datasource = x'ff00', camera = 'one' WHERE priority = 2")
    (folder / "none.sqlite").write_text("this is no list")
    url, _ = serve(folder)
    with Look(browser, url) as page:
        assert page.locator("main tbody tr").count() == 3
        assert "none.sqlite" in page.inner_text("main")
        for name, says in {
            "empty.sqlite": "No task has failed.",
            odd.name: "Interrupted tasks",
            "none.sqlite": "SQLite",
        }.items():
            page.get_by_role("link", name=name, exact=True).click()
            page.get_by_text(says).first.wait_for()
            page.get_by_role("link", name="All lists").click()
            page.get_by_role("link", name="empty.sqlite").wait_for()


def test_controls(browser: Any, survey_url: str) -> None:
    """Each control has a name, and works by keyboard: filters, colours, CCDs, stars, tracebacks, outliers."""
    with Look(browser, survey_url) as page:
        for role in ("link", "button", "textbox"):
            found = page.get_by_role(role)
            assert found.count() > 0
            label = "e => e.ariaLabel || e.textContent || e.labels?.[0]?.textContent"
            names = found.evaluate_all(f"all => all.map({label})")
            assert all(name and name.strip() for name in names)
        page.get_by_label("camera", exact=True).focus()
        page.keyboard.type("2")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("camera=2"))
        assert "80" in page.inner_text("main .tiles")
        ccd = page.get_by_role("link", name=re.compile(r"^2\.3"))
        ccd.focus()
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("ccd=3"))
        assert page.locator("a.ccd[aria-current]").count() == 1
        page.get_by_role("link", name="run time").focus()
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("colour=seconds.*"))
        page.get_by_role("link", name="All tasks").click()
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert "File 'pipe.py'" in page.inner_text("details[open] pre")
        outlier = page.get_by_role("link", name=re.compile("TIC 151: .* at magnitude")).first
        outlier.focus()
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("star=151"))
        assert "TIC 151: OK" in page.inner_text("main")
        page.get_by_label("TIC", exact=True).fill("104")
        page.keyboard.press("Enter")
        page.get_by_text("TIC 104: ERROR").wait_for()
        assert "ValueError" in page.inner_text("main")


def test_what_differs(browser: Any, serve: Callable[..., Any], tmp_path: Path) -> None:
    """A slow camera and a failing host stand out beside similar stars; a camera with brighter stars does not."""
    path = make_file(
        tmp_path / "todo.sqlite",
        [{"tmag": 6.1 + 4 * (n % 2), "camera": 1 + n // 2 % 3, "ccd": 1 + n % 4} for n in range(240)],
    )
    for version, host in (("v1", "node1"), ("v2", "node2")):
        with TaskManager(path, version=version) as manager:
            for _ in range(120):
                task = manager.claim_tasks(1)[0]
                number = task["priority"]
                seconds = (100.0 if task["tmag"] < 7 else 10.0) * (3 if task["camera"] == 2 else 1)
                status = STATUS.ERROR if host == "node2" and number % 2 else STATUS.OK
                manager.save_result({**result_of(task, status), "time": seconds * (1 + number % 7 / 100)})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE photometry_tasks_workers SET host = 'node' || substr(version, 2)")
    url, _ = serve(path)
    with Look(browser, url) as page:

        def read(heading: str) -> dict[str, list[str]]:
            rows = page.locator("section", has_text=heading).locator("tbody tr").all()
            return {cells[0]: cells[1:] for cells in (row.locator("td").all_inner_texts() for row in rows)}

        found = read("Beside similar stars")
        factors = [float(found[f"camera {n}"][0].removeprefix("× ")) for n in (1, 2, 3)]
        assert factors == pytest.approx([1, 3, 1], rel=0.1)
        assert (found["host node1"][2:], found["host node2"][2:]) == (["0 %", "120"], ["50.0 %", "120"])
        assert [row[4:6] for row in read("last heartbeat").values()] == [["120", "50.0 %"], ["120", "0 %"]]
        # The next run repeats what failed: the host where it failed stands out, and the other has no share.
        with TaskManager(path, version="v3") as manager:
            page.get_by_text("No task has the status ERROR or ABORT now").wait_for()
            manager.save_results([{**result_of(task), "time": 10.0} for task in manager.claim_tasks(99)])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE photometry_tasks_workers SET host = 'node' || substr(version, 2)")
        page.locator("td", has_text="host node3").wait_for()
        found = read("Beside similar stars")
        assert [found[f"host node{n}"][2:] for n in (1, 2, 3)] == [["0 %", "120"], ["50.0 %", "120"], ["–", "0"]]
        assert next(name for name in found if name.startswith("host")) == "host node2"  # it fails most
        for address, says in (
            ("&camera=9", "No task has camera 9; the list has 1–3."),
            ("&camera=1&camera=2", "camera 1, 2"),
            ("&cam=1", "The address has 'cam', which no page has."),
            ("&datasource=xyz", "xyz"),
        ):
            page.goto(url + address)
            assert says in page.locator("#content").inner_text()
        page.goto(url + "&camera=2")
        assert "camera 2" in page.locator("section", has_text="Focal plane").first.inner_text()
        assert page.locator(".ccd", has_text="1.1").first.inner_text().splitlines()[-1] != "–/star"


def test_hostile_texts(browser: Any, serve: Callable[..., Any], tmp_path: Path) -> None:
    """No text of a list runs a script, loads an address or leaves its place: errors, kinds, names, versions, values."""
    path = make_file(
        tmp_path / "<img src=x onerror=hacked()>.sqlite", [{"starid": 101, "datasource": text} for text in HOSTILE]
    )
    with TaskManager(path, version=HOSTILE[0]) as manager:
        tasks = manager.claim_tasks(len(HOSTILE))
        for task, text in zip(tasks[:-1], HOSTILE, strict=False):
            extra = {"extra": {re.sub(r"\W", "_", text)[:20] or "x": text}}
            status = STATUS.ERROR if task["priority"] % 3 else STATUS.WARNING
            manager.save_result(result_of(task, status, errors=[text], kind=text.replace("\x00", ""), **extra))
        url, _ = serve(path)
        with Look(browser, url) as page:
            assert page.locator("script").count() == 1
            assert "<script>hacked()</script>" in page.inner_text("main")
            for summary in page.locator("summary").all():
                summary.click()
            page.mouse.move(300, 300)
            page.goto(f"{url}&star=101")
            assert page.locator("main section").count() == len(HOSTILE)
            assert page.locator("main script, main img, main iframe, main object").count() == 0
        report = tmp_path / "report.html"
        write_report(path, report)
        with Look(browser, report.as_uri()) as page:
            assert page.locator("script, img, iframe, meta[http-equiv]").count() == 0


# --- updates and interruptions ---------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
def test_while_a_run_goes_on(browser: Any, serve: Callable[..., Any], tmp_path: Path, in_memory: bool) -> None:
    """Results appear without a reload; what the reader has opened or focussed stays; the file is not locked."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(10)])
    with TaskManager(path, load_into_memory=in_memory) as manager:
        tasks = manager.claim_tasks(3)
        manager.save_result(result_of(tasks[0], STATUS.ERROR, errors=["Traceback", "the first failure"]))
        url, _ = serve(path)
        with Look(browser, url) as page:
            assert "In use by process" in page.inner_text("main")
            page.locator("summary").first.click()
            page.locator("summary").first.focus()
            for task in tasks[1:]:
                manager.save_result(result_of(task, STATUS.OK))
            page.locator(".tiles", has_text="30.0 %").wait_for()
            assert "the first failure" in page.inner_text("details[open] pre")
            assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_interruptions(browser: Any, serve: Callable[..., Any], tmp_path: Path) -> None:
    """If the server is killed or the list is missing, the page says so, and recovers when both are back."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    url, process = serve(path, "--port", "0", token="a-token")
    port = re.search(r":(\d+)/", url)[1]  # type: ignore[index]  # it is there
    look = Look(browser, url)
    look.are_expected = True  # the browser reports each connection that fails
    with look as page:
        path.rename(tmp_path / "other.sqlite")
        page.get_by_text("does not exist").wait_for()
        make_file(path, [{"status": 1}, {}])
        page.locator(".tiles", has_text="50.0 %").wait_for()
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.get_by_text("The server does not answer").wait_for()
        make_file(path, [{"status": 1}])
        _, process = serve(path, "--port", port, token="another-token")
        page.get_by_text("needs the token of its address").wait_for()
        process.send_signal(signal.SIGKILL)
        process.wait()
        serve(path, "--port", port, token="a-token")
        page.locator(".tiles", has_text="100 %").wait_for()
        page.locator("#state").wait_for(state="hidden")


def test_nobody_looks(browser: Any, survey_url: str) -> None:
    """A page in a hidden tab asks for no updates until it is shown again."""
    with Look(browser, survey_url) as page:
        for is_hidden in (True, False):
            page.evaluate(
                f"Object.defineProperty(document, 'hidden', {{value: {str(is_hidden).lower()}, configurable: true}})"
            )
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            assert page.evaluate("source === null") is is_hidden


# --- the server ------------------------------------------------------------------------------------------


def get(url: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def test_the_token(survey_url: str) -> None:
    """The printed address answers with the page itself; without the token, nothing is told."""
    url = survey_url
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", url)
    status, page, headers = get(url)
    assert (status, page.startswith("<!DOCTYPE html>")) == (200, True)
    assert "set-cookie" not in {name.lower() for name in headers}
    assert "script-src 'self'" in headers["content-security-policy"]
    base = url.partition("/?")[0]
    for path in ("/", "/content", "/events", "/live.js"):
        for query_text in ("", "?token=", "?token=x", "?token=%F0%9F%98%80"):
            status, text, _ = get(f"{base}{path}{query_text}")
            assert status == 403
            assert "survey" not in text
            assert "todo.sqlite" not in text
    assert get(f"{base}/etc/passwd")[0] == 404
    assert get(f"{url}&list=../../etc/passwd")[0] == 200


def test_a_folder_shows_only_its_lists(serve: Callable[..., Any], tmp_path: Path) -> None:
    """A name that leads out of the folder is no list."""
    (tmp_path / "lists").mkdir()
    make_file(tmp_path / "secret.sqlite", [{"starid": 987654}])
    make_file(tmp_path / "lists" / "a.sqlite", [{}])
    url, _ = serve(tmp_path / "lists")
    for name in ("../secret.sqlite", str(tmp_path / "secret.sqlite"), "..%2Fsecret.sqlite"):
        assert "987654" not in get(f"{url}&list={name}&star=987654")[1]
        assert get(url.replace("/?", "/events?") + f"&list={name}")[0] == 404


def test_a_list_on_a_server(serve: Callable[..., Any], server_database: Any) -> None:
    """A list on a server has the same page; a password does not appear."""
    from tests.support.lists import empty_list

    target = empty_list(server_database, [{"camera": 3}, {}])
    with TaskManager(target) as manager:
        (task,) = manager.claim_tasks(1)
        url, _ = serve(target)
        page = get(url)[1]
        assert "Started tasks" in page
        assert "worker 1 on" in page
        manager.save_result(result_of(task))


def test_a_value_that_cannot_be_read(serve: Callable[..., Any], todo: Callable[..., Path]) -> None:
    """A star with a value of a wrong type is named as such, and not as no star."""
    path = todo({"starid": 1001})
    with TaskManager(path) as manager:
        manager.save_result(result_of(manager.claim_tasks(1)[0]))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE diagnostics SET mean_flux = 'bright'")
    url, _ = serve(path)
    assert "mean_flux" in get(f"{url}&star=1001")[1]
    assert "is no number of a star" in get(f"{url}&star=mean_flux")[1]


@pytest.mark.both_databases
def test_the_limit_of_a_query(todo: Callable[..., Any]) -> None:
    """A query that takes longer than its limit fails, and later ones work."""
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000) SELECT max(x) FROM n"
    )
    location = parse_location(todo({}))
    with begin_reading(location) as opened:
        opened.database.limit_time(0.2)
        with pytest.raises(DBAPIError):
            opened.connection.exec_driver_sql(endless)
    with begin_reading(location) as opened:
        opened.database.limit_time(0.2)
        opened.database.limit_time(None)
        assert opened.connection.exec_driver_sql(endless.replace("1000000000", "500000")).scalar_one() == 500_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.sqlite"], "missing.sqlite does not exist. Create a TODO-file with"),
        ([".", "--port", "99999"], "99999 is not in the range"),
        ([".", "--port", "80", "--host", "203.0.113.1"], "give an address of this computer as --host"),
        ([".", "--host", "no.such.host.invalid"], "give an address of this computer as --host"),
    ],
)
def test_mistakes(call: Call, arguments: list[str], says: str) -> None:
    """A wrong target, port or host is named, with the way out."""
    run = call("serve", *arguments)
    assert run.returncode in (1, 2)
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_ctrl_c(serve: Callable[..., Any], survey: Path) -> None:
    """Ctrl-C ends the server, also while a browser waits for events."""
    url, process = serve(survey)
    stream = urllib.request.urlopen(url.replace("/?", "/events?"), timeout=20)
    assert stream.readline().startswith(b"data: ")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    stream.close()


def test_without_the_libraries(survey: Path) -> None:
    """Without the extra, the command names it."""
    script = "import sys; sys.modules['starlette'] = None; from photometry_tasks.cli.__main__ import main; main()"
    command = [sys.executable, "-c", script, "serve", str(survey)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "pip install 'photometry_tasks[web]'" in run.stderr
