"""A training step of a ViT-S/16 OVSegmentor, term by term, against GroupViT's of the same width in
transformers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn
from transformers import GroupViTConfig, GroupViTModel

from harness import RESULTS, Ratio, median_seconds, report, resident_bytes
from maskfree.methods.ovsegmentor.batch import EntityTexts, OVSegmentorBatch, Partners
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig, MaskConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.linear import use_onednn
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.types import Tokens

Precision = Literal["float32", "bfloat16"]
Step = Callable[[], object]
PEER = "GroupViT"
SAME_LINEAR = "GroupViT with our linear layers"  # what our steps owe to other parts than these
CAPTION_TOKENS = (
    77  # of captions, questions and answers, for both sides; GroupViT's text tower takes as many
)
ENTITY_TOKENS = 8  # of "a photo of a dog", which the mask loss reads
WORDS = 1000  # ids are drawn below it, all but the last of a text
HEADS = ProjectionConfig(kind="batchnorm_mlp", hidden=4096)
ONE_WAY = MaskConfig(start=0.0, matching="released")


@dataclass(frozen=True)
class EvalJob:
    """What every candidate does: how many photos of which side, where and in which numbers."""

    batch_size: int
    side_px: int
    device: str
    precision: Precision

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in `precision`."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def main(
    batch_size: int = 8,
    side_px: int = 224,
    precision: Precision = "float32",
    repeats: int = 7,
    threads: int = 1,
    variants: tuple[str, ...] = (),
    peak_of: str | None = None,
    results: Path = RESULTS,
) -> None:
    """Time forward and backward of each variant in turn, and take its peak memory in a process of
    its own.

    The device is the GPU where one is at hand. Optimizers are left out: they are alike on both
    sides.

    Args:
        batch_size: Photos of a step.
        side_px: Side of the photos.
        precision: Numbers that all candidates compute with; bfloat16 is autocast.
        repeats: Rounds of which the median counts.
        threads: Threads of torch.
        variants: Which of ours to run; all by default.
        peak_of: Only print the peak memory of one candidate, in bytes: what the script asks of its
            own processes.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    work = EvalJob(batch_size, side_px, "cuda" if torch.cuda.is_available() else "cpu", precision)
    if peak_of is not None:
        sys.stdout.write(json.dumps(peak_memory(peak_of, work)))
        return
    names = [PEER, SAME_LINEAR, *(variants or ours(side_px))]
    memory = {name: _in_fresh_process(name, work, threads) for name in names}
    # CPU seconds do not count other processes; on a GPU they would not count the waiting.
    clock = time.process_time if work.device == "cpu" else time.perf_counter
    steps = {name: make_step(name, work) for name in names}
    seconds = median_seconds(steps, repeats, warm_up=1, clock=clock)
    rows = [
        {"variant": name, "seconds": seconds[name], "photos_per_second": batch_size / seconds[name]}
        | {f"peak_{part}_mib": round(size / 2**20, 1) for part, size in memory[name].items()}
        for name in names
    ]
    settings = {
        "batch_size": batch_size,
        "side_px": side_px,
        "device": work.device,
        "precision": precision,
        "text_tower": "CLIP's, the same for both: width 256, 12 layers, 4 heads, 49408 words",
        "caption_tokens": CAPTION_TOKENS,
        "entity_tokens": ENTITY_TOKENS,
        "optimizer": "none",
        "seconds": "of the CPU" if work.device == "cpu" else "of the clock",
        "repeats": repeats,
    }
    report("train-step", seconds, _ratios(seconds, memory), settings, results, rows)


def ours(side_px: int) -> dict[str, OVSegmentorConfig]:
    """The variants of OVSegmentor by name: each form with the caption loss alone, then with further
    losses.

    The light form has the paper's 8 tokens, and like the released one a second stage that sees the
    groups only.
    """
    tower = GroupViTConfig().text_config
    sizes = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    )
    paper = OVSegmentorConfig(
        image=GroupingEncoderConfig(side_px=side_px, dim=384, num_heads=6),
        text=TextEncoderConfig(
            family="clip",
            architecture={
                name: getattr(tower, name)
                for name in (*sizes, "max_position_embeddings", "hidden_act")
            },
        ),
        image_projection=HEADS,
        text_projection=HEADS,
        entity=None,
        masks=None,
    )
    released = replace(
        paper,
        image=replace(paper.image, form="released", num_tokens=64),
    )
    light = replace(paper, image=replace(paper.image, form="light"))  # as `ovsegmentor_pocket`'s
    entity, both_ways = EntityConfig(bridge=HEADS), MaskConfig(start=0.0)
    return {
        "caption, released form": released,
        "caption, paper's form": paper,
        "caption, light form": light,
        "+ entity, released form": replace(released, entity=entity),
        "+ masks one way, released form": replace(released, masks=ONE_WAY),
        "+ masks both ways, released form": replace(released, masks=both_ways),
        "all three, released form": replace(released, entity=entity, masks=both_ways),
        "all three, paper's form": replace(paper, entity=entity, masks=both_ways),
        "all three, light form": replace(light, entity=entity, masks=both_ways),
    }


def make_step(name: str, work: EvalJob) -> Step:
    """Build a candidate with random weights, and return its step: forward and backward from fresh
    gradients.
    """
    torch.manual_seed(0)
    if name in (PEER, SAME_LINEAR):
        loss_of = _peer_loss(work)
    else:
        loss_of = _our_loss(ours(work.side_px)[name], work)
    if name != PEER:
        use_onednn(loss_of[0])  # as the trainer does

    def step() -> None:
        model, loss = loss_of
        model.zero_grad(set_to_none=True)
        with work.autocast():
            total = loss()
        total.backward()
        if work.device == "cuda":
            torch.cuda.synchronize()

    return step


def _peer_loss(work: EvalJob) -> tuple[nn.Module, Callable[[], Tensor]]:
    vision = {"image_size": work.side_px}
    model = GroupViTModel(GroupViTConfig(vision_config=vision)).to(work.device).train()
    images = torch.randn(work.batch_size, 3, work.side_px, work.side_px, device=work.device)
    captions = _tokens(work, CAPTION_TOKENS)
    return model, lambda: model(captions.ids, images, captions.mask.long(), return_loss=True).loss


def _our_loss(config: OVSegmentorConfig, work: EvalJob) -> tuple[nn.Module, Callable[[], Tensor]]:
    model = config.build().to(work.device).train()
    batch = _batch(config, work)
    return model, lambda: model(batch).total


def _batch(config: OVSegmentorConfig, work: EvalJob) -> OVSegmentorBatch:
    """A batch of noise with what the terms of CONFIG ask for: every caption is masked, every photo
    has a partner.
    """
    everyone = torch.ones(work.batch_size, dtype=torch.bool)
    photos = (work.batch_size, 3, work.side_px, work.side_px)
    questions = _tokens(work, CAPTION_TOKENS)
    hidden = torch.full(questions.ids.shape, -1)
    texts = (
        EntityTexts(questions, _tokens(work, CAPTION_TOKENS), everyone, hidden)
        if config.entity
        else None
    )
    batch = OVSegmentorBatch(
        images=torch.rand(photos),
        captions=_tokens(work, CAPTION_TOKENS),
        entities=texts,
        partners=Partners(torch.rand(photos), _tokens(work, ENTITY_TOKENS), everyone)
        if config.masks
        else None,
    )
    return batch.to(torch.device(work.device))


def _tokens(work: EvalJob, length: int) -> Tokens:
    ids = torch.randint(1, WORDS, (work.batch_size, length))
    ids[:, -1] = GroupViTConfig().text_config.eos_token_id
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool)).to(torch.device(work.device))


def peak_memory(name: str, work: EvalJob) -> dict[str, int]:
    """Take two steps, and return the most memory in bytes that it took, as a whole and beyond what
    was there before.

    On the CPU this is the resident set of this process, so it must not have done anything else;
    what was there before are Python, torch and transformers. On a GPU it is what torch's allocator
    gave out.
    """
    before = resident_bytes("VmHWM") if work.device == "cpu" else 0
    step = make_step(name, work)
    step(), step()
    peak = resident_bytes("VmHWM") if work.device == "cpu" else torch.cuda.max_memory_allocated()
    return {"whole": peak, "own": peak - before}


def _in_fresh_process(name: str, work: EvalJob, threads: int) -> dict[str, int]:
    options = {
        "peak-of": name,
        "batch-size": work.batch_size,
        "side-px": work.side_px,
        "threads": threads,
    }
    arguments = [
        f"--{key}={value}" for key, value in (options | {"precision": work.precision}).items()
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _ratios(seconds: dict[str, float], memory: dict[str, dict[str, int]]) -> list[Ratio]:
    """Speeds over the peer's, memory over the peer's, and what each term costs over its form's
    caption loss.
    """
    ratios = []
    for name in (name for name in seconds if name not in (PEER, SAME_LINEAR)):
        alone = name.startswith("caption")
        speed, size = seconds[PEER] / seconds[name], memory[name]["whole"] / memory[PEER]["whole"]
        ratios.append(
            Ratio(
                f"photos a second over GroupViT's: {name}", speed, "at least 1.3" if alone else ""
            )
        )
        if alone:
            same = seconds[SAME_LINEAR] / seconds[name]
            ratios.append(Ratio(f"photos a second over {SAME_LINEAR}: {name}", same))
        ratios.append(
            Ratio(f"peak memory over GroupViT's: {name}", size, "at most 1" if alone else "")
        )
        base = f"caption, {name.rsplit(', ', 1)[1]}"
        if not alone and base in seconds:
            ratios.append(
                Ratio(f"time over the caption loss alone: {name}", seconds[name] / seconds[base])
            )
    return ratios


if __name__ == "__main__":
    tyro.cli(main)
