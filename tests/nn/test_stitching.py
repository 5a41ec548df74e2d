"""Windows stitched before the last block: against loops over patches, and for every family."""

import json
from dataclasses import asdict, replace
from typing import Any

import dacite
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from image_text_models import FAMILIES, tiny_family_config
from maskfree.hub import loading
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.maskclip.presets import METHOD_PRESETS, STITCHED
from maskfree.nn.dense_clip_config import CLEARCLIP, PROXY, TRAINED, LastBlock
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.ops.window_starts import window_starts
from tiny import TINY_DINO, tiny_maskclip_config, tiny_siglip_config
from tiny_published import save_clip

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}
CONFIGS = {
    "clip": tiny_maskclip_config,
    "siglip": tiny_siglip_config,
    **{name: lambda name=name: tiny_family_config(name) for name in FAMILIES[3:]},
}


@torch.no_grad()
def encoder(family: str, block: LastBlock) -> DenseTransformer:
    """Random weights, those of positions too, so that windows differ from whole images."""
    torch.manual_seed(0)
    built = replace(CONFIGS[family]().image, last_block=block).build().eval()
    assert isinstance(built, DenseTransformer)
    for weight in built.parameters():
        weight.copy_(0.3 * torch.randn_like(weight))
    return built


def slowly_stitched(tower: DenseTransformer, image: Tensor, side: int, starts) -> Tensor:
    """Tokens of one image: for each patch, the mean over the windows that hold it."""
    skipped, size = tower.num_prefix_tokens, tower.patch_size
    rows, columns = image.shape[1] // size, image.shape[2] // size
    prefixes, found = [], [[[] for _ in range(columns)] for _ in range(rows)]
    for top in starts[0]:
        for left in starts[1]:
            height, width = min(side, rows), min(side, columns)
            crop = image[:, top * size : (top + height) * size]
            crop = crop[:, :, left * size : (left + width) * size]
            tokens = tower.before_last_block(crop[None])[0]
            prefixes.append(tokens[:skipped])
            for row in range(height):
                for column in range(width):
                    patch = tokens[skipped + row * width + column]
                    found[top + row][left + column].append(patch)
    patches = [torch.stack(tokens).mean(0) for line in found for tokens in line]
    return torch.cat([torch.stack(prefixes).mean(0), torch.stack(patches)])


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    ("grid", "stitch_px", "starts"),
    [
        ((5, 7), 24, ([0, 1, 2], [0, 1, 2, 3, 4])),
        ((7, 5), 34, ([0, 2, 3], [0, 1])),  # 4.25 patches are 4
        ((3, 9), 32, ([0], [0, 2, 4, 5])),  # as high as the photo
        ((2, 3), 3, ([0, 1], [0, 1, 2])),  # one patch at least
    ],
)
@torch.no_grad()
def test_last_block_sees_the_mean_of_all_windows(family, grid, stitch_px, starts):
    tower = encoder(family, LastBlock("kk", stitch_px=stitch_px))
    images = torch.rand(2, 3, 8 * grid[0], 8 * grid[1])
    side = max(1, stitch_px // 8)
    hidden = torch.stack([slowly_stitched(tower, image, side, starts) for image in images])
    expected, found = tower.finish(hidden, grid), tower.read(images)
    assert_close(found.features, expected.features, **TOLERANCE)
    assert_close(found.keys, expected.keys, **TOLERANCE)
    assert found.features.shape[2:] == grid

    whole = encoder(family, LastBlock("kk")).read(images).features
    assert (found.features - whole).abs().max() > 0.01


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_photo_within_one_window_is_read_as_without(family):
    images = torch.rand(2, 3, 24, 40)
    for block in (TRAINED, CLEARCLIP):
        plain = encoder(family, block).read(images)
        stitched = encoder(family, replace(block, stitch_px=40)).read(images)
        assert_close(stitched.features, plain.features, atol=0, rtol=0)
        assert_close(stitched.keys, plain.keys, atol=0, rtol=0)


@torch.no_grad()
def test_last_block_reaches_beyond_a_window():
    """Patches of both ends of a wide photo, which no window holds together."""
    images, changed = torch.rand(2, 1, 3, 16, 72)
    changed[..., :64] = images[..., :64]
    tower = encoder("clip", LastBlock("qk", stitch_px=16))
    difference = (tower.read(changed).features - tower.read(images).features).abs()
    assert difference[..., 0].max() > 1e-4
    # Alone, values stay where they are.
    tower = encoder("clip", LastBlock("value", stitch_px=16))
    difference = (tower.read(changed).features - tower.read(images).features).abs()
    assert difference[..., :7].max() == 0 and difference[..., 8].max() > 1e-4


@torch.no_grad()
def test_a_proxy_works_on_stitched_windows():
    config = tiny_maskclip_config(proxy=TINY_DINO)
    block = replace(PROXY, stitch_px=16)
    method = replace(config, image=replace(config.image, last_block=block)).build().eval()
    images, classes = torch.rand(2, 3, 40, 80), torch.eye(18)[:4]
    found = method.segment(images, classes)
    assert found.shape == (2, 4, 8, 16) and found.isfinite().all()
    one_by_one = torch.cat([method.segment(image[None], classes) for image in images])
    assert_close(found, one_by_one, **TOLERANCE)


def test_windows_cover_a_length():
    assert window_starts(21, 14, 7) == [0, 7] and window_starts(14, 14, 7) == [0]
    assert window_starts(22, 14, 7) == [0, 7, 8] and window_starts(3, 14, 7) == [0]


def test_settings_survive_json_and_bad_ones_are_refused():
    config = METHOD_PRESETS["stitched"].apply(tiny_maskclip_config())
    assert config.image.last_block == STITCHED and STITCHED.stitch_px == 224
    read = dacite.from_dict(MaskCLIPConfig, json.loads(json.dumps(asdict(config))))
    assert read == config

    # Checkpoints from before the setting.
    saved = json.loads(json.dumps(asdict(tiny_maskclip_config())))
    del saved["image"]["last_block"]["stitch_px"]
    assert dacite.from_dict(MaskCLIPConfig, saved) == tiny_maskclip_config()

    with pytest.raises(ValueError, match="stitch_px is 0"):
        LastBlock("qq", stitch_px=0)


def test_name_reads_a_clip_that_gets_photos_whole(tmp_path, tiny_tokenizer, photo, monkeypatch):
    save_clip(tmp_path / "clip", tiny_tokenizer)
    segmenter = loading.load(f"stitched:{tmp_path / 'clip'}")
    method: Any = segmenter.method
    assert method.image.last_block == STITCHED

    sizes = []
    finish = method.image.finish
    monkeypatch.setattr(
        method.image, "finish", lambda *given: sizes.append(given[1]) or finish(*given)
    )
    result = segmenter.with_words(["dog", "grass"], templates="plain")(photo((183, 57)))
    assert result.labels.shape == (57, 183)
    # 336 px and 1079 px, in patches of 8.
    assert sizes == [(42, 135)]
