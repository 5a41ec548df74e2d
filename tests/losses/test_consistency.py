"""Consistency with a teacher's segments: closed forms, gradients where they belong, and nothing to
compare.
"""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.consistency import embedding_consistency, prototype_loss, semantic_consistency


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_embeddings_cost_one_minus_the_cosine_whatever_their_lengths():
    segments = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, -5.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert_close(
        embedding_consistency(segments, teacher),
        torch.tensor([0.0, 2.0, 1.0, 1 - math.sqrt(0.5), 1.0]),
    )


def test_the_gradient_of_a_zero_vector_is_finite():
    segments = torch.zeros(2, 3, requires_grad=True)
    embedding_consistency(segments, unit(2, 3)).sum().backward()
    assert segments.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_certain_class_costs_the_cross_entropy_of_scaled_cosines(scale):
    cosines, labels = unit(6, 7) @ unit(5, 7, seed=1).T, torch.tensor([0, 4, 2, 2, 1, 3])
    losses = semantic_consistency(cosines, F.one_hot(labels, 5).float(), scale)
    logits = scale * cosines.double()
    expected = logits.exp().sum(1).log() - logits.gather(1, labels[:, None])[:, 0]
    assert_close(losses, expected.float())


def test_equal_cosines_cost_log_k_whatever_the_targets():
    targets = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    losses = semantic_consistency(
        torch.full((6, 4), 0.3), targets / targets.sum(1, keepdim=True), 50.0
    )
    assert_close(losses, torch.full((6,), math.log(4)))


def test_targets_in_doubt_cost_least_at_their_own_distribution():
    cosines = (unit(6, 7) @ unit(4, 7, seed=1).T).requires_grad_()
    targets = (20.0 * cosines.detach()).softmax(1)
    losses = semantic_consistency(cosines, targets, 20.0)
    assert_close(losses, -(targets * targets.log()).sum(1))
    assert torch.autograd.grad(losses.sum(), cosines)[0].abs().max() < 1e-5


def test_prototypes_are_drawn_to_their_segments_only():
    teacher, prototypes = unit(6, 7).requires_grad_(), unit(4, 7, seed=1).requires_grad_()
    labels = torch.tensor([-1, 2, 2, -3, 3, -1])
    loss = prototype_loss(2 * teacher, labels, 5 * prototypes)
    cosines = (teacher * prototypes[labels]).sum(1)
    assert_close(loss, (1 - cosines)[labels >= 0].mean())
    loss.backward()
    assert teacher.grad is None
    assert prototypes.grad.abs().amax(1).gt(0).tolist() == [False, False, True, True]


def test_eq_4_moves_a_prototype_to_the_mean_direction_as_kmeans_does():
    teacher = F.normalize(
        unit(1, 7) + 0.3 * torch.randn(20, 7, generator=torch.Generator().manual_seed(3)), dim=1
    )
    prototypes, labels = unit(1, 7, seed=2).requires_grad_(), torch.zeros(20, dtype=torch.long)
    optimizer = torch.optim.SGD([prototypes], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        prototype_loss(teacher, labels, prototypes).backward()
        optimizer.step()
    assert_close(
        F.normalize(prototypes.detach(), dim=1)[0],
        F.normalize(teacher.mean(0), dim=0),
        atol=1e-3,
        rtol=0,
    )


@pytest.mark.parametrize("labels", [[-1, -4, -1], []], ids=["only others", "no segment"])
def test_without_segments_of_theirs_the_loss_is_zero_with_a_graph(labels):
    prototypes = unit(4, 7, seed=1).requires_grad_()
    loss = prototype_loss(unit(len(labels), 7), torch.tensor(labels, dtype=torch.long), prototypes)
    assert loss == 0
    loss.backward()
    assert not prototypes.grad.any()


def test_no_segments_give_no_values():
    assert embedding_consistency(torch.zeros(0, 7), torch.zeros(0, 7)).shape == (0,)
    assert semantic_consistency(torch.zeros(0, 4), torch.zeros(0, 4), 1.0).shape == (0,)


def test_half_precision_is_widened():
    segments, teacher, labels = unit(6, 7), unit(6, 7, seed=1), torch.arange(6) % 4
    expected = prototype_loss(teacher, labels, unit(4, 7, seed=2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(prototype_loss(teacher, labels, unit(4, 7, seed=2)), expected, atol=0, rtol=0)
    assert embedding_consistency(segments.bfloat16(), teacher.bfloat16()).dtype == torch.float32
