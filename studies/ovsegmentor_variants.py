"""OVSegmentor with one thing changed at a time: the rows of its Tables 3 to 6, their measures, and
what they claim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.named_protocols import DEFAULT_THRESHOLD, groupvit
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.ovsegmentor.objectives_config import MaskConfig
from maskfree.recipes import ovsegmentor_pocket
from studies.directions import Direction
from studies.ledger import Measure, bare

FULL, BASELINE, ENTITY, MASKS = "OVSegmentor", "baseline", "+ entity", "+ masks"
PAPER_MASKS, PAPER_FULL = "+ masks, as in the paper", "OVSegmentor, masks as in the paper"
ONE, NOUNS, LABELS = "one entity", "all nouns", "multi-label contrast"
WORDS, TEXT_WORDS = "MLM with groups", "MLM without groups"
GROUPS = "group consistency"
GROUPVIT = "GroupViT"
COUNTS, RATIOS = (8, 16), (0.25, 0.5, 0.75, 1.0)
COUNT, RATIO = 8, 0.5  # the full method's

COCO = Measure("coco-mini", "coco-mini", bare(names="synonyms"))
COCO_BACKGROUND = Measure(
    "coco-mini with background", "coco-mini", bare(names="synonyms", background=DEFAULT_THRESHOLD)
)
CAMVID = Measure("camvid", "camvid", bare())
COCO_80 = Measure("coco-mini-80", "coco-mini-80", bare())
COCO_80_BACKGROUND = Measure(
    "coco-mini-80 with background", "coco-mini-80", bare(background=DEFAULT_THRESHOLD)
)
AUTHORS = tuple(
    Measure(f"{name}, the authors' inference", name, groupvit(benchmark(name))[0])
    for name in ("coco-mini",)
)
SHORT = (COCO, CAMVID)
LONG = (*SHORT, COCO_BACKGROUND, COCO_80)
MEASURES = (*LONG, COCO_80_BACKGROUND, *AUTHORS)


def earlier(measure: Measure) -> Measure:
    """Return MEASURE as rows of the first study have it, whose trainings had 100 steps."""
    return replace(measure, name=f"{measure.name}, 100 steps")


ALL_MEASURES = (*MEASURES, *map(earlier, MEASURES))


@dataclass(frozen=True)
class Ablation:
    """A row of the paper's tables: which ones, and how its method differs from the full one."""

    name: str
    tables: tuple[int, ...]
    change: Callable[[OVSegmentorConfig], OVSegmentorConfig]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured of it: more of the rows of Table 3, which has three seeds."""
        return MEASURES if self.name == FULL else LONG if 3 in self.tables else SHORT


def cell(count: int, ratio: float) -> str:
    """Return the name of a cell of Table 5."""
    return FULL if (count, ratio) == (COUNT, RATIO) else f"{count} groups, r = {ratio:g}"


def _whole(method: OVSegmentorConfig) -> OVSegmentorConfig:
    return method


def _without(method: OVSegmentorConfig, *parts: str) -> OVSegmentorConfig:
    return replace(method, **dict.fromkeys(parts))


def _entity(method: OVSegmentorConfig, **changes: Any) -> OVSegmentorConfig:
    assert method.entity is not None
    return replace(method, entity=replace(method.entity, **changes), masks=None)


def _masks(method: OVSegmentorConfig, **changes: Any) -> OVSegmentorConfig:
    assert method.masks is not None
    return replace(method, masks=replace(method.masks, **changes))


def _paper(method: OVSegmentorConfig) -> OVSegmentorConfig:
    """L_mask with the paper's settings, which are the defaults."""
    return replace(method, masks=MaskConfig())


def _grid(method: OVSegmentorConfig, count: int, ratio: float) -> OVSegmentorConfig:
    """Tokens that are the groups are as many; others are mixed into the groups, and stay."""
    tokens = (
        count if method.image.num_tokens == method.image.num_groups else method.image.num_tokens
    )
    return _masks(
        replace(method, image=replace(method.image, num_groups=count, num_tokens=tokens)),
        ratio=ratio,
    )


ABLATIONS = (
    Ablation(FULL, (3, 5, 6), _whole),
    Ablation(BASELINE, (3,), lambda method: _without(method, "entity", "masks")),
    Ablation(ENTITY, (3, 4), lambda method: _without(method, "masks")),
    Ablation(MASKS, (3,), lambda method: _without(method, "entity")),
    Ablation(PAPER_MASKS, (3,), lambda method: replace(_paper(method), entity=None)),
    Ablation(PAPER_FULL, (3,), lambda method: _paper(method)),
    Ablation(ONE, (4,), partial(_entity, masking="one")),
    Ablation(NOUNS, (4,), partial(_entity, masking="nouns")),
    Ablation(LABELS, (4,), partial(_entity, objective="labels")),
    Ablation(WORDS, (4,), partial(_entity, objective="words")),
    Ablation(TEXT_WORDS, (4,), partial(_entity, objective="words_without_groups")),
    Ablation(GROUPS, (6,), partial(_masks, objective="groups")),
    *(
        Ablation(cell(count, ratio), (5,), partial(_grid, count=count, ratio=ratio))
        for count in COUNTS
        for ratio in RATIOS
        if (count, ratio) != (COUNT, RATIO)
    ),
)
DIRECTIONS = (
    Direction("L_entity helps", ENTITY, BASELINE, "Table 3: 48.9 over 40.5"),
    Direction("L_mask helps", MASKS, BASELINE, "Table 3: 44.8 over 40.5"),
    Direction("both are better than neither", FULL, BASELINE, "Table 3: 53.8 over 40.5"),
    Direction("both are better than L_entity alone", FULL, ENTITY, "Table 3: 53.8 over 48.9"),
    Direction("both are better than L_mask alone", FULL, MASKS, "Table 3: 53.8 over 44.8"),
    Direction("L_mask as in the paper helps", PAPER_MASKS, BASELINE, "Table 3: 44.8 over 40.5"),
    Direction(
        "both, with L_mask as in the paper, are better than neither",
        PAPER_FULL,
        BASELINE,
        "Table 3: 53.8 over 40.5",
    ),
    Direction(
        "masking all entities is better than masking one", ENTITY, ONE, "Table 4: 48.9 over 47.0"
    ),
    Direction(
        "masking entities is better than masking all nouns",
        ENTITY,
        NOUNS,
        "Table 4: 48.9 over 45.4",
    ),
    Direction(
        "completion is better than a multi-label contrast",
        ENTITY,
        LABELS,
        "Table 4: 48.9 over 44.5",
    ),
    Direction(
        "completion is better than MLM with groups", ENTITY, WORDS, "Table 4: 48.9 over 42.8"
    ),
    Direction(
        "MLM with groups is better than without", WORDS, TEXT_WORDS, "Table 4: 42.8 over 36.3"
    ),
    *(
        Direction(
            f"8 groups are better than 16 at r = {ratio:g}",
            cell(8, ratio),
            cell(16, ratio),
            "Table 5",
        )
        for ratio in RATIOS
    ),
    Direction("r = 0.5 is better than 0.25", FULL, cell(8, 0.25), "Table 5, text"),
    Direction("r = 0.5 is better than 1", FULL, cell(8, 1.0), "Table 5: 53.8 over 50.4"),
    Direction("mask consistency is better than group consistency", FULL, GROUPS, "Table 6"),
    Direction(
        "classes that are entities gain",
        FULL,
        BASELINE,
        "Table 7: 24.8 over 17.2",
        figure="seen entities",
    ),
    Direction(
        "classes that are none gain",
        FULL,
        BASELINE,
        "Table 7: 25.9 over 15.4",
        figure="unseen entities",
    ),
)


def mask_loss(variant: str) -> str:
    """Say what L_mask is in the trainings of a variant of `ovsegmentor_pocket`."""
    method = ovsegmentor_pocket().method
    assert isinstance(method, OVSegmentorConfig)
    (ablation,) = (each for each in ABLATIONS if each.name == variant)

    masks = ablation.change(method).masks
    if masks is None:
        return "none"
    ways = {
        "paper": "both photos, online keys, eq. 10",
        "one_way": "one photo, momentum keys, scaled logits",
    }
    return f"{ways[masks.matching]}; weight {masks.weight:g} from {100 * masks.start:g} % on"
