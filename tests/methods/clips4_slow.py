"""CLIP-S4's segments as the paper has them, one by one, and what its tests cut and compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskfree.methods.clips4.classes import PrototypeClassifier
from maskfree.methods.clips4.objectives import SemanticConsistencyObjective
from maskfree.methods.clips4.view_segments import ViewSegments

PHOTOS, DIM, HEIGHT, WIDTH, NUM_SEGMENTS = 2, 5, 4, 7, 3
VOID = 255


def unit(*shape: int, dim: int = 1) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=dim)


def some_pixels() -> Tensor:
    return unit(2 * PHOTOS, DIM, HEIGHT, WIDTH)


def some_regions() -> Tensor:
    """Two regions and void, the same numbers in all photos, and in other places in each view."""
    return torch.tensor([0, 7, VOID])[torch.randint(0, 3, (2 * PHOTOS, HEIGHT, WIDTH))]


def cut(pixels: Tensor, regions: Tensor, teacher: Tensor | None = None) -> ViewSegments:
    return ViewSegments.cut(pixels, regions, teacher, NUM_SEGMENTS)


@dataclass(frozen=True)
class Slow:
    """A segment as the paper has it: some pixels of a view, in one of its photo's regions."""

    pixels: frozenset[tuple[int, int, int]]
    region: tuple[int, int] | None
    embedding: Tensor
    teacher: Tensor | None = None


def slow_segments(
    segments: ViewSegments, regions: Tensor, teacher: Tensor | None = None
) -> list[Slow]:
    members: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for view, y, x in torch.cartesian_prod(*map(torch.arange, segments.ids.shape)).tolist():
        if segments.ids[view, y, x] >= 0:
            members.setdefault((view, int(segments.ids[view, y, x])), []).append((view, y, x))
    found = []
    for (view, _), places in members.items():
        (number,) = {
            int(regions[place]) for place in places
        }  # or a segment would lie in two regions
        mean = torch.stack([segments.pixels[v, :, y, x] for v, y, x in places]).mean(0)
        seen = (
            None
            if teacher is None
            else torch.stack([teacher[v, :, y, x] for v, y, x in places]).mean(0)
        )
        found.append(Slow(frozenset(places), (view // 2, number), mean / mean.norm(), seen))
    return found


def classes_of(*sizes: int, unknown: int = 4) -> PrototypeClassifier:
    """Known classes of so many phrases each, and unknown ones, whose length does not count."""
    return PrototypeClassifier(unit(sum(sizes), DIM), sizes, 3 * unit(unknown, DIM))


def semantic_of(classes: PrototypeClassifier, **changes) -> SemanticConsistencyObjective:
    return SemanticConsistencyObjective(
        **(
            {"weight": 1.0, "scale": 20.0, "class_prior": 0.0, "soft": False, "classes": classes}
            | changes
        )
    )
