"""What methods share: the contrast with its temperature, and a network that follows another."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.contrastive import image_to_text, info_nce
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.contrastive_objective import ema_update


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(shape), dim=-1)


def test_the_contrast_is_weighted_and_may_be_one_sided():
    image, text = unit(5, 7), unit(5, 7)
    for symmetric, loss in ((True, info_nce), (False, image_to_text)):
        term = ContrastiveConfig(weight=0.5, symmetric=symmetric).build()
        losses = term(image, text, lambda tensor: tensor)
        assert_close(losses.terms, {"cross": 0.5 * loss(image, text, torch.tensor(1 / 0.07))})
        assert_close(losses.metrics["logit_scale"], torch.tensor(1 / 0.07))


def test_the_contrast_is_over_all_that_is_gathered():
    image, text = unit(6, 7), unit(6, 7)
    others = iter([image[2:], text[2:]])
    term = ContrastiveConfig().build()
    part = term(image[:2], text[:2], lambda tensor: torch.cat([tensor, next(others)]))
    assert_close(part.terms, term(image, text, lambda tensor: tensor).terms)


def test_the_scale_stays_in_its_bounds():
    term = ContrastiveConfig().build()
    with torch.no_grad():
        term.log_scale.fill_(9.0)
    assert_close(term.scale, 100.0, atol=1e-3, rtol=0)
    term.after_step()
    assert_close(term.log_scale.item(), math.log(100.0))
    term.factor.backward()
    assert term.log_scale.grad > 0


def test_following_is_a_moving_average():
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.9 * teacher.weight.detach() + 0.1 * student.weight.detach()
    ema_update(teacher, student, 0.9)
    assert_close(teacher.weight.data, expected)
    ema_update(teacher, student, 0.0)
    assert_close(list(teacher.parameters()), list(student.parameters()))
    before = student.weight.detach().clone()
    ema_update(teacher, student, 1.0)
    assert torch.equal(student.weight, before)
