"""Activation checkpointing: the same gradients, and each layer computed twice."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from maskfree.nn.activation_checkpointing import checkpoint_activations
from maskfree.nn.transformer import Block
from maskfree.recipes import vilseg_debug
from tiny import tiny_groupvit_config, tiny_ovsegmentor_config
from two_processes import batches


def gradients(method, batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    method.train()
    method.zero_grad()
    method(batch).total.backward()
    return {
        name: weight.grad.clone()
        for name, weight in method.named_parameters()
        if weight.grad is not None
    }


@pytest.mark.parametrize(
    ("name", "config"),
    [("vilseg", vilseg_debug().method), ("ovsegmentor", tiny_ovsegmentor_config())],
)
def test_gradients_stay_the_same(name, config):
    torch.manual_seed(0)
    method, batch = config.build(), batches()[name]
    method.on_train_start()
    plain = gradients(method, batch)

    checkpoint_activations(method)
    again = gradients(method, batch)
    assert again.keys() == plain.keys()
    for weight, value in plain.items():
        assert_close(again[weight], value, msg=weight, rtol=1e-4, atol=1e-6)


def test_each_layer_is_computed_again_where_there_are_gradients():
    layers = nn.ModuleList(Block(dim=12, num_heads=3) for _ in range(2))
    counts = Counter()
    for number, layer in enumerate(layers):
        layer.attn.register_forward_hook(lambda *_, number=number: counts.update([number]))

    def run() -> Counter:
        counts.clear()
        tokens = torch.rand(2, 5, 12, requires_grad=True)
        layers[1](layers[0](tokens)).sum().backward()
        return Counter(counts)

    assert run() == {0: 1, 1: 1}
    checkpoint_activations(layers)
    assert run() == {0: 2, 1: 2}

    counts.clear()
    with torch.no_grad():
        layers[0](torch.rand(2, 5, 12))
    assert counts == {0: 1}


def test_layers_of_transformers_take_part():
    method = tiny_groupvit_config().build()
    checkpoint_activations(method)
    layers = method.tower.vision_model.encoder.stages[0].layers
    assert all(layer.gradient_checkpointing for layer in layers)


def test_a_method_without_transformer_layers_is_refused():
    with pytest.raises(ValueError, match=r"train\.checkpointing"):
        checkpoint_activations(nn.Conv2d(3, 4, 1))
