"""Does L_vision collapse? An encoder is trained with eq. 2 as printed, another with the working
form.
"""

from __future__ import annotations

import io
import time
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import torch
import tyro
from PIL import Image
from rich.progress import track

from harness import RESULTS, report
from maskfree.data.config import ViewConfig
from maskfree.data.sample import Source
from maskfree.data.shards import read_shards
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.config import ViLSegConfig, VisionConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.text.tokenize import Tokenizer

FORMS: tuple[Literal["literal", "distillation"], ...] = ("literal", "distillation")
TINY_TEXT = {
    "vocab_size": 8,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}  # not used


def main(
    shard: Path,
    weights: Path,
    steps: int = 150,
    batch_size: int = 16,
    learning_rate: float = 5e-4,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Train with L_vision alone and record what becomes of the answers.

    Args:
        shard: A WebDataset shard of photos.
        weights: Folder of MobileNetV2 weights in transformers' layout, from which both start.
        steps: Training steps.
        batch_size: Photos in a step.
        learning_rate: Of AdamW, constant.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    batches = read_batches(shard, weights, steps, batch_size)
    seconds: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        start = time.perf_counter()
        rows += train(config(form, weights), batches, learning_rate, form)
        seconds[form] = time.perf_counter() - start
    settings = {
        "shard": shard.name,
        "weights": weights.name,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "outputs": VisionConfig().out_dim,
    }
    report("collapse", seconds, [], settings, results, rows)


def config(form: Literal["literal", "distillation"], weights: Path) -> ViLSegConfig:
    """A small ViL-Seg with L_vision in one of its forms."""
    return ViLSegConfig(
        image=ImageEncoderConfig(family="mobilenet_v2", weights=str(weights), output_stride=16),
        text=TextEncoderConfig(family="bert", architecture={**TINY_TEXT, "intermediate_size": 8}),
        embed_dim=128,
        vision=VisionConfig(mode=form, local_side_px=48),
        cluster=None,
        views=ViewConfig(side_px=96),
        grouping="pixels",
    )


def read_batches(shard: Path, weights: Path, steps: int, batch_size: int) -> list[ViLSegBatch]:
    """Augment the photos of a shard, again and again with other seeds, without their captions."""
    transform = config("literal", weights).build_transform(
        cast(Tokenizer, None)
    )  # no caption, no tokenizer
    photos = [
        Image.open(io.BytesIO(cast(bytes, example.photo))).convert("RGB")
        for example in islice(read_shards([str(shard)]), 1000)
        if not example.problem
    ]
    samples = [
        transform.sample(Source(str(seed), photos[seed % len(photos)]), seed)
        for seed in track(range(steps * batch_size), "augmenting")
    ]
    return [
        transform.collate(samples[i : i + batch_size]).to(torch.device("cpu"))
        for i in range(0, len(samples), batch_size)
    ]


def train(
    settings: ViLSegConfig,
    batches: list[ViLSegBatch],
    learning_rate: float,
    form: str,
    every: int = 10,
) -> list[dict[str, Any]]:
    """Minimise L_vision; return its value and the entropies of the answers every few steps."""
    torch.manual_seed(0)
    method = settings.build().train()
    optimizer = torch.optim.AdamW(
        (p for p in method.parameters() if p.requires_grad), lr=learning_rate
    )
    rows = []
    for step, batch in enumerate(track(batches, form)):
        losses = method(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        method.after_step(step, len(batches))
        if step % every == 0 or step == len(batches) - 1:
            entropies = {
                name: float(losses.metrics[f"vision_{name}"])
                for name in ("entropy", "mean_entropy")
            }
            rows.append(
                {
                    "form": form,
                    "step": step,
                    "loss": float(losses.terms["vision"].detach()),
                    **entropies,
                }
            )
    return rows


if __name__ == "__main__":
    tyro.cli(main)
