"""Run a photometry function on the pending tasks, in worker processes or on any executor."""

from photometry_tasks.runner.run import RunReport, run_tasks

__all__ = ["RunReport", "run_tasks"]
