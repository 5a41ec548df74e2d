"""Boundary F and segmentation covering: values that can be worked out, properties, and the humans
of BSDS500.
"""

from __future__ import annotations

import numpy as np
import pytest

from maskfree.evaluation.boundaries import (
    Humans,
    boundary,
    count_photo,
    cover,
    match_boundaries,
    scores,
)


def columns(width, *starts, height=50):
    """A region map whose regions begin at the columns STARTS."""
    regions = np.zeros((height, width), np.int64)
    for start in starts:
        regions[:, start:] += 1
    return regions


def people(*maps):
    return Humans(tuple(maps), tuple(boundary(regions) for regions in maps))


def lines(width, *places, height=50):
    drawn = np.zeros((height, width), bool)
    drawn[:, list(places)] = True
    return drawn


def test_the_boundary_is_one_pixel_thin():
    drawn = boundary(columns(30, 9, 21))
    assert drawn.sum(1).tolist() == [2] * 50
    assert np.flatnonzero(drawn[25]).tolist() == [8, 20]
    assert not boundary(np.zeros((4, 5), np.int64)).any()


def test_pixels_match_within_the_tolerance_only():
    machine = lines(120, 60)
    tolerance = 3.5 / np.hypot(50, 120)
    for away, matched in ((0, 50), (3, 50), (4, 0)):
        assert match_boundaries(machine, [lines(120, 60 + away)], tolerance) == (
            matched,
            50,
            matched,
            50,
        )


def test_each_pixel_matches_but_one():
    thick = match_boundaries(lines(120, 59, 60, 61), [lines(120, 60)], 3.5 / np.hypot(50, 120))
    assert thick == (50, 150, 50, 50)


def test_a_pixel_counts_that_matches_anybody_and_everybody_is_to_be_found():
    machine, nobody = lines(120, 20, 90), lines(120)
    assert match_boundaries(machine, [lines(120, 20), lines(120, 20, 60)]) == (50, 100, 100, 150)
    assert match_boundaries(machine, [nobody]) == (0, 100, 0, 0)
    assert match_boundaries(nobody, [machine]) == (0, 0, 0, 100)


def test_the_matching_is_the_largest_there_is():
    # Were 10 to take 11, 12 would find nobody: it has no other within reach.
    machine, person = np.zeros((1, 40), bool), np.zeros((1, 40), bool)
    machine[0, [10, 12]], person[0, [11, 9]] = True, True
    assert match_boundaries(machine, [person], 1.5 / np.hypot(1, 40)) == (2, 2, 2, 2)


def test_covering_weighs_the_best_overlap_by_area():
    drawn, machine = columns(40, 30), columns(40, 20)
    first, second = 20 / 30, 10 / 20  # of 30 columns and of 10
    assert cover(machine, people(drawn)) == (
        pytest.approx((30 * first + 10 * second) * 50),
        40 * 50,
    )
    assert cover(machine * 7 + 3, people(machine, drawn))[0] == pytest.approx(
        50 * (40 + 30 * first + 10 * second)
    )


def test_one_setting_for_all_and_the_best_of_each_photo():
    # matched and all of the machine, of the people; area covered and in all
    one = [[8, 10, 8, 10, 60, 100], [2, 10, 2, 10, 30, 100]]
    two = [[4, 10, 4, 10, 50, 100], [9, 10, 9, 10, 90, 100]]
    found = scores(np.array([one, two], float), [0.1, 0.2])
    assert (found.boundary_ods, found.boundary_setting) == (pytest.approx(0.6), 0.1)
    assert found.boundary_ois == pytest.approx(0.85)
    assert (found.precision, found.recall) == (pytest.approx(0.6), pytest.approx(0.6))
    assert (found.covering_ods, found.covering_setting) == (pytest.approx(0.6), 0.2)
    assert found.covering_ois == pytest.approx(0.75)


def test_a_person_scores_one_against_himself_and_nothing_found_scores_zero():
    regions = columns(60, 13, 40)
    counts = count_photo([regions, np.zeros_like(regions)], people(regions))
    assert scores(counts[None], [1, 2]).boundary_ods == 1
    nothing = scores(counts[None, 1:], [2])
    assert nothing.boundary_ods == 0
    assert nothing.covering_ods == pytest.approx((13**2 + 27**2 + 20**2) / 60**2)


def test_no_photos_have_no_score():
    with pytest.raises(ValueError, match="no photos"):
        scores(np.zeros((0, 2, 6)), [1, 2])


@pytest.mark.real
def test_the_humans_of_bsds500_agree_with_each_other(shared_data):
    path = sorted((shared_data("bsds500") / "groundTruth").glob("*.mat"))[0]
    humans = Humans.read(path)
    assert 4 <= len(humans.segmentations) == len(humans.boundaries) <= 9
    others = Humans(humans.segmentations[1:], humans.boundaries[1:])
    found = scores(count_photo([humans.segmentations[0]], others)[None], [0])
    assert 0.6 < found.boundary_ods < 1 and 0.5 < found.covering_ods < 1


@pytest.mark.parametrize("content", ["nothing", "text", "matrix"])
def test_what_holds_no_human_segmentations_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "1.mat"
    path.write_bytes(b"" if content == "nothing" else b"no such file")
    if content == "matrix":
        pytest.importorskip("scipy.io").savemat(path, {"x": np.ones(3)})
    with pytest.raises(ValueError, match=r"1\.mat holds no human segmentations") as raised:
        Humans.read(path)
    assert "\n" not in str(raised.value)
