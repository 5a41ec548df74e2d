"""A model end to end on a photo file against its bare encoder, and against GroupViT of random
weights at 224.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from PIL import Image
from torch import Tensor
from transformers import GroupViTConfig, GroupViTModel, MobileNetV2Config, MobileNetV2Model

import maskfree
from harness import RESULTS, Ratio, median_seconds, report
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.mobilenet_v2 import MobileNetV2

WIDTH, HEIGHT = 640, 480
GROUPVIT_PX = 224  # its position embeddings know no other size
GROUPVIT_TOKENS = 77


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    precision: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 11,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Label a photo of 640x480 with 21 words, and compare.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo, resized to 640x480 and saved as JPEG once before.
        precision: Numbers that all candidates compute with.
        repeats: Rounds of which the median counts.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    words = [*benchmark("coco-mini").words(), "sky"]
    segmenter = maskfree.load(model).with_words(words)
    segmenter = segmenter.with_inference(replace(segmenter.inference, precision=precision))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    encoder = next(
        module for module in segmenter.method.modules() if isinstance(module, ImageEncoder)
    )
    original = as_published(encoder)
    groupvit = GroupViTModel(GroupViTConfig()).eval()
    square = torch.randn(1, 3, GROUPVIT_PX, GROUPVIT_PX)
    ids = torch.randint(1, 1000, (len(words), GROUPVIT_TOKENS))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), autocast:
        path = Path(folder) / "photo.jpg"
        Image.open(photo).convert("RGB").resize((WIDTH, HEIGHT)).save(path, quality=92)
        inputs = inputs_of(encoder, segmenter, path)
        seconds = median_seconds(
            {
                "end to end": lambda: segmenter(path).labels,
                "bare encoder": lambda: [encoder(images) for images in inputs],
                "encoder as transformers has it": lambda: [original(images) for images in inputs],
                "GroupViT image tower": lambda: groupvit.vision_model(square),
                "GroupViT image and words": lambda: groupvit(ids, square, output_segmentation=True),
            },
            repeats,
        )
    whole = seconds["end to end"]
    ratios = [
        Ratio("end to end over bare encoder", whole / seconds["bare encoder"], "at most 1.35"),
        Ratio(
            "end to end over encoder as transformers has it",
            whole / seconds["encoder as transformers has it"],
        ),
        Ratio(
            "GroupViT over end to end", seconds["GroupViT image and words"] / whole, "at least 2"
        ),
        Ratio(
            "GroupViT image tower alone over end to end", seconds["GroupViT image tower"] / whole
        ),
    ]
    settings = {
        "model": model,
        "photo": f"{photo.name} at {WIDTH}x{HEIGHT}",
        "words": len(words),
        "precision": precision,
        "network_inputs": [list(images.shape) for images in inputs],
        "groupvit_input": list(square.shape),
        "repeats": repeats,
    }
    report("inference", seconds, ratios, settings, results)


def inputs_of(encoder: ImageEncoder, segmenter: maskfree.Segmenter, path: Path) -> list[Tensor]:
    """Return what the encoder inside a segmenter is given for a photo."""
    inputs: list[Tensor] = []
    hook = encoder.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    segmenter(path)
    hook.remove()
    return inputs


def as_published(encoder: ImageEncoder) -> MobileNetV2Model:
    """Make the tower of an encoder anew as transformers has it, at random, with the channels last
    as the encoder's.

    Its batch norms are not folded into convolutions, and it pads apart from them.
    """
    configuration = MobileNetV2Config(output_stride=encoder.patch_size)
    tower: Any = MobileNetV2Model(configuration, add_pooling_layer=False).eval()
    assert isinstance(encoder.tower, MobileNetV2), "only MobileNetV2 has such a comparison"
    return tower.to(memory_format=torch.channels_last)


if __name__ == "__main__":
    tyro.cli(main)
