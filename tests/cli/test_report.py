"""The report: the page shows the content of any file, and needs no other file."""

import base64
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.errors import InvalidArgumentError, NotATodoFileError
from photometry_tasks.report import build_report, write_report
from tests.support import old_files
from tests.support.lists import Rows, checksum, make_file, query, result_of

FINISHED = (1, 2, 3, 4, 5)
VOID = {"br", "meta"}


class Page(HTMLParser):
    """The page as text, with its elements and attributes; unbalanced tags fail."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = page
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        ids = [value for name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def labels(self) -> list[str]:
        return [value for name, value in self.attributes if name == "aria-label"]


def read(path: Path) -> Page:
    """Build the report of a file, and check that the file and its directory are not changed."""
    before, beside = checksum(path), set(path.parent.iterdir())
    page = Page(build_report(path))
    assert (checksum(path), set(path.parent.iterdir())) == (before, beside)
    return page


def change(path: Path, sql: str, rows: list[tuple[object, ...]] | None = None) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(sql, rows) if rows is not None else connection.executescript(sql)
        connection.commit()


def make_survey(path: Path, number: int) -> Path:
    """Create a list with all 16 CCDs, most of it finished, in two runs with four days between them."""
    rows: Rows = [
        {
            "camera": 1 + n % 4,
            "ccd": 1 + n // 4 % 4,
            "tmag": None if n % 97 == 0 else 3 + 12 * (n / number) ** 0.4,
            "status": None if n % 11 == 0 or (n % 16 == 5 and n % 3) else [1, 1, 1, 3, 5, 1, 2][n % 7],
        }
        for n in range(number)
    ]
    make_file(path, rows)
    done = query(path, "SELECT priority, status FROM todolist WHERE status IS NOT NULL")
    results: list[tuple[object, ...]] = [
        (priority, "aperture", 0.2 + priority % 977 / 20, f"line\nno stamp for TIC {priority}" if status == 2 else None)
        for priority, status in done
    ]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", results)
    minutes: list[tuple[object, ...]] = [
        (1_793_000_040 + 60 * n + (n >= 200) * 4 * 86400, 300 + n % 7, n % 5, 9.5, None) for n in range(300)
    ]
    change(path, "INSERT INTO photometry_tasks_progress VALUES (?, ?, ?, ?, ?)", minutes)
    return path


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survey(tmp_path_factory.mktemp("survey") / "todo.sqlite", 10_000)


@pytest.fixture(scope="module")
def page(survey: Path) -> Page:
    return read(survey)


# --- content ---------------------------------------------------------------------------------------------


def test_counts(survey: Path, page: Page) -> None:
    """The tiles show the number of tasks with each status, and the share of finished tasks."""
    counts = dict(query(survey, "SELECT status, count(*) FROM todolist GROUP BY status"))
    assert "tasks 10,000 finished" in page.text
    for name, status in [("PENDING", None), *((status.name, status.value) for status in STATUS)]:
        shown = f" {name} {counts.get(status, 0):,} "
        assert (shown in page.text) == (name not in ("ABORT", "UNKNOWN"))
    done = sum(counts.get(status, 0) for status in FINISHED)
    assert f"finished {done / 100:.1f} %" in page.text
    assert f"Finished: {done:,} of 10,000." in page.text


def test_focal_plane(survey: Path, page: Page) -> None:
    """Each CCD shows the share of finished tasks, and the share of ERROR in the finished tasks."""
    ccds = query(
        survey,
        "SELECT camera, ccd, count(*), sum(status IN (1, 2, 3, 4, 5)), sum(status = 2) FROM todolist GROUP BY 1, 2",
    )
    assert len(ccds) == 16
    for camera, ccd, tasks, done, failed in ccds:
        shown = f"{camera}.{ccd} {100 * done / tasks:.1f} % ERROR {100 * failed / done:.1f} %"
        assert shown in page.text
    assert any("by camera and CCD" in label for label in page.labels)


def test_shares_are_not_rounded_to_all_or_nothing(todo: Callable[..., Path]) -> None:
    """Only exact shares of 1 and 0 are shown as 100 % and 0 %."""
    path = todo(*({"camera": 1 + n // 3000, "status": 1 if n and n != 3001 else None} for n in range(6000)))
    change(path, "UPDATE todolist SET status = NULL WHERE camera = 2 AND priority <> 6000")
    text = read(path).text
    assert "1.1 >99.9 % ERROR 0 %" in text
    assert "2.1 <0.1 % ERROR 0 %" in text
    assert "3.1 – ERROR –" in text


def test_pictures_say_what_they_show(survey: Path, page: Page) -> None:
    """Each figure has a label for screen readers, with the important numbers."""
    assert page.tags.count("svg") == 3
    tmags, times, pace = page.labels[1:]
    assert tmags.startswith("Tasks by status in each half magnitude from 3 to 15")
    assert "Results by run time and magnitude" in times
    assert "over 2 runs from 2026-10-26 07:34 to 2026-10-30 12:33 UTC; at most " in pace
    (without,) = query(survey, "SELECT count(*) FROM todolist WHERE tmag IS NULL")
    assert f"Tasks without a magnitude, not drawn: {without[0]:,}." in page.text
    ((drawn, results),) = query(survey, "SELECT count(tmag), count(*) FROM diagnostics JOIN todolist USING (priority)")
    assert f"Results drawn: {drawn:,} of {results:,}." in page.text
    ((saved, errors),) = query(survey, "SELECT sum(saved), sum(errors) FROM photometry_tasks_progress")
    assert f"Results saved: {saved:,}, with ERROR: {errors:,}; from 2026-10-26 07:34" in page.text


def test_median_run_time(todo: Callable[..., Path]) -> None:
    """The median of the run times is precise to 2.3 %."""
    path = todo(*({"tmag": 10.1, "status": 1} for _ in range(101)))
    rows: list[tuple[object, ...]] = [(n, "aperture", 0.5 * n) for n in range(1, 102)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (?, ?, ?)", rows)
    label = next(label for label in read(path).labels if "median" in label)
    found = re.search(r"goes from ([\d.]+) s", label)
    assert found
    assert float(found[1]) == pytest.approx(25.5, rel=0.023)


def test_pauses_are_cut_out(todo: Callable[..., Path]) -> None:
    """Runs with years between them are drawn next to each other, with their start times."""
    path = todo({})
    starts = [600, 1_000_000_020, 4_000_000_020]
    minutes: list[tuple[object, ...]] = [(start + 60 * n, 6, 1, 1.0, None) for start in starts for n in range(40)]
    change(path, "INSERT INTO photometry_tasks_progress VALUES (?, ?, ?, ?, ?)", minutes)
    page = read(path)
    label = "over 3 runs from 1970-01-01 00:10 to 2096-10-02 07:46 UTC; at most 6 results per minute, 1 with ERROR"
    assert page.labels[-1].endswith(label)
    for text in ("1970-01-01", "00:10", "2001-09-09", "01:47", "2096-10-02", "07:07"):
        assert text in page.pieces
    assert "minutes of work, without pauses" in page.pieces


# --- errors ----------------------------------------------------------------------------------------------


def test_errors_are_grouped(opened: Callable[..., TaskManager]) -> None:
    """Errors are grouped by their last line without its numbers, and the first task of each group is shown."""
    manager = opened(*({"starid": 1000 + n} for n in range(6)))
    texts = ["a\nno stamp for TIC 123", "no stamp for TIC 456\n \n", "at 0x7f2a\nno stamp for TIC 7", "row 5", "row 6"]
    for priority, text in enumerate(texts, start=1):
        status = STATUS.WARNING if priority == 2 else STATUS.ERROR
        manager.save_result(result_of({"priority": priority}, status, errors=[text]))
    manager.close()
    text = read(Path(manager.todo_file)).text
    assert "3 2 no stamp for TIC # first: priority 1, TIC 1000" in text
    assert "2 2 row # first: priority 4, TIC 1003" in text
    assert "Kinds shown: 2 of 2." in text


def test_only_the_commonest_errors(todo: Callable[..., Path]) -> None:
    """Of 26 kinds of errors, the 15 most frequent are shown, in descending order."""
    kinds = [chr(ord("A") + kind) * 3 for kind in range(26) for _ in range(kind + 1)]
    path = todo(*({"status": 2} for _ in kinds))
    rows: list[tuple[object, ...]] = [(n, "psf", 1.0, kind) for n, kind in enumerate(kinds, start=1)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", rows)
    text = read(path).text
    assert re.findall(r"\b([A-Z])\1\1\b", text) == [chr(ord("Z") - n) for n in range(15)]
    assert "Kinds shown: 15 of 26." in text


def test_errors_that_are_all_different(todo: Callable[..., Path]) -> None:
    """Errors beyond 20,000 kinds are counted together, which limits the memory."""
    path = todo(*({"status": 2} for _ in range(20_010)))
    letters = str.maketrans("0123456789", "abcdefghij")
    rows: list[tuple[object, ...]] = [(n, "psf", 1.0, str(n).translate(letters)) for n in range(1, 20_011)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", rows)
    text = read(path).text
    assert "Kinds shown: 15 of 20,000." in text
    assert "Errors of further kinds: 10." in text


HOSTILE = [
    "<script>alert('x')</script>",
    "</td></table></body><img src=http://example.org/x.png onerror=alert(1)>",
    '"><style>* {display: none}</style>&amp;<!--',
    "\u202egnp.exe \x1b[2J \x00 \u2028",
    "x" * 100_000,
    " \n\n\t",
]


def test_hostile_errors(todo: Callable[..., Path]) -> None:
    """Errors are shown as text: without elements, references or control characters, and with long lines shortened."""
    path = todo(*({"status": 2} for _ in range(8)))
    rows: list[tuple[object, ...]] = [(n, "psf", 1.0, text) for n, text in enumerate(HOSTILE, start=1)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", rows)
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (7, 'psf', 1, x'ff3c')")
    change(
        path,
        "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (8, 'p', 1, CAST(x'c3' AS TEXT))",
    )
    page = read(path)
    assert not {"script", "img"} & set(page.tags)
    assert page.tags.count("style") == 1 + page.tags.count("svg")
    for line in HOSTILE[:3]:
        assert re.sub(r"\d+", "#", line) in page.text
    assert all(char.isprintable() for char in page.text)
    assert "x" * 159 + "…" in page.text
    assert "x" * 160 not in page.text
    assert "(no text)" in page.text
    assert r"\xff<" in page.text


def test_hostile_file_name(tmp_path: Path) -> None:
    """A file name of any bytes is shown as text too."""
    path = make_file(tmp_path / "<b>&amp;.sqlite", [])
    assert "<b>&amp;.sqlite" in read(path).text
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.sqlite"))
    shutil.copy(path, odd)
    build_report(odd).encode()


# --- any file --------------------------------------------------------------------------------------------


def test_an_empty_list(todo: Callable[..., Path]) -> None:
    """A list without tasks has a report."""
    page = read(todo())
    assert "tasks 0 finished –" in page.text
    assert "1.1 – ERROR –" in page.text
    assert "No task has a magnitude." in page.text
    assert "There are no results." in page.text
    assert "no result has been saved yet" in page.text
    assert "There are no errors." in page.text
    assert "svg" not in page.tags


def test_nothing_finished(todo: Callable[..., Path]) -> None:
    """A list without finished tasks shows its magnitudes, and a text in place of each other figure."""
    page = read(todo({}, {}, {}))
    assert "tasks 3 finished 0 %" in page.text
    assert page.tags.count("svg") == 1


def test_all_finished(todo: Callable[..., Path]) -> None:
    """A list with finished tasks only is finished to 100 %."""
    page = read(todo(*({"status": status} for status in FINISHED)))
    assert "tasks 5 finished 100 %" in page.text
    assert "ABORT 1" in page.text


def test_no_magnitudes(todo: Callable[..., Path]) -> None:
    """If no task has a magnitude, the page gives the numbers of tasks and results as text."""
    path = todo({"tmag": None, "status": 1}, {"tmag": None})
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (1, 'psf', 2.5)")
    page = read(path)
    assert "No task has a magnitude." in page.text
    assert "not drawn: 2." in page.text
    assert "Results drawn: 0 of 1." in page.text


def test_odd_numbers(todo: Callable[..., Path]) -> None:
    """Infinite, negative and huge numbers, and statuses that do not exist, neither stop the report nor stretch it."""
    inf = float("inf")
    tmags = [-1.46, -0.2, 0.2, inf, -inf, 1e300, 12.0, 12.0, 12.0, 12.0, 40.0]
    rows: Rows = [{"tmag": tmag, "status": 1, "priority": 2**62 + n} for n, tmag in enumerate(tmags)]
    rows[-1].update(status=17, starid=2**63 - 1)
    path = todo(*rows)
    times = [1.0, 2.0, 3.0, 1.0, 1.0, 1.0, inf, -5.0, 0.0, 1e300, 9.0]
    results: list[tuple[object, ...]] = [(2**62 + n, "psf", elaptime, "odd") for n, elaptime in enumerate(times)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", results)
    minutes: list[tuple[object, ...]] = [(n, 0, 0, inf, None) for n in (-60, 0, 60, 2**62)]
    change(path, "INSERT INTO photometry_tasks_progress VALUES (?, ?, ?, ?, ?)", minutes)
    page = read(path)
    assert "UNKNOWN 1" in page.text
    assert "outside -30 to 40, not drawn: 3." in page.text
    assert "Results drawn: 4 of 11." in page.text
    assert any("magnitude from -1.5 to 40.5" in label for label in page.labels)
    assert f"first: priority {2**62}" in page.text
    assert "from 1970-01-01 00:00 to 1970-01-01 00:01 UTC" in page.text


def test_another_mission(todo: Callable[..., Path]) -> None:
    """Cameras and CCDs of another mission are shown, and TESS's are not added."""
    page = read(todo({"camera": 0, "ccd": 84, "status": 2}, {"camera": 24, "ccd": 1}, {"camera": -3, "ccd": 10**12}))
    assert "0.84 100 % ERROR 100 %" in page.text
    assert "24.1 0 % ERROR –" in page.text
    assert "-3.1000000000000 0 %" in page.text
    assert "camera 4" not in page.text


def test_many_ccds(todo: Callable[..., Path]) -> None:
    """CCDs beyond 400 are only counted."""
    page = read(todo(*({"camera": n // 10, "ccd": n} for n in range(1000))))
    assert "CCDs not shown: 600." in page.text
    assert page.text.count("ERROR –") == 400


@pytest.mark.parametrize("release", ["3.0", "4.4", "6.3"])
def test_old_files(tmp_path: Path, release: str) -> None:
    """A file of an older release is shown, and the page says that it has no times."""
    page = read(old_files.make_old_file(tmp_path / "todo.sqlite", release))
    assert "tasks 60 finished 88.3 %" in page.text
    assert "OK 24" in page.text
    assert "Results drawn: 45 of 48." in page.text
    assert "12 0 Automatically switched to Halo photometry first: priority 1, TIC 1000" in page.text
    assert "The list has no record of the times of its results" in page.text
    assert page.tags.count("svg") == 2


def test_a_list_that_nobody_has_opened(tmp_path: Path) -> None:
    """A file with only the table `todolist` is shown."""
    page = read(old_files.make_old_file(tmp_path / "todo.sqlite", "6.0", results=False))
    assert "tasks 60 finished 0 %" in page.text
    assert "There are no results." in page.text


def test_a_file_in_use(opened: Callable[..., TaskManager]) -> None:
    """The report shows the saved results while a manager has the file open."""
    manager = opened({}, {})
    manager.save_result(result_of({"priority": 1}))
    page = Page(build_report(Path(manager.todo_file)))
    assert "tasks 2 finished 50.0 %" in page.text
    manager.save_result(result_of({"priority": 2}))


@pytest.mark.parametrize("kind", [str, Path])
def test_the_page_as_a_file(todo: Callable[..., Path], tmp_path: Path, kind: type) -> None:
    """The page is written to a file or printed, but never over the TODO-file; by force over any other file."""
    path, output = todo({}), tmp_path / "report.html"
    write_report(kind(path), kind(output))
    assert Page(output.read_text(encoding="utf-8")).tags == Page(build_report(path)).tags
    before = checksum(path)
    for force in (False, True):
        with pytest.raises(InvalidArgumentError, match="this is the TODO-file"):
            write_report(kind(path), kind(path), force=force)
    assert checksum(path) == before
    output.write_text("mine")
    write_report(kind(path), kind(output), force=True)
    assert CliRunner().invoke(main, ["report", str(path), "-o", "-"]).stdout.startswith("<!DOCTYPE html>")


def test_results_that_are_not_in_the_file(opened: Callable[..., TaskManager]) -> None:
    """Results of a manager in memory are counted before they are in the file."""
    manager = opened({}, {}, load_into_memory=True)
    manager.save_result(result_of({"priority": 1}))
    assert "tasks 2 finished 50.0 %" in Page(build_report(Path(manager.todo_file))).text


def test_no_todo_file(tmp_path: Path) -> None:
    """Another file, or a path without a file, is refused."""
    path = tmp_path / "other.sqlite"
    change(path, "CREATE TABLE other (id INTEGER)")
    with pytest.raises(NotATodoFileError):
        build_report(path)
    with pytest.raises(FileNotFoundError):
        build_report(tmp_path / "none.sqlite")


def test_without_matplotlib(todo: Callable[..., Path]) -> None:
    """Without Matplotlib, the module can be imported, and `build_report` raises ImportError."""
    script = (
        "import sys; sys.modules['matplotlib'] = None\nfrom pathlib import Path\n"
        "from photometry_tasks.report import build_report\n"
        "try:\n    build_report(Path(sys.argv[1]))\nexcept ImportError as error:\n    print(error.name)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(todo())], capture_output=True, text=True, check=True)
    assert run.stdout == "matplotlib\n"


# --- the page --------------------------------------------------------------------------------------------


def test_it_stands_alone(page: Page) -> None:
    """The page has no script and refers to no other file; it contains its images."""
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "://" not in page.source
    assert "@import" not in page.source
    references = [value for name, value in page.attributes if name in ("href", "xlink:href", "src", "srcset")]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in references)
    images = [value.partition(",")[2] for value in references if value.startswith("data:")]
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert len(images) == 2
    ids = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for value in references if value.startswith("#")} <= ids
    assert set(re.findall(r"url\(#([^)]*)\)", page.source)) <= ids
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}


def test_nothing_global_is_changed(survey: Path) -> None:
    """The caller's settings of Matplotlib are not changed, and pyplot is not loaded."""
    script = (
        "import sys, matplotlib\nfrom pathlib import Path\nfrom photometry_tasks.report import build_report\n"
        "def settings():\n    now = matplotlib.rcParams\n"
        "    return {name: now[name] for name in now if name != 'backend'}\n"  # reading `backend` loads pyplot
        "before = settings()\nbuild_report(Path(sys.argv[1]))\n"
        "print(before == settings(), 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(survey)], capture_output=True, text=True, check=True)
    assert run.stdout == "True False\n"


@pytest.mark.parametrize("content", ["import os\n", "<!DOCTYPE html>\n<title>mine</title>\n", "\n", "\0\udcff"])
def test_what_it_replaces(todo: Callable[..., Path], tmp_path: Path, content: str) -> None:
    """`report` replaces a report and an empty file, but nothing else, nor does it through a symlink."""
    output, link = tmp_path / "report.html", tmp_path / "link.html"
    link.symlink_to(output)
    path = str(todo({}))
    for place, is_ours in ((output, True), (link, True), (output, False), (link, False)):
        if not is_ours:
            output.write_text(content, errors="surrogateescape")
        elif place is output:
            output.touch()
        before = output.read_bytes()
        run = CliRunner().invoke(main, ["report", path, "-o", str(place)])
        assert run.exit_code == (0 if is_ours else 1), run.output
        assert (output.read_bytes() == before) is not is_ours or place is link
        assert is_ours or "/report.html': it holds something else, and is not replaced; give" in run.output
    assert link.is_symlink()


def test_size_and_time(survey: Path) -> None:
    """The report of 10,000 tasks takes less than 5 s and 2 MB."""
    begin = time.process_time()
    size = len(build_report(survey).encode())
    assert time.process_time() - begin < 5
    assert size < 2_000_000


@pytest.mark.slow
def test_size_and_time_of_a_sector(tmp_path: Path) -> None:
    """The report of 168,000 tasks takes less than 10 s and 2 MB."""
    path = make_survey(tmp_path / "todo.sqlite", 168_000)
    begin = time.process_time()
    size = len(build_report(path).encode())
    assert time.process_time() - begin < 10
    assert size < 2_000_000


@pytest.mark.parametrize("width", [400, 1200])
def test_it_is_drawn(page: Page, tmp_path: Path, width: int) -> None:
    """A browser draws the colours of every figure, and no element is wider than the window."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("Chromium is not installed")
    from matplotlib.image import imread

    frame, picture = tmp_path / "frame.html", tmp_path / "report.png"
    # A headless browser returns only a picture: an element that is too wide empties the page.
    probe = "<script>if (document.documentElement.scrollWidth > innerWidth) document.body.innerHTML = ''</script>"
    (tmp_path / "report.html").write_text(page.source.replace("</body>", probe + "</body>"), encoding="utf-8")
    # While a page loads, a window is never narrower than 500 pixels, but a frame can be.
    style = f"position: fixed; left: 0; top: 0; border: 0; width: {width}px; height: 3400px"
    frame.write_text(f'<!DOCTYPE html><body><iframe src="report.html" style="{style}"></iframe></body>')
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    quiet = "--disable-background-networking --disable-component-update --disable-sync"
    size = f"--window-size={width},3400"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *options.split(), *quiet.split(), size, profile, f"--screenshot={picture}", frame.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    pixels = (imread(picture)[:, :, :3] * 255).round().astype(int)
    assert pixels.shape == (3400, width, 3)
    # OK in the numbers, SKIPPED in the shares, the results per minute, and the medians.
    for colour in ("#009E73", "#56B4E9", "#0072B2", "#D55E00"):
        red, green, blue = bytes.fromhex(colour[1:])
        assert (abs(pixels - [red, green, blue]).max(axis=2) <= 2).sum() > 100, colour
