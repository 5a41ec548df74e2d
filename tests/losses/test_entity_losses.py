"""The terms that the paper compares with: value, symmetry, what does not count, and parity of the
plain contrast.
"""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.contrastive import info_nce
from maskfree.losses.entities import group_contrast, masked_language, multi_label_contrast
from shared_folder import SHARED

FIXTURE = SHARED / "fixtures" / "ovsegmentor_losses"
SETTINGS = FIXTURE.with_suffix(".json")
HYPER_PARAMETERS = (
    json.loads(SETTINGS.read_text())["hyper_parameters"] if SETTINGS.exists() else {"cases": []}
)
CASES = [case for case in HYPER_PARAMETERS["cases"] if case["kind"] == "contrastive"]
SCALE = torch.tensor(7.0)


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


@pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_caption_loss_equals_the_released_code(case):
    tensors = load_file(FIXTURE.with_suffix(".safetensors"))
    known = {k.split(".", 2)[2]: v for k, v in tensors.items() if k.split(".")[1] == case["name"]}
    given = [known[name].requires_grad_() for name in ("image_x", "text_x", "logit_scale")]
    image, text, logit_scale = given
    loss = info_nce(
        F.normalize(image, dim=1), F.normalize(text, dim=1), logit_scale.exp().clamp_max(100.0)
    )
    if "loss_per_rank" in known:  # each rank gives the mean over its own rows
        assert_close(loss, known["loss_per_rank"].mean(), rtol=1e-5, atol=0)
        return
    assert_close(loss, known["loss"], rtol=1e-5, atol=0)
    loss.backward()
    for value, name in zip(given, ("image_x", "text_x", "logit_scale"), strict=True):
        assert_close(value.grad, known[f"grad_{name}"], rtol=1e-3, atol=1e-6)


def test_one_label_a_photo_is_the_plain_contrast():
    image, text = unit(5, 8), unit(5, 8)
    labeled = torch.ones(5, 1, dtype=torch.bool)
    assert_close(
        multi_label_contrast(image, text[:, None], labeled, SCALE), info_nce(image, text, SCALE)
    )


def test_uninformative_labels_cost_log_b_both_ways():
    """A photo owns 3 of 5 x 3 equal texts, and a text 1 of 5 equal photos."""
    image, texts = unit(1, 8).expand(5, 8), unit(1, 1, 8).expand(5, 3, 8)
    labeled = torch.ones(5, 3, dtype=torch.bool)
    assert_close(multi_label_contrast(image, texts, labeled, SCALE), torch.tensor(math.log(5)))


def test_labels_have_a_closed_form_one_by_one():
    image, texts = unit(4, 8), unit(4, 3, 8)
    labeled = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]).bool()
    rated = (SCALE * torch.einsum("bd,ctd->bct", image, texts)).exp()
    every = [(c, t) for c in range(4) for t in range(3) if labeled[c, t]]
    found = [
        -math.log(
            sum(rated[b, b, t] for t in range(3) if labeled[b, t])
            / sum(rated[b, c, t] for c, t in every)
        )
        for b in (0, 1, 3)
    ]
    picked = [-math.log(rated[c, c, t] / rated[:, c, t].sum()) for c, t in every]
    wanted = torch.tensor((sum(found) / 3 + sum(picked) / len(every)) / 2)
    assert_close(multi_label_contrast(image, texts, labeled, SCALE), wanted)


def test_a_label_that_is_none_may_be_anything():
    image, texts = unit(4, 8), unit(4, 3, 8)
    labeled = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]).bool()
    other = torch.where(labeled[..., None], texts, unit(4, 3, 8))
    loss = multi_label_contrast(image, texts, labeled, SCALE)
    assert_close(multi_label_contrast(image, other, labeled, SCALE), loss)
    order = torch.randperm(4)
    assert_close(multi_label_contrast(image[order], texts[order], labeled[order], SCALE), loss)


def test_masked_words_are_classified_and_the_others_ignored():
    logits = torch.randn(2, 4, 6)
    targets = torch.tensor([[-1, 3, -1, -1], [0, -1, 5, -1]])
    picked = logits.log_softmax(2)
    wanted = -(picked[0, 1, 3] + picked[1, 0, 0] + picked[1, 2, 5]) / 3
    assert_close(masked_language(logits, targets), wanted)
    assert_close(masked_language(torch.zeros(2, 4, 6), targets), torch.tensor(math.log(6)))


def test_like_groups_have_a_closed_form():
    groups = torch.eye(6).view(3, 2, 6)
    present = torch.ones(3, dtype=torch.bool)
    assert_close(
        group_contrast(groups, groups, present, SCALE), torch.tensor(math.log(1 + 5 * math.exp(-7)))
    )
    same = unit(1, 1, 8).expand(3, 2, 8)
    assert_close(group_contrast(same, same, present, SCALE), torch.tensor(math.log(6)))


def test_photos_without_partner_are_neither_asked_nor_negatives():
    first, second = unit(4, 3, 8), unit(4, 3, 8)
    present = torch.tensor([True, False, True, True])
    loss = group_contrast(first, second, present, SCALE)
    assert_close(loss, group_contrast(first[present], second[present], present[present], SCALE))
    assert_close(loss, info_nce(first[present].flatten(0, 1), second[present].flatten(0, 1), SCALE))
    assert_close(loss, group_contrast(second, first, present, SCALE))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: multi_label_contrast(x[:, 0], x, torch.zeros(4, 3, dtype=torch.bool), SCALE),
        lambda x: masked_language(x, torch.full((4, 3), -1)),
        lambda x: group_contrast(x, x, torch.zeros(4, dtype=torch.bool), SCALE),
    ],
    ids=["labels", "words", "groups"],
)
def test_without_anything_to_learn_from_a_loss_is_zero_with_a_graph(loss):
    values = unit(4, 3, 8).requires_grad_()
    nothing = loss(values)
    assert nothing == 0
    nothing.backward()
    assert_close(values.grad, torch.zeros_like(values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    image, texts = unit(4, 8), unit(4, 3, 8)
    labeled = torch.ones(4, 3, dtype=torch.bool)
    narrow = multi_label_contrast(image.to(dtype), texts.to(dtype), labeled, SCALE)
    assert narrow.dtype == torch.float32
    assert_close(narrow, multi_label_contrast(image, texts, labeled, SCALE), rtol=0.02, atol=0.02)
