"""The tag scores beside ViL-Seg's cosines."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.hub.convert.tag_scores import add_tag_scores
from maskfree.methods.vilseg import tag_scores as module
from maskfree.methods.vilseg.tag_scores_config import TagScoresConfig
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.ops.tag_scores import weighted_log_scores
from tiny import TINY_TAG_SCORES, tiny_vilseg_config

PIXELS = {"grouping": "pixels", "vision": None, "cluster": None}


def words(number, dim=18):
    return F.normalize(torch.randn(number, dim), dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (48, 80), (16, 16)])
def test_tag_scores_are_added_at_every_patch(size):
    method = tiny_vilseg_config(tag_scores=TINY_TAG_SCORES, **PIXELS).build().eval()
    images, classes = torch.rand(2, 3, *size), words(4)
    scores = method.segment(images, classes)
    assert scores.shape == (2, 4, size[0] // 16, size[1] // 16)
    assert scores.isfinite().all()
    tag_scores, method.tag_scores = method.tag_scores, None
    plain = method.segment(images, classes)
    logits, cosines = tag_scores.logits(images), tag_scores.cosines(classes)
    expected = tag_scores.scores(*logits, *cosines, size, 16)
    assert_close(scores - plain, expected)


@torch.no_grad()
def test_a_word_that_no_tag_means_gets_the_neutral_score_at_every_patch():
    weighting = replace(module.TAG_WEIGHTING, max_uncovered_cosine=1.0, neutral_score=0.2)
    cosines = torch.rand(6, 3) * 2 - 1
    scores = weighted_log_scores(torch.rand(2, 3, 4, 5), cosines, weighting)
    expected = weighting.weight * (1 + weighting.photo_weight) * torch.tensor(0.2).log()
    assert_close(scores, expected.expand_as(scores))


@torch.no_grad()
def test_a_class_scores_the_word_that_is_its_name(monkeypatch):
    monkeypatch.setattr(module, "CONCEPT_WEIGHTING", replace(module.CONCEPT_WEIGHTING, weight=0.0))
    monkeypatch.setattr(module, "TAG_WEIGHTING", replace(module.TAG_WEIGHTING, neutral_score=0.2))
    tag_scores = tiny_vilseg_config(tag_scores=TINY_TAG_SCORES, **PIXELS).build().eval().tag_scores
    tag_scores.classifier.bias.fill_(-50)
    tag_scores.classifier.bias[3] = 50  # the class 3 shows everywhere
    named, other = tag_scores.tag_names.texts[3], -tag_scores.tag_names.texts[3]
    tag_scores.tag_kinds.texts.copy_(tag_scores.tag_names.texts[:5])
    logits = tag_scores.logits(torch.rand(1, 3, 64, 64))
    cosines = tag_scores.cosines(torch.stack([other, named]))
    scores = tag_scores.scores(*logits, *cosines, (64, 64), 16)
    assert (scores[:, 1] > scores[:, 0] + 0.1).all()


def test_only_the_head_learns():
    tag_scores = tiny_vilseg_config(tag_scores=TINY_TAG_SCORES, **PIXELS).build().tag_scores
    learning = {
        name.split(".")[0]
        for name, parameter in tag_scores.named_parameters()
        if parameter.requires_grad
    }
    assert learning == {"concepts"}


def test_the_head_learns_what_captions_name():
    torch.manual_seed(0)
    tag_scores = tiny_vilseg_config(tag_scores=TINY_TAG_SCORES, **PIXELS).build().tag_scores
    images, nouns = torch.rand(4, 3, 64, 64), tag_scores.concept_names.texts[[1, 4]]
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    images[:2] *= 0.2
    optimizer = torch.optim.Adam(tag_scores.concepts.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        loss = tag_scores(images, nouns, weights).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        shares = tag_scores.logits(images)[0].softmax(1).mean((2, 3))
    assert (shares[:2, 1] > shares[:2, 4]).all()
    assert (shares[2:, 4] > shares[2:, 1]).all()


def test_another_tower_is_refused():
    for image in (
        ImageEncoderConfig(
            "efficientnet_lite", TINY_TAG_SCORES.image.architecture, output_stride=16
        ),
    ):
        with pytest.raises(ValueError, match="at a stride of 32 px"):
            tiny_vilseg_config(tag_scores=replace(TINY_TAG_SCORES, image=image), **PIXELS).build()


def test_tag_scores_without_a_classifier_cannot_be_added(tiny_tokenizer, tmp_path):
    config = tiny_vilseg_config(**PIXELS)
    for name in ("tags", "concepts"):
        (tmp_path / name).write_text("dog, puppy\tanimal\ncat\n", encoding="utf-8")
    lists = {"tags": tmp_path / "tags", "concepts": tmp_path / "concepts"}
    tag_scores = TagScoresConfig(image=TINY_TAG_SCORES.image)
    with pytest.raises(ValueError, match=r"tag_scores\.image\.weights is not set"):
        add_tag_scores(config.build(), config, tag_scores, tiny_tokenizer, ("a {}",), **lists)


def test_a_classifier_that_learns_is_held_to_what_it_said_at_first():
    tag_scores = (
        tiny_vilseg_config(tag_scores=replace(TINY_TAG_SCORES, distillation_weight=1.0), **PIXELS)
        .build()
        .tag_scores
    )
    with torch.no_grad():
        tag_scores.classifier.weight.normal_()  # as from a checkpoint
    images, nouns = torch.rand(2, 3, 64, 64), tag_scores.concept_names.texts[:2]
    tag_scores.on_train_start()
    assert tag_scores(images, nouns, torch.eye(2)).terms[
        "tag_distillation"
    ].item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        tag_scores.classifier.bias[0] += 3
    loss = tag_scores(images, nouns, torch.eye(2)).terms["tag_distillation"]
    assert loss > 0.05
    loss.backward()
    assert tag_scores.classifier.bias.grad[0] > 0
    assert all(parameter.grad is None for parameter in tag_scores.teacher.parameters())
