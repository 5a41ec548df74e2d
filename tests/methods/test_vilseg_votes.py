"""The votes beside ViL-Seg's cosines."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.hub.convert.votes import add_votes
from maskfree.methods.vilseg.votes_config import VotesConfig
from maskfree.nn.encoder_config import ImageEncoderConfig
from tiny import TINY_VOTES, tiny_vilseg_config

PIXELS = {"grouping": "pixels", "vision": None, "cluster": None}


def words(number, dim=18):
    return F.normalize(torch.randn(number, dim), dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (48, 80), (16, 16)])
def test_votes_are_added_at_every_patch(size):
    method = tiny_vilseg_config(votes=TINY_VOTES, **PIXELS).build().eval()
    images, classes = torch.rand(2, 3, *size), words(4)
    scores = method.segment(images, classes)
    assert scores.shape == (2, 4, size[0] // 16, size[1] // 16)
    assert scores.isfinite().all()
    votes, method.votes = method.votes, None
    assert_close(scores - method.segment(images, classes), votes.scores(images, classes, 16))


@torch.no_grad()
def test_a_word_that_no_entry_means_is_neither_helped_nor_held_back():
    """Where nothing is near the word, its votes are the neutral ones at every patch, whatever shows there."""
    nothing = replace(TINY_VOTES.tag_votes, covered=1.0, neutral=0.2)
    silent = replace(TINY_VOTES.concept_votes, weight=0.0)
    config = replace(TINY_VOTES, tag_votes=nothing, concept_votes=silent, offset=0.0)
    votes = tiny_vilseg_config(votes=config, **PIXELS).build().eval().votes
    scores = votes.scores(torch.rand(1, 3, 64, 64), words(3), 16)
    expected = nothing.weight * (1 + nothing.whole) * torch.tensor(0.2).log()
    assert_close(scores, expected.expand_as(scores))


@torch.no_grad()
def test_a_class_speaks_for_the_word_that_is_its_name():
    config = replace(TINY_VOTES, concept_votes=replace(TINY_VOTES.concept_votes, weight=0.0))
    votes = tiny_vilseg_config(votes=config, **PIXELS).build().eval().votes
    votes.classifier.bias.fill_(-50)
    votes.classifier.bias[3] = 50  # the class 3 shows everywhere
    named, other = votes.tag_names.texts[3], -votes.tag_names.texts[3]
    votes.tag_kinds.texts.copy_(votes.tag_names.texts[:5])
    scores = votes.scores(torch.rand(1, 3, 64, 64), torch.stack([other, named]), 16)
    assert (scores[:, 1] > scores[:, 0] + 0.1).all()


def test_only_the_head_learns():
    votes = tiny_vilseg_config(votes=TINY_VOTES, **PIXELS).build().votes
    learning = {
        name.split(".")[0]
        for name, parameter in votes.named_parameters()
        if parameter.requires_grad
    }
    assert learning == {"concepts"}


def test_the_head_learns_what_captions_name():
    torch.manual_seed(0)
    votes = tiny_vilseg_config(votes=TINY_VOTES, **PIXELS).build().votes
    images, nouns = torch.rand(4, 3, 64, 64), votes.concept_names.texts[[1, 4]]
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    images[:2] *= 0.2
    optimizer = torch.optim.Adam(votes.concepts.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        loss = votes(images, nouns, weights).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        shares = votes._logits(images)[0].softmax(1).mean((2, 3))
    assert (shares[:2, 1] > shares[:2, 4]).all()
    assert (shares[2:, 4] > shares[2:, 1]).all()


def test_another_tower_is_refused():
    for tower in (
        ImageEncoderConfig("efficientnet_lite", TINY_VOTES.tower.architecture, output_stride=16),
    ):
        with pytest.raises(ValueError, match="at a stride of 32 px"):
            tiny_vilseg_config(votes=replace(TINY_VOTES, tower=tower), **PIXELS).build()


def test_votes_without_a_classifier_cannot_be_added(tiny_tokenizer, tmp_path):
    config = tiny_vilseg_config(**PIXELS)
    for name in ("tags", "concepts"):
        (tmp_path / name).write_text("dog, puppy\tanimal\ncat\n", encoding="utf-8")
    lists = {"tags": tmp_path / "tags", "concepts": tmp_path / "concepts"}
    votes = VotesConfig(tower=TINY_VOTES.tower)
    with pytest.raises(ValueError, match=r"votes\.tower\.weights is not set"):
        add_votes(config.build(), config, votes, tiny_tokenizer, ("a {}",), **lists)


def test_a_classifier_that_learns_is_held_to_what_it_said_at_first():
    votes = tiny_vilseg_config(votes=replace(TINY_VOTES, keep=1.0), **PIXELS).build().votes
    with torch.no_grad():
        votes.classifier.weight.normal_()  # as from a checkpoint
    images, nouns = torch.rand(2, 3, 64, 64), votes.concept_names.texts[:2]
    votes.on_train_start()
    assert votes(images, nouns, torch.eye(2)).terms["kept"].item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        votes.classifier.bias[0] += 3
    loss = votes(images, nouns, torch.eye(2)).terms["kept"]
    assert loss > 0.05
    loss.backward()
    assert votes.classifier.bias.grad[0] > 0
    assert all(parameter.grad is None for parameter in votes.teacher.parameters())
