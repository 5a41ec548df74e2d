"""Closed forms of the losses over words: b photos, n pixels, k words, d dimensions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.words import bag_of_words, pixel_words, word_log_probabilities

B, N, K, D = 3, 4, 5, 7
SCALE = torch.tensor(6.0)
EVEN = torch.full((K,), 0.2)


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def random_logs() -> torch.Tensor:
    return torch.randn(B, N, K).mul(2).log_softmax(-1)


def random_weights(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).softmax(-1)


@pytest.mark.parametrize("prior", [0.0, 0.5, 1.0])
def test_pixels_like_no_word_cost_log_k(prior: float):
    words, pixels = torch.eye(D)[:K], torch.eye(D)[None, 5:].repeat(B, 2, 1)  # at right angles
    logs = word_log_probabilities(pixels, words, SCALE, EVEN, prior)
    assert_close(logs, torch.full((B, 4, K), -math.log(K)))
    assert_close(bag_of_words(logs, random_weights(B, K)), torch.tensor(math.log(K)))
    assert_close(pixel_words(logs, random_weights(B, 4, K)), torch.tensor(math.log(K)))


def test_pixels_that_are_words_have_a_closed_form():
    words = torch.eye(D)[:K]
    logs = word_log_probabilities(words[None].repeat(B, 1, 1), words, SCALE, EVEN, 0.5)
    expected = -math.log(1 + (K - 1) * math.exp(-SCALE.item()))
    assert_close(logs.diagonal(dim1=1, dim2=2), torch.full((B, K), expected))


def test_they_are_distributions():
    logs = word_log_probabilities(unit(B, N, D), unit(K, D), SCALE, torch.rand(K), 0.7)
    assert logs.shape == (B, N, K)
    assert_close(logs.exp().sum(-1), torch.ones(B, N))


@pytest.mark.parametrize("prior", [0.0, 0.5, 1.0])
def test_prior_gives_common_words_their_share(prior: float):
    """Pixels that like no word choose by the frequencies to the power of the prior, whatever their
    sum.
    """
    words, pixels = torch.eye(D)[:K], torch.eye(D)[None, 5:].repeat(B, 2, 1)
    frequencies = torch.tensor([4.0, 1.0, 0.25, 9.0, 2.0])
    logs = word_log_probabilities(pixels, words, SCALE, 1e-7 * frequencies, prior)
    powers = frequencies**prior
    assert_close(logs.exp(), (powers / powers.sum()).expand(B, 4, K))


def test_words_that_do_not_occur_are_unlikely_but_not_impossible():
    frequencies = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0])
    logs = word_log_probabilities(unit(B, N, D), unit(K, D), torch.tensor(0.0), frequencies, 1.0)
    assert logs.isfinite().all()
    assert (logs[..., [1, 3, 4]] < -8).all()


def test_bag_is_cheapest_when_every_word_is_somebodys():
    """It costs at least the entropy of the words.

    Pixels that share them out, each sure of its own, cost just that.
    """
    weights = torch.tensor([[0.5, 0.25, 0.25, 0.0, 0.0]]).repeat(B, 1)
    entropy = torch.tensor(-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)))
    shared_out = (
        (40 * F.one_hot(torch.tensor([0, 0, 1, 2]), K).float()).log_softmax(-1).repeat(B, 1, 1)
    )
    assert_close(bag_of_words(shared_out, weights), entropy)
    all_alike = weights[:, None].add(1e-9).log().repeat(1, N, 1)
    assert_close(bag_of_words(all_alike, weights), entropy)
    one_word = (
        (40 * F.one_hot(torch.zeros(N, dtype=torch.long), K).float())
        .log_softmax(-1)
        .repeat(B, 1, 1)
    )
    assert bag_of_words(one_word, weights) > 10 * entropy
    assert min(bag_of_words(random_logs(), weights) for _ in range(20)) > entropy


def test_bag_is_the_mean_of_the_photos_and_forgets_the_order_of_pixels():
    logs, weights = random_logs(), random_weights(B, K)
    each = torch.stack([bag_of_words(logs[i : i + 1], weights[i : i + 1]) for i in range(B)])
    assert_close(bag_of_words(logs, weights), each.mean())
    assert_close(bag_of_words(logs[:, torch.randperm(N)], weights), bag_of_words(logs, weights))
    assert_close(bag_of_words(logs.repeat(1, 3, 1), weights), bag_of_words(logs, weights))
    expected = -(weights * logs.exp().mean(1).log()).sum(1).mean()
    assert_close(bag_of_words(logs, weights), expected)


def test_photos_without_words_cost_nothing():
    weights = random_weights(B, K)
    weights[1:] = 0
    logs = random_logs()
    assert_close(bag_of_words(logs, weights), bag_of_words(logs[:1], weights[:1]) / B)
    assert bag_of_words(logs, torch.zeros(B, K)) == 0


def test_pixels_are_averaged_and_told_one_by_one():
    logs, chosen = random_logs(), torch.randint(K, (B, N))
    picked = logs.gather(-1, chosen[..., None])
    assert_close(pixel_words(logs, F.one_hot(chosen, K).float()), -picked.mean())
    assert_close(
        pixel_words(logs.repeat(2, 3, 1), F.one_hot(chosen, K).float().repeat(2, 3, 1)),
        -picked.mean(),
    )
    targets = random_weights(B, N, K)
    assert not torch.isclose(
        pixel_words(logs, targets[:, torch.arange(N).roll(1)]), pixel_words(logs, targets)
    )


def test_gradient_pulls_the_pixel_that_is_nearest_to_the_word_the_most():
    words, scale = unit(K, D).requires_grad_(), SCALE.clone().requires_grad_()
    pixels = F.normalize(words.detach()[[0, 1, 2, 3]] + 0.2 * unit(N, D), dim=-1)[
        None
    ].requires_grad_()
    weights = F.one_hot(torch.tensor([2]), K).float()
    bag_of_words(word_log_probabilities(pixels, words, scale, EVEN, 0.5), weights).backward()
    pulled = -(pixels.grad[0] @ words.detach()[2])
    assert pulled.argmax() == 2
    assert words.grad.abs().sum() > 0 and scale.grad != 0


def test_gradient_of_told_pixels_reaches_each():
    pixels = unit(B, N, D).requires_grad_()
    targets = random_weights(B, N, K)
    pixel_words(word_log_probabilities(pixels, unit(K, D), SCALE, EVEN, 0.5), targets).backward()
    assert (pixels.grad.abs().sum(-1) > 0).all()


def test_autocast_changes_nothing():
    pixels, words, weights, targets = (
        unit(B, N, D),
        unit(K, D),
        random_weights(B, K),
        random_weights(B, N, K),
    )

    def run() -> list[float]:
        logs = word_log_probabilities(pixels, words, torch.tensor(60.0), EVEN, 0.5)
        return [bag_of_words(logs, weights).item(), pixel_words(logs, targets).item()]

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        assert run() == exact
    assert bag_of_words(random_logs().bfloat16(), weights).dtype == torch.float32
