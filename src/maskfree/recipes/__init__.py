"""Named runs: each is a function that returns every setting of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from maskfree.engine.config import Recipe
from maskfree.recipes.clips4 import clips4, clips4_debug, clips4_pocket, maskclip_plus_pocket
from maskfree.recipes.ovsegmentor import (
    ovsegmentor,
    ovsegmentor_debug,
    ovsegmentor_pocket,
    ovsegmentor_released,
    ovsegmentor_released_masks,
)
from maskfree.recipes.vilseg import vilseg, vilseg_debug, vilseg_pocket, vilseg_pocket_clusters


@dataclass(frozen=True)
class Run:
    """Train a model. Every setting of the recipe is an option; the finished model is OUT/model."""

    recipe: Annotated[Recipe, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
    leave_out: tuple[str, ...] = ()
    """Optional parts of the method to switch off, as in method.vision."""
    out: Path = Path("run")
    """Folder for the model, the log, and the states from which to resume."""
    resume: bool = False
    """Go on after a kill or an interruption, with the same settings."""

    def whole(self) -> Recipe:
        """Return the recipe without the parts that are left out.

        Raises:
            ValueError: a name leads to no part, or to one that cannot be left out.
        """
        recipe = self.recipe
        for part in self.leave_out:
            recipe = _cleared(recipe, part.split("."), part)
        return recipe


def _cleared(settings: Any, names: Sequence[str], part: str) -> Any:
    value = getattr(settings, names[0], None)
    if not is_dataclass(value):
        raise ValueError(f"there is no part {part!r} to leave out")
    if names[1:]:
        return replace(settings, **{names[0]: _cleared(value, names[1:], part)})
    if "None" not in str(type(settings).__dataclass_fields__[names[0]].type):
        raise ValueError(f"{part!r} cannot be left out")
    return replace(settings, **{names[0]: None})


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        vilseg,
        vilseg_pocket,
        vilseg_pocket_clusters,
        vilseg_debug,
        ovsegmentor,
        ovsegmentor_released,
        ovsegmentor_released_masks,
        ovsegmentor_pocket,
        ovsegmentor_debug,
        clips4,
        clips4_pocket,
        maskclip_plus_pocket,
        clips4_debug,
    )
}
