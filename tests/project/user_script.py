"""A user's script with every public name, which `mypy --strict` accepts; no test runs it."""

from pathlib import Path
from typing import Any

from sqlalchemy import or_, select

from photometry_tasks import (
    STATUS,
    TaskManager,
    TodoList,
    __version__,
    add_targets,
    build_constraints,
    run_tasks,
)
from photometry_tasks.errors import TodoError
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import Added, add_target_lists
from photometry_tasks.models import Attempt, Diagnostics, Extra, Progress, Skip, Task, Worker
from photometry_tasks.report import build_report, write_report
from photometry_tasks.runner import RunReport

todo_file = Path("todo.sqlite")


def photometry(task: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a task."""
    details: dict[str, Any] = {"mean_flux": float(task["tmag"]), "extra": {"version": __version__}}
    return {"status": STATUS.OK, "method_used": "aperture", "details": details}


def fill() -> Added:
    """Add targets."""
    add_target_lists(todo_file, ["targets.csv"])
    return add_targets(todo_file, [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 10.0}])


def measure() -> RunReport:
    """Run all tasks, and one by hand."""
    with TaskManager(todo_file, load_into_memory=True, version="1", retries=2) as tm:
        task: dict[str, Any] | None = tm.get_task(camera=[1, 2], tmag_max=12)
        if task is not None:
            tm.start_task(task["priority"])
            status: STATUS | None = tm.save_result({**task, **photometry(task), "time": 1.5})
            print(status, tm.summary["OK"])
        for other in tm.claim_tasks(10, datasource="ffi"):
            tm.release_tasks([other["priority"]])
        returned: dict[str, int] = tm.reset_tasks(status=[STATUS.ERROR], kind="timeout")
        print(returned, tm.undo_reset())
        return run_tasks(tm, photometry, jobs=2, cadence="ffi")


def look() -> None:
    """Look at the list in each way."""
    with TodoList(str(todo_file)) as todo:
        counts: dict[str, int] = todo.counts(sector=range(1, 3), cadence=[120, 20])
        print(len(todo), counts["PENDING"], todo.estimate()["hours_high"])
        for row in todo.select(status=[STATUS.OK, None], columns=["starid", "mean_flux"], tmag_min=5.0):
            print(row["starid"], row["mean_flux"])
        for group in todo.errors(camera=1):
            print(group["kind"], group["count"], [star["attempts"] for star in todo.star(group["first"])])
        print(todo.to_table(ccd=1), todo.to_pandas(status=STATUS.OK), todo.to_arrow(columns="starid"))
        query = select(Task.starid, Diagnostics.mean_flux).join(Diagnostics, Task.priority == Diagnostics.priority)
        for starid, mean_flux in todo.session.execute(query.where(or_(*build_constraints(camera=1, ccd=2)))):
            print(starid, mean_flux)
        for model in (Attempt, Extra, Progress, Skip, Worker):
            print(todo.session.scalars(select(model)).all())


def write() -> None:
    """Write the results."""
    try:
        number: int = export_tasks(todo_file, "results.csv", status=STATUS.OK, camera=1)
        page: str = build_report(todo_file)
        write_report(todo_file, "report.html", force=True)
        print(number, len(page), build_constraints(camera=1, return_list=True)[0].upper())
    except TodoError as error:
        print(error)
