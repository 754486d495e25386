"""Where things are: the checkout, and the data beside it that belong to others."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

SHARED = ROOT.parent / "shared"
