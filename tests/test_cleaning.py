from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfree.ops.ignore import IGNORE
from maskfree.results.cleaning import UNLABELED, at_most, without_crumbs
from maskfree.results.segmentation import Segmentation
from test_regions import flooded, label_maps


def result_of(labels: np.ndarray, seed: int = 0, names: str = "abcdef") -> Segmentation:
    numbers = np.random.default_rng(seed)
    return Segmentation(
        labels=labels,
        words=tuple(names),
        scores=numbers.random(labels.shape).astype(np.float16),
        confidence=(0.99 * numbers.random(labels.shape)).astype(np.float16),
        image=np.zeros((*labels.shape, 3), np.uint8),
        record={"words": [[name] for name in names], "background": None},
    )


def given_away(labels: np.ndarray, scores: np.ndarray, num_ids: int, min_area: int) -> np.ndarray:
    """Crumbs given to the best-scoring neighbor, round by round, component by component."""
    components = flooded(labels)
    number = {place: i for i, (_, pixels) in enumerate(components) for place in pixels}
    labeled = [i for i, (class_id, _) in enumerate(components) if class_id < num_ids]
    crumbs = [i for i in labeled if len(components[i][1]) < min_area]
    if crumbs and len(crumbs) == len(labeled):
        crumbs.remove(max(labeled, key=lambda i: (len(components[i][1]), -i)))

    owner = {i: i for i in labeled if i not in crumbs}
    means = [np.mean([float(scores[place]) for place in pixels]) for _, pixels in components]
    while True:
        found = {}
        for crumb in set(crumbs) - set(owner):
            beside = set()
            for row, column in components[crumb][1]:
                for near in (
                    (row + 1, column),
                    (row - 1, column),
                    (row, column + 1),
                    (row, column - 1),
                ):
                    if number.get(near) in owner:
                        beside.add(owner[number[near]])
            if beside:
                found[crumb] = max(beside, key=lambda i: (means[i], -i))
        if not found:
            break
        owner |= found

    cleaned = labels.copy()
    for place, i in number.items():
        if i in owner:
            cleaned[place] = components[owner[i]][0]
        elif i in labeled:
            cleaned[place] = UNLABELED
    return cleaned


@settings(deadline=None, max_examples=300)
@given(label_maps(), st.integers(0, 9999), st.integers(2, 12), st.integers(1, 3))
def test_crumbs_go_to_the_best_neighbor(labels: np.ndarray, seed: int, area: int, num_ids: int):
    # Ids from num_ids on have no label.
    labels = np.where(labels < num_ids, labels, UNLABELED).astype(np.uint8)
    scores = np.random.default_rng(seed).random(labels.shape).astype(np.float16)
    found = without_crumbs(labels, scores, num_ids, area)
    assert found.dtype == labels.dtype
    assert (found == given_away(labels, scores, num_ids, area)).all()
    assert ((found == UNLABELED) >= (labels == UNLABELED)).all(), "no label is made up"


@settings(deadline=None)
@given(label_maps(), st.integers(2, 12))
def test_no_region_is_too_small_and_each_is_cleaned_once(labels: np.ndarray, area: int):
    result = result_of(labels)
    regions = list(result.regions(area))
    if len(regions) > 1:
        assert min(region.area_px for region in regions) >= area
    assert sum(region.area_px for region in regions) == labels.size

    clean = result.cleaned(area)
    assert (clean.cleaned(area).labels == clean.labels).all()
    assert (result.labels == labels).all(), "the result itself stays"


def test_a_hole_is_filled():
    labels = np.zeros((8, 9), np.uint8)
    labels[2:4, 3:5] = 1
    assert (result_of(labels).cleaned(5).labels == 0).all()
    assert (result_of(labels).cleaned(4).labels == labels).all()


def test_confidence_of_another_label_is_bounded():
    confidence = np.array([[0.9, 0.3, 0.6]], np.float16)
    changed = np.array([[True, True, False]])
    np.testing.assert_allclose(at_most(confidence, changed), [[0.1, 0.3, 0.6]], atol=1e-3)

    labels = np.zeros((4, 5), np.uint8)
    labels[1, 2] = 1
    result = result_of(labels)
    clean = result.cleaned(2)
    assert result.confidence is not None and clean.confidence is not None
    expected = min(result.confidence[1, 2], 1 - result.confidence[1, 2])
    assert clean.confidence[1, 2] == expected
    assert (clean.confidence == result.confidence).sum() >= labels.size - 1


def test_pixels_below_a_confidence_lose_their_label():
    labels = np.random.default_rng(0).integers(0, 3, (12, 17)).astype(np.uint8)
    result = result_of(labels)
    left = result.abstained(0.4)
    assert result.confidence is not None
    unsure = result.confidence < 0.4
    assert (left.labels == np.where(unsure, IGNORE, labels)).all()
    assert left.record["abstained"] == {"below": 0.4, "id": 255, "fraction": unsure.mean()}
    assert sum(left.areas().values()) == pytest.approx(1 - unsure.mean())
    assert sum(region.area_px for region in left.regions()) == (~unsure).sum()
    assert all(region.mask[unsure].sum() == 0 for region in left)
    assert (left["a"] == ((labels == 0) & ~unsure)).all()

    assert (result.abstained(0).labels == labels).all()
    assert result.abstained(1).areas() == dict.fromkeys("abcdef", 0)


def test_pixels_without_a_label_are_not_painted():
    result = result_of(np.zeros((60, 80), np.uint8), names="a")
    assert (np.asarray(result.overlay())[:60, :80] > 0).any()
    empty = result.abstained(1)
    assert (np.asarray(empty.overlay())[:60, :80] == 0).all()


@pytest.mark.parametrize("below", [-0.1, 1.5, float("nan")])
def test_an_impossible_confidence_is_refused(below: float):
    with pytest.raises(ValueError, match=f"abstain {below}: a confidence lies in"):
        result_of(np.zeros((2, 3), np.uint8)).abstained(below)


def test_what_cannot_abstain_says_so():
    labels = np.zeros((2, 3), np.uint16)
    many = result_of(labels, names="".join(map(chr, range(200, 456))))
    with pytest.raises(ValueError, match="256 names are too many for unlabeled pixels"):
        many.abstained(0.5)

    none = result_of(labels)
    none = Segmentation(none.labels, none.words, none.scores, none.image, none.record)
    with pytest.raises(ValueError, match="this result has no confidence"):
        none.abstained(0.5)
    assert all(np.isnan(region.confidence) for region in none.regions())
    assert (none.where(min_confidence=0.9).labels == labels).all()


def test_regions_are_kept_by_area_score_and_confidence():
    labels = np.zeros((10, 20), np.uint8)
    labels[:, 10:] = 1
    labels[4:6, 3:5] = 2
    result = result_of(labels)
    zero, one, two = sorted(result.regions(), key=lambda region: region.class_id)

    assert set(np.unique(result.where(min_area=0.05).labels)) == {0, 1, 255}
    assert set(np.unique(result.where(min_area=0.49).labels)) == {1, 255}
    scores = sorted((zero, one, two), key=lambda region: region.score)
    kept = result.where(min_score=scores[1].score)
    assert set(np.unique(kept.labels)) == {255, scores[1].class_id, scores[2].class_id}
    assert (kept.labels[scores[0].mask] == 255).all()

    sure = max((zero, one, two), key=lambda region: region.confidence)
    kept = result.where(min_confidence=sure.confidence)
    assert set(np.unique(kept.labels)) == {255, sure.class_id}


def test_memory_is_that_of_the_pixels_not_of_a_mask_for_each_region():
    tiles = np.random.default_rng(0).integers(0, 6, (30, 40)).astype(np.uint8)
    labels = np.kron(tiles, np.ones((20, 20), np.uint8))
    labels[::7, ::11] = (labels[::7, ::11] + 1) % 6
    result = result_of(labels)
    list(result.regions())

    tracemalloc.start()
    regions = list(result.regions(100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One mask for each would alone take as many bytes per pixel.
    assert len(regions) > 700
    assert peak / labels.size < 150
