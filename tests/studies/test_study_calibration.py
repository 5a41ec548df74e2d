from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

import maskfree
from maskfree.inference.calibration import Calibration
from maskfree.text.tags import CAPTION_CONCEPTS, read_tags
from studies.calibration import Named, best_words, caption_ece, fit, fit_with_none, nll, words_for

ROOT = Path(__file__).parents[2]


def photos_of(temperature: float, count: int = 40, seed: int = 0) -> list[Named]:
    """Photos whose best word is named as often as the softmax at a temperature says."""
    numbers = np.random.default_rng(seed)
    photos = []
    for _ in range(count):
        scores = numbers.normal(0, 0.2, (6, 300))
        probability = np.exp(scores / temperature)
        probability /= probability.sum(0)

        # Draw the word that is right; the first one is always the named one.
        right = (probability.cumsum(0) < numbers.random(300)).sum(0).clip(max=5)
        columns = np.arange(300)
        scores[0], scores[right, columns] = scores[right, columns], scores[0].copy()
        photos.append(Named(scores, num_named=1))
    return photos


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.3])
def test_the_temperature_of_the_world_is_found(temperature: float):
    photos = photos_of(temperature)
    assert fit(photos) == pytest.approx(temperature, rel=0.05)
    assert caption_ece(photos, temperature) < 0.02
    assert caption_ece(photos, temperature / 3) > 0.05


def test_no_class_of_none_is_needed_where_none_is_shown():
    photos = photos_of(0.1)
    none, loss = fit_with_none(photos)
    assert loss <= nll(photos, 0.1) + 1e-3
    # So low that it hardly counts.
    assert none < -0.2


def test_likelihood_of_two_patches():
    photo = Named(np.array([[0.2, 0.0], [0.0, 0.4]]), num_named=1)
    probability, is_named = best_words(photo, 0.2)
    first, second = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(probability, [first, second])
    assert is_named.tolist() == [True, False]
    expected = -(np.log(first) + np.log(1 - second)) / 2
    assert nll([photo], 0.2) == pytest.approx(expected)

    # One more class with the score of the best halves its odds.
    probability, _ = best_words(photo, 0.2, none=0.2)
    assert probability[0] == pytest.approx(np.e / (np.e + 1 + np.e))


def test_words_of_a_photo_are_named_or_not():
    concepts = [concept.names for concept in read_tags(CAPTION_CONCEPTS)]
    captions = ("Two dogs run over the grass .", "A puppy by the fence")
    said = {i for i, names in enumerate(concepts) if {"dog", "grass", "fence"} & set(names)}
    sizes = set()
    for seed in range(30):
        indices, num_named = words_for(captions, 8, random.Random(seed)) or ([], 0)
        assert len(indices) == len(set(indices)) == 8
        assert set(indices[:num_named]) <= said
        assert not set(indices[num_named:]) & said
        sizes.add(num_named)
    assert sizes == {1, 2, 3}
    assert words_for(("It is nice .",), 8, random.Random(0)) is None


def test_the_bundled_model_has_the_temperature_that_was_measured():
    row = json.loads((ROOT / "results" / "calibration-pocket.json").read_text())
    bundled = maskfree.load()
    assert bundled.calibration == Calibration(temperature=row["temperature"])
    assert bundled.weights_hash == row["weights_sha256"]
    assert 1 / bundled.logit_scale == pytest.approx(row["own_temperature"])
    # On each benchmark the error is smaller than before.
    for measured in row["masks"].values():
        assert measured["ece"]["fitted"] < measured["ece"]["own"]
