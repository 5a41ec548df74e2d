"""Mask consistency: parity with the released arithmetic, and what the paper's means."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.mask_arithmetic import PAPER, RELEASED
from maskfree.losses.mask_consistency import (
    chosen,
    learning_only,
    mask_logits,
    matched_dice,
    over_photos,
    subgroups,
    target_shares,
)
from maskfree.ops.matching import match
from shared_folder import SHARED

FIXTURE = SHARED / "fixtures" / "ovsegmentor_losses"
SETTINGS = FIXTURE.with_suffix(".json")
HYPER_PARAMETERS = (
    json.loads(SETTINGS.read_text())["hyper_parameters"] if SETTINGS.exists() else {"cases": []}
)
CASES = [case for case in HYPER_PARAMETERS["cases"] if case["kind"] == "mask"]
MATCHED_BY = {"L2": "distance", "cosine": "cosine"}
GRID = (3, 5)


@pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_released_arithmetic_equals_the_released_code(case):
    tensors = load_file(FIXTURE.with_suffix(".safetensors"))
    known = {k.split(".", 2)[2]: v for k, v in tensors.items() if k.split(".")[1] == case["name"]}
    queries, keys = known["q_online"][:, 0].requires_grad_(), known["k_cross"][:, 0]
    number = case["K"]
    similarity = (known["group_features"] @ known["entity_text_x"][:, :, None])[..., 0]
    learning = subgroups(similarity, number - int(number * case["group_ratio"]))
    still = torch.ones(len(keys), number, dtype=torch.bool).scatter(1, learning, False)
    # Theirs are sorted by similarity or by number; only which they are matters.
    theirs = torch.ones_like(still).scatter(1, known["detached_groups"].long(), False)
    assert torch.equal(~theirs, still)

    likeness = []

    def recorded(values):
        likeness.append(values)
        return match(values)

    arithmetic = replace(
        RELEASED, threshold=case["threshold"], matched_by=MATCHED_BY[case["cost_type"]]
    )
    targets = mask_logits(known["q_cross"][:, 0], keys, scaled=True)
    predictions = mask_logits(learning_only(queries, learning), keys, scaled=True)
    side = math.isqrt(keys.shape[1])
    losses = matched_dice(
        targets, predictions, patches=(side, side), match=recorded, arithmetic=arithmetic
    )
    loss = over_photos(losses, torch.ones(len(losses), dtype=torch.bool), number, arithmetic)
    assert_close(loss, known["mask_loss"], rtol=1e-5, atol=0)
    assert_close(
        -likeness[0].mT, known["match_cost"], rtol=1e-4, atol=1e-5
    )  # theirs: predictions are the rows
    assert torch.equal(match(likeness[0].mT), known["match_target"])
    loss.backward()
    assert_close(queries.grad, known["grad_q_online"][:, 0], rtol=1e-3, atol=1e-6)
    assert (queries.grad.abs().sum(2) > 0).equal(~still)

    areas = known["pred_sum"].sum(1) + known["target_sum"].sum(1) + 1
    assert_close(losses, 1 - (2 * known["inter_sum"].sum(1) + 1) / areas, rtol=1e-4, atol=1e-5)


def saturated(masks):
    """Logits whose sigmoids are the masks, and whose least and largest values are 0 and 1 when
    squashed by range.
    """
    return torch.where(masks.bool(), 60.0, -60.0)


def halves():
    """Two masks of a 3 x 5 grid that share no patch, for two photos."""
    masks = torch.zeros(2, 2, 15)
    masks[0, 0, :6] = masks[0, 1, 6:] = masks[1, 0, :3] = masks[1, 1, 3:] = 1
    return masks


@pytest.mark.parametrize(
    "arithmetic", [PAPER, replace(RELEASED, side_px=None)], ids=["paper", "released"]
)
def test_identical_masks_cost_nothing_in_any_order(arithmetic):
    logits = saturated(halves())
    for order in ([0, 1], [1, 0]):
        losses = matched_dice(
            logits, logits[:, order], patches=GRID, match=match, arithmetic=arithmetic
        )
        assert_close(losses, torch.zeros(2))


def test_disjoint_masks_cost_one():
    masks = halves()
    losses = matched_dice(
        saturated(masks[:, :1]), saturated(masks[:, 1:]), patches=GRID, match=match
    )
    assert_close(losses, torch.ones(2))
    smooth = replace(PAPER, smoothing=1.0)
    losses = matched_dice(
        saturated(masks[:, :1]),
        saturated(masks[:, 1:]),
        patches=GRID,
        match=match,
        arithmetic=smooth,
    )
    assert_close(losses, torch.full((2,), 1 - 1 / 16))


def test_dice_has_its_closed_form_one_by_one_and_jointly():
    targets = saturated(torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 1]]]))
    predictions = torch.logit(torch.tensor([[[0.8, 0.4, 0.2, 0.2], [0.1, 0.1, 0.1, 0.7]]]))
    each = [1 - 2 * 1.2 / (2 + 1.6), 1 - 2 * 0.7 / (1 + 1.0)]
    losses = matched_dice(targets, predictions, patches=(2, 2), match=match)
    assert_close(losses, torch.tensor([sum(each) / 2]))
    together = matched_dice(
        targets, predictions, patches=(2, 2), match=match, arithmetic=replace(PAPER, joint=True)
    )
    assert_close(together, torch.tensor([1 - 2 * 1.9 / (3 + 2.6)]))


@pytest.mark.parametrize(("relative", "count"), [(False, 1), (True, 3)])
def test_the_threshold_is_of_the_sigmoid_or_of_its_largest(relative, count):
    targets = torch.logit(torch.tensor([[[0.64, 0.65001, 0.4, 0.2]]]))
    predictions = saturated(torch.ones(1, 1, 4))
    arithmetic = replace(PAPER, relative=relative, threshold=0.6 if relative else 0.65)
    losses = matched_dice(targets, predictions, patches=(2, 2), match=match, arithmetic=arithmetic)
    assert_close(losses, torch.tensor([1 - 2 * count / (4 + count)]))


def test_squashing_by_range_ignores_shift_and_size_and_sigmoid_does_not():
    targets, predictions = torch.randn(2, 4, 15), torch.randn(2, 4, 15)
    for squash, same in (("range", True), ("sigmoid", False)):
        settings = {
            "patches": GRID,
            "match": match,
            "arithmetic": replace(PAPER, squash=squash, matched_on="logits"),
        }
        fixed = {**settings, "match": lambda values: torch.arange(4).expand(2, -1)}
        changed = matched_dice(targets, 3 * predictions + 2, **fixed)
        assert (
            torch.allclose(changed, matched_dice(targets, predictions, **fixed), atol=1e-5) is same
        )


def test_masks_are_matched_by_the_cosine_of_their_sigmoids():
    targets, predictions = torch.randn(2, 4, 15), torch.randn(2, 4, 15)
    likeness = []

    def recorded(values):
        likeness.append(values)
        return match(values)

    matched_dice(targets, predictions, patches=GRID, match=recorded)
    wanted = F.cosine_similarity(
        targets.sigmoid()[:, :, None], predictions.sigmoid()[:, None], dim=-1
    )
    assert_close(likeness[0], wanted)


def test_distance_and_cosine_can_match_otherwise():
    """Angles of 0.9 twice have the larger cosines in sum, angles of 1.8 and 0 the smaller
    distances.
    """
    angles = torch.tensor([[0.0, 0.9]]), torch.tensor([[0.9, 1.8]])
    targets, predictions = (torch.stack([a.cos(), a.sin()], dim=2) for a in angles)
    orders = []

    def recorded(values):
        orders.append(match(values))
        return orders[-1]

    for matched_by in ("cosine", "distance"):
        arithmetic = replace(PAPER, matched_on="logits", matched_by=matched_by)
        matched_dice(targets, predictions, patches=(1, 2), match=recorded, arithmetic=arithmetic)
    assert [order.tolist() for order in orders] == [[[0, 1]], [[1, 0]]]


@pytest.mark.parametrize(
    "arithmetic", [PAPER, replace(RELEASED, side_px=20)], ids=["paper", "released"]
)
def test_order_of_masks_and_neighbors_in_the_batch_do_not_matter(arithmetic):
    targets, predictions, order = torch.randn(3, 4, 15), torch.randn(3, 4, 15), torch.randperm(4)
    settings = {"patches": GRID, "match": match, "arithmetic": arithmetic}
    losses = matched_dice(targets, predictions, **settings)
    assert_close(matched_dice(targets, predictions[:, order], **settings), losses)
    assert_close(matched_dice(targets[:, order], predictions, **settings), losses)
    assert_close(matched_dice(targets[1:2], predictions[1:2], **settings), losses[1:2])


def test_targets_get_no_gradient_and_predictions_grow_towards_them():
    targets, predictions = (
        torch.randn(2, 3, 15, requires_grad=True),
        torch.zeros(2, 3, 15, requires_grad=True),
    )
    straight = {"patches": GRID, "match": lambda values: torch.arange(3).expand(2, -1)}
    matched_dice(targets, predictions, **straight).sum().backward()
    assert targets.grad is None
    inside = targets.sigmoid() >= PAPER.threshold
    assert (predictions.grad[inside] < 0).all()
    assert (predictions.grad[~inside] >= 0).all()


def test_constant_and_empty_masks_stay_finite():
    flat = torch.full((1, 2, 15), -200.0, requires_grad=True)
    for arithmetic in (PAPER, RELEASED, replace(RELEASED, side_px=None)):
        losses = matched_dice(flat, flat, patches=GRID, match=match, arithmetic=arithmetic)
        (gradient,) = torch.autograd.grad(losses.sum(), flat)
        assert losses.isfinite().all()
        assert gradient.isfinite().all()


def test_the_grid_must_have_the_masks_patches():
    with pytest.raises(ValueError, match="masks of 15 patches"):
        matched_dice(torch.zeros(1, 2, 15), torch.zeros(1, 2, 15), patches=(4, 4), match=match)


def test_photos_without_partner_do_not_count():
    losses = torch.tensor([0.2, 0.9, 0.6], requires_grad=True)
    present = torch.tensor([True, False, True])
    mean = over_photos(losses, present, 4)
    assert_close(mean, torch.tensor(0.4))
    mean.backward()
    assert_close(losses.grad, torch.tensor([0.5, 0.0, 0.5]))
    assert_close(over_photos(losses.repeat(5), present.repeat(5), 4), mean)
    assert_close(over_photos(losses, present, 4, RELEASED), torch.tensor(0.2))
    nothing = over_photos(losses, torch.zeros(3, dtype=torch.bool), 4)
    assert nothing == 0
    assert nothing.requires_grad


def test_subgroups_are_those_closest_to_the_entity():
    similarity = torch.tensor([[0.1, 0.9, -0.5, 0.3], [0.0, -1.0, 2.0, 1.0]])
    assert subgroups(similarity, 2).tolist() == [[1, 3], [2, 3]]
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"{count} subgroups"):
            subgroups(similarity, count)


def test_the_papers_choice_drops_groups_and_the_released_one_their_gradient():
    groups = torch.randn(2, 4, 6, requires_grad=True)
    indices = torch.tensor([[1, 3], [2, 0]])
    few = chosen(groups, indices)
    assert_close(few, torch.stack([groups[0, [1, 3]], groups[1, [2, 0]]]))
    every = learning_only(groups, indices)
    assert_close(every, groups)
    for value in (few, every):
        (gradient,) = torch.autograd.grad(value.sum(), groups)
        assert gradient.sum(2).tolist() == [[0, 6, 0, 6], [6, 0, 6, 0]]


def test_mask_logits_are_products_as_in_eq_10_and_scaled_as_in_the_released_code():
    groups, patches = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    products = torch.einsum("bkd,bnd->bkn", groups, patches)
    assert_close(mask_logits(groups, patches), products)
    assert_close(mask_logits(groups, patches, scaled=True), products / 4)


def test_shares_of_targets_count_photos_with_a_partner():
    inside = torch.zeros(3, 2, 15)
    inside[0, 0, :6] = inside[1] = inside[2, 0, 1] = 1
    present = torch.tensor([True, False, True])
    targets = saturated(inside)
    empty, sure = target_shares(targets, present)
    assert_close(empty, torch.tensor(2 / 4))
    assert_close(sure, torch.tensor(7 / 60))
    # A share of each mask's maximum is always reached.
    assert target_shares(targets - 130, present)[0] == 1
    assert target_shares(targets - 130, present, RELEASED)[0] == 0
    nobody = torch.zeros(3, dtype=torch.bool)
    assert [share.item() for share in target_shares(targets, nobody)] == [0, 0]


def test_processes_divide_by_their_mean_number_of_partners():
    losses, present = torch.rand(6), torch.tensor([True, False, True, True, True, True])
    mean = torch.tensor(2.5)
    parts = [
        over_photos(losses[part], present[part], 4, num_present=mean)
        for part in (slice(0, 3), slice(3, 6))
    ]
    assert_close(sum(parts) / 2, over_photos(losses, present, 4))
