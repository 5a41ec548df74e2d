"""What evaluation costs besides the network, with 150 made-up classes.

The confusion count against other packages, label map and confidences against the plain way.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import Tensor

import maskfree
from harness import RESULTS, Ratio, median_seconds, report
from inference import inputs_of
from maskfree.cli.common import keep_freed_memory
from maskfree.data.benchmarks.catalog import Benchmark, benchmark
from maskfree.data.photo import read_photo
from maskfree.evaluation.evaluator import tally
from maskfree.evaluation.protocol import Protocol, prepare
from maskfree.evaluation.result_cache import ResultCache
from maskfree.inference.config import Inference
from maskfree.metrics import confusion
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.ops.confidence_map import confidence_map, spread
from maskfree.ops.ignore import IGNORE
from maskfree.ops.label_map import enlarge

SIDE = 512  # of the photo and its truth
NUM_CLASSES = 150
NUM_PHOTOS = 4  # per round: the next photo is decoded while the network runs


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    side_px: int | None = None,
    repeats: int = 11,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Evaluate on photos of 512x512, step by step and as a whole.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo, resized to 512x512 and saved as JPEG once before.
        side_px: Shorter side of the photo as the network sees it; by default the model's own.
        repeats: Rounds of which the median counts.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    # As the command does.
    keep_freed_memory()
    loaded = maskfree.load(model)
    protocol = Protocol(inference=Inference(side_px=side_px or loaded.inference.side_px))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bench = made_up(Path(folder), photo)
        samples = bench.samples(Path(folder))
        segmenter = prepare(loaded, bench, protocol)
        encoder = next(
            module for module in segmenter.method.modules() if isinstance(module, ImageEncoder)
        )
        (images,) = inputs_of(encoder, segmenter, samples[0].photo)
        picture, truth = read_photo(samples[0].photo), samples[0].read_truth()
        scores, labels = segmenter.score_map(picture), segmenter(picture).labels
        assert segmenter.inference.score == "cosine" and segmenter.background.threshold is None
        # 0 stands for the model's own.
        temperature = segmenter.calibration.temperature or 1 / segmenter.logit_scale
        none = segmenter.calibration.none
        confidences = partial(
            confidence_map,
            scores,
            temperature=temperature,
            none=none,
            size=(SIDE, SIDE),
            extent=(scores.shape[1], scores.shape[2]),
        )
        plainly = partial(plain_confidences, scores, temperature, none)
        check(scores, labels, confidences(), plainly())
        candidates: dict[str, Callable[[], object]] = {
            "whole, per photo": lambda: tally(
                segmenter, bench, samples, protocol, ledger=ResultCache(None, {})
            ),
            "network": lambda: segmenter.method.score(images, segmenter.read_words),
            "decode": lambda: read_photo(samples[0].photo),
            "resize, network and smoothing": lambda: segmenter.score_map(picture),
            "label map": lambda: segmenter.labels_of(scores, (SIDE, SIDE)),
            "confidences": confidences,
            "confidences by a softmax of each cell": plainly,
            "truth": samples[0].read_truth,
            "confusion": lambda: confusion(truth, labels, NUM_CLASSES, IGNORE),
        }
        others = peers(truth, labels)
        seconds = median_seconds(candidates | others, repeats, clock=time.process_time)
    for name, count in others.items():
        assert np.array_equal(count(), confusion(truth, labels, NUM_CLASSES, IGNORE)), (
            f"{name} counts otherwise"
        )
    seconds["whole, per photo"] /= NUM_PHOTOS
    whole = seconds["whole, per photo"]
    ratios = [
        Ratio(
            "time outside the network over the whole", 1 - seconds["network"] / whole, "at most 0.1"
        )
    ]
    ratios += [
        Ratio(f"{name} over confusion", seconds[name] / seconds["confusion"], "at least 1")
        for name in others
    ]
    ratios.append(
        Ratio(
            "softmax of each cell over confidences",
            seconds["confidences by a softmax of each cell"] / seconds["confidences"],
            "at least 2",
        )
    )
    settings = {
        "model": model,
        "photo": f"{photo.name} at {SIDE}x{SIDE}",
        "classes": NUM_CLASSES,
        "network_input": list(images.shape),
        "peers": list(others),  # torchmetrics is no dependency; where it is absent, so is its ratio
        "clock": "CPU seconds",
        "repeats": repeats,
    }
    report("evaluation", seconds, ratios, settings, results)


def made_up(folder: Path, photo: Path) -> Benchmark:
    """Write the same photo several times, and blocks of made-up classes as its truth."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "classes.txt").write_text(
        "".join(f"thing {i}\n" for i in range(NUM_CLASSES)), encoding="utf-8"
    )
    blocks = np.random.default_rng(0).integers(0, NUM_CLASSES, (16, 16), dtype=np.uint8)
    blocks[0] = IGNORE
    picture = Image.open(photo).convert("RGB").resize((SIDE, SIDE))
    for i in range(NUM_PHOTOS):
        picture.save(folder / "images" / f"{i}.jpg", quality=92)
        Image.fromarray(blocks.repeat(SIDE // 16, 0).repeat(SIDE // 16, 1)).save(
            folder / "labels" / f"{i}.png"
        )
    return benchmark("folder", folder)


def plain_confidences(scores: Tensor, temperature: float, none: float | None) -> np.ndarray:
    """A softmax at each cell, eight cells along a side of a patch."""
    cells = (8 * scores.shape[1], 8 * scores.shape[2])
    logits = enlarge(scores, cells, (scores.shape[1], scores.shape[2])) / temperature
    total = logits.logsumexp(0)
    if none is not None:
        total = torch.logaddexp(total, total.new_tensor(none / temperature))
    return spread((logits.amax(0) - total).exp(), (SIDE, SIDE))


def check(scores: Tensor, labels: np.ndarray, found: np.ndarray, plainly: np.ndarray) -> None:
    """Compare labels and confidences with the plain way."""
    enlarged = F.interpolate(scores[None], (SIDE, SIDE), mode="bilinear")[0]
    best = enlarged.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    # Both ways round, so that among equal scores either label is right.
    assert (enlarged.amax(0) - best).max() < 1e-6, "labels differ from the plain way"
    assert np.abs(found.astype(np.float32) - plainly).max() <= 2**-11, (
        "confidences differ by more than a step of a 16-bit float"
    )


def peers(truth: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """The same count by other packages, on what they like best: flat arrays, and 64-bit tensors
    made beforehand.
    """
    flat, found = truth.ravel(), labels.ravel()
    counts: dict[str, Callable[[], np.ndarray]] = {
        "scikit-learn": partial(confusion_matrix, flat, found, labels=np.arange(NUM_CLASSES))
    }
    try:
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    except ImportError:
        return counts
    predicted, target = torch.from_numpy(found).long(), torch.from_numpy(flat).long()
    count = partial(
        multiclass_confusion_matrix,
        predicted,
        target,
        NUM_CLASSES,
        ignore_index=IGNORE,
        validate_args=False,
    )
    return counts | {"torchmetrics": lambda: count().numpy()}


if __name__ == "__main__":
    tyro.cli(main)
