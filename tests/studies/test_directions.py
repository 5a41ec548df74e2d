"""What claims and tables make of the rows of a study."""

import pytest
from rich.console import Console

from studies.directions import Direction, agreement, compared, found, tables, together, verdict
from studies.ledger import Measure, bare

COCO = Measure("coco-mini", "coco-mini", bare(names="synonyms"))
PLAIN = Measure("coco-mini, plain names", "coco-mini", bare())


def row(variant, seed, mean_iou, measure=COCO.name, **parts):
    return {
        "variant": variant,
        "seed": seed,
        "measure": measure,
        "mean_iou": mean_iou,
        "parts": parts,
    }


ROWS = [
    row("full", 0, 0.4),
    row("full", 1, 0.5),
    row("full", 2, 0.6),
    row("less", 0, 0.3),
    row("less", 1, 0.6),
]


def test_a_direction_compares_seed_by_seed():
    direction = Direction("helps", "full", "less", "Table 2")
    ((name, gains),) = compared(ROWS, direction, [COCO, PLAIN])
    assert name == COCO.name
    assert gains == pytest.approx([0.1, -0.1])
    assert compared(ROWS, Direction("helps", "more", "full", "Table 1"), [COCO]) == []


def test_a_direction_may_be_about_two_measures_of_one_variant():
    rows = [*ROWS, row("full", 1, 0.2, PLAIN.name)]
    ((_, gains),) = compared(
        rows, Direction("synonyms help", "full", "full", "ours", (COCO, PLAIN)), []
    )
    assert gains == pytest.approx([0.3])


def test_a_direction_may_be_about_a_part_of_the_classes():
    rows = [
        row("full", 0, 0.4, seen=0.7),
        row("less", 0, 0.5, seen=0.2),
        row("less", 1, 0.5, seen=None),
    ]
    ((_, gains),) = compared(
        rows, Direction("seen ones gain", "full", "less", "Table 7", figure="seen"), [COCO]
    )
    assert gains == pytest.approx([0.5])


def test_verdicts_need_more_than_one_seed_to_hold():
    assert verdict([0.1, 0.2]) == "holds"
    assert verdict([-0.1, 0.0]) == "holds not"
    assert verdict([-0.1, 0.1]) == "mixed"
    assert verdict([0.1]) == "one seed, agrees"
    assert verdict([0.0]) == "one seed, does not agree"
    assert agreement([0.1, 0.0, 0.3]) == "2 of 3"


def test_what_stands_together_has_the_same_seeds():
    assert together(ROWS, ["less", "nothing", "full"], COCO.name) == [[0.3, 0.6], [], [0.4, 0.5]]
    assert together([], ["less"], COCO.name) == [[]]


def test_tables_have_means_spreads_and_how_many_seeds_agree():
    console = Console(width=200, file=None)
    with console.capture() as captured:
        console.print(
            *tables(ROWS, [COCO, PLAIN], [Direction("more helps", "full", "less", "Table 2")])
        )
    text = captured.get()
    assert "50.0 ± 10.0" in text
    assert "1 of 2" in text
    assert "mixed" in text
    assert found(ROWS, "less", COCO.name) == {0: 0.3, 1: 0.6}
