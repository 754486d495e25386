"""The command line."""

from photometry_tasks.cli.main import main

__all__ = ["main"]
