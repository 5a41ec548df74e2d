"""Dense features of every family of image encoders: those of transformers, for images of any size,
and what the presets of the last block do to them.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    convert_image_to_patches,
)
from transformers.models.tipsv2.image_processing_tipsv2 import Tipsv2ImageProcessor

from image_text_models import FAMILIES, image_text_model
from maskfree.methods.maskclip.published import maskclip_config
from maskfree.nn.dense_clip_config import NACLIP, PRESETS, TRAINED, DenseClipConfig
from maskfree.nn.dense_families import DENSE_FAMILIES
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.image_encoder import STATISTICS

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}
DENSE_TIPSV2 = DenseClipConfig("tipsv2", {"hidden_size": 12, "num_hidden_layers": 1})
GRIDS = {"trained": (4, 4), "small": (2, 2), "wide": (3, 7), "high": (6, 1)}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family: str):
    torch.manual_seed(0)
    return image_text_model(family)


@pytest.fixture
def config(model, tmp_path: Path) -> DenseClipConfig:
    """Settings that read the image encoder of `model`, with the trained block."""
    model.save_pretrained(tmp_path)
    return maskclip_config(str(tmp_path), "trained").image


def built(config: DenseClipConfig) -> DenseTransformer:
    encoder = config.build().eval()
    assert isinstance(encoder, DenseTransformer)
    return encoder


def photos(grid: tuple[int, int], number: int = 2) -> Tensor:
    return torch.rand(number, 3, 8 * grid[0], 8 * grid[1])


def tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).mT


def colors(family: str, images: Tensor) -> Tensor:
    """Images as the image processor of a family shows them to the network."""
    mean, deviation = STATISTICS[DENSE_FAMILIES[family].statistics]
    channels = [(images[:, channel] - mean[channel]) / deviation[channel] for channel in range(3)]
    return torch.stack(channels, dim=1)


def as_patches(image: Tensor, side: int = 8) -> Tensor:
    """Patches of one image as NaFlex takes them, one after the other, pixel by pixel."""
    rows = []
    for top in range(0, image.shape[1], side):
        for left in range(0, image.shape[2], side):
            pixels = []
            for y in range(top, top + side):
                for x in range(left, left + side):
                    pixels += image[:, y, x].tolist()
            rows.append(pixels)
    return torch.tensor(rows)


def transformers_features(family: str, model, images: Tensor) -> Tensor:
    """Patch features of transformers' own forward pass, after the last normalization."""
    shown = colors(family, images)
    vision = model.vision_model
    if family in ("clip", "metaclip_2"):
        hidden = vision(shown, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
        # CLIP normalizes the class token only.
        return vision.post_layernorm(hidden)
    if family == "siglip":
        return vision(shown, interpolate_pos_encoding=True).last_hidden_state
    if family == "tipsv2":
        return vision(shown).last_hidden_state[:, 3:]  # a class token and two registers

    patches = torch.stack([as_patches(image) for image in shown])
    grid = [images.shape[2] // 8, images.shape[3] // 8]
    return vision(
        pixel_values=patches,
        pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
        spatial_shapes=torch.tensor([grid] * len(images)),
    ).last_hidden_state


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@torch.no_grad()
def test_features_are_those_of_transformers(family, model, config, grid):
    images = photos(grid)
    dense = built(config).read(images)
    assert dense.features.shape[2:] == dense.keys.shape[2:] == grid
    assert_close(tokens(dense.features), transformers_features(family, model, images), **TOLERANCE)


def transformers_image(family: str, model, images: Tensor) -> Tensor:
    """Image embeddings of transformers' own forward pass."""
    shown = colors(family, images)
    if family in ("clip", "metaclip_2", "siglip"):
        return model.get_image_features(shown, interpolate_pos_encoding=True).pooler_output
    if family == "tipsv2":
        return model.get_image_features(shown).pooler_output

    patches = torch.stack([as_patches(image) for image in shown])
    grid = [images.shape[2] // 8, images.shape[3] // 8]
    return model.get_image_features(
        pixel_values=patches,
        pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
        spatial_shapes=torch.tensor([grid] * len(images)),
    ).pooler_output


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@torch.no_grad()
def test_images_are_embedded_as_by_transformers_whatever_the_last_block(
    family, model, config, grid
):
    images = photos(grid)
    expected = transformers_image(family, model, images)
    for block in (TRAINED, NACLIP):
        found = built(replace(config, last_block=block)).embed_whole(images)
        assert_close(found, expected, **TOLERANCE)


@torch.no_grad()
def test_keys_are_those_of_the_last_block(family, model, config):
    encoder, images = built(config), photos((3, 5))
    last = encoder.blocks[-1]
    attention = last.attention if family == "tipsv2" else last.self_attn
    seen = []
    attention.k_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    dense = encoder.read(images)
    assert_close(tokens(dense.keys), seen[-1][:, encoder.num_prefix_tokens :], **TOLERANCE)
    assert not torch.equal(dense.keys[..., 0, 0], dense.keys[..., 2, 4])


def plain_naclip(encoder: DenseTransformer, images: Tensor) -> Tensor:
    """The block of NACLIP, head by head and patch by patch."""
    grid = encoder.grid(images)
    hidden = encoder.before_last_block(images)
    parts, skipped = encoder.block_parts(encoder.blocks[-1]), encoder.num_prefix_tokens
    normalized = parts.norm(hidden)
    keys, values = parts.key(normalized), parts.value(normalized)
    width = keys.shape[2] // parts.num_heads
    mixed = torch.zeros_like(hidden)
    for head in range(parts.num_heads):
        channels = slice(head * width, (head + 1) * width)
        for image in range(len(images)):
            for one in range(hidden.shape[1]):
                logits = keys[image, :, channels] @ keys[image, one, channels] / width**0.5
                for other in range(skipped, hidden.shape[1]):
                    if one >= skipped:
                        row, column = divmod(one - skipped, grid[1])
                        row_2, column_2 = divmod(other - skipped, grid[1])
                        square = (row - row_2) ** 2 + (column - column_2) ** 2
                        logits[other] += torch.tensor(-square / (2 * 5.0**2)).exp()
                mixed[image, one, channels] = logits.softmax(0) @ values[image, :, channels]
    return encoder.final_norm(parts.output(mixed))[:, skipped:]


@torch.no_grad()
def test_presets_work_on_the_blocks_of_every_family(config):
    images = photos((2, 3))
    naclip = built(replace(config, last_block=NACLIP))
    assert_close(tokens(naclip.read(images).features), plain_naclip(naclip, images), **TOLERANCE)
    features = {
        name: built(replace(config, last_block=block)).read(images).features
        for name, block in PRESETS.items()
    }
    for name, one in features.items():
        for other in features.keys() - {name}:
            assert not torch.allclose(one, features[other], atol=1e-3), (name, other)


@torch.no_grad()
def test_layer_scale_of_tipsv2_holds_for_other_attentions(tmp_path):
    image_text_model("tipsv2").save_pretrained(tmp_path)
    encoder = built(maskclip_config(str(tmp_path), "maskclip").image)
    images = photos((2, 3))
    last, hidden = encoder.tower.encoder.layer[-1], encoder.before_last_block(images)
    values = last.attention.o_proj(last.attention.v_proj(last.norm1(hidden)))
    hidden = hidden + values * last.layer_scale1.lambda1
    hidden = hidden + last.mlp(last.norm2(hidden)) * last.layer_scale2.lambda1
    expected = encoder.tower.layernorm(hidden)[:, 3:]
    assert_close(tokens(encoder.read(images).features), expected, **TOLERANCE)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(config):
    for block in (TRAINED, NACLIP):
        encoder, images = built(replace(config, last_block=block)), photos((3, 5), 3)
        assert_close(encoder(images)[1:2], encoder(images[1:2]), **TOLERANCE)


@torch.no_grad()
def test_projection_is_that_of_the_whole_image(family, model, config):
    encoder = built(config)
    if family == "tipsv2":
        # The pooled class token, seen as a patch, is the embedding of the image already.
        images = photos((3, 5))
        pooled = model.get_image_features(colors(family, images)).pooler_output
        assert_close(encoder.project(pooled[..., None, None])[..., 0, 0], pooled)
    elif family in ("clip", "metaclip_2"):
        images = photos((4, 4))
        hidden = model.vision_model(colors(family, images)).pooler_output
        pooled = model.get_image_features(colors(family, images)).pooler_output
        assert_close(encoder.project(hidden[..., None, None])[..., 0, 0], pooled, **TOLERANCE)
    elif family == "siglip":
        images = photos((1, 1))
        pooled = model.get_image_features(
            colors(family, images), interpolate_pos_encoding=True
        ).pooler_output
        assert_close(encoder(images)[..., 0, 0], pooled, **TOLERANCE)
    else:
        images = photos((1, 1))
        pooled = model.get_image_features(
            pixel_values=torch.stack([as_patches(image) for image in colors(family, images)]),
            pixel_attention_mask=torch.ones(2, 1, dtype=torch.long),
            spatial_shapes=torch.ones(2, 2, dtype=torch.long),
        ).pooler_output
        assert_close(encoder(images)[..., 0, 0], pooled, **TOLERANCE)
    assert encoder(photos((3, 5))).shape == (2, encoder.dim, 3, 5)
    assert encoder.dim == pooled.shape[1]


@torch.no_grad()
def test_settings_without_weights_build_the_same_network(config):
    stored = config.without_pretrained()
    assert stored.weights is None
    encoder, again, images = built(config), built(stored), photos((3, 5))
    again.load_state_dict(encoder.state_dict())
    assert_close(again(images), encoder(images), **TOLERANCE)


def test_settings_that_do_not_fit(family, config):
    with pytest.raises(ValueError, match="16x20 px does not divide into patches of 8 px"):
        built(config)(torch.rand(1, 3, 16, 20))
    by_factor = replace(config, positions="factor")
    if DENSE_FAMILIES[family].bicubic_positions:
        images = photos((3, 5))
        assert not torch.allclose(built(by_factor)(images), built(config)(images), atol=1e-4)
    else:
        with pytest.raises(ValueError, match=rf"positions is 'factor': a {family} resizes"):
            by_factor.build()


def test_networks_that_embed_no_square_patches(family, config):
    longer = replace(config, weights=None, architecture={"patch_size": [8, 16]})
    with pytest.raises(ValueError, match=r"patch_size is \[8, 16\]: patches have one side"):
        longer.build()
    if family in ("siglip", "siglip2"):
        headless = replace(config, architecture={"vision_use_head": False})
        with pytest.raises(ValueError, match=f"a {family} without it embeds nothing"):
            headless.build()


def test_colors_and_patches_are_those_of_the_image_processors():
    processors = {
        "clip": CLIPImageProcessorPil,
        "metaclip_2": CLIPImageProcessorPil,
        "siglip": SiglipImageProcessorPil,
        "siglip2": Siglip2ImageProcessorPil,
    }
    for family, processor in processors.items():
        mean, deviation = STATISTICS[DENSE_FAMILIES[family].statistics]
        assert mean == pytest.approx(processor.image_mean), family
        assert deviation == pytest.approx(processor.image_std), family

    # TIPSv2's processor divides by 255 and does no more.
    assert not Tipsv2ImageProcessor.do_normalize
    image = torch.rand(3, 24, 40)
    assert_close(DENSE_TIPSV2.build().normalized(image[None])[0], image)
    assert_close(as_patches(image), torch.from_numpy(convert_image_to_patches(image.numpy(), 8)))
