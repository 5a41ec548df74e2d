"""A step of ViL-Seg with a frozen image encoder, as in the first stage of `vilseg_pocket`: its
features are shared by the objectives, or computed by each of them.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
import tyro

from harness import RESULTS, Ratio, median_seconds, report
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.methods.vilseg.words import Tagger, WordsObjective
from maskfree.nn import encoded_view
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.recipes.vilseg import vilseg_pocket
from maskfree.types import Losses, Tokens

# As in the recipe: classes of the tagger, their superclasses, the batch's words, tokens of texts.
TAGS, KINDS, WORDS, TOKENS = 1000, 100, 300, 16
LOCAL_PX = 96
SIDE_PX = 256
TEXT = TextEncoderConfig(
    family="bert",
    architecture={
        "vocab_size": 256,
        "hidden_size": 384,
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "intermediate_size": 384,
    },
)


@dataclass(frozen=True)
class Step:
    """Losses and gradients of a step."""

    terms: dict[str, torch.Tensor]
    """Losses by name."""
    gradients: dict[str, torch.Tensor]
    """Gradients by name of the parameter."""


def main(
    weights: Path = Path("../shared/weights/mobilenet_v2_imagenet"),
    batch_size: int = 8,
    repeats: int = 5,
    results: Path = RESULTS,
) -> None:
    """Time a step both ways.

    Args:
        weights: Folder of MobileNetV2 weights in transformers' layout.
        batch_size: Photos of a step.
        repeats: Rounds of which the median counts.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    method = pocket_of_stage_one(weights)
    batch = made_up(method, batch_size)

    shared, apart = step(method, batch), step_apart(method, batch)
    assert shared.terms.keys() == {"cross", "vision", "cluster", "nouns", "kinds", "tags"}
    for mine, theirs in ((shared.terms, apart.terms), (shared.gradients, apart.gradients)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())

    seconds = median_seconds(
        {
            "features shared": lambda: step(method, batch),
            "features by each objective": lambda: step_apart(method, batch),
        },
        repeats,
        warm_up=1,
        clock=time.process_time,
    )
    slower = seconds["features by each objective"] / seconds["features shared"]
    ratios = [Ratio("features by each objective over shared", slower, "at least 1.5")]
    settings = {
        "photos": batch_size,
        "pixels": SIDE_PX,
        "clock": "CPU seconds",
        "repeats": repeats,
        "equal": "losses and gradients, to the last bit",
    }
    report("frozen-encoder", seconds, ratios, settings, results)


def pocket_of_stage_one(weights: Path) -> ViLSeg:
    """ViL-Seg with the objectives of `vilseg_pocket`, a small text encoder and random tags."""
    recipe = vilseg_pocket().method
    assert isinstance(recipe, ViLSegConfig)
    config = replace(
        recipe, image=replace(recipe.image, weights=str(weights)), text=TEXT, words=None
    )
    method = config.build()
    assert isinstance(method, ViLSeg)

    kinds = torch.zeros(TAGS, KINDS)
    kinds[torch.arange(TAGS), torch.arange(TAGS) % KINDS] = 1
    encoder = method.image.encoder
    method.words = WordsObjective(
        tagger=Tagger(deepcopy(encoder), torch.nn.Conv2d(encoder.channels, TAGS, 1)),
        tag_features=torch.randn(TAGS, method.text.encoder.channels),
        kinds=kinds,
        weights=(1.0, 1.0, 1.0),
    )
    method.image.encoder.requires_grad_(False)
    method.text.encoder.requires_grad_(False)
    method.on_train_start()
    return method.train()


def made_up(method: ViLSeg, count: int) -> ViLSegBatch:
    """A batch of noise with what the objectives ask for."""
    return ViLSegBatch(
        images=torch.rand(count, 3, SIDE_PX, SIDE_PX),
        captions=tokens(count),
        local_views=torch.rand(count, 2, 3, LOCAL_PX, LOCAL_PX),
        augmented_view=torch.rand(count, 3, SIDE_PX, SIDE_PX),
        augmented_flipped=torch.arange(count) % 2 == 0,
        words=tokens(WORDS),
        word_weights=torch.rand(count, WORDS).softmax(1),
    )


def tokens(count: int) -> Tokens:
    """Random texts."""
    return Tokens(torch.randint(1, 200, (count, TOKENS)), torch.ones(count, TOKENS).bool())


def step(method: ViLSeg, batch: ViLSegBatch) -> Step:
    """Losses and gradients of a batch; the same random patches each time."""
    torch.manual_seed(1)
    method.zero_grad()
    losses: Losses = method(batch)
    sum(losses.terms.values(), torch.zeros(())).backward()

    gradients = {
        name: weight.grad.clone()
        for name, weight in method.named_parameters()
        if weight.grad is not None
    }
    return Step({name: term.detach() for name, term in losses.terms.items()}, gradients)


def step_apart(method: ViLSeg, batch: ViLSegBatch) -> Step:
    """The same, where each objective runs its own encoder."""
    with patch.object(encoded_view, "_are_equal", lambda one, other: False):
        return step(method, batch)


if __name__ == "__main__":
    tyro.cli(main)
