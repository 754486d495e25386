"""A TODO-list as one page of HTML with figures."""

from photometry_tasks.report.page import build_report

__all__ = ["build_report"]
