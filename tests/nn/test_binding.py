"""Binding of patches to groups: maps, means, noise and gradients."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from maskfree.nn import binding as module
from maskfree.nn.binding import Binding, gumbel_noise, one_hot_of

PAPER = {
    "num_tokens": 4,
    "cross_attention": False,
    "channel_mlp": False,
    "extra_mass": 0.0,
}
RELEASED = {
    "num_tokens": 9,
    "cross_attention": True,
    "channel_mlp": True,
    "extra_mass": 1.0,
}


def binding_of(**changes):
    return Binding(**({"dim": 6, "num_groups": 4, "num_heads": 3} | PAPER | changes))


def given(num_tokens=4, num_patches=10):
    return torch.randn(2, num_tokens, 6), torch.randn(2, num_patches, 6)


def means_of(weights, values):
    """Eq. 5, patch by patch."""
    means = torch.zeros(*weights.shape[:2], values.shape[-1])
    for image in range(len(weights)):
        for group in range(weights.shape[1]):
            mass = weights[image, group].sum()
            for patch in range(weights.shape[2]):
                if mass > 0:
                    means[image, group] += (
                        weights[image, group, patch] / mass * values[image, patch]
                    )
    return means


@torch.no_grad()
def test_groups_are_means_of_their_patches():
    binding = binding_of().eval()
    tokens, patches = given()
    groups, assignment = binding(tokens, patches)
    values = binding.v_proj(binding.norm_patches(patches))
    expected = binding.norm_tokens(tokens) + binding.proj(means_of(assignment.hard, values))
    assert_close(groups, expected)


@torch.no_grad()
@pytest.mark.parametrize("form", [PAPER, RELEASED], ids=["paper", "released"])
def test_without_noise_each_patch_goes_where_the_soft_map_is_largest(form):
    binding = binding_of(**form).eval()
    groups, assignment = binding(*given(form["num_tokens"]))
    assert groups.shape == (2, 4, 6)
    assert_close(assignment.soft.sum(1), torch.ones(2, 10))
    assert_close((assignment.queries @ assignment.keys.mT * 6**-0.5).softmax(1), assignment.soft)
    assert set(assignment.hard.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(assignment.hard.argmax(1), assignment.soft.argmax(1))


@torch.no_grad()
def test_noise_moves_the_hard_map_in_training_only(monkeypatch):
    noise = torch.zeros(2, 4, 10)
    noise[:, 2] = 1000
    monkeypatch.setattr(module, "gumbel_noise", lambda like: noise)
    binding = binding_of()
    tokens, patches = given()
    still, moved = binding.eval()(tokens, patches)[1], binding.train()(tokens, patches)[1]
    assert (moved.hard.argmax(1) == 2).all() and (still.hard.argmax(1) != 2).any()
    assert_close(moved.soft, still.soft)


def test_a_group_without_patches_adds_nothing_and_its_gradients_are_finite(monkeypatch):
    noise = torch.zeros(2, 4, 10)
    noise[:, 2] = 1000
    monkeypatch.setattr(module, "gumbel_noise", lambda like: noise)
    for extra_mass in (0.0, 1.0):
        binding = binding_of(extra_mass=extra_mass).train()
        binding.proj.bias.data.zero_()
        tokens, patches = given()
        groups, _ = binding(tokens, patches)
        empty = [0, 1, 3]
        assert_close(groups[:, empty], binding.norm_tokens(tokens)[:, empty])
        groups.square().sum().backward()
        assert all(weight.grad.isfinite().all() for weight in binding.parameters())


@torch.no_grad()
def test_extra_mass_draws_groups_towards_zero():
    plain, heavy = binding_of().eval(), binding_of(extra_mass=3.0).eval()
    heavy.load_state_dict(plain.state_dict())
    for binding in (plain, heavy):
        binding.proj.bias.zero_()
    tokens, patches = given()
    normed = plain.norm_tokens(tokens)
    (light, assignment), (less, _) = plain(tokens, patches), heavy(tokens, patches)
    count = assignment.hard.sum(2, keepdim=True)
    assert_close(less - normed, (light - normed) * count / (count + 3))


def test_the_hard_map_has_the_gradient_of_the_soft_one():
    logits, weights = torch.randn(2, 4, 7, requires_grad=True), torch.randn(2, 4, 7)
    hard = one_hot_of(logits.softmax(1))
    (through,) = torch.autograd.grad((hard * weights).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(1) * weights).sum(), logits)
    assert_close(through, expected)
    assert_close(hard.sum(1), torch.ones(2, 7))


def test_choices_with_noise_are_draws_from_the_soft_map():
    """The Gumbel-max trick: each group is chosen as often as the softmax says."""
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = shares.log().expand(20000, 4)
    chosen = (logits + gumbel_noise(logits)).argmax(1)
    assert_close(chosen.bincount(minlength=4) / 20000, shares, atol=0.015, rtol=0)
    assert gumbel_noise(torch.empty(100000, dtype=torch.bfloat16)).isfinite().all()


@torch.no_grad()
def test_groups_follow_their_tokens_and_do_not_care_for_the_order_of_patches():
    binding = binding_of().eval()
    tokens, patches = given()
    groups, assignment = binding(tokens, patches)
    order = torch.randperm(10)
    shuffled, moved = binding(tokens.flip(1), patches[:, order])
    assert_close(shuffled, groups.flip(1))
    assert_close(moved.soft, assignment.soft[:, :, order].flip(1))


@torch.no_grad()
def test_a_binding_that_starts_by_similarity_makes_groups_of_what_is_like_their_tokens():
    binding = binding_of().eval()
    binding.start_by_similarity()
    tokens, drawn = torch.randn(2, 4, 6), torch.randint(4, (2, 10))
    patches = tokens.gather(1, drawn[..., None].expand(-1, -1, 6)) + 0.05 * torch.randn(2, 10, 6)
    groups, assignment = binding(tokens, patches)
    assert torch.equal(assignment.hard.argmax(1), drawn)
    normed = binding.norm_patches(patches)
    assert_close(
        groups,
        binding.norm_tokens(tokens) + 8 * means_of(assignment.hard, normed),
        atol=1e-4,
        rtol=1e-4,
    )


def test_only_the_asked_parts_exist():
    names = {name.split(".")[0] for name, _ in binding_of().named_parameters()}
    plain = {"norm_tokens", "norm_patches", "q_proj", "k_proj", "v_proj", "proj"}
    assert names == plain
    released = binding_of(**RELEASED)
    names = {name.split(".")[0] for name, _ in released.named_parameters()}
    assert names == plain | {"mixer", "cross", "norm_mlp", "mlp"}
    assert isinstance(released.mixer.mlp.fc1, nn.Linear)
    assert released.mixer.mlp.fc1.weight.shape == (6 // 2, 9)
