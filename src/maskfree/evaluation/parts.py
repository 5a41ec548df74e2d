"""Scores of parts of a benchmark: unseen and seen classes, and halves of the photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64, Int64

from maskfree.data.benchmarks.catalog import Benchmark
from maskfree.data.benchmarks.label_ids import read_renaming
from maskfree.evaluation.protocol import Protocol
from maskfree.evaluation.reporting.results import number
from maskfree.metrics import harmonic_mean, scores


def class_parts(
    benchmark: Benchmark, protocol: Protocol, iou: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Average IoU over unseen classes and over the rest, and likewise over OVSegmentor's entities.

    A class is an entity if one of its names is.

    Args:
        benchmark: Benchmark that names the unseen classes.
        protocol: Protocol, which selects the candidates.
        iou: IoU in [0, 1] by plain name.

    Returns:
        Mean IoU of both sides and their harmonic mean by name; empty unless all classes compete and
        both sides have a class.

    Source: arXiv:2301.09121, Table 7.
    """
    if protocol.candidates != "all":
        return {}

    plain, synonyms = benchmark.words(), benchmark.words("plain")
    if "synonyms" in benchmark.names:
        synonyms = benchmark.words("synonyms")

    # IoU of the classes that the authors held back, and of those that are no entity.
    values = [iou[name.split("/")[0]] for name in plain]
    unseen = [name in benchmark.unseen for name in plain]
    no_entity = [not _is_entity(line) for line in synonyms]
    return _split("classes", values, unseen) | _split("entities", values, no_entity)


def half_parts(
    whole: Int64[np.ndarray, "k k"],
    even: Int64[np.ndarray, "t k k"] | None,
    counted: Sequence[int],
) -> dict[str, float | None]:
    """Score the photos of even and those of odd numbers, each half by itself.

    Args:
        whole: Pixels of all photos by true and predicted class.
        even: The part of photos of even numbers, in the first matrix; None if halves are not told
            apart.
        counted: Classes that are scored.

    Returns:
        Mean IoU and pixel accuracy of both halves by name; empty if one half has no pixel.
    """
    if even is None or not even[0].any() or not (whole - even[0]).any():
        return {}

    parts = {}
    for name, matrix in (("even ids", even[0]), ("odd ids", whole - even[0])):
        parts[name] = mean_of_known(scores(matrix).iou[list(counted)])
        parts[f"{name}, accuracy"] = number(scores(of_truth(matrix, counted)).pixel_accuracy)
    return parts


def of_truth(matrix: Int64[np.ndarray, "k k"], classes: Sequence[int]) -> Int64[np.ndarray, "k k"]:
    """Keep the pixels whose true class is one of the given classes.

    Args:
        matrix: Pixels by true and predicted class.
        classes: True classes to keep.

    Returns:
        The same with zeros in the rows of other classes.
    """
    kept = np.zeros_like(matrix)
    kept[list(classes)] = matrix[list(classes)]
    return kept


def mean_of_known(values: Float64[np.ndarray, " k"]) -> float | None:
    """Average without NaNs.

    Args:
        values: Scores; NaN where there was nothing to count.

    Returns:
        The mean; None if nothing is left.
    """
    return _mean_of(values[~np.isnan(values)].tolist())


def _split(
    kind: str, values: Sequence[float | None], unseen: Sequence[bool]
) -> dict[str, float | None]:
    """Mean IoU of unseen and of seen classes, and their harmonic mean; empty if one side is."""
    # Both sides must have a class, otherwise there is nothing to compare.
    if not any(unseen) or all(unseen):
        return {}

    sides: dict[bool, list[float]] = {True: [], False: []}
    for value, side in zip(values, unseen, strict=True):
        if value is not None:
            sides[side].append(value)

    unseen_mean, seen_mean = _mean_of(sides[True]), _mean_of(sides[False])
    parts = {f"unseen {kind}": unseen_mean, f"seen {kind}": seen_mean}
    if unseen_mean is not None and seen_mean is not None:
        parts[f"harmonic mean of {kind}"] = harmonic_mean(unseen_mean, seen_mean)
    return parts


def _mean_of(values: Sequence[float]) -> float | None:
    """Mean; None if there is no value."""
    if not values:
        return None
    return float(np.mean(values))


def _is_entity(line: str) -> bool:
    """Whether a class is an entity: one of its synonyms is."""
    return any(word.casefold() in _entities() for word in line.split("/"))


@cache
def _entities() -> frozenset[str]:
    """Words that OVSegmentor masks in captions during training, case-folded."""
    return frozenset(word.casefold() for word in read_renaming("ovsegmentor_entities"))
