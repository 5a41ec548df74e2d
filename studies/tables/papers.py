"""What the three papers claim, in one table: holds here, does not, or cannot be tested here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studies import clips4, clips4_variants, ovsegmentor, ovsegmentor_variants, vilseg
from studies.directions import Direction, compared, verdict
from studies.ledger import Measure, read
from studies.tables.markup import RESULTS, Row, markdown
from studies.tables.study import REPRODUCE

OURS = "ours"
"""Begins the source of a claim that no paper makes."""


@dataclass(frozen=True)
class Paper:
    """Claims of a paper, and the rows of its study."""

    name: str
    rows: Sequence[Row]
    directions: Sequence[Direction]
    measures: Sequence[Measure]
    untestable: Sequence[tuple[str, str, str]]
    """Claims that cannot be tested here: claim, source and why."""


SUPERVISED = "needs models that learned from masks"
FULL_SCALE = "12 million pairs and many GPUs"
VILSEG = (
    ("better than SPNet, ZS3, CaGNet and SIGN on unseen classes", "Table 1", SUPERVISED),
    ("with self-training, better than theirs with it", "Table 1", SUPERVISED),
    ("the scores of VOC, Context and COCO-Stuff", "Tables 1, 2", FULL_SCALE),
)
OVSEGMENTOR = (
    ("better than fine-tuned DeiT, MoCo and DINO", "Table 1", "fine-tuning on VOC, GPUs"),
    ("better than GroupViT on the same pairs", "Table 1", "4 million pairs and GPUs"),
    ("better than ViL-Seg and most supervised models on unseen classes", "Table 2", SUPERVISED),
    ("more pairs help: CC12M over CC4M", "section 4.3", FULL_SCALE),
)
CLIPS4 = (
    ("better than GroupViT and ReCo", "Table 2", "a CLIP as teacher, COCO-Stuff, a GPU"),
    ("better than IIC to ConceptContrast", "Table 4", "VOC trainaug, a CLIP, a GPU"),
    ("better than trackers learned from videos", "Table 5", "their models, a CLIP, a GPU"),
)


def papers() -> Iterator[Paper]:
    """The papers, in the order of their years."""
    yield Paper(
        "ViL-Seg", vilseg.study_rows(RESULTS), vilseg.DIRECTIONS, vilseg.ALL_MEASURES, VILSEG
    )
    yield Paper(
        "OVSegmentor",
        ovsegmentor.study_rows(RESULTS),
        ovsegmentor_variants.DIRECTIONS,
        ovsegmentor_variants.ALL_MEASURES,
        OVSEGMENTOR,
    )
    yield Paper(
        "CLIP-S4",
        clips4_variants.for_every_seed(clips4_variants.latest(read(RESULTS, clips4.KIND))),
        clips4_variants.DIRECTIONS,
        clips4_variants.MEASURES,
        CLIPS4,
    )


def paper_claims(_: Sequence[Row]) -> str:
    """Each claim of a paper, and the measures by what they say of it, each with its seeds."""
    lines = []
    for paper in papers():
        # A claim may have several directions, one for each of its measures.
        claimed: dict[tuple[str, str], list[Direction]] = {}
        for direction in paper.directions:
            if not direction.source.startswith(OURS):
                claimed.setdefault((direction.claim, direction.source), []).append(direction)

        name = paper.name
        for claim, directions in claimed.items():
            lines.append((name, *claim, *found(paper, directions)))
            name = ""
        for claim, source, why in paper.untestable:
            lines.append(("", claim, source, f"not testable here: {why}", "", ""))
    header = ("paper", "claim", "from", "holds on (seeds)", "mixed", "holds not")
    return markdown(header, lines, "llllll", REPRODUCE)


def found(paper: Paper, directions: Sequence[Direction]) -> tuple[str, str, str]:
    """Measures on which a claim holds, is mixed and holds not, with the number of seeds."""
    holds, mixed, holds_not = [], [], []
    place = {"holds": holds, "one seed, agrees": holds, "mixed": mixed}
    for direction in directions:
        for measure, gains in compared(paper.rows, direction, paper.measures):
            place.get(verdict(gains), holds_not).append(f"{measure} ({len(gains)})")

    if not (holds or mixed or holds_not):
        return "not measured yet", "", ""
    return ", ".join(holds), ", ".join(mixed), ", ".join(holds_not)
