"""The report: the page shows the content of any file, and needs no other file."""

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
from photometry_tasks.text import format_seconds
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
        assert (shown in page.text) == (status in counts)
    done = sum(counts.get(status, 0) for status in FINISHED)
    assert f"finished {done / 100:.1f} %" in page.text
    assert f"Finished: {done:,} of 10,000." in page.text


def test_focal_plane(survey: Path, page: Page) -> None:
    """Each CCD shows the share of finished tasks, the share of failed ones among them, and the run time of a star."""
    sql = (
        "SELECT camera, ccd, count(*), sum(status IN (1, 2, 3, 4, 5)), sum(status IN (2, 4)), avg(elaptime) "
        "FROM todolist LEFT JOIN diagnostics USING (priority) GROUP BY 1, 2"
    )
    ccds = query(survey, sql)
    assert len(ccds) == 16
    for camera, ccd, tasks, done, failed, seconds in ccds:
        shares = f"{100 * done / tasks:.1f} % failed {100 * failed / done:.1f} %"
        assert f"{camera}.{ccd} {shares} {format_seconds(seconds)}/star" in page.text
    assert any("by camera and CCD" in label for label in page.labels)


def test_shares_are_not_rounded_to_all_or_nothing(todo: Callable[..., Path]) -> None:
    """Only exact shares of 1 and 0 are shown as 100 % and 0 %."""
    path = todo(*({"camera": 1 + n // 3000, "status": 1 if n and n != 3001 else None} for n in range(6000)))
    change(path, "UPDATE todolist SET status = NULL WHERE camera = 2 AND priority <> 6000")
    text = read(path).text
    assert "1.1 >99.9 % failed 0 %" in text
    assert "2.1 <0.1 % failed 0 %" in text
    assert "3.1 – failed –" in text


def test_pictures_say_what_they_show(survey: Path, page: Page) -> None:
    """Each figure has a label for screen readers, with the important numbers."""
    assert page.tags.count("svg") == 3
    throughput, tmags, times = page.labels[1:]
    assert tmags.startswith("Tasks by status in each half magnitude from 3 to 15")
    ((drawn,),) = query(survey, "SELECT count(tmag) FROM diagnostics JOIN todolist USING (priority)")
    assert f"run time of {drawn:,} results by magnitude; the median is 2" in times
    assert "over 2 runs from 2026-10-26 07:34 to 2026-10-30 12:33 UTC; at most " in throughput
    ((saved, errors),) = query(survey, "SELECT sum(saved), sum(errors) FROM photometry_tasks_progress")
    assert f"Results saved: {saved:,}, with ERROR: {errors:,}; from 2026-10-26 07:34" in page.text


def test_noise_and_sky(todo: Callable[..., Path]) -> None:
    """The noise of results is drawn, and the sky where results have ra and dec; odd values are left out."""
    path = todo(*({"tmag": 8 + n / 100, "status": 1, "datasource": "tpf" if n % 2 else "ffi"} for n in range(100)))
    rows: list[tuple[object, ...]] = [(n, "a", 1.0, 50.0 + n) for n in range(1, 101)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, rms_hour) VALUES (?, ?, ?, ?)", rows)
    places = [
        '{"ra": 300.5, "dec": -50}',
        '{"RA": 310, "DEC": -60.5}',
        '{"ra": "x", "dec": 1}',
        '{"ra": 1, "dec": 99}',
        "[]",
    ]
    extra: list[tuple[object, ...]] = list(enumerate(places, start=1))
    change(path, "INSERT INTO photometry_tasks_extra VALUES (?, ?)", extra)
    labels = read(path).labels
    assert "2 tasks on the sky by status" in labels
    assert any("rms_hour of 100 results by magnitude; the median is 10" in label for label in labels)
    change(path, "ALTER TABLE todolist ADD COLUMN ra REAL; ALTER TABLE todolist ADD COLUMN dec REAL;")
    change(path, "UPDATE todolist SET ra = priority, dec = 10")
    assert "100 tasks on the sky by status" in read(path).labels


def test_results_that_are_far_from_others(todo: Callable[..., Path]) -> None:
    """A run time that differs much from those of similar stars is marked, with the star and the time."""
    path = todo(*({"tmag": 10.1, "status": 1} for _ in range(101)))
    rows: list[tuple[object, ...]] = [(n, "aperture", 500.0 if n == 7 else 10.0 + n % 3) for n in range(1, 102)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (?, ?, ?)", rows)
    page = read(path)
    assert page.pieces.count("TIC 107: 8.3 min at magnitude 10.10") == 1
    assert any("the median is 11 s; 1 marked" in label for label in page.labels)


def test_pauses_are_cut_out(todo: Callable[..., Path]) -> None:
    """Runs with years between them are drawn next to each other, with their start times."""
    path = todo({})
    starts = [600, 1_000_000_020, 4_000_000_020]
    minutes: list[tuple[object, ...]] = [(start + 60 * n, 6, 1, 1.0, None) for start in starts for n in range(40)]
    change(path, "INSERT INTO photometry_tasks_progress VALUES (?, ?, ?, ?, ?)", minutes)
    page = read(path)
    label = "over 3 runs from 1970-01-01 00:10 to 2096-10-02 07:46 UTC; at most 6 results per minute, 1 with ERROR"
    assert any(found.endswith(label) for found in page.labels)
    for text in ("1970-01-01 00:10", "2001-09-09 01:47", "2096-10-02 07:07", "time of work, without pauses"):
        assert text in page.pieces


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
    assert "2 not given : no stamp for TIC # first: priority 1, TIC 1000 a no stamp for TIC 123" in text
    assert "2 not given : row # first: priority 4, TIC 1003 row 5" in text
    assert "Groups shown: 2 of 2." in text
    assert text.index("Warnings 1 no stamp for TIC # first: priority 2, TIC 1001") > text.index("row #")


def test_only_the_commonest_errors(todo: Callable[..., Path]) -> None:
    """Of 26 kinds of errors, the 15 most frequent are shown, in descending order."""
    kinds = [chr(ord("A") + kind) * 3 for kind in range(26) for _ in range(kind + 1)]
    path = todo(*({"status": 2} for _ in kinds))
    rows: list[tuple[object, ...]] = [(n, "psf", 1.0, kind) for n, kind in enumerate(kinds, start=1)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", rows)
    text = read(path).text
    # Each in the message, and in the whole errors of the first task.
    assert re.findall(r"\b([A-Z])\1\1\b", text)[::2] == [chr(ord("Z") - n) for n in range(15)]
    assert "Groups shown: 15 of 26." in text


def test_errors_that_are_all_different(todo: Callable[..., Path]) -> None:
    """Of many failures, the first 10,000 are grouped, and the others are counted."""
    path = todo(*({"status": 2} for _ in range(20_010)))
    letters = str.maketrans("0123456789", "abcdefghij")
    rows: list[tuple[object, ...]] = [(n, "psf", 1.0, str(n).translate(letters)) for n in range(1, 20_011)]
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime, errors) VALUES (?, ?, ?, ?)", rows)
    text = read(path).text
    assert "Groups shown: 15 of 10,000." in text
    assert "Failures that are not grouped: 10,010." in text


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
    assert page.tags.count("style") == 1
    for line in HOSTILE[:3]:
        assert re.sub(r"\d+", "#", line) in page.text
    assert all(char.isprintable() for char in page.text)
    assert "x" * 159 + "…" in page.text
    assert "x" * 10_001 not in page.text
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
    assert "1.1 – failed –" in page.text
    assert "No task has a magnitude." in page.text
    assert "There are no results with a magnitude." in page.text
    assert "The list has no record of the times of its results." in page.text
    assert "No task has failed." in page.text
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
    """If no task has a magnitude, the page says so."""
    path = todo({"tmag": None, "status": 1}, {"tmag": None})
    change(path, "INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (1, 'psf', 2.5)")
    page = read(path)
    assert "No task has a magnitude." in page.text
    assert "There are no results with a magnitude." in page.text


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
    assert any("run time of 4 results by magnitude" in label for label in page.labels)
    assert any("magnitude from -1.5 to 12.5" in label for label in page.labels)
    assert "from 1970-01-01 00:00 to 1970-01-01 00:01 UTC" in page.text


def test_another_mission(todo: Callable[..., Path]) -> None:
    """Cameras and CCDs of another mission are shown, and TESS's are not added."""
    page = read(todo({"camera": 0, "ccd": 84, "status": 2}, {"camera": 24, "ccd": 1}, {"camera": -3, "ccd": 10**12}))
    assert "0.84 100 % failed 100 %" in page.text
    assert "24.1 0 % failed –" in page.text
    assert "-3.1000000000000 0 %" in page.text
    assert "camera 4" not in page.text


def test_many_ccds(todo: Callable[..., Path]) -> None:
    """CCDs beyond 400 are only counted."""
    page = read(todo(*({"camera": n // 10, "ccd": n} for n in range(1000))))
    assert "CCDs not shown: 600." in page.text
    assert page.text.count("failed –") == 400


@pytest.mark.parametrize("release", ["3.0", "4.4", "6.3"])
def test_old_files(tmp_path: Path, release: str) -> None:
    """A file of an older release is shown, and the page says that it has no times."""
    page = read(old_files.make_old_file(tmp_path / "todo.sqlite", release))
    assert "tasks 60 finished 88.3 %" in page.text
    assert "OK 24" in page.text
    assert "45 results with a magnitude." in page.text
    assert "The list has no record of the times of its results" in page.text
    assert page.tags.count("svg") == 3


def test_a_list_that_nobody_has_opened(tmp_path: Path) -> None:
    """A file with only the table `todolist` is shown."""
    page = read(old_files.make_old_file(tmp_path / "todo.sqlite", "6.0", results=False))
    assert "tasks 60 finished 0 %" in page.text
    assert "There are no results with a magnitude." in page.text


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


def test_without_jinja(todo: Callable[..., Path]) -> None:
    """Without Jinja2, the module can be imported, and `build_report` raises ImportError."""
    script = (
        "import sys; sys.modules['jinja2'] = None\nfrom pathlib import Path\n"
        "from photometry_tasks.report import build_report\n"
        "try:\n    build_report(Path(sys.argv[1]))\nexcept ImportError as error:\n    print(error.name)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(todo())], capture_output=True, text=True, check=True)
    assert run.stdout == "jinja2\n"


# --- the page --------------------------------------------------------------------------------------------


def test_it_stands_alone(page: Page) -> None:
    """The page has no script and refers to no other file or address."""
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(page.tags)
    assert "://" not in page.source
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert not {name for name, _ in page.attributes} & {"href", "src", "srcset"}


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
    """The report of 10,000 tasks takes less than 5 s and 1 MB."""
    begin = time.process_time()
    size = len(build_report(survey).encode())
    assert time.process_time() - begin < 5
    assert size < 1_000_000


@pytest.mark.slow
def test_size_and_time_of_a_sector(tmp_path: Path) -> None:
    """The report of 168,000 tasks takes less than 10 s and 1 MB."""
    path = make_survey(tmp_path / "todo.sqlite", 168_000)
    begin = time.process_time()
    size = len(build_report(path).encode())
    assert time.process_time() - begin < 10
    assert size < 1_000_000
