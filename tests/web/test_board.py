"""When the pages of a list are read again."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from photometry_tasks import TaskManager
from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.report.filters import parse_filters
from photometry_tasks.report.page import render_list
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import begin_reading
from photometry_tasks.web import server
from tests.support.lists import result_of
from tests.support.processes import kill, running


def no_link(**_: object) -> str:
    return ""


def hold(connection: Connection, path: Path) -> None:
    with TaskManager(path) as manager:
        manager.claim_tasks(1)
        connection.send("begun")
        connection.recv()


def test_filters_of_running_tasks(todo: Callable[..., Path]) -> None:
    """With a filter, only its running tasks are listed."""
    path = todo(*({"camera": 1 + number % 2} for number in range(6)))
    with TaskManager(path) as manager:
        manager.claim_tasks(3)
        for camera, stars in ((1, {"101", "103"}), (2, {"102"}), (3, set())):
            with begin_reading(parse_location(path)) as opened:
                page = render_list(opened, {"camera": [camera]}, link=lambda **given: f"?star={given.get('star')}")
            assert set(re.findall(r"star=(\d+)", page)) == stars
            assert not stars or f"Shown: {len(stars)} of {len(stars)}" in page


@pytest.mark.parametrize("value", ["2026-11-29 11:00", 1e18, -1e18, 4e12, b"x"])
@pytest.mark.parametrize("name", ["begun", "seen", "ended"])
def test_odd_times(todo: Callable[..., Path], name: str, value: object) -> None:
    """What another program stored in place of a manager's time is shown as it is."""
    path = todo({}, {})
    with TaskManager(path) as manager:
        manager.save_result(result_of(manager.claim_tasks(1)[0]))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE photometry_tasks_workers SET {name} = ?", (value,))
    with begin_reading(parse_location(path)) as opened:
        assert "Workers" in render_list(opened, {})
    assert get_status(path)["status"]["OK"] == 1


def test_texts_of_filters() -> None:
    """Filters take 'ffi' in any case, and a list that a comma ends."""
    found = parse_filters({"cadence": "FFI", "datasource": "TPF", "camera": "1, 2,"})
    assert found == {"cadence": "ffi", "datasource": "tpf", "camera": [1, 2]}
    with pytest.raises(InvalidArgumentError, match="'ffi', or one integer"):
        parse_filters({"cadence": "fast"})


def test_a_killed_run_changes_no_file(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is open, or loaded again, soon says that a run was killed, although no file changes."""
    monkeypatch.setattr(server, "_INTERVAL", 0.1)
    monkeypatch.setattr(server, "_OLDEST", 0.5)
    path = todo({}, {})

    async def look() -> None:
        board = server._Board(parse_location(path))
        updates = aiter(board.watch())
        with running(hold, path) as (process, connection):
            assert connection.recv() == "begun"
            await anext(updates)
            assert "In use by" in await board.get_page({}, no_link)
            kill(process)
            text = ""
            while "1 task interrupted" not in text:
                await asyncio.wait_for(anext(updates), 30)
                text = await board.get_page({}, no_link)

    asyncio.run(look())


def test_costly_pages_delay_no_update_for_long(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that pages took before somebody looks delays no update, and no page is older than its own pause."""
    monkeypatch.setattr(server, "_INTERVAL", 0.1)
    monkeypatch.setattr(server, "_SHARE", 1e6)
    monkeypatch.setattr(server, "_LONGEST", 0.5)
    monkeypatch.setattr(server, "_OLDEST", 0.5)
    path = todo({}, {})

    async def look() -> None:
        board = server._Board(parse_location(path))
        await board.get_page({"camera": "1"}, no_link)
        assert board._cost > 0
        updates = aiter(board.watch())
        await anext(updates)
        assert board._cost == 0
        before = await board.get_page({}, no_link)
        with TaskManager(path) as manager:
            manager.save_result(result_of(manager.claim_tasks(1)[0]))
        begun = time.monotonic()
        await asyncio.wait_for(anext(updates), 30)
        await asyncio.wait_for(anext(updates), 30)
        assert await board.get_page({}, no_link) != before
        assert time.monotonic() - begun < 30  # not the million seconds of its processor time

    asyncio.run(look())
