"""OVSegmentor: whole training steps of the authors' code, number by number."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskfree.hub.convert import official_names, ovsegmentor_config, renamed
from maskfree.methods.ovsegmentor.batch import EntityTexts, OVSegmentorBatch, Partners
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.ovsegmentor.model import OVSegmentor
from maskfree.nn import binding
from maskfree.nn.grouping_weights import official_image_keys
from maskfree.recipes.ovsegmentor import ovsegmentor_released, ovsegmentor_released_masks
from maskfree.types import Tokens
from shared_folder import SHARED

FOLDER = SHARED / "fixtures"
STAGES = {
    "ovsegmentor_train_step_stage1": ovsegmentor_released,
    "ovsegmentor_train_step_stage2": ovsegmentor_released_masks,
}
TERMS = {"cross": "matching", "entity": "entity", "masks": "mask"}
PROJECTORS = {
    "img_projector": "image_projection",
    "text_projector": "text.projection",
    "bridge_projector": "entity.bridge",
}


def settings_of(stage: str, sizes: dict[str, Any], weights: dict[str, Tensor]) -> OVSegmentorConfig:
    """A recipe's settings in the fixture's sizes, without what is random in training."""
    settings = STAGES[stage]().method
    assert isinstance(settings, OVSegmentorConfig)
    sized = ovsegmentor_config(weights, sizes["num_heads"][0], sizes["bert"]["num_attention_heads"])
    architecture = sized.text.architecture | sizes["bert"]
    masks = settings.masks
    if masks is not None and "group_ratio" in sizes:
        masks = replace(masks, ratio=sizes["group_ratio"])
    return replace(
        settings,
        image=replace(sized.image, drop_path=0.0),
        text=replace(sized.text, architecture=architecture),
        embed_dim=sized.embed_dim,
        image_projection=sized.image_projection,
        text_projection=sized.text_projection,
        entity=replace(settings.entity, bridge=sized.entity.bridge),
        masks=masks,
        views=sized.views,
    )


def original(
    config: OVSegmentorConfig, weights: dict[str, Tensor]
) -> tuple[OVSegmentor, dict[str, str]]:
    """The method in training with the weights of a fixture, and our names by theirs."""
    method = config.build().train()
    state = {
        name: value for name, value in method.state_dict().items() if not name.startswith("masks.")
    }
    theirs = {
        name: value
        for name, value in weights.items()
        if not name.startswith("img_encoder_momentum.")
    }
    method.load_state_dict(renamed(theirs, state, config.image.depths), strict=False)
    if method.masks is not None:
        target = method.masks.teacher.state_dict()
        for key, name in official_image_keys(config.image.depths).items():
            target[name] = weights[f"img_encoder_momentum.{key}"].reshape(target[name].shape)
        method.masks.teacher.load_state_dict(target)
    for encoder in [method.image] if method.masks is None else [method.image, method.masks.teacher]:
        encoder.stem.mean.zero_()  # their photos are normalized already
        encoder.stem.deviation.fill_(1)
    return method, official_names(state, config.image.depths)


def batch_of(given: dict[str, Tensor]) -> OVSegmentorBatch:
    """What the original saw."""

    def photos(name: str) -> Tensor:
        coarse, patch = given[f"{name}_coarse"], given[f"{name}_patch"]
        large = coarse.repeat_interleave(patch.shape[2], 2).repeat_interleave(patch.shape[3], 3)
        return large * patch.tile(1, 1, *coarse.shape[2:])

    def texts(name: str) -> Tokens:
        return Tokens(given[f"{name}_ids"], given[f"{name}_mask"].bool())

    images = photos("image")
    every = torch.ones(len(images), dtype=torch.bool)
    nothing_hidden = torch.full_like(given["question_ids"], -1)
    paired = "entity_ids" in given
    return OVSegmentorBatch(
        images=images,
        captions=texts("caption"),
        entities=EntityTexts(texts("question"), texts("answer"), every, nothing_hidden),
        partners=Partners(photos("cross_image"), texts("entity"), every) if paired else None,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_training_step_equals_the_released_code(stage, fixture_tensors, monkeypatch):
    tensors = fixture_tensors(stage)
    about = json.loads((FOLDER / f"{stage}.json").read_text())["hyper_parameters"]
    groups = {
        start: {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
        for start in ("w.", "in.")
    }
    given = groups["in."]
    method, names = original(settings_of(stage, about, groups["w."]), groups["w."])
    noise = iter([given["gumbel_noise_image"][:, 0], given["gumbel_noise_cross"][:, 0]])
    monkeypatch.setattr(binding, "gumbel_noise", lambda like: next(noise))

    seen = []
    method.image.register_forward_hook(
        lambda module, images, grouped: seen.append(grouped.assignment)
    )
    losses = method(batch_of(given))
    losses.total.backward()
    assert len(list(noise)) == 2 - about["gumbel_calls"]

    assert_close(seen[0].hard, tensors["mid.attn_hard"][:, 0])
    assert_close(seen[0].soft, tensors["mid.attn_soft"][:, 0], atol=1e-5, rtol=1e-4)
    weights = {"cross": 1.0, "entity": 1.0, "masks": 0.1}  # the original's terms are without
    wanted = {
        ours: weights[ours] * tensors[f"out.loss.{theirs}"]
        for ours, theirs in list(TERMS.items())[: len(losses.terms)]
    }
    assert_close(losses.terms, wanted, atol=0, rtol=1e-4)
    assert_close(losses.total, tensors["out.loss.loss"], atol=0, rtol=1e-4)

    parameters = dict(method.named_parameters())
    grads = {theirs: parameters[ours].grad for theirs, ours in names.items() if ours in parameters}
    assert {ours for ours, p in parameters.items() if p.requires_grad} <= set(names.values())
    for key, norm in zip(about["grad_norm_names"], tensors["out.grad_norms"].tolist(), strict=True):
        grad = grads.get(key)
        # Where a batch normalization follows, a bias has no gradient, and both sides show what
        # rounding left.
        atol = 2e-4 if key.endswith(("linear_hidden.0.bias", "blocks.0.norm_new_x.bias")) else 1e-5
        assert (-1.0 if grad is None else grad.norm().item()) == pytest.approx(
            norm, rel=5e-3, abs=atol
        ), key
    gradients = {
        key.removeprefix("out.grad."): v
        for key, v in tensors.items()
        if key.startswith("out.grad.")
    }
    assert gradients
    for key, gradient in gradients.items():
        # Rounding alone moves the original's entries by this share of the largest: see the
        # fixture's noise_sensitivity.
        atol = max(1e-5, 5e-5 * gradient.abs().max().item())
        assert_close(grads[key], gradient.reshape(grads[key].shape), atol=atol, rtol=5e-3)

    for projector, projection in PROJECTORS.items():
        statistics = method.get_submodule(projection).get_submodule("norm").state_dict()
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert_close(
                statistics[name], tensors[f"out.bn.{projector}.{name}"], atol=1e-6, rtol=1e-4
            )
