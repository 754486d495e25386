"""The paths of the checkout, and of the data beside it that are not part of the project."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

SHARED = ROOT.parent / "shared"
