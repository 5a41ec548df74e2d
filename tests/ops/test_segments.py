"""Segments of pixel embeddings: parity with HSG's code, and what K-means, cutting and
summing do.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.ignore import IGNORE
from maskfree.ops.segments import grid, intersect, segment_sums, segment_values, spherical_kmeans
from shared_folder import SHARED

FIXTURE = SHARED / "fixtures" / "segsort_kmeans"
SETTINGS = FIXTURE.with_suffix(".json")
CASES = json.loads(SETTINGS.read_text())["hyper_parameters"]["cases"] if SETTINGS.exists() else []
MOST = 60  # segments that a photo has room for: more than any photo has


def smooth(b, d, h, w, seed=0):
    """Unit embeddings that change slowly over the picture, as those of a photo do."""
    torch.manual_seed(seed)
    field = F.interpolate(torch.randn(b, d, 3, 4), (h, w), mode="bilinear", align_corners=False)
    return F.normalize(field + 0.2 * torch.randn(b, d, h, w), dim=1)


@pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_segments_and_prototypes_equal_the_published_code(case):
    tensors, name = load_file(FIXTURE.with_suffix(".safetensors")), case["name"]
    embeddings = F.normalize(tensors[f"in.{name}.embedding"], dim=1)
    number, _, height, width = case["shape"]
    rows, columns = case["num_clusters"]
    assert_close(
        grid(rows * columns, height, width), tensors[f"mid.{name}.initial_labels"], atol=0, rtol=0
    )
    clusters = spherical_kmeans(embeddings, rows * columns, case["iterations"])
    labels = tensors[f"in.{name}.labels"] if case["labels"] else torch.zeros_like(clusters)
    segments = intersect(clusters, labels, MOST)
    sums, counts = segment_sums(embeddings, segments, MOST)
    before = F.pad(
        (counts > 0).sum(1).cumsum(0), (1, -1)
    )  # the published numbers go on from photo to photo
    assert torch.equal(
        (segments + before[:, None, None]).flatten(), tensors[f"out.{name}.cluster_index"]
    )
    prototypes = F.normalize(sums, dim=2)[counts > 0]
    assert_close(prototypes, tensors[f"out.{name}.prototypes"], atol=1e-6, rtol=0)
    photos = torch.arange(number)[:, None]
    instances = (segment_values(labels, segments, MOST) * 256 + photos)[counts > 0]
    assert torch.equal(instances, tensors[f"out.{name}.prototype_instance_label"])


@pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_places_are_appended_as_the_published_code_appends_them(case):
    from maskfree.ops.segments import _with_location

    tensors, name = load_file(FIXTURE.with_suffix(".safetensors")), case["name"]
    places = _with_location(torch.zeros(1, 1, *case["shape"][2:]), 1.0)[0, :, 1:]
    given = tensors[f"mid.{name}.location"].flatten(0, 1)
    assert_close(
        places, given / (1 + given.square().sum(1, keepdim=True)).sqrt(), atol=1e-6, rtol=0
    )
    points = _with_location(F.normalize(tensors[f"in.{name}.embedding"], dim=1), 1.0).flatten(0, 1)
    assert_close(points, tensors[f"out.{name}.pixel_embedding_with_loc"], atol=1e-6, rtol=0)


def test_clusters_are_the_blobs_and_take_no_gradient():
    truth = torch.zeros(10, 14, dtype=torch.long)
    truth[5:, :7], truth[:5, 7:], truth[5:, 7:] = 1, 2, 3
    embeddings = torch.eye(4)[truth].movedim(-1, 0)[None].requires_grad_()
    found = spherical_kmeans(embeddings, 4)
    assert not found.requires_grad
    assert torch.equal(found[0], truth)  # ids run down the columns


def test_a_photos_segments_do_not_depend_on_its_batch():
    embeddings = smooth(3, 6, 13, 17)
    together = spherical_kmeans(embeddings, 12)
    assert torch.equal(together[1:2], spherical_kmeans(embeddings[1:2], 12))
    assert torch.equal(together.flip(0), spherical_kmeans(embeddings.flip(0), 12))


def slow_clusters(embeddings, clusters, inside, iterations):
    """K-means of one photo as in HSG: ignored pixels are taken out before the rest is clustered."""
    height, width = inside.shape
    points, labels = [], []
    for y, x in torch.cartesian_prod(torch.arange(height), torch.arange(width)).tolist():
        if inside[y, x]:
            place = torch.tensor([y / (height - 1) - 0.5, x / (width - 1) - 0.5])
            points.append(F.normalize(torch.cat([embeddings[:, y, x], place]), dim=0))
            labels.append(int(grid(clusters, height, width)[y, x]))
    for _ in range(iterations):
        sums = [torch.zeros_like(points[0]) for _ in range(clusters)]
        for point, label in zip(points, labels, strict=True):
            sums[label] = sums[label] + point
        centers = torch.stack([F.normalize(total, dim=0) for total in sums])
        labels = [int((centers @ point).argmax()) for point in points]
    found = torch.full(inside.shape, -1)
    found[inside] = torch.tensor(labels)
    return found


def test_ignored_pixels_leave_before_they_are_clustered():
    embeddings, inside = smooth(2, 6, 13, 17), torch.ones(2, 13, 17, dtype=torch.bool)
    inside[0, :, 10:], inside[1, 4:8] = False, False
    found = spherical_kmeans(embeddings, 12, inside=inside)
    for photo in range(2):
        slow = slow_clusters(embeddings[photo], 12, inside[photo], 10)
        assert torch.equal(found[photo], slow)
    # The pixels that were left out would have moved the others.
    assert not torch.equal(found[inside], spherical_kmeans(embeddings, 12)[inside])


def test_iterations_gather_pixels_about_their_centers():
    embeddings = smooth(2, 6, 13, 17)

    def agreement(iterations):
        sums, _ = segment_sums(
            embeddings, spherical_kmeans(embeddings, 12, iterations, location=0.0), 12
        )
        return sums.norm(dim=2).sum()  # the sum over pixels of the cosine to their center

    assert agreement(0) < agreement(1) < agreement(10)


def test_location_keeps_segments_together():
    embeddings = smooth(1, 6, 20, 30)
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    places = torch.stack([rows, columns])[None]

    def spread(location):
        segments = spherical_kmeans(embeddings, 12, location=location)
        sums, counts = segment_sums(places, segments, 12)
        centers = (sums / counts.clamp_min(1)[..., None])[0][segments[0]].movedim(-1, 0)
        return (places[0] - centers).square().mean()

    assert spread(3.0) < spread(1.0) < spread(0.0)


@pytest.mark.parametrize("location", [1.0, 0.0])
@pytest.mark.parametrize("value", [1.0, 0.0], ids=["one color", "zero vectors"])
def test_a_photo_of_one_color_is_cut_by_place_or_not_at_all(value, location):
    embeddings = value * F.normalize(torch.ones(2, 5, 12, 18), dim=1)
    found = spherical_kmeans(embeddings, 6, location=location)
    assert ((found >= 0) & (found < 6)).all()
    assert torch.equal(found[0], found[1])
    if location:
        assert len(found.unique()) == 6
        assert (torch.bincount(found[0].flatten()) > 12).all()
    elif not value:
        assert (found == 0).all()  # all similarities are 0


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 2)])
def test_fewer_pixels_than_segments_leave_segments_empty(size):
    embeddings = smooth(2, 5, *size)
    found = spherical_kmeans(embeddings, 36)
    assert found.shape == (2, *size)
    assert ((found >= 0) & (found < 36)).all()
    sums, counts = segment_sums(embeddings, found, 36)
    assert counts.sum(1).tolist() == [size[0] * size[1]] * 2
    assert sums.isfinite().all()


@pytest.mark.parametrize(
    ("num_segments", "size", "cells"),
    [
        (36, (40, 60), (6, 6)),
        (20, (18, 24), (4, 5)),
        (20, (24, 18), (5, 4)),
        (7, (20, 30), (1, 7)),
        (1, (8, 9), (1, 1)),
    ],
)
def test_the_grid_is_as_square_as_can_be(num_segments, size, cells):
    found = grid(num_segments, *size)
    assert found.shape == size
    assert found.unique().tolist() == list(range(num_segments))
    assert len(found[:, 0].unique()) == cells[0]
    assert len(found[0].unique()) == cells[1]


def test_halves_of_the_grid_round_to_even():
    assert grid(9, 33, 33)[0].bincount(minlength=9)[::3].tolist() == [9, 15, 9]


def test_no_segments_at_all_is_refused():
    with pytest.raises(ValueError, match="0 segments: there must be at least 1"):
        spherical_kmeans(smooth(1, 5, 3, 4), 0)


def test_cutting_numbers_the_pairs_that_occur_in_each_photo():
    segments = torch.tensor([[[0, 0, 1, 1]], [[3, 3, 3, 3]]])
    regions = torch.tensor([[[7, 5, 5, IGNORE]], [[0, 254, IGNORE, -1]]])
    assert intersect(segments, regions, 9).tolist() == [[[1, 0, 2, -1]], [[0, 1, -1, -1]]]


def test_a_cut_segment_lies_in_one_segment_and_one_region():
    torch.manual_seed(0)
    segments, regions = torch.randint(0, 6, (3, 9, 11)), torch.randint(0, 5, (3, 9, 11))
    found = intersect(segments, regions, 30)
    pairs = [
        len({(s, r) for s, r in zip(a.tolist(), c.tolist(), strict=True)})
        for a, c in zip(segments.flatten(1), regions.flatten(1), strict=True)
    ]
    assert (found.flatten(1).amax(1) + 1).tolist() == pairs
    for values in (segments, regions):
        named = segment_values(values, found, 30)
        assert torch.equal(named.gather(1, found.flatten(1)).view_as(values), values)


def test_the_smallest_pairs_go_first_and_the_last_of_equal_ones():
    segments = torch.tensor([[[0, 0, 0, 1, 2, 2, 3, 4, 4, 4]]])
    regions = torch.zeros_like(segments)
    assert intersect(segments, regions, 3).tolist() == [[[0, 0, 0, -1, 1, 1, -1, 2, 2, 2]]]
    assert intersect(segments, regions, 4).tolist() == [[[0, 0, 0, 1, 2, 2, -1, 3, 3, 3]]]
    assert (intersect(segments, regions, 0) == -1).all()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_a_photo_whose_pixels_are_all_void_has_no_segment(dtype):
    segments = torch.arange(12).view(1, 3, 4).expand(2, -1, -1)
    regions = torch.full((2, 3, 4), IGNORE, dtype=dtype)
    regions[1, 0, 0] = 2
    found = intersect(segments, regions, 5)
    assert (found[0] == -1).all()
    assert (found[1] >= 0).sum() == 1
    sums, counts = segment_sums(torch.ones(2, 7, 3, 4), found, 5)
    assert counts.tolist() == [[0] * 5, [1, 0, 0, 0, 0]]
    assert sums.sum() == 7
    assert segment_values(regions.long(), found, 5).tolist() == [[-1] * 5, [2, -1, -1, -1, -1]]


def test_sums_are_the_loops_and_their_gradient_is_each_pixels_share():
    torch.manual_seed(0)
    values = torch.randn(2, 3, 5, 7, requires_grad=True)
    segments = torch.randint(-1, 4, (2, 5, 7))
    sums, counts = segment_sums(values, segments, 6)
    for photo in range(2):
        for segment in range(6):
            inside = segments[photo] == segment
            assert_close(sums[photo, segment], values[photo][:, inside].sum(1))
            assert counts[photo, segment] == inside.sum()
    upstream = torch.randn_like(sums)
    (gradient,) = torch.autograd.grad(sums, values, upstream)
    padded = torch.cat([upstream, torch.zeros(2, 1, 3)], 1)  # segment -1 is the last row
    for photo in range(2):
        assert_close(gradient[photo], padded[photo][segments[photo]].movedim(-1, 0))


def test_sums_of_half_precision_values_are_taken_in_single_precision():
    values = torch.full((1, 1, 50, 60), 0.1, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, counts = segment_sums(values, torch.zeros(1, 50, 60, dtype=torch.long), 2)
    assert sums.dtype == torch.float32
    assert_close(sums[0, 0, 0], 3000 * values[0, 0, 0, 0].float())
    assert counts.tolist() == [[3000, 0]]
