"""Which background suits one or two words: none, words for the scene, or everyday words.

    python benchmarks/few_words.py --data ../shared/data

Each photo is asked for its largest class, then for its two largest ones. The IoU of each class is
summed over the photos that were asked for it; the figure is the mean over classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from harness import RESULTS, report
from maskfree.data.benchmarks.catalog import AnnotatedPhoto, benchmark
from maskfree.data.photo import read_photo
from maskfree.hub import loading
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE

# The same kind of words as the rule `scene` has, but more of them.
MORE_WORDS = (
    *("sky", "cloud", "wall", "floor", "ceiling", "window", "grass", "road", "sidewalk", "dirt"),
    *("sand", "water", "snow", "rock", "mountain", "tree", "plant", "building", "fence", "table"),
)
RULES = ("none", "scene", "more words", "auto")
BENCHMARKS = {"coco-mini": 4, "camvid": 4}  # every so many photos
# Smallest share of a photo that a class must cover to be asked for.
SMALLEST = 0.005


def main(data: Path, model: str = "pocket", results: Path = RESULTS) -> None:
    """Measure the rules on photos of both benchmarks."""
    segmenter = loading.load(model)
    rows = []
    for name, every in BENCHMARKS.items():
        samples = benchmark(name).samples(data / name)[::every]
        rows += measured(segmenter, name, samples)
    report(
        "few-words",
        seconds={},
        ratios=[],
        settings={"model": model, "weights_sha256": segmenter.weights_hash},
        folder=results,
        rows=rows,
    )


def measured(
    segmenter: Segmenter, name: str, samples: Sequence[AnnotatedPhoto]
) -> Iterator[dict[str, Any]]:
    """Mean IoU of the classes asked for, by number of words and rule."""
    names = [line.split("/")[0] for line in benchmark(name).words()]
    sums = {key: np.zeros((2, len(names))) for key in product((1, 2), RULES)}
    remember(segmenter.method)

    for sample in track(samples, description=name):
        photo, truth = read_photo(sample.photo), sample.read_truth()
        areas = np.bincount(truth.ravel(), minlength=256)[: len(names)] / truth.size
        largest = [int(i) for i in np.argsort(-areas) if areas[i] > SMALLEST]
        # What the truth of a street scene leaves out is no background.
        counted = truth != IGNORE

        for (number, rule), (shared, either) in sums.items():
            classes = largest[:number]
            if len(classes) < number:
                continue
            words = [names[i] for i in classes]
            labels = segmenter.with_words(words, rule_text(rule, words))(photo).labels
            for place, i in enumerate(classes):
                found, true = (labels == place) & counted, truth == i
                shared[i] += (found & true).sum()
                either[i] += (found | true).sum()

    for (number, rule), (shared, either) in sums.items():
        iou = shared[either > 0] / either[either > 0]
        yield {
            "benchmark": name,
            "photos": len(samples),
            "words": number,
            "rule": rule,
            "mean_iou": float(iou.mean()),
            "classes": len(iou),
        }


def rule_text(rule: str, words: Sequence[str]) -> str:
    """The rule as `--background` takes it."""
    if rule != "more words":
        return rule
    return "words:" + ",".join(word for word in MORE_WORDS if word not in words)


def remember(method: Any) -> None:
    """Let a method of the bundled model's kind look at each photo once, whatever the words."""
    method.group = _remembered(method.group)
    method.tag_scores._logits = _remembered(method.tag_scores._logits)


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which keeps its last result."""
    kept: list[Any] = [None, None]

    def call(images: Any, *others: Any) -> Any:
        """Return what is kept for equal images.

        Args:
            images: Images of the network.
            *others: Further arguments, the same for equal images.

        Returns:
            The result.
        """
        if kept[0] is None or kept[0].shape != images.shape or not (kept[0] == images).all():
            kept[:] = [images, function(images, *others)]
        return kept[1]

    return call


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
