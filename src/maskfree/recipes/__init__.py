"""Recipes: named functions that return all settings of a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from maskfree.engine.config import Recipe
from maskfree.recipes.clips4 import clips4 as clips4
from maskfree.recipes.clips4 import clips4_debug as clips4_debug
from maskfree.recipes.clips4 import clips4_pocket as clips4_pocket
from maskfree.recipes.clips4 import maskclip_plus_pocket as maskclip_plus_pocket
from maskfree.recipes.groupvit import groupvit as groupvit
from maskfree.recipes.ovsegmentor import ovsegmentor as ovsegmentor
from maskfree.recipes.ovsegmentor import ovsegmentor_cc12m as ovsegmentor_cc12m
from maskfree.recipes.ovsegmentor import ovsegmentor_debug as ovsegmentor_debug
from maskfree.recipes.ovsegmentor import ovsegmentor_pocket as ovsegmentor_pocket
from maskfree.recipes.ovsegmentor import ovsegmentor_released as ovsegmentor_released
from maskfree.recipes.ovsegmentor import ovsegmentor_released_masks as ovsegmentor_released_masks
from maskfree.recipes.ovsegmentor import ovsegmentor_vit_small as ovsegmentor_vit_small
from maskfree.recipes.vilseg import vilseg as vilseg
from maskfree.recipes.vilseg import vilseg_debug as vilseg_debug
from maskfree.recipes.vilseg import vilseg_pocket as vilseg_pocket
from maskfree.recipes.vilseg import vilseg_pocket_clusters as vilseg_pocket_clusters
from maskfree.recipes.vilseg import vilseg_pocket_tags as vilseg_pocket_tags


@dataclass(frozen=True)
class Run:
    """Train a model with a recipe; every setting of the recipe is an option."""

    recipe: Annotated[Recipe, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
    """Settings of the run."""
    leave_out: tuple[str, ...] = ()
    """Optional parts of the method to switch off, as in method.vision."""
    out: Path = Path("run")
    """Folder of the run: the finished model (in `model`), logs and training states."""
    resume: bool = False
    """Resume a stopped run in the folder; only a few settings may change, such as its steps."""

    def whole(self) -> Recipe:
        """Recipe without the parts in `leave_out`.

        Returns:
            Settings of the run.

        Raises:
            ValueError: A name is not a part, or the part is not optional.
        """
        recipe = self.recipe
        for part in self.leave_out:
            recipe = _cleared(recipe, part.split("."), part)
        return recipe


def _cleared(settings: Any, names: Sequence[str], part: str) -> Any:
    """Copy of nested settings with one optional part set to None."""
    value = getattr(settings, names[0], None)
    if not is_dataclass(value):
        raise ValueError(f"there is no part {part!r} to leave out")

    if names[1:]:
        return replace(settings, **{names[0]: _cleared(value, names[1:], part)})

    # Annotations are strings here: an optional part says None.
    if "None" not in str(type(settings).__dataclass_fields__[names[0]].type):
        raise ValueError(f"{part!r} cannot be left out")

    return replace(settings, **{names[0]: None})


def _recipes() -> dict[str, Callable[[], Recipe]]:
    """Recipes that this module imports: a new one needs its import and no other line."""
    found = {}
    for name, value in globals().items():
        if callable(value) and getattr(value, "__module__", "").startswith(f"{__name__}."):
            found[name] = value
    return dict(sorted(found.items()))


RECIPES = _recipes()
"""All recipes by name."""
