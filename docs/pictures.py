"""Make the pictures of README and docs/.

python docs/pictures.py
    draws the example photos, each beside its overlay.
python docs/pictures.py --data COCO_MINI
    also draws the best and worst label maps of coco-mini, beside the truth.
python docs/pictures.py --groups MODEL [--data COCO_MINI]
    draws the groups of an OVSegmentor in the example photos, and the group of an entity in two
    photos of coco-mini each, beside the truth.
python docs/pictures.py --clusters MODEL
    draws what a ViL-Seg with a clustering head groups in the example photos: by K-means of each
    photo, and by its head.

No photo of coco-mini goes into a picture: their makers' terms differ.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import maskfree
from maskfree.data.benchmarks.catalog import benchmark
from studies.pictures import entity_in, groups_of

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WORDS = {
    "pagoda": ["building", "sky", "tree"],
    "coffee": ["cup", "spoon", "table"],
    "chelsea": ["cat", "wall"],
    "astronaut": ["woman/person", "flag", "wall"],
    "rocket": ["rocket", "sky", "smoke/fire", "tower"],
}
HEIGHT_PX = 400
CLUSTERED = ("pagoda", "rocket")
ENTITIES = ("cat", "train", "bird")  # of which the group is shown
NUM_SHOWN = 4  # of the best, and of the worst


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Put two pictures of equal width side by side; the legend below one of them stays."""
    gap = 8
    canvas = Image.new(
        "RGB", (left.width + gap + right.width, max(left.height, right.height)), (255, 255, 255)
    )
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + gap, 0))
    return canvas


def write(picture: Image.Image, name: str) -> None:
    """Save a picture among those of the pages."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    picture.save(IMAGES / f"{name}.jpg", quality=85, optimize=True)
    print(f"docs/images/{name}.jpg")


def examples(model: maskfree.Segmenter) -> None:
    """The example photos, at one height, each beside its overlay."""
    for name, words in WORDS.items():
        photo = example(name)
        write(beside(photo, model.with_words(words)(photo).overlay()), name)


def example(name: str) -> Image.Image:
    """An example photo at the height of the pictures."""
    photo = Image.open(ROOT / "examples" / f"{name}.jpg").convert("RGB")
    return photo.resize(
        (round(photo.width * HEIGHT_PX / photo.height), HEIGHT_PX), Image.Resampling.LANCZOS
    )


def groups(model: maskfree.Segmenter) -> None:
    """The example photos, each beside its groups."""
    for name in WORDS:
        photo = example(name)
        write(beside(photo, groups_of(model, photo).overlay(0.7)), f"groups-{name}")


def clusters(model: maskfree.Segmenter) -> None:
    """The example photos by K-means, each beside the same photo by the clustering head."""
    for name in CLUSTERED:
        photo, drawn = example(name), []
        for grouping in ("kmeans", "clusters"):
            grouped = model.with_inference(replace(model.inference, grouping=grouping))
            drawn.append(groups_of(grouped, photo).overlay(0.7).crop((0, 0, *photo.size)))
        write(beside(*drawn), f"clusters-{name}")


def entities(model: maskfree.Segmenter, folder: Path) -> None:
    """The group closest to an entity in the two photos that show most of it, each beside the truth;
    no photo.
    """
    data = benchmark("coco-mini")
    truths = [(sample, sample.read_truth()) for sample in data.samples(folder)]
    for entity in ENTITIES:
        index = data.words().index(entity)
        truths.sort(key=lambda pair: -float((pair[1] == index).mean()))
        for rank, (sample, truth) in enumerate(truths[:2], 1):
            found = entity_in(model, sample.photo, entity)
            found = replace(found, image=np.zeros_like(found.image))
            true = replace(found, labels=(truth != index).astype(np.uint8))
            write(beside(found.overlay(0.9), true.overlay(0.9)), f"entity-{entity}-{rank}")


def best_and_worst(model: maskfree.Segmenter, folder: Path) -> None:
    """Label maps of coco-mini with the highest and lowest pixel accuracy, each beside the truth."""
    data = benchmark("coco-mini")
    model = model.with_words(data.words("synonyms"))
    measured = []
    for sample in data.samples(folder):
        truth = sample.read_truth()
        counts = truth < len(data.words())
        if counts.mean() < 0.1:  # hardly anything to be right or wrong about
            continue
        result = model(sample.photo)
        labels = np.where(counts, result.labels, len(data.words())).astype(np.uint8)
        accuracy = float((labels == truth)[counts].mean())
        nothing = np.zeros_like(result.image)
        record = {**result.record, "background": "pixels of other things"}
        shown = replace(result, labels=labels, image=nothing, record=record)
        measured.append((accuracy, sample.photo.stem, shown, replace(shown, labels=truth)))
    measured.sort(key=lambda entry: entry[:2])
    for rank, (_, _, shown, truth) in enumerate(reversed(measured[-NUM_SHOWN:]), 1):
        write(beside(shown.overlay(0.9), truth.overlay(0.9)), f"best-{rank}")
    for rank, (_, _, shown, truth) in enumerate(measured[:NUM_SHOWN], 1):
        write(beside(shown.overlay(0.9), truth.overlay(0.9)), f"worst-{rank}")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="pocket", help="name of a model or folder of a checkpoint"
    )
    parser.add_argument(
        "--groups", help="name of a model or folder of a checkpoint whose groups are shown instead"
    )
    parser.add_argument("--clusters", help="folder of a checkpoint with a clustering head")
    parser.add_argument("--data", type=Path, help="folder of coco-mini")
    arguments = parser.parse_args()
    if arguments.groups:
        grouping = maskfree.load(arguments.groups)
        groups(grouping)
        if arguments.data:
            entities(grouping, arguments.data)
        return
    if arguments.clusters:
        clusters(maskfree.load(arguments.clusters))
        return
    model = maskfree.load(arguments.model)
    examples(model)
    if arguments.data:
        best_and_worst(model, arguments.data)


if __name__ == "__main__":
    main()
