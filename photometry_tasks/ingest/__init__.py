"""Add targets to a TODO-list: from rows or CSV files."""

from photometry_tasks.ingest.loading import Added, add_target_lists, add_targets

__all__ = ["Added", "add_target_lists", "add_targets"]
