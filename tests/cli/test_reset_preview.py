"""The preview of a reset counts the tasks that the reset returns to pending, and changes nothing."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from photometry_tasks import TaskManager
from photometry_tasks.maintenance.reset import count_reset
from photometry_tasks.sql.choices import build_chosen_tasks
from photometry_tasks.sql.transitions import Reset
from tests.support.lists import checksum, empty_list, make_file, query, result_of
from tests.support.model import ERROR, OK, SKIPPED, rows_of_a_field, stars

FIELDS = {
    "rows": rows_of_a_field,
    "results": st.lists(
        st.tuples(st.integers(0, 13), st.sampled_from([OK, OK, ERROR]), st.lists(stars, max_size=5)), max_size=12
    ),
    "chosen": st.sets(st.integers(1, 14), min_size=1, max_size=3),
}


def save(target: Path | str, rows: list[dict[str, Any]], results: list[tuple[int, int, list[int]]]) -> None:
    with TaskManager(target, reset=False) as manager:
        for number, status, listed in results:
            manager.save_result(result_of({"priority": 1 + number % len(rows)}, status, skip_targets=listed))


def check_preview(target: Path | str, chosen: set[int]) -> None:
    """Compare the preview with the reset."""
    choice: dict[str, Any] = {"priority": sorted(chosen)}
    expected, _ = count_reset(target, build_chosen_tasks(choice))
    with TaskManager(target, reset=False) as manager:
        assert manager.reset_tasks(**choice) == expected.name_returned()
    listed = ", ".join(map(str, chosen))
    sql = f"SELECT count(*) FROM todolist WHERE status = {SKIPPED} AND priority IN ({listed})"
    assert query(target, sql) == [(expected.covered,)]


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path)


@settings(max_examples=15)
@given(**FIELDS)
def test_on_a_file(rows: list[dict[str, Any]], results: list[tuple[int, int, list[int]]], chosen: set[int]) -> None:
    """Over random crowded fields, the preview of a file counts exactly the tasks that the reset returns to pending."""
    with folder() as place:
        path = make_file(place / "todo.sqlite", rows)
        save(path, rows, results)
        before = checksum(path)
        count_reset(path, build_chosen_tasks({}, everything=True))
        assert checksum(path) == before
        check_preview(path, chosen)


def test_on_a_server(server_database: Engine) -> None:
    """On a server the preview counts the same tasks, and leaves a running one out."""
    rows = [{"starid": star, "tmag": float(star)} for star in range(1, 7)]
    url = empty_list(server_database, rows)
    save(url, rows, [(0, OK, [2, 3]), (3, ERROR, [5])])
    with TaskManager(url, reset=False) as manager:
        manager.start_task(6)
        everything = build_chosen_tasks({}, everything=True)
        assert count_reset(url, everything) == (Reset(Counter({OK: 1, ERROR: 1, SKIPPED: 2}), 0), 3)
    check_preview(url, {1})


CIRCLES = {
    "two": ([(2, 1), (2, 3), (3, 2)], {1: 1, 2: 1, 3: 1}),
    "three": ([(2, 1), (2, 3), (3, 4), (4, 2)], {1: 1, 2: 2, 4: 2}),
    "three, and one behind": ([(2, 1), (2, 3), (3, 4), (4, 2), (5, 4)], {1: 1, 3: 1, 5: 1}),
    "itself": ([(2, 1), (2, 2)], {1: 1, 2: 0}),
    "two chains": ([(2, 1), (3, 2), (4, 3), (4, 1), (5, 4), (5, 6)], {1: 4, 6: 1}),
}


@pytest.mark.parametrize(
    ("skips", "chosen", "number"),
    [
        pytest.param(skips, chosen, number, id=f"{name}, {chosen}")
        for name, (skips, numbers) in CIRCLES.items()
        for chosen, number in numbers.items()
    ],
)
def test_circles(tmp_path: Path, skips: list[tuple[int, int]], chosen: int, number: int) -> None:
    """Tasks that skip each other in a circle, as files of TASOC may have them, keep each other SKIPPED."""
    skipped = {priority for priority, _ in skips}
    rows = [{"status": SKIPPED if priority in skipped else OK} for priority in range(1, 7)]
    path = make_file(tmp_path / "todo.sqlite", rows)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO photometry_skipped VALUES (?, ?)", skips)
    check_preview(path, {chosen})
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(number,)]


def test_an_own_skip_beside_a_cover(tmp_path: Path) -> None:
    """A task whose own result skips it stays SKIPPED if a task that covers it too, by TASOC, is reset."""
    path = make_file(tmp_path / "todo.sqlite", [{"tmag": float(number)} for number in range(3)])
    save(path, [{}] * 3, [(2, OK, [102]), (0, OK, [])])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO photometry_skipped VALUES (3, 1)")
    check_preview(path, {1})
    assert query(path, "SELECT priority, status FROM todolist ORDER BY 1") == [(1, None), (2, None), (3, SKIPPED)]
