"""Matching a batch: exact, a permutation of each problem, and unmoved by order."""

import itertools

import pytest
import torch

from maskfree.ops.matching import match


def total(similarity, columns):
    return similarity.gather(2, columns[..., None]).sum((1, 2))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (4, 4), (3, 5)])
def test_no_other_assignment_has_a_higher_sum(rows, columns):
    similarity = torch.randn(7, rows, columns)
    found = match(similarity)
    assert found.shape == (7, rows)
    every = torch.tensor(list(itertools.permutations(range(columns), rows)))
    best = torch.stack([total(similarity, every[i].expand(7, -1)) for i in range(len(every))]).amax(
        0
    )
    torch.testing.assert_close(total(similarity, found), best)
    assert all(len(set(row)) == rows for row in found.tolist())


def test_the_best_sum_may_pass_over_the_best_pair():
    similarity = torch.tensor([[[0.9, 0.8], [0.7, 0.1]]])
    assert match(similarity).tolist() == [[1, 0]]


def test_a_known_order_is_found_and_follows_the_columns():
    order = torch.stack([torch.randperm(8) for _ in range(5)])
    similarity = torch.nn.functional.one_hot(order, 8).float() + 0.1 * torch.rand(5, 8, 8)
    assert torch.equal(match(similarity), order)
    assert torch.equal(match(similarity.mT), order.argsort(1))


def test_a_problem_does_not_depend_on_its_neighbors():
    similarity = torch.randn(6, 4, 4)
    assert torch.equal(match(similarity)[2:3], match(similarity[2:3]))
    assert match(similarity[:0]).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_takes_any_precision_and_passes_no_gradient(dtype):
    similarity = torch.eye(3, dtype=dtype).flip(0)[None].requires_grad_()
    found = match(similarity)
    assert found.tolist() == [[2, 1, 0]]
    assert not found.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_named(value):
    similarity = torch.zeros(2, 3, 3)
    similarity[1, 2, 0] = value
    with pytest.raises(ValueError, match="not finite"):
        match(similarity)


def test_more_rows_than_columns_have_no_assignment():
    with pytest.raises(ValueError, match="4 rows and 3 columns"):
        match(torch.zeros(2, 4, 3))
