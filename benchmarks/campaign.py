"""Measure what a campaign asks of a long list: its upgrade, failures by kind and host, versions, resets and undo.

    python -m benchmarks.campaign [--rows 2000000] [--failed 100000]

Half of the tasks are finished, each with an attempt by one of ten hosts and two versions. The upgrade from the revision
without attempts in files runs beside plain SQL that creates the same tables and indexes.
"""

import argparse
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.lists import finish_tasks, make_list
from photometry_tasks import TaskManager
from photometry_tasks.maintenance.reset import count_reset
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.sql.choices import build_chosen_tasks
from photometry_tasks.sql.history import count_failures, count_versions
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import open_read_only, upgrade_list

HOSTS, KINDS, ROUNDS = 10, 20, 5

NEW = [f"photometry_tasks_{name}" for name in ("undo", "extra", "attempts", "workers")]


def add_history(path: Path, failed: int) -> None:
    """Add an attempt for each result; the last `failed` results become ERRORs, half a percent of them out of memory."""
    with closing(sqlite3.connect(path)) as connection:
        for worker in range(1, HOSTS + 1):
            row = worker, f"node{worker}", worker, 1.0, 2.0, 3.0, f"v{worker % 2}"
            sql = "INSERT INTO photometry_tasks_workers (worker, host, pid, begun, seen, ended, version) "
            connection.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute(f"""
            INSERT INTO photometry_tasks_attempts (priority, attempt, worker, begun, ended, how)
            SELECT priority, 1 + priority % {HOSTS} << 32, 1 + priority % {HOSTS}, 1.0, 2.0, 'OK' FROM diagnostics""")
        last = f"SELECT priority FROM diagnostics ORDER BY priority DESC LIMIT {failed}"
        kind = f"CASE WHEN priority % 200 = 0 THEN 'out of memory' ELSE 'kind ' || priority % {KINDS} END"
        connection.execute(f"UPDATE todolist SET status = 2 WHERE priority IN ({last})")
        connection.execute(f"""
            UPDATE photometry_tasks_attempts SET how = 'ERROR', kind = {kind}, counts = 1 WHERE priority IN ({last})""")
        connection.commit()


def drop_history(path: Path) -> list[str]:
    """Return a file to the revision before, and return the SQL that creates the new tables and indexes."""
    with closing(sqlite3.connect(path)) as connection:
        created = []
        for name in reversed(NEW):
            query = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC"
            created += [sql for (sql,) in connection.execute(query, (name,))]
        for name in NEW:
            connection.execute(f"DROP TABLE {name}")
        connection.execute("UPDATE photometry_tasks_version SET version_num = '0006'")
        connection.commit()
    return created


def time_of(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(folder: Path, rows: int, failed: int) -> Iterator[str]:
    """Yield a line for each figure."""
    path = make_list(folder / "todo.sqlite", rows)
    finish_tasks(path, rows // 2)
    add_history(path, failed)
    size = path.stat().st_size

    older = Path(shutil.copy(path, folder / "older.sqlite"))
    created = drop_history(older)

    def create() -> None:
        with closing(sqlite3.connect(older)) as connection:
            for sql in created:
                connection.execute(sql)
            connection.commit()

    plain = [time_of(create)]
    drop_history(older)
    ours = [time_of(lambda: upgrade_list(parse_location(older)))]
    for _ in range(2):
        drop_history(older)
        plain.append(time_of(create))
        drop_history(older)
        ours.append(time_of(lambda: upgrade_list(parse_location(older))))
    yield f"upgrade                          {min(ours):7.3f} s, plain SQL {min(plain):7.3f} s"
    with closing(open_read_only(parse_location(path))) as database, database.begin(writes=False) as connection:
        for name, count in (("failures by kind and host", count_failures), ("results by version", count_versions)):
            times = [time_of(partial(count, connection)) for _ in range(ROUNDS)]
            yield f"{name:32} {min(times):7.3f} s"
    chosen = build_chosen_tasks({"kind": "out of memory"})
    previews = [time_of(lambda: count_reset(path, chosen)) for _ in range(ROUNDS)]
    yield f"reset --kind --dry-run           {min(previews):7.3f} s"
    yield f"status                           {min(time_of(lambda: get_status(path)) for _ in range(3)):7.3f} s"
    with TaskManager(path, reset=False) as manager:
        choices: list[tuple[str, dict[str, Any]]] = [
            ("reset --kind", {"kind": "out of memory"}),
            ("reset --everything", {"everything": True}),
        ]
        for name, choice in choices:
            yield f"{name:32} {time_of(partial(manager.reset_tasks, **choice)):7.3f} s"
            yield f"undo                             {time_of(manager.undo_reset):7.3f} s"
    after = path.stat().st_size
    yield f"size of the file                 {size / 1e6:7.0f} MB, with the last reset {after / 1e6:.0f} MB"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--failed", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder), given.rows, given.failed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
