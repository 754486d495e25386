"""Target lists in: rows or CSV files become tasks."""

from photometry_tasks.ingest.loading import Added, add_target_lists, add_targets

__all__ = ["Added", "add_target_lists", "add_targets"]
