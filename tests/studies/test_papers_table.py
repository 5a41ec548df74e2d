"""The table of the papers' claims sorts measures by what they say, with their seeds."""

from __future__ import annotations

from studies.directions import Direction
from studies.tables.papers import Paper, found

VALUES = {
    "all": [(0.3, 0.2), (0.4, 0.1)],
    "some": [(0.3, 0.2), (0.1, 0.2)],
    "none": [(0.1, 0.2), (0.2, 0.2)],
    "one for": [(0.3, 0.2)],
    "one against": [(0.1, 0.2)],
}


class Named:
    """A measure, of which only the name matters."""

    def __init__(self, name: str):
        self.name = name


def paper() -> Paper:
    rows = [
        {"variant": variant, "measure": measure, "seed": seed, "mean_iou": value, "parts": {}}
        for measure, pairs in VALUES.items()
        for seed, pair in enumerate(pairs)
        for variant, value in zip(("ours", "theirs"), pair, strict=True)
    ]
    return Paper("P", rows, (), [Named(name) for name in VALUES], ())  # pyright: ignore


def test_measures_are_sorted_by_verdict_and_carry_their_seeds():
    claim = [Direction("better", "ours", "theirs", "Table 1")]
    assert found(paper(), claim) == (
        "all (2), one for (1)",
        "some (2)",
        "none (2), one against (1)",
    )
    other = [Direction("better", "theirs", "ours", "Table 1")]
    assert found(paper(), other)[0] == "one against (1)"
    assert found(paper(), [Direction("better", "ours", "nobody", "Table 1")]) == (
        "not measured yet",
        "",
        "",
    )
