"""A study's trainings: each is done once, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

from maskfree.engine.config import Recipe
from maskfree.engine.train import fit
from maskfree.signals import Stopped


def trained(recipe: Recipe, folder: Path) -> Path:
    """Train RECIPE in FOLDER, unless that is done, and return its checkpoint.

    Raises:
        Stopped: SIGINT or SIGTERM came in between.
    """
    done = (folder / "model" / "run.json").is_file()
    if (
        not done
        and fit(recipe, folder, resume_run=(folder / "run.json").is_file()) < recipe.train.steps
    ):
        raise Stopped
    return folder / "model"
