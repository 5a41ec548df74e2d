"""What every method must keep; a method is found as soon as `maskfree.methods` imports it.

Its examples are those of `TINY`, or the settings of a recipe `NAME_debug` with this method.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle

import dacite
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import maskfree.methods
from image_text_models import tiny_family_config
from maskfree.data import shapes
from maskfree.data.sample import Partner, Source
from maskfree.engine.config import Recipe
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.methods.clips4.objectives_config import PixelSegmentConfig
from maskfree.methods.maskclip.presets import MethodPreset
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig
from maskfree.methods.vilseg.config import ClusterConfig
from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.recipes import RECIPES
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch
from tiny import (
    CAPTIONS,
    TINY_GROUPING,
    TINY_TAG_SCORES,
    tiny_clips4_config,
    tiny_groupvit_config,
    tiny_label_maps,
    tiny_maskclip_config,
    tiny_ovsegmentor_config,
    tiny_siglip_config,
    tiny_student_config,
    tiny_teacher_maps,
    tiny_vilseg_config,
)

CONFIGS = {
    kind: value
    for kind, value in vars(maskfree.methods).items()
    if isinstance(value, type) and issubclass(value, MethodConfig)
}
STANDARDISED = ClusterConfig(num_clusters=5, standardized=True)
TEACHER = str(tiny_teacher_maps("01234k"))
TINY = {
    "CLIPS4Config": [
        tiny_clips4_config(teacher=TEACHER),
        tiny_clips4_config(
            contrast=None,
            embedding_weight=None,
            semantic=None,
            pseudo_label_weight=1.0,
            teacher=TEACHER,
        ),
        tiny_clips4_config(
            contrast=PixelSegmentConfig(thin=3), embedding_weight=None, semantic=None
        ),
    ],
    "GroupViTConfig": [tiny_groupvit_config()],
    "MaskCLIPConfig": [
        tiny_maskclip_config(),
        tiny_maskclip_config(prompt_denoise=0.3, key_smoothing=0.8),
        MethodPreset(LastBlock("qq", stitch_px=16)).apply(tiny_maskclip_config()),
        tiny_siglip_config(),
        *(tiny_family_config(family) for family in ("metaclip_2", "siglip2", "tipsv2")),
    ],
    "OVSegmentorConfig": [
        tiny_ovsegmentor_config(),
        tiny_ovsegmentor_config(entity=EntityConfig(objective="labels"), masks=None),
        tiny_ovsegmentor_config(
            image=dataclasses.replace(TINY_GROUPING, num_tokens=7, form="released"),
            image_projection=ProjectionConfig("batchnorm_mlp", hidden=30),
            text_projection=ProjectionConfig("batchnorm_mlp", hidden=30),
            entity=EntityConfig(objective="words", masking="one", num_heads=3),
            form="released",
        ),
    ],
    "StudentConfig": [
        tiny_student_config(labels=str(tiny_label_maps("01234k")), known=known)
        for known in (None, ProjectionConfig())
    ],
    "ViLSegConfig": [
        *(tiny_vilseg_config(grouping=grouping) for grouping in ("clusters", "kmeans", "pixels")),
        tiny_vilseg_config(assignment="soft", cluster=STANDARDISED),
        tiny_vilseg_config(tag_scores=TINY_TAG_SCORES, grouping="pixels"),
        tiny_vilseg_config(
            tag_scores=dataclasses.replace(TINY_TAG_SCORES, distillation_weight=1.0),
            grouping="pixels",
        ),
    ],
}


def examples(name: str) -> list[MethodConfig]:
    """The smallest settings of a method; empty where there are none, which a test reports."""
    if name in TINY:
        return TINY[name]
    return [recipe.method for recipe in debug_recipes() if type(recipe.method).__name__ == name]


def debug_recipes() -> list[Recipe]:
    found = []
    for name, recipe in RECIPES.items():
        # A recipe whose settings cannot be made is reported by a test, not when tests are
        # collected.
        with contextlib.suppress(Exception):
            if name.endswith("_debug"):
                found.append(recipe())
    return found


CASES = [
    pytest.param(config, id=f"{name}-{i}")
    for name in CONFIGS
    for i, config in enumerate(examples(name))
]
UNTRAINED = ("MaskCLIPConfig",)  # ready-made weights that only label
LEARNING = [case for case in CASES if type(case.values[0]).__name__ not in UNTRAINED]


def make_batch(config: MethodConfig, tokenizer: Tokenizer, photo, captions: bool = True) -> Batch:
    transform = config.build_transform(tokenizer)
    photos = [photo((83, 57)), photo((40, 90)), photo((64, 64)), photo((31, 29)), photo((120, 33))]
    texts = [[CAPTIONS[i], CAPTIONS[i + 1]] if captions else [] for i in range(len(photos))]
    partners = [*(Partner("dog", image) for image in photos[1:]), None]
    samples = [
        transform.sample(Source(str(i), image, text, partners[i]), seed=i)
        for i, (image, text) in enumerate(zip(photos, texts, strict=True))
    ]
    batch = transform.collate(samples).to(torch.device("cpu"))
    assert isinstance(batch, Batch), f"{type(batch).__name__} lacks to(device)"
    return batch


@pytest.fixture
def tokenizer(config, tiny_tokenizer, tmp_path_factory) -> Tokenizer:
    """The tokenizer of the tiny examples; that of the drawn shapes for the settings of a recipe."""
    if type(config).__name__ in TINY:
        return tiny_tokenizer
    folder = tmp_path_factory.mktemp("tokenizer") / "shapes"
    shapes.write(folder, 4)
    return Tokenizer.from_source(str(folder), max_length=32)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_method_is_complete(name):
    kind = CONFIGS[name]
    lacking = ", ".join(sorted(kind.__abstractmethods__))
    assert not lacking, f"{name} lacks {lacking}"
    assert kind.student_parts is not MethodConfig.student_parts, (
        f"{name} lacks student_parts: what a student can take from it, or None"
    )
    found = examples(name)
    if not found:
        # A recipe whose settings cannot be made says why.
        for recipe in RECIPES.values():
            recipe()
    assert found, f"{name} has no example: add a recipe ..._debug whose method is a {name}"
    method = found[0].build()
    assert isinstance(method, Method), f"{name}.build() gives a {type(method).__name__}"


def test_examples_are_those_of_methods():
    assert CONFIGS and set(TINY) <= set(CONFIGS)


@pytest.mark.parametrize("config", LEARNING)
def test_forward_gives_finite_terms_with_gradients(config, tokenizer, photo):
    method = config.build()
    losses = method(make_batch(config, tokenizer, photo))
    assert losses.terms and all(
        term.isfinite() and term.requires_grad for term in losses.terms.values()
    )
    assert all(value.isfinite() and not value.requires_grad for value in losses.metrics.values())
    losses.total.backward()
    missing = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert any(p.grad.abs().sum() > 0 for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("config", LEARNING)
def test_training_goes_on_after_steps(config, tokenizer, photo):
    method, batch = config.build(), make_batch(config, tokenizer, photo)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    for step in range(3):
        optimizer.zero_grad()
        losses = method(batch)
        losses.total.backward()
        optimizer.step()
        method.after_step(step, 3)
    assert method(batch).total.isfinite()


@pytest.mark.parametrize("config", LEARNING)
def test_unlabeled_photos_train_too_or_are_refused(config, tokenizer, photo):
    try:
        losses = config.build()(make_batch(config, tokenizer, photo, captions=False))
    except ValueError as error:
        assert "learns from captions" in str(error)
    else:
        assert losses.total.isfinite()


@pytest.mark.parametrize("config", [config for name in UNTRAINED for config in TINY[name]])
def test_method_that_does_not_learn_says_so(config, tokenizer):
    with pytest.raises(ValueError, match="is not trained"):
        config.build()(None)
    with pytest.raises(ValueError, match="is not trained"):
        config.build_transform(tokenizer)


@pytest.mark.parametrize("config", CASES)
def test_text_has_unit_norm_and_ignores_padding(config, tokenizer):
    method = config.build().eval()
    together = method.encode_text(tokenizer(CAPTIONS))
    assert_close(together.norm(dim=1), torch.ones(len(CAPTIONS)))
    alone = torch.cat([method.encode_text(tokenizer([caption])) for caption in CAPTIONS])
    assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CASES)
@pytest.mark.parametrize("patches", [(3, 5), (4, 2), (1, 1)])
def test_scores_are_cosines_on_the_patch_grid(config, patches, tokenizer):
    method = config.build().eval()
    images, classes = (
        torch.rand(2, 3, *(n * method.patch_size for n in patches)),
        unit_classes(method, tokenizer, 7),
    )
    with torch.no_grad():
        scores = method.segment(images, classes)
        assert scores.shape == (2, 7, *patches)
        assert scores.isfinite().all() and scores.abs().max() <= 1 + 1e-5
        order = torch.randperm(7)
        assert_close(method.segment(images, classes[order]), scores[:, order])
        assert_close(method.segment(images[1:], classes), scores[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CASES)
def test_whole_images_are_embedded_one_by_one_in_the_space_of_texts(config, tokenizer):
    method = config.build().eval()
    images = torch.rand(3, 3, 2 * method.patch_size, 3 * method.patch_size)
    with torch.no_grad():
        found = method.embed_images(images)
        assert found.shape == (3, method.encode_text(tokenizer(CAPTIONS)).shape[1])
        assert_close(found.norm(dim=1), torch.ones(3))
        assert_close(method.embed_images(images[1:2]), found[1:2], atol=1e-5, rtol=1e-4)
        assert (found[0] - found[1]).abs().max() > 1e-6


@pytest.mark.parametrize("config", LEARNING)
def test_sample_depends_on_its_seed_alone(config, tokenizer, photo):
    transform = pickle.loads(pickle.dumps(config.build_transform(tokenizer)))
    one, same, other = (
        transform.sample(Source("k", photo(), CAPTIONS), seed=seed) for seed in (1, 1, 2)
    )
    first, second, third = (
        transform.collate([sample]).to(torch.device("cpu")).images for sample in (one, same, other)
    )
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize("config", CASES)
def test_config_survives_json(config):
    for kept in (config, config.without_pretrained(), config.for_inference()):
        stored = json.loads(json.dumps(dataclasses.asdict(kept)))
        assert (
            dacite.from_dict(type(config), stored, dacite.Config(cast=[tuple], strict=True)) == kept
        )


@pytest.mark.parametrize("config", CASES)
def test_inference_config_holds_the_whole_prediction(config, tokenizer):
    method = config.build().eval()
    lean = config.for_inference().build().eval()
    state = method.state_dict()
    assert set(lean.state_dict()) <= set(state)
    lean.load_state_dict({name: state[name] for name in lean.state_dict()})
    images, classes = (
        torch.rand(2, 3, method.patch_size * 2, method.patch_size * 3),
        unit_classes(method, tokenizer, 4),
    )
    assert_close(lean.segment(images, classes), method.segment(images, classes))


def unit_classes(method: Method, tokenizer: Tokenizer, number: int) -> torch.Tensor:
    dim = method.encode_text(tokenizer(["dog"])).shape[1]
    return F.normalize(torch.randn(number, dim), dim=1)


@pytest.mark.parametrize("config", CASES)
def test_student_can_take_the_parts_that_the_method_states(config, tokenizer):
    parts = config.student_parts()
    if parts is None:
        return
    state = config.build().eval().state_dict()

    def fill(module: torch.nn.Module, prefix: str) -> None:
        prefix += "."
        module.load_state_dict(
            {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
        )

    encoder = parts.text.build()
    projection = parts.text_projection.build_for_vectors(encoder.channels, parts.embed_dim)
    fill(encoder, parts.text_prefix)
    fill(projection, parts.text_projection_prefix)
    student, teacher = TextProjector(encoder, projection).eval(), config.build().eval()
    teacher.load_state_dict(state)
    tokens = tokenizer(CAPTIONS)
    assert_close(student(tokens), teacher.encode_text(tokens))

    assert parts.image or not parts.image_projection
    assert parts.image_projection or not parts.correction
    if parts.image:
        image = parts.image.build()
        fill(image, parts.image_prefix)
    if parts.image and parts.image_projection:
        pixels = parts.image_projection.build_for_pixels(image.channels, parts.embed_dim)
        if parts.correction:
            pixels = parts.correction.build(pixels, image.channels, parts.embed_dim)
        fill(pixels, parts.image_projection_prefix)
