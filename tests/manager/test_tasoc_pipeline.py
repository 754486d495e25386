"""A pipeline of twenty lines for TASOC's TaskManager; only its import is changed."""

import enum
import logging
from pathlib import Path
from timeit import default_timer
from typing import Any

import pytest

from photometry_tasks import TaskManager
from tests.support.lists import make_file, query


class STATUS(enum.Enum):
    """The pipeline's own enum."""

    OK = 1
    ERROR = 2


def tessphot(method: str | None, starid: int, datasource: str, **where: int) -> Any:
    """Stand for the pipeline's photometry: every tenth star fails, and each star lists a neighbour."""
    assert set(where) == {"sector", "camera", "ccd", "cadence"}
    if starid % 10 == 5:
        raise RuntimeError("No stamp")
    details = {"mean_flux": 1e4, "stamp": (10, 21, 30, 41), "pos_centroid": [5.0, 6.0], "skip_targets": {starid + 2}}
    return STATUS.OK, method or "aperture", {**details, "filepath_lightcurve": f"{datasource}-{starid}.fits.gz"}


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_tasoc_pipeline(tmp_path: Path, in_memory: bool) -> None:
    """TASOC's loop (get, copy, delete keys, compute, update the copy, save) runs to the end, unchanged."""
    make_file(tmp_path / "todo.sqlite", [{"tmag": float(number), "camera": 1 + number % 2} for number in range(40)])
    summary = tmp_path / "summary.json"
    # --- the twenty lines ---
    with TaskManager(
        tmp_path, cleanup=True, overwrite=False, summary=summary, load_into_memory=in_memory, backup_interval=15
    ) as tm:
        tm.logger.setLevel(logging.INFO)
        tm.logger.info("%d tasks to be run", tm.get_number_tasks(camera=1))
        wait = default_timer()
        while (task := tm.get_task(camera=1)) is not None:
            result = task.copy()
            tm.start_task(task["priority"])
            del task["priority"], task["tmag"]
            begun = default_timer()
            result["worker_wait_time"] = begun - wait
            try:
                status, method_used, details = tessphot(**task)
            except RuntimeError as error:
                status, method_used, details = STATUS.ERROR, "error", {"errors": [str(error)]}
            result.update({"status": status, "method_used": method_used, "details": details})
            result["time"] = default_timer() - begun
            tm.save_result(result)
            wait = default_timer()
        tm.write_summary()
        tm.cursor.execute("SELECT COUNT(*) AS anz FROM todolist WHERE status=?;", [STATUS.OK.value])
        number_ok = tm.cursor.fetchone()["anz"]
        tm.cursor.execute("UPDATE todolist SET status=NULL WHERE camera=2 AND priority<=?;", [10])
        tm.conn.commit()
        numbers = dict(tm.summary)
    # ---
    assert numbers["OK"] == number_ok
    assert numbers["OK"] + numbers["ERROR"] + numbers["SKIPPED"] == 20
    assert numbers["numtasks"] == 40
    assert numbers["ERROR"] >= 2
    assert numbers["SKIPPED"] >= 5
    statuses = query(tmp_path / "todo.sqlite", "SELECT camera, count(status) FROM todolist GROUP BY 1")
    assert statuses == [(1, 20), (2, 0)]
    # The next job tries the failed tasks again.
    with TaskManager(tmp_path, cleanup_constraints={"camera": 1}, load_into_memory=in_memory) as tm:
        assert tm.get_number_tasks(camera=1) == numbers["ERROR"]
