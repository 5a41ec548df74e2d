"""Scores of classes with synonyms: maximum, mean and soft vote."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from maskfree.inference.config import Inference
from maskfree.inference.postprocessing import Postprocessing
from maskfree.ops.label_map import mean_of_synonyms, vote_of_synonyms
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary

COUNTS = (2, 1, 3)
SCALE = 7.0


def scores() -> torch.Tensor:
    return torch.rand(2, 6, 3, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1


def plainly(values: list[float], kind: str) -> float:
    if kind == "mean":
        return sum(values) / len(values)
    return math.log(sum(math.exp(SCALE * value) for value in values) / len(values)) / SCALE


@pytest.mark.parametrize("kind", ["mean", "vote"])
def test_pooling_is_that_of_plain_loops(kind):
    given = scores()
    found = mean_of_synonyms(given, COUNTS)
    if kind == "vote":
        found = vote_of_synonyms(given, COUNTS, SCALE)

    wanted = torch.empty(2, 3, 3, 4)
    for photo in range(2):
        for row in range(3):
            for column in range(4):
                values = given[photo, :, row, column].tolist()
                for number, part in enumerate((values[:2], values[2:3], values[3:])):
                    wanted[photo, number, row, column] = plainly(part, kind)
    assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_vote_is_the_mean_of_the_softmax_probabilities():
    given = scores()
    probabilities = (SCALE * given).softmax(1)
    means = torch.stack([part.mean(1) for part in probabilities.split(COUNTS, 1)], 1)
    voted = vote_of_synonyms(given, COUNTS, SCALE)
    assert torch.equal(means.argmax(1), voted.argmax(1))
    assert (voted >= mean_of_synonyms(given, COUNTS) - 1e-6).all()


def steps(synonyms: str, background: Background) -> Postprocessing:
    vocabulary = Vocabulary.parse(["dog/puppy", "cat", "cow/ox/calf"])
    return Postprocessing(Inference(synonyms=synonyms), vocabulary, background, 16, SCALE)


def test_synonyms_are_pooled_as_set_and_background_words_by_their_best():
    given = scores()[0]
    others = torch.rand(2, 3, 4)
    words = Background(words=(("sky",), ("wall",)))
    pooled = {
        "mean": mean_of_synonyms(given[None], COUNTS)[0],
        "vote": vote_of_synonyms(given[None], COUNTS, SCALE)[0],
        "max": torch.stack([part.amax(0) for part in given.split(COUNTS)]),
    }
    for kind, wanted in pooled.items():
        assert_close(steps(kind, Background()).class_scores(given), wanted)
        found = steps(kind, words).class_scores(torch.cat([given, others]))
        assert_close(found, torch.cat([wanted, others.amax(0, keepdim=True)]))


def test_other_scores_pool_by_the_maximum_only():
    with pytest.raises(ValueError, match="synonyms is 'mean', must be max"):
        replace(Inference(synonyms="mean"), score="softmax")
