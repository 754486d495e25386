"""Build one HTML page with figures about a TODO-list."""

from photometry_tasks.report.page import build_report, write_report

__all__ = ["build_report", "write_report"]
