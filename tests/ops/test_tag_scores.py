import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.tag_scores import (
    best_cosines,
    log_scores,
    reweighted_by_photo,
    tag_weights,
    with_kinds,
)


def test_a_tag_is_as_close_as_its_closest_name():
    texts = F.normalize(torch.randn(5, 7), dim=-1)
    words = F.normalize(torch.randn(3, 7), dim=-1)
    owners = torch.tensor([2, 0, 2, 0, 2])
    found = best_cosines(texts, owners, words, 4)
    assert_close(found[0], torch.maximum(texts[1] @ words.T, texts[3] @ words.T))
    assert_close(found[2], (texts[[0, 2, 4]] @ words.T).amax(0))
    assert (found[[1, 3]] == -1).all()


def test_the_kind_of_a_tag_weighs_as_much_as_its_name():
    names = torch.tensor([[0.6, 0.1], [0.95, 0.2], [0.6, 0.3]])
    kinds = torch.tensor([[0.2, 0.8], [0.1, 0.1], [-1.0, -1.0]])
    assert_close(with_kinds(names, kinds), torch.tensor([[0.4, 0.8], [0.95, 0.15], [0.6, 0.3]]))


def test_the_closest_word_gets_the_tag_and_a_tag_far_from_all_counts_for_none():
    cosines = torch.tensor([[0.9, 0.8], [0.3, 0.1], [0.5, 0.5]])
    given = tag_weights(cosines, temperature=0.1, min_cosine=0.3, cosine_range=0.4)
    assert_close(given, torch.tensor([[1.0, torch.e**-1], [0.0, 0.0], [0.5, 0.5]]))


def test_synonyms_do_not_halve_a_score():
    """A softmax over the words would: two names for one thing would each get half."""
    once = tag_weights(torch.tensor([[0.9, 0.2]]), 0.1, 0.3, 0.4)
    twice = tag_weights(torch.tensor([[0.9, 0.9, 0.2]]), 0.1, 0.3, 0.4)
    assert_close(twice[:, [0, 2]], once)


def test_the_mean_score_of_the_photo_counts_for_each_patch():
    scores = torch.tensor([0.0, 0.5, 0.5, 0.5]).view(1, 2, 1, 2)
    logs = log_scores(scores, min_score=0.02, photo_weight=1.0)
    assert logs[0, 0, 0, 0] < logs[0, 1, 0, 0]
    assert logs[0, 0, 0, 1] < logs[0, 1, 0, 1]  # equal scores here, but fewer in the photo
    assert_close(log_scores(scores, min_score=0.02, photo_weight=0.0), (scores + 0.02).log())


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_what_shows_nowhere_else_fades(size):
    likely = torch.rand(2, 4, *size).softmax(1)
    result = reweighted_by_photo(likely)
    assert_close(result.sum(1), torch.ones(2, *size))
    if size == (1, 1):
        assert_close(result, likely.square() / likely.square().sum(1, keepdim=True))
