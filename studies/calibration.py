"""The temperature at which a model's softmax is a probability, told by captions alone.

Each photo is segmented with a list of words: some that its captions name, and others that none of
them names. A patch is right if its best word is one of the former. The temperature is the one at
which the probability of the best word predicts that best, by the log-likelihood; no mask is used.
Whether the word is at the right place, captions cannot tell: `maskfree evaluate` does, as `ece`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize, minimize_scalar

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.examples import Example, decode
from maskfree.data.photo import read_photo
from maskfree.data.shards import find_shards, read_shards
from maskfree.evaluation.evaluator import truth_lookup
from maskfree.evaluation.protocol import Protocol, prepare
from maskfree.evaluation.reporting.reliability_diagram import as_file, reliability_diagram
from maskfree.evaluation.reporting.results import FORMAT, machine, versions, write_json
from maskfree.evaluation.zero_shot import shares_of
from maskfree.files.atomic import replace_text
from maskfree.hub import loading
from maskfree.inference.calibration import Calibration
from maskfree.inference.photos import prepare_photo
from maskfree.inference.pipeline import postprocessing, score_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics.reliability import NUM_BINS, expected_error, reliability_counts
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Progress
from maskfree.text.nouns import words_of
from maskfree.text.tags import CAPTION_CONCEPTS, read_tags
from maskfree.text.vocabulary import Vocabulary
from studies.options import CalibrationOptions

# As many words as people name classes.
LIST_SIZES = (4, 8, 16, 32)
BENCHMARKS = ("coco-mini", "camvid")
# Temperatures of cosines between which the best one is looked for.
BOUNDS = (0.005, 1.0)


@dataclass(frozen=True)
class Named:
    """Scores of a photo's patches, and which words its captions name."""

    scores: Float[np.ndarray, "k n"]
    """Score of each word on each patch."""
    num_named: int
    """The first words are those that a caption names."""


def reproduce(options: CalibrationOptions) -> None:
    """Fit the temperature on training photos, and measure it on photos of another shard.

    Args:
        options: Data, model and number of photos.
    """
    segmenter = loading.load(options.model, options.device)
    shards = find_shards(options.shards())
    share = -(-options.photos // len(shards))

    # The same number of photos from each shard, then a third as many others.
    chance = random.Random(options.seeds[0])
    examples = [example for shard in shards for example in islice(read_shards([shard]), share)]
    photos = list(_scored(segmenter, examples, chance))
    dev = find_shards([str(options.data / "flickr8k" / "dev-000.tar")])
    others = list(_scored(segmenter, list(islice(read_shards(dev), options.photos // 3)), chance))

    own = 1 / segmenter.logit_scale
    fitted = float(f"{fit(photos):.3g}")
    _, with_none = fit_with_none(photos)
    masks = {
        name: on_masks(segmenter, name, options, {"own": own, "fitted": fitted})
        for name in BENCHMARKS
    }
    content = {
        "format": FORMAT,
        "kind": "calibration",
        "model": segmenter.name,
        "weights_sha256": segmenter.weights_hash,
        "temperature": fitted,
        "own_temperature": own,
        "photos": len(photos),
        "seed": options.seeds[0],
        "nll": {"own": nll(photos, own), "fitted": nll(photos, fitted), "with none": with_none},
        "held_out": {
            "photos": len(others),
            "temperature": fit(others),
            "nll": {"own": nll(others, own), "fitted": nll(others, fitted)},
            "ece": {"own": caption_ece(others, own), "fitted": caption_ece(others, fitted)},
        },
        "masks": masks,
        "command": f"python -m studies calibration --data ../shared/data --photos {options.photos}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(torch.get_num_threads(), segmenter.device.type),
    }
    write_json(content, options.results / f"calibration-{segmenter.name}.json")


def on_masks(
    segmenter: Segmenter, name: str, options: CalibrationOptions, temperatures: Mapping[str, float]
) -> dict[str, Any]:
    """Measure how reliable confidences are on a benchmark, and draw it.

    Args:
        segmenter: Model to measure.
        name: Name of the benchmark, a folder of the data.
        options: Where data and results are.
        temperatures: Temperatures to compare; the last one is drawn.

    Returns:
        Calibration error at each temperature, and the number of photos.
    """
    chosen = benchmark(name)
    protocol = Protocol(names="synonyms")
    prepared = prepare(segmenter, chosen, protocol)
    steps = postprocessing(prepared)
    lookup, _ = truth_lookup(chosen, protocol)
    samples = chosen.samples(options.data / name)
    counts = {kind: np.zeros((NUM_BINS, 3)) for kind in temperatures}

    for sample in Progress(title=name)(samples):
        photo = prepare_photo(
            read_photo(sample.photo), "", prepared.inference, prepared.method.patch_size
        )
        (scores,) = score_photos(prepared, [photo])
        truth = lookup[sample.read_truth()]
        counted = truth != IGNORE

        for kind, temperature in temperatures.items():
            found = steps.labeled_pixels(
                scores, truth.shape, photo.padded, calibration=Calibration(temperature)
            )
            assert found.confidence is not None
            is_right = found.labels[counted] == truth[counted]
            counts[kind] += reliability_counts(found.confidence[counted], is_right)

    errors = {kind: expected_error(each) for kind, each in counts.items()}
    kind = list(temperatures)[-1]
    drawn = {"ece": errors[kind], "bins": shares_of(counts[kind])}
    diagram = reliability_diagram(drawn, f"{segmenter.name} on {name}")
    place = options.results / f"calibration-{segmenter.name}-{name}.svg"
    replace_text(place, as_file(diagram))
    return {"ece": errors, "photos": len(samples)}


def fit(photos: Sequence[Named]) -> float:
    """Find the temperature with the highest likelihood.

    Args:
        photos: Scores of photos.

    Returns:
        The temperature.
    """
    found = minimize_scalar(
        lambda log: nll(photos, float(np.exp(log))), bounds=np.log(BOUNDS), method="bounded"
    )
    return float(np.exp(found.x))


def fit_with_none(photos: Sequence[Named]) -> tuple[float, float]:
    """Fit a temperature together with the score of a class "none of the words".

    Args:
        photos: Scores of photos.

    Returns:
        Score of that class, and the negative log-likelihood.
    """
    start = [np.log(fit(photos)), -1.0]
    found = minimize(
        lambda x: nll(photos, float(np.exp(x[0])), float(x[1])), start, method="Nelder-Mead"
    )
    return float(found.x[1]), float(found.fun)


def nll(photos: Iterable[Named], temperature: float, none: float | None = None) -> float:
    """Negative log-likelihood of whether the best word of each patch is named.

    Args:
        photos: Scores of photos.
        temperature: Temperature of the softmax.
        none: Score of "none of the words"; None for no such class.

    Returns:
        Mean over the patches of each photo, then over the photos, in nats.
    """
    means = []
    for photo in photos:
        probability, is_named = best_words(photo, temperature, none)
        # A single word is certain, which must not give an infinite loss.
        probability = probability.clip(1e-6, 1 - 1e-6)
        right = np.where(is_named, probability, 1 - probability)
        means.append(-np.log(right).mean())
    return float(np.mean(means))


def caption_ece(photos: Iterable[Named], temperature: float) -> float:
    """Expected calibration error of the best words against the captions.

    Args:
        photos: Scores of photos.
        temperature: Temperature of the softmax.

    Returns:
        The error, in [0, 1].
    """
    counts = sum(reliability_counts(*best_words(photo, temperature)) for photo in photos)
    return expected_error(np.asarray(counts))


def best_words(
    photo: Named, temperature: float, none: float | None = None
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Probability of the best word of each patch, and whether a caption names it.

    Args:
        photo: Scores of a photo.
        temperature: Temperature of the softmax.
        none: Score of "none of the words"; None for no such class.

    Returns:
        Probabilities, and True where a caption names the word.
    """
    logits = photo.scores / temperature
    best = logits.max(0)
    total = np.exp(logits - best).sum(0)
    if none is not None:
        total = total + np.exp(none / temperature - best)
    return 1 / total, photo.scores.argmax(0) < photo.num_named


def words_for(
    captions: Sequence[str], size: int, chance: random.Random
) -> tuple[list[int], int] | None:
    """Choose words for a photo: some that captions name, then some that none of them names.

    Args:
        captions: Captions of the photo.
        size: Number of words.
        chance: Source of the choice.

    Returns:
        Indices of concepts, and how many of them are named; None if the captions name none.
    """
    concepts = read_tags(CAPTION_CONCEPTS)
    said = {word for caption in captions for word in words_of(caption)}
    named = []
    for index, concept in enumerate(concepts):
        forms = {form for name in concept.names for form in (name, f"{name}s")}
        if not said.isdisjoint(forms):
            named.append(index)
    if not named:
        return None

    shown = chance.sample(named, chance.randint(1, min(len(named), size // 2)))
    others = [index for index in range(len(concepts)) if index not in named]
    return shown + chance.sample(others, size - len(shown)), len(shown)


def _scored(
    segmenter: Segmenter, examples: Sequence[Example], chance: random.Random
) -> Iterator[Named]:
    """Scores of photos for a list of words each."""
    names = [concept.names[0] for concept in read_tags(CAPTION_CONCEPTS)]
    everything = segmenter.with_words(names)
    assert everything.embeddings is not None

    for number, example in enumerate(Progress(title="captions")(examples)):
        size = LIST_SIZES[number % len(LIST_SIZES)]
        chosen = words_for(example.captions, size, chance)
        if chosen is None:
            continue

        # Embedded once for all photos.
        indices, num_named = chosen
        own = replace(
            everything,
            vocabulary=Vocabulary.parse([names[index] for index in indices]),
            embeddings=everything.embeddings[indices],
        )
        scores = own.score_map(decode(example, 0))
        yield Named(scores.flatten(1).double().numpy(), num_named)
