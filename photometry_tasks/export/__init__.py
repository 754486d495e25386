"""Export tasks with their diagnostics as CSV, Parquet or ECSV."""

from photometry_tasks.export.tasks import export_tasks

__all__ = ["export_tasks"]
