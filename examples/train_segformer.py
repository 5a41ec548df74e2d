"""Train a SegFormer on a data set that `maskfree label --format mmseg` wrote.

python examples/train_segformer.py data/mmseg --base nvidia/mit-b0 --steps 2000 --out segformer

Needs transformers, torch, numpy and Pillow, all of which maskfree installs.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

UNLABELED = 255
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def pairs(data: Path, part: str) -> list[tuple[Path, Path]]:
    """Photos of a part of the data set, each with its label map."""
    info = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    found = []
    for label in sorted((data / "annotations" / part).rglob(f"*{info['seg_map_suffix']}")):
        inner = label.relative_to(data / "annotations").with_suffix(info["img_suffix"])
        found.append((data / "images" / inner, label))
    return found


def read(photo: Path, label: Path, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A photo (3 h w), normalized, and its label map (h w), both of one size."""
    image = Image.open(photo).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    labels = Image.open(label).resize((side, side), Image.Resampling.NEAREST)
    pixels = (torch.tensor(np.asarray(image)) / 255 - MEAN) / STD
    return pixels.movedim(-1, 0), torch.tensor(np.asarray(labels).astype(np.int64))


def batches(
    files: list[tuple[Path, Path]], size: int, side: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches without end, in random order, half of the photos mirrored."""
    while True:
        images, labels = [], []
        for photo, label in random.choices(files, k=size):
            image, ids = read(photo, label, side)
            if random.random() < 0.5:
                image, ids = image.flip(-1), ids.flip(-1)
            images.append(image)
            labels.append(ids)
        yield torch.stack(images), torch.stack(labels)


def network(base: str, classes: list[str]) -> SegformerForSemanticSegmentation:
    """A SegFormer with pretrained weights, or with random ones and small if `base` is "tiny"."""
    names = {"id2label": dict(enumerate(classes)), "num_labels": len(classes)}
    if base != "tiny":
        return SegformerForSemanticSegmentation.from_pretrained(
            base, **names, ignore_mismatched_sizes=True
        )

    sizes = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes, **names))


@torch.inference_mode()
def agreement(
    model: SegformerForSemanticSegmentation, files: list[tuple[Path, Path]], side: int
) -> float:
    """Share of the labeled pixels to which the network gives the same class."""
    same = total = 0
    for photo, label in files:
        image, labels = read(photo, label, side)
        logits = model(image[None].to(model.device)).logits
        predicted = torch.nn.functional.interpolate(logits, (side, side), mode="bilinear")
        counts = labels != UNLABELED
        same += int((predicted.argmax(1)[0].cpu() == labels)[counts].sum())
        total += int(counts.sum())
    return same / max(total, 1)


def main() -> None:
    """Train, print the loss and the agreement on the validation photos, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of --format mmseg")
    parser.add_argument("--base", default="nvidia/mit-b0", help="pretrained weights, or tiny")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=512, help="side of photos in pixels")
    parser.add_argument("--rate", type=float, default=6e-5, help="learning rate")
    parser.add_argument("--out", type=Path, default=Path("segformer"))
    options = parser.parse_args()

    random.seed(0)
    torch.manual_seed(0)
    info = json.loads((options.data / "dataset.json").read_text(encoding="utf-8"))
    model = network(options.base, info["metainfo"]["classes"])
    model.config.semantic_loss_ignore_index = UNLABELED
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)

    stream = batches(pairs(options.data, "training"), options.batch_size, options.side)
    for step in range(1, options.steps + 1):
        images, labels = next(stream)
        loss = model(images.to(model.device), labels=labels.to(model.device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 1 or step % 10 == 0 or step == options.steps:
            print(f"step {step}/{options.steps} · loss {loss.item():.3f}")

    model.eval()
    share = agreement(model, pairs(options.data, "validation"), options.side)
    print(f"agrees with {share:.1%} of the labels of the validation photos")
    model.save_pretrained(options.out)


if __name__ == "__main__":
    main()
