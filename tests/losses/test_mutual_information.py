import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information


def assignments(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).softmax(1)


def test_flat_assignments_share_nothing():
    flat = torch.full((2, 5, 3, 4), 1 / 5)
    assert_close(
        negative_mutual_information(co_occurrence(flat, flat)), torch.tensor(0.0), atol=1e-6, rtol=0
    )


def test_one_cluster_for_all_is_as_bad():
    one = torch.zeros(2, 5, 3, 4)
    one[:, 2] = 1
    assert_close(
        negative_mutual_information(co_occurrence(one, one)), torch.tensor(0.0), atol=1e-5, rtol=0
    )


def test_a_perfect_match_of_even_clusters_shares_log_c():
    sure = F.one_hot(torch.arange(2 * 5 * 4).view(2, 5, 4) % 5, 5).movedim(-1, 1).float()
    value = negative_mutual_information(co_occurrence(sure, sure))
    assert_close(value, torch.tensor(-math.log(5)), atol=1e-5, rtol=0)
    renamed = negative_mutual_information(co_occurrence(sure, sure[:, [1, 0, 2, 4, 3]]))
    assert_close(renamed, value, atol=1e-5, rtol=0)


def test_better_agreement_costs_less():
    first = (4 * torch.randn(2, 5, 6, 7)).softmax(1)
    other = (4 * torch.randn(2, 5, 6, 7)).softmax(1)
    assert negative_mutual_information(co_occurrence(first, first)) < negative_mutual_information(
        co_occurrence(first, other)
    )


def test_counts_are_sums_over_pixels_of_products():
    first, second = assignments(2, 3, 4, 5), assignments(2, 3, 4, 5)
    expected = sum(
        torch.outer(first[b, :, y, x], second[b, :, y, x])
        for b in range(2)
        for y in range(4)
        for x in range(5)
    )
    assert_close(co_occurrence(first, second)[0, 0], expected)
    assert_close(co_occurrence(first, second).sum(), torch.tensor(2.0 * 4 * 5))


def test_displacement_pairs_neighbors():
    first, second = assignments(1, 3, 4, 5), assignments(1, 3, 4, 5)
    counts = co_occurrence(first, second, displacement=1)
    assert counts.shape == (3, 3, 3, 3)
    below_left = torch.einsum("bihw,bjhw->ij", first[..., 1:, :-1], second[..., :-1, 1:])
    assert_close(counts[2, 0], below_left)
    assert_close(counts[1, 1], co_occurrence(first, second)[0, 0])


def test_batches_may_be_counted_apart():
    first, second = assignments(5, 3, 4, 6), assignments(5, 3, 4, 6)
    apart = co_occurrence(first[:2], second[:2], 1) + co_occurrence(first[2:], second[2:], 1)
    assert_close(apart, co_occurrence(first, second, 1))


def test_never_used_cluster_gives_finite_gradients():
    logits = torch.randn(2, 4, 3, 5)
    logits[:, 3] = -200
    logits.requires_grad_()
    negative_mutual_information(co_occurrence(logits.softmax(1), logits.softmax(1))).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("corners", [True, False])
def test_numbers_of_the_original(fixture_tensors, corners):
    """IID_segmentation_loss of xu-ji/IIC@b7602b7, the collapsed form.

    The augmented view is warped back.
    """
    numbers = fixture_tensors("iic_loss")
    compared = 0
    for name, expected in numbers.items():
        parts = name.split(".")
        if (
            parts[0] != "out"
            or parts[2] != f"align_corners_{corners}"
            or parts[3] != "collapsed"
            or not name.endswith(("loss", "loss_lamb1"))
        ):
            continue
        case, displacement = parts[1], int(parts[4][1:])
        lamb = (
            float(f"{parts[5].removeprefix('lamb')}.{parts[6]}") if name.endswith(".loss") else 1.0
        )
        first = numbers[f"in.{case}.x1"].clone().requires_grad_()
        second = numbers[f"in.{case}.x2"].clone().requires_grad_()
        grid = F.affine_grid(
            numbers[f"in.{case}.affine2_to_1"], list(first.shape), align_corners=corners
        )
        back = F.grid_sample(second, grid, padding_mode="zeros", align_corners=corners)
        # Pixels that the warp leaves undefined count in neither view.
        mask = 1 if case == "flip" else numbers[f"in.{case}.mask1"][:, None]
        counts = co_occurrence(first * mask, back * mask, displacement)
        loss = negative_mutual_information(counts, lamb)
        assert_close(loss, expected, rtol=1e-5, atol=2e-6)
        gradient = name.removesuffix(".loss") + ".grad_x1"
        if name.endswith(".loss") and gradient in numbers:
            loss.backward()
            assert_close(first.grad, numbers[gradient], rtol=1e-3, atol=1e-7)
            assert_close(second.grad, numbers[gradient[:-1] + "2"], rtol=1e-3, atol=1e-7)
        compared += 1
    assert compared >= 12
