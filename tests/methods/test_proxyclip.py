"""ProxyCLIP: a CLIP whose last block attends as another encoder sees fit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.hub.convert.clip import read_clip, read_clip_file
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.maskclip import presets
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.nn.dense_clip_config import PROXY
from maskfree.nn.encoder_config import ImageEncoderConfig
from published_clip import clip_model, published
from tiny import TINY_DINO, tiny_maskclip_config
from tiny_published import save_clip


def proxied(**changes) -> MaskCLIPConfig:
    """A tiny CLIP with patches of 8 px that attends as a tiny DINO of 5 px."""
    config = tiny_maskclip_config(proxy=TINY_DINO, **changes)
    return replace(config, image=replace(config.image, last_block=PROXY))


@torch.no_grad()
def slow_cosines(method, image, classes):
    """Cosines of one photo by the equations, patch by patch, with networks of transformers."""
    normalized = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    dino = method.proxy.tower(normalized[None], interpolate_pos_encoding=True)
    theirs = F.normalize(dino.last_hidden_state[0, 1:], dim=1)

    # CLIP sees the photo at the next multiple of its own patch.
    height, width = (-(-side // 8) * 8 for side in image.shape[1:])
    larger = F.interpolate(image[None], (height, width), mode="bilinear")
    tower = method.image.tower
    hidden = tower.vision_model(
        (larger - method.image.mean) / method.image.deviation,
        interpolate_pos_encoding=True,
        output_hidden_states=True,
    ).hidden_states[-2]
    last = tower.vision_model.encoder.layers[-1]
    values = last.self_attn.v_proj(last.layer_norm1(hidden))[:, 1:]
    values = values.mT.unflatten(2, (height // 8, width // 8))
    rows, columns = (side // 5 for side in image.shape[1:])
    values = F.interpolate(values, (rows, columns), mode="bilinear")[0].flatten(1).T

    mean = sum(float(one @ other) for one in theirs for other in theirs) / len(theirs) ** 2
    cosines = torch.zeros(len(classes), rows * columns)
    for patch, one in enumerate(theirs):
        logits = torch.tensor([3 * (float(one @ other) - 1.2 * mean) for other in theirs])
        near = [other for other, logit in enumerate(logits) if logit >= 0]
        weights = logits[near].softmax(0)
        mixed = sum(weight * values[other] for weight, other in zip(weights, near, strict=True))
        out = tower.vision_model.post_layernorm(last.self_attn.out_proj(mixed))
        cosines[:, patch] = classes @ F.normalize(tower.visual_projection(out), dim=0)
    return cosines.unflatten(1, (rows, columns))


@torch.no_grad()
@pytest.mark.parametrize("size", [(30, 55), (40, 40)])
def test_equals_the_equations_patch_by_patch(size):
    method = proxied().build().eval()
    # A common part makes patches more alike, as those of a trained DINO are.
    method.proxy.tower.layernorm.bias.copy_(torch.randn(24))
    images, classes = torch.rand(2, 3, *size), F.normalize(torch.randn(4, 18), dim=1)
    scores = method.segment(images, classes)
    assert method.patch_size == 5 and scores.shape == (2, 4, size[0] // 5, size[1] // 5)
    for image, found in zip(images, scores, strict=True):
        assert_close(found, slow_cosines(method, image, classes), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_groups_are_those_of_the_proxy():
    method = proxied().build().eval()
    images, classes = torch.rand(2, 3, 15, 25), F.normalize(torch.randn(4, 18), dim=1)
    groups = method.group(images)
    assert groups.patches == (3, 5)
    assert_close(method.segment(images, classes), groups.spread(groups.embeddings @ classes.T))


@torch.no_grad()
def test_whole_images_are_embedded_without_the_proxy():
    """Images of 15x25 px are enlarged to the 16x32 px that CLIP's patches of 8 px cover."""
    method = proxied().build().eval()
    tower = method.image.tower
    images = torch.rand(2, 3, 15, 25)
    enlarged = F.interpolate(images, (16, 32), mode="bilinear", align_corners=False)
    shown = method.image.normalized(enlarged)
    expected = tower(shown, interpolate_pos_encoding=True).image_embeds
    assert_close(method.embed_images(images), F.normalize(expected, dim=-1), atol=1e-4, rtol=1e-3)
    assert_close(method.embed_images(images).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("family", ["dinov2", "dinov3"])
@torch.no_grad()
def test_newer_encoders_are_proxies(family):
    changes = {"num_register_tokens": 2} if family == "dinov3" else {}
    architecture = {
        name: value for name, value in TINY_DINO.architecture.items() if name != "intermediate_size"
    }
    proxy = ImageEncoderConfig(family, architecture | changes)
    method = replace(proxied(), proxy=proxy).build().eval()
    scores = method.segment(torch.rand(1, 3, 10, 35), F.normalize(torch.randn(4, 18), dim=1))
    assert scores.shape == (1, 4, 2, 7) and scores.isfinite().all()


def test_checkpoint_holds_the_proxy():
    config = proxied()
    method, again = config.build(), config.without_pretrained().build()
    again.load_state_dict(method.state_dict())
    assert any(name.startswith("proxy.") for name in method.state_dict())
    assert not any(each.requires_grad for each in method.parameters())


@torch.no_grad()
def test_name_builds_clip_and_dino(tmp_path, tiny_tokenizer, monkeypatch, photo):
    save_clip(tmp_path / "clip", tiny_tokenizer)
    tiny = replace(presets.METHOD_PRESETS["proxyclip"], proxy=TINY_DINO)
    monkeypatch.setitem(presets.METHOD_PRESETS, "proxyclip", tiny)

    read = read_clip(str(tmp_path / "clip"), "proxyclip")
    assert read.inference.window_px == 336 and read.config.proxy == TINY_DINO
    segmenter = Segmenter(read.method.eval(), read.tokenizer, inference=read.inference)
    small = segmenter.with_inference(
        replace(read.inference, side_px=40, window_px=40, stride_px=15)
    ).with_words(["dog", "grass"], templates="plain")
    assert small(photo((83, 57))).labels.shape == (57, 83)


@torch.no_grad()
def test_file_of_a_clip_keeps_the_proxy(tmp_path, tiny_tokenizer, monkeypatch):
    dino = ImageEncoderConfig("dino", weights=str(tmp_path / "dino"))
    TINY_DINO.build().tower.save_pretrained(tmp_path / "dino")
    preset = replace(presets.METHOD_PRESETS["proxyclip"], proxy=dino)
    monkeypatch.setitem(presets.METHOD_PRESETS, "proxyclip", preset)
    save_clip(tmp_path / "clip", tiny_tokenizer)
    model = clip_model()
    state = {name: tensor.clone().contiguous() for name, tensor in published(model).items()}
    save_file(state, tmp_path / "clip" / "ViT.safetensors")

    read = read_clip_file(
        tmp_path / "clip" / "ViT.safetensors", "proxyclip", str(tmp_path / "clip"), heads=(3, 2)
    )
    projection = read.method.image.tower.visual_projection.weight
    assert torch.equal(projection, model.visual_projection.weight)
    for name, tensor in dino.build().tower.state_dict().items():
        assert torch.equal(read.method.proxy.tower.state_dict()[name], tensor), name


def test_settings_that_do_not_fit():
    config = proxied()
    with pytest.raises(ValueError, match="'proxy': set proxy, such as a DINO"):
        replace(config, proxy=None).build()
    with pytest.raises(ValueError, match="proxy has no effect: the last block's attention is 'v"):
        tiny_maskclip_config(proxy=TINY_DINO).build()
    with pytest.raises(ValueError, match="key_smoothing needs the CLIP's own patch grid"):
        replace(config, key_smoothing=1.0).build()
    resnet = replace(config.image, family="clip_resnet")
    with pytest.raises(ValueError, match="a clip_resnet has no transformer block"):
        replace(config, image=resnet).build()
