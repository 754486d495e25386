"""Promise 9: the same results give the same table, however many workers run, and whatever is killed."""

import csv
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from photometry_tasks import STATUS
from photometry_tasks.rules.skipping import (
    Neighbours,
    Rival,
    Said,
    Settled,
    Target,
    build_decision,
    get_faintness,
    settle,
)
from tests.support.commands import COMMAND
from tests.support.functions import lists_neighbours
from tests.support.lists import empty_list, fill, make_file, query
from tests.support.paths import ROOT
from tests.support.processes import running_command, wait_until

FUNCTION = f"tests.support.functions:{lists_neighbours.__name__}"

#: A row of todolist by the star, and the stars that a result lists.
Field = tuple[list[dict[str, Any]], dict[int, list[int]]]


def invent_field() -> Field:
    """Return stars in a small square; half of the results list all neighbours, the others the fainter ones only."""
    chance = random.Random(4)
    rows = fill({"tmag": round(chance.uniform(5, 15), 1)} for _ in range(120))
    places = {row["starid"]: (chance.random(), chance.random()) for row in rows}
    return rows, find_neighbours(rows, places, 0.09)


def find_neighbours(
    rows: list[dict[str, Any]], places: dict[int, tuple[float, float]], radius: float
) -> dict[int, list[int]]:
    neighbours: dict[int, list[int]] = {row["starid"]: [] for row in rows}
    for first, second in combinations(rows, 2):
        stars = [first["starid"], second["starid"]]
        if first["ccd"] == second["ccd"] and math.dist(*map(places.get, stars)) < radius:  # type: ignore[arg-type]
            for row, other in ((first, second), (second, first)):
                if row["starid"] % 2 or row["tmag"] < other["tmag"]:
                    neighbours[row["starid"]].append(other["starid"])
    return neighbours


def read_field(path: Path) -> Field:
    """Return the stars of a real target list that have neighbours within 0.02 degrees."""
    with path.open() as file:
        stars = list(csv.DictReader(line for line in file if not line.startswith("#")))
    by_place = sorted(stars, key=lambda star: float(star["Dec"]))
    places = {
        int(star["TICID"]): (float(star["RA"]) * math.cos(math.radians(float(star["Dec"]))), float(star["Dec"]))
        for star in stars
    }
    crowded: set[str] = set()
    for number, star in enumerate(by_place):
        for other in by_place[number + 1 :]:
            if float(other["Dec"]) - float(star["Dec"]) > 0.02:
                break
            if math.dist(places[int(star["TICID"])], places[int(other["TICID"])]) < 0.02:
                crowded |= {star["TICID"], other["TICID"]}
    rows = fill(
        {"starid": int(s["TICID"]), "camera": int(s["Camera"]), "ccd": int(s["CCD"]), "tmag": float(s["Tmag"])}
        for s in stars
        if s["TICID"] in crowded
    )
    return rows, find_neighbours(rows, places, 0.02)


def find_expected(field: Field) -> Settled:
    """Return the state that the rule gives."""
    rows, neighbours = field
    results = {}
    for row in rows:
        listed = set(neighbours[row["starid"]])
        rivals = [
            Rival(other["priority"], other["tmag"], None)
            for other in rows
            if other["starid"] in listed and (other["camera"], other["ccd"]) == (row["camera"], row["ccd"])
        ]
        status = STATUS.WARNING if row["starid"] % 5 == 0 else STATUS.OK
        target = Target(row["priority"], row["starid"], "ffi", row["tmag"])
        decision = build_decision(target, status, Neighbours(tuple(listed), ("ffi",), None), rivals)
        results[row["priority"]] = Said(status.value, decision)
    return settle(sorted(results, key=lambda p: get_faintness(p, rows[p - 1]["tmag"])), results)


def run(target: object, *options: str) -> None:
    subprocess.run([COMMAND, "run", str(target), FUNCTION, *options], cwd=ROOT, check=True, capture_output=True)


def run_and_kill(target: object, *options: str) -> None:
    """Kill a run twice, the second time with a fresh start of its tasks, and complete it."""
    for number in (20, 40):
        command = [COMMAND, "run", str(target), FUNCTION, "--jobs", "3", *options]
        runs = Path(os.environ["NEIGHBOURS"] + "-runs")
        with running_command(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            wait_until(lambda: runs.exists() and runs.read_text().count("\n") >= number, process)  # noqa: B023
            process.kill()
    run(target, "--jobs", "2")


def run_over_mpi(target: object) -> None:
    launch = [str(Path(sys.executable).with_name("mpiexec")), "-n", "4", sys.executable, "-m", "mpi4py.futures"]
    command = ["-m", "photometry_tasks.cli", "run", str(target), FUNCTION]
    workers = ["--executor", "mpi4py.futures:MPIPoolExecutor", "--jobs", "3", "--in-memory"]
    subprocess.run(launch + command + workers, check=True, cwd=ROOT, capture_output=True)


def work(target: object) -> None:
    """Let three commands work on a list, and kill one of them."""
    command = [COMMAND, "work", str(target), FUNCTION, "--jobs", "2", "--lease", "2"]
    runs = Path(os.environ["NEIGHBOURS"] + "-runs")
    with (
        running_command(command, cwd=ROOT, stdout=subprocess.DEVNULL) as first,
        running_command(command, cwd=ROOT, stdout=subprocess.DEVNULL) as second,
        running_command(command, cwd=ROOT, stdout=subprocess.DEVNULL) as victim,
    ):
        wait_until(lambda: runs.exists() and runs.read_text().count("\n") >= 40, victim)
        victim.kill()
        assert [first.wait(120), second.wait(120)] == [0, 0]


WAYS: dict[str, Callable[[object], None]] = {
    "one worker": lambda target: run(target, "--jobs", "1"),
    "two workers": lambda target: run(target, "--jobs", "2"),
    "four workers, in memory": lambda target: run(target, "--jobs", "4", "--in-memory"),
    "killed": run_and_kill,
    "killed in memory": lambda target: run_and_kill(target, "--in-memory"),
    "over MPI": run_over_mpi,
}


def check(target: object, field: Field) -> None:
    """Compare the statuses and the skips with the rule's."""
    statuses = dict(query(target, "SELECT priority, status FROM todolist"))
    skips = query(target, "SELECT priority, skipped_by FROM photometry_skipped ORDER BY 1, 2")
    expected = find_expected(field)
    assert statuses == expected.statuses
    assert skips == sorted(expected.skips)
    assert {STATUS.SKIPPED.value, STATUS.OK.value, STATUS.WARNING.value} == set(statuses.values())


@pytest.fixture
def field(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Field:
    """Return a field, whose neighbours the workers read from a file."""
    is_real = request.param == "real"
    found = read_field(request.getfixturevalue("target_lists")[14]) if is_real else invent_field()
    path = tmp_path / "neighbours.json"
    path.write_text(json.dumps(found[1]))
    monkeypatch.setenv("NEIGHBOURS", str(path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return found


FIELDS = pytest.mark.parametrize("field", ["invented", pytest.param("real", marks=pytest.mark.slow)], indirect=True)


@FIELDS
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.slow) if way in ("one worker", "two workers", "killed") else way
        for way in WAYS
    ],
)
def test_on_a_file(tmp_path: Path, field: Field, way: str) -> None:
    """Whatever the number of workers and their speed, and whatever was killed, the table is that of the rule."""
    path = make_file(tmp_path / "todo.sqlite", field[0])
    WAYS[way](path)
    check(path, field)


@FIELDS
def test_on_a_server(server_database: Engine, field: Field) -> None:
    """Three managers, one of which is killed, give the table of the rule."""
    url = empty_list(server_database, field[0])
    work(url)
    check(url, field)
