"""Which background threshold suits a model, told by captions alone, so that no mask of a benchmark
is used up for it.

    python benchmarks/threshold.py --shards ../shared/data/flickr8k/dev-000.tar [--model pocket]

A photo shows a class if one of its captions names it. The best cosine of the class in the photo
should tell the same: the threshold with the highest balanced accuracy over all photos and classes
is the suggestion.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.progress import track

from harness import RESULTS, Ratio, report
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.examples import decode
from maskfree.data.shards import find_shards, read_shards
from maskfree.hub import loading
from maskfree.text.nouns import nouns
from maskfree.text.vocabulary import Vocabulary


def main(
    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD")],
    model: str = "pocket",
    names: str = "synonyms",
    photos: int = 1000,
    results: Path = RESULTS,
) -> None:
    """Compare the best cosine of each class in a photo with whether a caption names it."""
    torch.set_num_threads(2)
    words = benchmark("coco-mini").words(names)
    classes = Vocabulary.parse(words).classes
    segmenter = loading.load(model).with_words(words)
    shown, cosines = [], []
    for example in track(islice(read_shards(find_shards(shards)), photos), total=photos):
        named = {noun for caption in example.captions for noun in nouns(caption)}
        shown.append([any(word in named for word in synonyms) for synonyms in classes])
        cosines.append(segmenter.score_map(decode(example, 0)).amax((1, 2)).numpy())
    is_shown, best = np.array(shown), np.array(cosines)
    thresholds = np.arange(0, 1, 0.05)
    found = np.array([(best[is_shown] >= t).mean() for t in thresholds])
    refused = np.array([(best[~is_shown] < t).mean() for t in thresholds])
    balanced = (found + refused) / 2
    chosen = int(balanced.argmax())
    report(
        "threshold",
        seconds={},
        ratios=[
            Ratio("suggested threshold", float(thresholds[chosen]), unit=""),
            Ratio("balanced accuracy", float(balanced[chosen]), unit=""),
            Ratio("named classes found", float(found[chosen]), unit=""),
            Ratio("other classes refused", float(refused[chosen]), unit=""),
        ],
        settings={
            "model": model,
            "weights_sha256": segmenter.weights_hash,
            "photos": len(shown),
            "names": names,
        },
        folder=results,
    )


if __name__ == "__main__":
    tyro.cli(main)
