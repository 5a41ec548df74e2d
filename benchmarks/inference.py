"""A model end to end on a photo file against its image side alone, in each runtime, and against
GroupViT, CLIPSeg and SegFormer of random weights; CPU seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    GroupViTConfig,
    GroupViTModel,
    MobileNetV2Config,
    MobileNetV2Model,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

import maskfree
from harness import PLAIN, RESULTS, Ratio, load_plain, median_seconds, report
from maskfree.cli.common import keep_freed_memory
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.inference.runtimes.choice import RuntimeName
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.mobilenet_v2 import MobileNetV2

WIDTH, HEIGHT = 640, 480
PEERS_PX = {"GroupViT": 224, "CLIPSeg": 352, "SegFormer-b0": 512}  # of their published weights
NUM_TOKENS = 77


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    precision: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 11,
    threads: int = 1,
    runtimes: tuple[RuntimeName, ...] = (),
    results: Path = RESULTS,
) -> None:
    """Label a photo of 640x480 with 21 words, and compare.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo, resized to 640x480 and saved as JPEG once before.
        precision: Numbers that all candidates compute with.
        repeats: Rounds of which the median counts.
        threads: Threads of torch and of the runtimes.
        runtimes: Runtimes beside torch; they run in float32.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    # As the command does.
    keep_freed_memory()
    torch.manual_seed(0)
    words = [*benchmark("coco-mini").words(), "sky"]
    segmenter = maskfree.load(model).with_words(words)
    segmenter = segmenter.with_inference(replace(segmenter.inference, precision=precision))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    encoder = next(
        module for module in segmenter.method.modules() if isinstance(module, ImageEncoder)
    )
    original = as_published(encoder)
    plain = load_plain(model).method
    peers = peer_models(len(words))
    others = {name: segmenter.with_runtime(name) for name in runtimes}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), autocast:
        path = Path(folder) / "photo.jpg"
        Image.open(photo).convert("RGB").resize((WIDTH, HEIGHT)).save(path, quality=92)
        inputs = inputs_of(encoder, segmenter, path)
        candidates: dict[str, Callable[[], object]] = {
            "end to end": lambda: segmenter(path).labels,
            "image side": lambda: [segmenter.method.look(images) for images in inputs],
            f"image side, {PLAIN}": lambda: [plain.look(images) for images in inputs],
            "bare encoder": lambda: [encoder(images) for images in inputs],
            "encoder as transformers has it": lambda: [original(images) for images in inputs],
            **peers,
        }
        for name, other in others.items():
            candidates |= {
                f"end to end, {name}": lambda other=other: other(path).labels,
                f"image side, {name}": lambda run=other.session: [
                    run(images) for images in inputs if run
                ],
            }
        seconds = median_seconds(candidates, repeats, clock=time.process_time)

    whole = seconds["end to end"]
    ratios = [
        Ratio(
            f"image side, {PLAIN} over torch",
            seconds[f"image side, {PLAIN}"] / seconds["image side"],
            "at least 1.4",
        ),
        Ratio("end to end over image side", whole / seconds["image side"], "at most 1.15"),
        Ratio(
            "end to end over encoder as transformers has it",
            whole / seconds["encoder as transformers has it"],
        ),
        *(Ratio(f"{name} over end to end", seconds[name] / whole) for name in peers),
    ]
    for name in others:
        own = seconds[f"end to end, {name}"]
        ratios += [
            Ratio(
                f"image side, {PLAIN} over {name}",
                seconds[f"image side, {PLAIN}"] / seconds[f"image side, {name}"],
                "at least 1.4",
            ),
            Ratio(f"torch over {name}, end to end", whole / own),
            Ratio(
                f"end to end over image side, {name}",
                own / seconds[f"image side, {name}"],
                "at most 1.15",
            ),
            *(Ratio(f"{peer} over end to end, {name}", seconds[peer] / own) for peer in peers),
        ]
    settings = {
        "model": model,
        "photo": f"{photo.name} at {WIDTH}x{HEIGHT}",
        "words": len(words),
        "precision": precision,
        "network_inputs": [list(images.shape) for images in inputs],
        "peers_px": PEERS_PX,
        "clock": "CPU seconds",
        "repeats": repeats,
    }
    report("inference", seconds, ratios, settings, results)


def peer_models(num_words: int) -> dict[str, Callable[[], object]]:
    """Calls of transformers' models of random weights, each at the input size of its own."""
    groupvit = GroupViTModel(GroupViTConfig()).eval()
    clipseg = CLIPSegForImageSegmentation(CLIPSegConfig()).eval()
    settings: Any = SegformerConfig(num_labels=num_words)  # pyright: ignore[reportCallIssue]
    segformer = SegformerForSemanticSegmentation(settings).eval()

    images = {name: torch.randn(1, 3, side, side) for name, side in PEERS_PX.items()}
    ids = torch.randint(1, 1000, (num_words, NUM_TOKENS))
    ids[:, -1] = 49407  # the end of a text in CLIP's vocabulary
    repeated = images["CLIPSeg"].expand(num_words, -1, -1, -1)

    return {
        "GroupViT image tower": lambda: groupvit.vision_model(images["GroupViT"]),
        "GroupViT": lambda: groupvit(ids, images["GroupViT"], output_segmentation=True),
        "CLIPSeg": lambda: clipseg(ids, repeated),
        "SegFormer-b0": lambda: segformer(images["SegFormer-b0"]),
    }


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
