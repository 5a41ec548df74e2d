"""A frame of 854x480 in `track`: embedding it, and propagating labels to it from eight frames,
beside the plain way that masks all cells beyond the radius.
"""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import maskfree
from harness import RESULTS, Ratio, median_seconds, report
from maskfree.cli.common import keep_freed_memory
from maskfree.data.video import open_clip
from maskfree.inference.features import embed
from maskfree.inference.runtimes.names import RuntimeName
from maskfree.inference.tracking_config import TrackConfig
from maskfree.ops.propagation import propagate

SIZE = (854, 480)
TILE = 16
WORDS = 4


def main(
    clip: Path = Path("../shared/data/davis2016/JPEGImages/480p/dog"),
    model: str = "pocket",
    runtimes: tuple[RuntimeName, ...] = (),
    repeats: int = 5,
    results: Path = RESULTS,
) -> None:
    """Time the steps of a frame once as many earlier frames are used as ever will be.

    Args:
        clip: Folder of frames.
        model: Name of a model or folder of a checkpoint.
        runtimes: Runtimes of the image side beside torch.
        repeats: Rounds of which the median counts.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    config = TrackConfig()
    segmenter = maskfree.load(model)
    shown = segmenter.with_inference(segmenter.inference.changed(side_px=config.side_px))
    count = config.propagation.context + 1

    with torch.inference_mode():
        frames = list(islice(open_clip(clip).frames(), count + 1))
        images = [image.resize(SIZE) for _, image in frames]
        grids = torch.stack([grid_of(shown, image) for image in images])
        torch.manual_seed(0)
        labels = torch.rand(count, WORDS, *grids.shape[2:]).softmax(1)
        target, earlier = grids[-1], grids[:-1]
        settings = {
            "top_k": config.propagation.top_k,
            "radius": config.propagation.radius,
            "temperature": config.propagation.temperature,
        }

        ours = propagate(target, earlier, labels, **settings)
        plain = masked(target, earlier, labels, **settings)
        assert (ours - plain).abs().max() < 1e-5
        assert torch.equal(ours.argmax(0), plain.argmax(0)), "other labels"

        others = {name: shown.with_runtime(name) for name in runtimes}
        seconds = median_seconds(
            {
                "embed": lambda: grid_of(shown, images[-1]),
                **{
                    f"embed, {name}": lambda other=other: grid_of(other, images[-1])
                    for name, other in others.items()
                },
                "propagate": lambda: propagate(target, earlier, labels, **settings),
                "propagate, all cells masked": lambda: masked(target, earlier, labels, **settings),
            },
            repeats,
            warm_up=1,
            clock=time.process_time,
        )

    ratios = [
        *(
            Ratio(
                f"frame of 854x480{name}",
                seconds[f"embed{name}"] + seconds["propagate"],
                "at most 0.5",
                "s",
            )
            for name in ("", *(f", {each}" for each in others))
        ),
        Ratio(
            "all cells masked over gathered",
            seconds["propagate, all cells masked"] / seconds["propagate"],
            "at least 1.36",
        ),
    ]
    report(
        "tracking",
        seconds,
        ratios,
        settings
        | {
            "clip": clip.name,
            "grid": list(grids.shape[2:]),
            "earlier_frames": count,
            "clock": "CPU seconds",
            "repeats": repeats,
            "equal": "labels of all cells",
        },
        results,
    )


def grid_of(segmenter: maskfree.Segmenter, image: Image.Image) -> Float[Tensor, "d h w"]:
    """Embeddings of a frame on a grid of one cell per patch."""
    height, width = segmenter.inference.resized(image.height, image.width)
    unit = segmenter.method.patch_size
    return embed(segmenter, image).at(round(height / unit), round(width / unit))


def masked(
    target: Float[Tensor, "d h w"],
    frames: Float[Tensor, "n d h w"],
    labels: Float[Tensor, "n c h w"],
    *,
    top_k: int,
    radius: int,
    temperature: float,
) -> Float[Tensor, "c h w"]:
    """Propagate by a softmax over all cells of a tile's surroundings, most of them masked."""
    height, width = target.shape[1:]
    found = torch.empty_like(labels[0])
    for top in range(0, height, TILE):
        rows = torch.arange(top, min(top + TILE, height))
        near_rows = torch.arange(max(0, top - radius), min(height, top + TILE + radius))
        for left in range(0, width, TILE):
            columns = torch.arange(left, min(left + TILE, width))
            near_columns = torch.arange(max(0, left - radius), min(width, left + TILE + radius))

            down = (rows[:, None] - near_rows).abs() <= radius
            across = (columns[:, None] - near_columns).abs() <= radius
            near = (down[:, None, :, None] & across[None, :, None, :]).flatten(2).flatten(0, 1)

            cells = target[:, rows][:, :, columns].flatten(1)
            others = frames[:, :, near_rows][..., near_columns].flatten(2)
            cosines = (cells.mT @ others).masked_fill(~near, -torch.inf)
            logits = cosines.permute(1, 0, 2).flatten(1) / temperature
            lowest = logits.topk(top_k, dim=1).values[:, -1:]
            weights = logits.masked_fill(logits < lowest, -torch.inf).softmax(1)

            theirs = labels[:, :, near_rows][..., near_columns].flatten(2).movedim(1, 2)
            mixed = (weights @ theirs.flatten(0, 1)).mT
            found[:, top : top + TILE, left : left + TILE] = mixed.unflatten(1, (len(rows), -1))
    return found


if __name__ == "__main__":
    tyro.cli(main)
