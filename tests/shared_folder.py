"""Where the development data lie, if they are there."""

from pathlib import Path

SHARED = Path(__file__).parents[1].parent / "shared"
