"""Run a photometry function on the pending tasks, in worker processes or on any executor."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photometry_tasks.runner.run import RunReport, run_tasks

__all__ = ["RunReport", "run_tasks"]


def __getattr__(name: str) -> Any:
    # Imported at their first use: a worker process imports this package too, and needs no SQLAlchemy.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from photometry_tasks.runner import run

    return getattr(run, name)
