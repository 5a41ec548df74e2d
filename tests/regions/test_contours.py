"""Contours, their hierarchy, and region maps of every kind: what they mean, and photos
of any size.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maskfree.regions.contour_hierarchy import ContourHierarchy
from maskfree.regions.contours import contour_strength
from maskfree.regions.learned_contours import dexined_strength, direction_across
from maskfree.regions.region_maps import SegmentConfig, region_map

KINDS = ("contours", "slic", "felzenszwalb")


def quarters(height=60, width=84):
    """A photo of four colors, and the number of each pixel's quarter."""
    numbers = np.zeros((height, width), np.int64)
    numbers[:, width // 3 :] += 1
    numbers[height // 2 :] += 2
    colors = np.array([[200, 40, 40], [40, 160, 60], [40, 60, 200], [220, 210, 60]], np.uint8)
    return colors[numbers], numbers


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def same_partition(one, other):
    pairs = len(np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T)
    return pairs == len(np.unique(one)) == len(np.unique(other))


def test_a_contour_is_strong_where_colors_meet_and_its_direction_goes_across():
    photo, _ = quarters()
    strength, direction = contour_strength(photo)
    assert strength.min() >= 0 and strength.max() <= 1
    assert strength[10, 26:30].max() > 5 * strength[10, 10]  # the upright border at column 28
    assert strength[28:32, 60].max() > 5 * strength[15, 60]
    assert abs(np.sin(direction[10, 27:29])).max() < 0.1  # along x
    assert abs(np.cos(direction[29:31, 60])).max() < 0.1


def test_a_diagonal_contour_has_a_diagonal_direction():
    y, x = np.mgrid[:64, :80]
    photo = np.where((x - y > 8)[..., None], [180, 180, 180], [70, 70, 70]).astype(np.uint8)
    _, direction = contour_strength(photo)
    assert direction[30, 38] == pytest.approx(
        3 * np.pi / 4, abs=0.05
    )  # to the right and upwards, or the reverse


def test_texture_alone_makes_a_contour_and_its_inside_none():
    generator = np.random.default_rng(0)
    photo = np.full((80, 120, 3), 128, np.uint8)
    stripes = np.where(np.arange(60) // 2 % 2, 90, 166).astype(np.uint8)
    photo[:, :60] = stripes[:, None]
    photo[:, 60:] = np.where(np.arange(80) // 2 % 2, 90, 166).astype(np.uint8)[:, None, None]
    photo += generator.integers(0, 4, photo.shape, np.uint8)
    strength, _ = contour_strength(photo)
    assert strength[20:60, 56:64].max(1).mean() > 1.5 * strength[20:60, 20:28].max(1).mean()


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (13, 200, 77)])
def test_a_photo_of_one_color_has_no_contour_and_one_region(color):
    photo = np.full((40, 57, 3), color, np.uint8)
    assert contour_strength(photo)[0].max() == 0
    for kind in KINDS:
        assert region_map(photo, SegmentConfig(kind=kind)).tolist() == np.zeros((40, 57)).tolist()


def test_the_regions_are_the_colors():
    photo, numbers = quarters()
    regions = region_map(photo, SegmentConfig())
    agreement = max_overlap(regions, numbers)
    assert len(np.unique(regions)) == 4
    assert agreement > 0.97


def max_overlap(regions, numbers):
    both = np.zeros((numbers.max() + 1, regions.max() + 1))
    np.add.at(both, (numbers.ravel(), regions.ravel()), 1)
    return both.max(1).sum() / numbers.size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 200), (200, 3), (5, 7), (61, 48)])
def test_photos_of_any_size_have_regions_from_0_on_and_not_too_many(kind, size):
    regions = region_map(noise(*size), SegmentConfig(kind=kind, max_regions=7))
    assert regions.shape == size
    assert np.unique(regions).tolist() == list(range(regions.max() + 1))
    assert regions.max() < 7


def test_a_large_photo_gives_a_map_within_the_limit():
    assert region_map(noise(30, 90), SegmentConfig(side_px=45)).shape == (15, 45)
    assert region_map(noise(30, 90), SegmentConfig(side_px=0)).shape == (30, 90)


def test_the_same_photo_gives_the_same_map():
    photo = noise(40, 50) // 4 + quarters(40, 50)[0] // 2
    assert (region_map(photo, SegmentConfig()) == region_map(photo, SegmentConfig())).all()


def fence(strengths=(0.3, 0.6), height=9, width=30):
    """Two upright contours."""
    strength = np.zeros((height, width), np.float32)
    strength[:, 9:11], strength[:, 19:21] = strengths
    return ContourHierarchy.build(strength, None)


def test_regions_part_at_the_strength_of_the_contour_between_them():
    for threshold, number in ((0.2, 3), (0.4, 2), (0.7, 1)):
        assert fence().cuts([threshold])[0].max() + 1 == number


def test_cuts_are_nested():
    strength, direction = contour_strength(noise(40, 50) // 2 + quarters(40, 50)[0] // 2)
    fine, coarse = ContourHierarchy.build(strength, direction).cuts([0.05, 0.2])
    assert fine.max() > coarse.max()
    assert all(len(np.unique(coarse[fine == region])) == 1 for region in range(fine.max() + 1))


def test_the_threshold_rises_until_there_are_few_enough_regions():
    assert fence().regions(0.25, 0.01, 3).max() + 1 == 3
    assert fence().regions(0.25, 0.01, 2).max() + 1 == 2
    assert fence().regions(0.25, 0.01, 1).max() + 1 == 1


def test_a_contour_counts_less_across_its_direction():
    strength = np.zeros((24, 30), np.float32)
    strength[11:13] = 0.8
    along, across = np.zeros_like(strength), np.full_like(strength, np.pi / 2)
    assert ContourHierarchy.build(strength, across).altitudes.max() == pytest.approx(0.8, rel=0.05)
    assert ContourHierarchy.build(strength, along).altitudes.max() < 0.1
    strength, along, across = strength.T.copy(), across.T.copy(), along.T.copy()
    assert ContourHierarchy.build(strength, across).altitudes.max() == pytest.approx(0.8, rel=0.05)
    assert ContourHierarchy.build(strength, along).altitudes.max() < 0.1


def test_the_rule_cuts_where_the_detector_is_about_best():
    """As measured: the offset of the detector and the threshold of the rule belong together."""
    results = Path(__file__).parents[2] / "results" / "segments-contours.json"
    measured = json.loads(results.read_text())
    assert measured["settings"]["threshold"] == SegmentConfig().threshold
    assert measured["maps"]["boundary_ods"] > measured["swept"]["boundary_ods"] - 0.03
    assert measured["maps"]["covering_ods"] > measured["swept"]["covering_ods"] - 0.06


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "quickshift"}, "kind is 'quickshift'"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"max_regions": 0}, "max_regions is 0"),
        ({"max_regions": 256}, "max_regions is 256"),
        ({"side_px": -1}, "side_px is -1"),
        ({"detector": "hed"}, "detector 'hed'"),
        ({"detector": "dexined:"}, "detector 'dexined:'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        SegmentConfig(**settings)


def test_the_direction_of_a_strength_is_across_its_ridges():
    y, x = np.mgrid[:40, :50].astype(np.float32)
    assert abs(np.sin(direction_across(np.exp(-((x - 25) ** 2) / 8))[20, 25])) < 1e-3
    assert direction_across(np.exp(-((y - 20) ** 2) / 8))[20, 25] == pytest.approx(
        np.pi / 2, abs=1e-3
    )
    assert direction_across(np.exp(-((x - y - 5) ** 2) / 8))[20, 25] == pytest.approx(
        3 * np.pi / 4, abs=1e-3
    )


@pytest.fixture
def small_dexined(monkeypatch):
    """A network of few weights in the place of DexiNed, which has 35 million."""
    dexined = pytest.importorskip("kornia.models.dexined")

    class Small(torch.nn.Module):
        def __init__(self, pretrained):
            assert not pretrained
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, pixels):
            assert min(pixels.shape[2:]) >= 32
            return self.layer(pixels)

    monkeypatch.setattr(dexined, "DexiNed", Small)
    return Small


def test_a_learned_detector_takes_weights_from_a_file_and_photos_of_any_size(
    tmp_path, small_dexined
):
    weights = small_dexined(pretrained=False).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    save_file(weights, tmp_path / "w.safetensors")
    for size in ((1, 1), (3, 45), (33, 50)):
        strength, direction = dexined_strength(noise(*size), str(tmp_path / "w.pth"))
        assert strength.shape == direction.shape == size
        assert strength.min() >= 0 and strength.max() <= 1
        assert (
            dexined_strength(noise(*size), str(tmp_path / "w.safetensors"))[0] == strength
        ).all()
    regions = region_map(noise(33, 50), SegmentConfig(detector=f"dexined:{tmp_path / 'w.pth'}"))
    assert regions.shape == (33, 50)


def test_the_learned_detector_gets_blue_first_less_the_mean(tmp_path, small_dexined):
    weights = small_dexined(pretrained=False).state_dict()
    weights["layer.weight"].zero_()[0, 0, 1, 1] = 1.0
    weights["layer.bias"].zero_()
    torch.save(weights, tmp_path / "w.pth")
    photo = np.full((33, 40, 3), (10, 20, 103), np.uint8)
    strength, _ = dexined_strength(photo, str(tmp_path / "w.pth"))
    assert strength[5, 5] == pytest.approx(1 / (1 + np.exp(0.939)), rel=1e-4)


@pytest.mark.slow
def test_dexined_itself_runs(tmp_path):
    dexined = pytest.importorskip("kornia.models.dexined")
    torch.save(dexined.DexiNed(pretrained=False).state_dict(), tmp_path / "w.pth")
    assert dexined_strength(noise(33, 50), str(tmp_path / "w.pth"))[0].shape == (33, 50)


def test_a_learned_detector_without_its_weights_is_refused_in_one_line(tmp_path, small_dexined):
    with pytest.raises(FileNotFoundError, match="DexiNed's weights"):
        dexined_strength(noise(8, 9), str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pth")
    for name in ("text.pth", "other.pth"):
        with pytest.raises(ValueError, match=name) as raised:
            dexined_strength(noise(8, 9), str(tmp_path / name))
        assert "\n" not in str(raised.value)
