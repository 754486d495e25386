"""The parts of the measurement; each part prints its rows and keeps them."""

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.limit import Limit, Unlogged
from benchmarks.lists import finish_tasks, make_list, result_of, rows_of
from benchmarks.measuring import Row, compare, run_in_batches, run_singly, time_of
from photometry_tasks import TaskManager
from photometry_tasks.storage.sqlite.store import SQLiteStore

MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "disk": ({}, {"in_memory": False}),
    "disk, full": ({"durability": "full"}, {"in_memory": False, "durability": "full"}),
    "memory": ({"load_into_memory": True, "backup_interval": None}, {"in_memory": True}),
}
DONE = (0, 10_000, 50_000, 100_000)


class Bench:
    """Lists of the given sizes, each created once, and working copies of these lists."""

    def __init__(self, folder: Path, sizes: list[int], rounds: int) -> None:
        self.sizes, self.rounds = sizes, rounds
        self.rows: list[Row] = []
        self._folder = folder
        self._made: dict[tuple[int, int], Path] = {}
        self._copies = 0

    def compare(self, part: str, what: str, ours: Callable[[], float], limit: Callable[[], float], **how: Any) -> None:
        """Measure two functions, and keep the row."""
        self.rows.append(compare(part, what, ours, limit, **{"rounds": self.rounds} | how))

    def new_path(self) -> Path:
        """Return a new path without a file."""
        self._copies += 1
        return self._folder / f"copy{self._copies}.sqlite"

    def copy(self, size: int, done: int = 0) -> Path:
        """Return a new copy of a list with this number of finished tasks."""
        done = min(done, size // 2)
        if (size, done) not in self._made:
            path = self._folder / f"{size}-{done}.sqlite"
            if done:
                shutil.move(self.copy(size), path)
                finish_tasks(path, done)
            else:
                make_list(path, size)
            self._made[size, done] = path
        return Path(shutil.copy(self._made[size, done], self.new_path()))

    @contextmanager
    def opened(self, mode: str, size: int, done: int = 0) -> Iterator[TaskManager]:
        """Open a manager of a copy."""
        path = self.copy(size, done)
        with TaskManager(path, **MODES[mode][0]) as manager:
            yield manager
        path.unlink()

    @contextmanager
    def by_hand(self, mode: str, size: int) -> Iterator[Limit]:
        """Open the baseline, plain sqlite3, on a copy."""
        path = self.copy(size)
        with Limit(path, **MODES[mode][1]) as limit:
            yield limit
        path.unlink()


def measure_tasks(bench: Bench) -> None:
    """Measure tasks one by one and in batches, in each mode, at each size."""
    ceilings = {"disk": 1.4, "disk, full": 1.05, "memory": 2.2}
    for size in bench.sizes:
        for mode in MODES:
            with bench.opened(mode, size) as ours, bench.by_hand(mode, size) as limit:
                for manager in (ours, limit):
                    run_singly(manager, 50)
                what = f"{size} rows, {mode}"
                singly = partial(run_singly, ours, 500), partial(run_singly, limit, 500)
                bench.compare("tasks", f"{what}, one by one", *singly, ceiling=ceilings[mode])
                for batch in (100, 1000):
                    sizes = [batch] * (1000 // batch)
                    both = partial(run_in_batches, ours, sizes), partial(run_in_batches, limit, sizes)
                    at_most = None if mode == "disk, full" else 1.6
                    bench.compare("tasks", f"{what}, batches of {batch}", *both, ceiling=at_most)
        with bench.opened("memory", size) as ours, Unlogged(bench.copy(size)) as unlogged:
            both = partial(run_singly, ours, 500), partial(run_singly, unlogged, 500)
            bench.compare("tasks", f"{size} rows, memory, one by one, and TASOC's SQL", *both)


def measure_log(bench: Bench) -> None:
    """Measure saves in memory, compared with saves without the log of results."""
    size = bench.sizes[0]
    with bench.opened("memory", size) as ours, bench.opened("memory", size) as unlogged:
        assert isinstance(unlogged._store, SQLiteStore)
        assert unlogged._store._copy is not None
        unlogged._store._copy.record = lambda *_: None  # type: ignore[method-assign]
        for what, batch in (("one by one", 1), ("batches of 100", 100)):
            both = partial(_save, ours, batch), partial(_save, unlogged, batch)
            at_most = 1 / 0.9  # the log is at most a tenth of a save
            bench.compare(
                "log", f"{size} rows: save in memory, {what}", *both, ceiling=at_most, rounds=4 * bench.rounds
            )


def _save(manager: TaskManager, batch: int) -> float:
    """Return the seconds per saved result."""
    tasks = manager.get_tasks(500)
    manager.start_tasks([task["priority"] for task in tasks])
    results = list(map(result_of, tasks))
    if batch == 1:
        return time_of(lambda: [manager.save_result(result) for result in results]) / len(results)
    batches = [results[start : start + batch] for start in range(0, len(results), batch)]
    return time_of(lambda: [manager.save_results(some) for some in batches]) / len(results)


def measure_flatness(bench: Bench) -> None:
    """Measure partly finished and longer lists, compared with the shortest list and no finished task."""
    shortest = bench.sizes[0]
    states = [(shortest, done) for done in DONE[1:]] + [(size, 0) for size in bench.sizes[1:]]
    for mode in MODES:
        for size, done in states:
            with bench.opened(mode, shortest) as base, bench.opened(mode, size, done) as manager:
                what = f"{mode}, {size} rows, {done} finished"
                singly = partial(run_singly, manager, 300), partial(run_singly, base, 300)
                bench.compare("flat", f"{what}, one by one", *singly, ceiling=1.3)
                both = partial(run_in_batches, manager, [100] * 3), partial(run_in_batches, base, [100] * 3)
                bench.compare("flat", f"{what}, batches of 100", *both, ceiling=1.3)


def measure_constraints(bench: Bench) -> None:
    """Measure the first 1,000 tasks with constraints, compared with the first 1,000 tasks without constraints."""
    for size in bench.sizes:
        stars = [row[0] for row in rows_of(size)]
        chosen: dict[str, tuple[dict[str, Any], float | None]] = {
            "camera and ccd": ({"camera": 2, "ccd": 3}, 1.5),
            "tmag_min=12": ({"tmag_min": 12}, 1.5),
            "tmag_min=14": ({"tmag_min": 14}, 1.5),
            "tmag_min=10, tmag_max=13, camera": ({"tmag_min": 10, "tmag_max": 13, "camera": 3}, 1.5),
            "sector, cadence and datasource": ({"sector": 1, "cadence": 120, "datasource": "tpf"}, 1.5),
            "1,000 stars": ({"starid": stars[:: len(stars) // 1000][:1000]}, 5.0),
            "100,000 stars": ({"starid": tuple(stars[:: max(1, len(stars) // 100_000)][:100_000])}, None),
        }
        for name, (constraints, ceiling) in chosen.items():
            for mode in ("disk", "memory"):
                both = [partial(_from_opening, bench, mode, size, which) for which in (constraints, {})]
                what = f"{size} rows, {mode}: {name}"
                bench.compare("constraints", what, both[0], both[1], ceiling=ceiling, rounds=min(bench.rounds, 5))


def _from_opening(bench: Bench, mode: str, size: int, constraints: Any) -> float:
    with bench.opened(mode, size) as manager:
        return run_singly(manager, 1000, constraints)


def measure_opening(bench: Bench) -> None:
    """Measure opening, compared with the necessary work of SQLite."""
    for size in bench.sizes:
        path = bench.copy(size, DONE[-1])
        both = partial(_open, path, "disk"), partial(_open_plainly, path)
        bench.compare("opening", f"{size} rows, disk", *both, unit="ms", ceiling=4.0)
        both = partial(_open, path, "memory"), partial(time_of, partial(_load, path))
        bench.compare("opening", f"{size} rows, memory", *both, unit="ms", ceiling=1.3)
        path.unlink()


def _open(path: Path, mode: str) -> float:
    managers: list[TaskManager] = []
    seconds = time_of(lambda: managers.append(TaskManager(path, **MODES[mode][0])))
    managers[0].close()
    return seconds


def _open_plainly(path: Path) -> float:
    """Read the schema, begin the write-ahead log, and register a worker; the log ends with the connection."""
    connections: list[sqlite3.Connection] = []

    def work() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connections.append(connection)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        last = connection.execute("SELECT max(worker) FROM photometry_tasks_workers").fetchone()[0]
        begun = time.time()
        row = (last or 0) + 1, "plain", 1, begun, begun, begun
        sql = "INSERT INTO photometry_tasks_workers (worker, host, pid, begun, seen, ended) VALUES (?, ?, ?, ?, ?, ?)"
        connection.execute(sql, row)

    seconds = time_of(work)
    connections[0].execute("PRAGMA journal_mode=DELETE").fetchone()
    connections[0].close()
    return seconds


def _load(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(":memory:")) as memory:
        connection.backup(memory)
        memory.execute("PRAGMA quick_check").fetchall()


def measure_drawing(bench: Bench) -> None:
    """Measure a random task, compared with the same draws by hand, and a count, compared with SQLite's count."""
    for size in bench.sizes:
        with bench.opened("disk", size, DONE[-1]) as manager:
            both = partial(_many, manager.get_random_task), partial(_many, partial(_draw, manager.conn))
            bench.compare("drawing", f"{size} rows: get_random_task", *both, ceiling=2.0)
            both = partial(time_of, manager.get_number_tasks), partial(time_of, partial(_count, manager.conn))
            bench.compare("drawing", f"{size} rows: get_number_tasks", *both, unit="ms")


def _draw(connection: sqlite3.Connection) -> dict[str, Any]:
    (lowest,) = connection.execute("SELECT min(priority) FROM todolist").fetchone()
    (highest,) = connection.execute("SELECT max(priority) FROM todolist").fetchone()
    while True:
        priority = random.randint(lowest, highest)
        row = connection.execute("SELECT * FROM todolist WHERE priority = ? AND status IS NULL", (priority,)).fetchone()
        if row is not None:
            return dict(row)


def _count(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT count(*) FROM todolist WHERE status IS NULL").fetchone()


def _many(function: Callable[[], object]) -> float:
    return time_of(lambda: [function() for _ in range(200)]) / 200


def measure_backups(bench: Bench) -> None:
    """Measure a backup, compared with SQLite's backup and an fsync."""
    for size in bench.sizes:
        with bench.opened("memory", size, DONE[-1]) as manager:
            target = bench.new_path()
            both = partial(time_of, manager.backup), partial(time_of, partial(_copy, manager.conn, target))
            bench.compare("backup", f"{size} rows", *both, unit="ms", ceiling=1.5)


def _copy(source: sqlite3.Connection, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        source.backup(connection)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


PARTS: dict[str, Callable[[Bench], None]] = {
    "tasks": measure_tasks,
    "log": measure_log,
    "flat": measure_flatness,
    "constraints": measure_constraints,
    "opening": measure_opening,
    "drawing": measure_drawing,
    "backup": measure_backups,
}
