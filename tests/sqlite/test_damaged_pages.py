"""A file with any damaged page is used, or refused with an error of ours: no error of the driver reaches the caller."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TodoError
from photometry_tasks.export.tasks import export_tasks
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.check import find_faults
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.maintenance.reset import count_reset
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.report import build_report
from photometry_tasks.sql.choices import build_chosen_tasks
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import upgrade_list
from tests.support.lists import make_file, result_of
from tests.support.paths import SHARED

_PAGE = 4096

Page = Callable[[bytearray, random.Random, int], object]

#: Kinds of damage to a page; the last argument is where its header begins.
KINDS: dict[str, Page] = {
    "zeros": lambda page, _chance, _header: page.__setitem__(slice(None), bytes(_PAGE)),
    "ones": lambda page, _chance, _header: page.__setitem__(slice(None), b"\xff" * _PAGE),
    "noise": lambda page, chance, _header: page.__setitem__(slice(None), chance.randbytes(_PAGE)),
    "its header": lambda page, chance, header: page.__setitem__(slice(header, header + 12), chance.randbytes(12)),
    "its pointers": lambda page, chance, header: page.__setitem__(slice(header + 8, header + 60), chance.randbytes(52)),
    "its rows": lambda page, chance, _header: page.__setitem__(slice(2000, _PAGE), chance.randbytes(_PAGE - 2000)),
    **{
        f"{number} bytes": lambda page, chance, _header, number=number: [  # type: ignore[misc]  # a default binds it
            page.__setitem__(chance.randrange(_PAGE), chance.randrange(256)) for _ in range(number)
        ]
        for number in (1, 3, 20)
    },
}


def work(path: Path, **arguments: Any) -> None:
    with TaskManager(path, **arguments) as manager:
        for task in manager.claim_tasks(2, tmag_min=5):
            manager.save_result(result_of(task, skip_targets=[task["starid"] + 3]))
        manager.get_random_task()
        manager.get_number_tasks(camera=1)
        manager.reset_tasks(status=STATUS.ERROR)
        assert manager.summary


TARGET = {"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}

WAYS: dict[str, Callable[[Path], Any]] = {
    "on disk": work,
    "in memory": lambda path: work(path, load_into_memory=True),
    "overwriting": lambda path: work(path, overwrite=True),
    "cleaning up": lambda path: work(path, cleanup=True, load_into_memory=True),
    "adding": lambda path: add_targets(path, [TARGET]),
    "upgrade": lambda path: upgrade_list(parse_location(path)),
    "status": get_status,
    "check": lambda path: list(find_faults(path)),
    "export": lambda path: export_tasks(path, path.with_name("results.csv")),
    "report": build_report,
    "copy": lambda path: copy_list(path, path.with_name("copy")),
    "preview": lambda path: count_reset(path, build_chosen_tasks({}, everything=True)),
}


def make_content(folder: Path) -> bytes:
    """Return a file of this release with results, errors and skips, and with more than one page in most tables."""
    path = make_file(folder / "source", [{"tmag": 5 + number / 100, "camera": 1 + number % 4} for number in range(300)])
    with TaskManager(path) as manager:
        for priority in range(1, 120):
            status = STATUS.ERROR if priority % 7 == 0 else STATUS.OK
            details = {"filepath_lightcurve": f"{priority}.fits", "errors": ["cosmic ray"] * 20}
            skipped = [100 + priority + 1] if priority % 5 == 0 else []
            manager.save_result(result_of({"priority": priority}, status, skip_targets=skipped, **details))
    return path.read_bytes()


def damage(content: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield the damaged files, each with a name."""
    chance = random.Random(seed)
    for number, kind in itertools.product(range(len(content) // _PAGE), KINDS):
        page = bytearray(content[number * _PAGE : (number + 1) * _PAGE])
        KINDS[kind](page, chance, 0 if number else 100)
        yield f"page {number}, {kind}", content[: number * _PAGE] + page + content[(number + 1) * _PAGE :]


def try_ways(folder: Path, cases: list[tuple[str, bytes]], ways: Iterator[list[str]]) -> dict[str, int]:
    """Use each file in some ways, and return how often each error was raised."""
    found: dict[str, int] = {}
    for (name, content), chosen in zip(cases, ways, strict=False):
        for way in chosen:
            for other in folder.iterdir():
                other.unlink()
            path = folder / "todo.sqlite"
            path.write_bytes(content)
            try:
                WAYS[way](path)
                error = ""
            except TodoError as raised:
                error = type(raised).__name__
            except Exception as raised:
                raise AssertionError(f"{name}, {way}") from raised
            found[error] = found.get(error, 0) + 1
    return found


def test_damaged_pages(tmp_path: Path) -> None:
    """A file with a page of zeros, on disk and in `status`, and a sample of the others raise only errors of ours."""
    cases = list(damage(make_content(tmp_path), seed=1))
    zeros = [case for case in cases if case[0].endswith("zeros")]
    assert try_ways(tmp_path, zeros, itertools.repeat(["on disk", "status"])).keys() > {"", "DamagedFileError"}
    try_ways(tmp_path, random.Random(1).sample(cases, 24), ([way] for way in itertools.cycle(WAYS)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_all_damaged_pages(tmp_path: Path, seed: int) -> None:
    """In each way, every file with one damaged page raises only errors of ours."""
    found = try_ways(tmp_path, list(damage(make_content(tmp_path), seed)), itertools.repeat(list(WAYS)))
    assert found["DamagedFileError"] > 300


@pytest.mark.slow
@pytest.mark.parametrize("release", ["3.0", "4.4", "5.0", "6.0"])
def test_damaged_pages_of_older_files(tmp_path: Path, release: str) -> None:
    """The same holds for TASOC's own files."""
    source = SHARED / f"data/legacy/todo-v{release}.sqlite"
    if not source.is_file():
        pytest.skip(f"the older files are not in {source.parent}")
    assert try_ways(tmp_path, list(damage(source.read_bytes(), 1)), itertools.repeat(list(WAYS)))["DamagedFileError"]
