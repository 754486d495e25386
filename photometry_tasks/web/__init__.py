"""The live page of TODO-lists, for a browser."""

from photometry_tasks.web.server import build_app, serve

__all__ = ["build_app", "serve"]
