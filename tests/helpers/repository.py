"""Where the repository is, and the data beside it, which are there on some machines only."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
