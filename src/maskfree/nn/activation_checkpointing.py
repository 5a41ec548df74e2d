"""Activation checkpointing: layers are computed again in the backward pass instead of kept."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from maskfree.nn.bert import BertLayer
from maskfree.nn.transformer import Block


def checkpoint_activations(method: nn.Module) -> None:
    """Checkpoint the activations of every transformer layer, which saves memory and costs time.

    Args:
        method: Method whose layers are set in place.

    Raises:
        ValueError: It has no transformer layer.

    Source: arXiv:1604.06174.
    """
    found = 0
    for layer in method.modules():
        if isinstance(layer, Block | BertLayer):
            layer.checkpointed = True
        elif isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            # transformers calls this function for its layers.
            anew = partial(checkpoint, use_reentrant=False)
            object.__setattr__(layer, "_gradient_checkpointing_func", anew)
        else:
            continue
        found += 1

    if not found:
        raise ValueError("train.checkpointing: the method has no transformer layer to compute anew")
