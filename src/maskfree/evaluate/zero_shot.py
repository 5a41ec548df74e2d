"""Zero-shot transfer: label a benchmark's photos with its class names, having seen none of its masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from maskfree.data.benchmarks import IGNORE, Benchmark, Sample, files_sha256
from maskfree.evaluate.results import Row, machine, number, versions
from maskfree.metrics import confusion, scores
from maskfree.predict import Segmenter
from maskfree.text.background import Background

DEFAULT_THRESHOLD = "threshold:0.25"  # suggested by benchmarks/threshold.py, from captions


@dataclass(frozen=True)
class Protocol:
    """What a number depends on besides the model and the photos. Rows of different protocols are not comparable."""

    names: str = "plain"  # name set of the benchmark: plain, synonyms
    background: str = "none"  # none: pixels of no class are left out; threshold:T or words:W,W: they must be found
    side_px: int = 448  # shorter side of the photo as the network sees it
    max_long_px: int = 2048  # the longer side at most; the shorter one gives way
    max_whole_px: int = 896  # a photo with a longer side than this is seen through sliding windows
    window_px: int = 448
    stride_px: int = 224
    templates: str = ""  # a prompt set or a prompt with {} for the name; empty: the model's own

    def options(self) -> list[str]:
        """Options of `maskfree evaluate` that ask for this protocol."""
        options = ["--names", self.names, "--background", self.background]
        options += ["--side-px", str(self.side_px)] if self.side_px != Protocol.side_px else []
        return options + (["--templates", self.templates] if self.templates else [])


def protocols(
    benchmark: Benchmark, names: Sequence[str] = (), background: Sequence[str] = (), **fields: Any
) -> tuple[Protocol, ...]:
    """Combine name sets with background rules; those left empty are all that BENCHMARK has.

    Raises:
        ValueError: one does not fit the benchmark.
    """
    rules = background or (("none", DEFAULT_THRESHOLD) if benchmark.background else ("none",))
    found = tuple(Protocol(name_set, rule, **fields) for rule in rules for name_set in names or benchmark.names)
    for protocol in found:
        check(benchmark, protocol)
    return found


def check(benchmark: Benchmark, protocol: Protocol) -> None:
    """See that BENCHMARK can be measured by PROTOCOL, before any model is loaded.

    Raises:
        ValueError: it has no such name set, does not know its background, or the background rule is malformed.
    """
    benchmark.words(protocol.names)
    Background.parse(protocol.background)
    if protocol.background != "none" and not benchmark.background:
        raise ValueError(f"{benchmark.name} does not label its background: use --background none")


def measure(
    segmenter: Segmenter,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    protocol: Protocol,
    command: str,
    watch: Callable[[Sequence[Sample]], Iterable[Sample]] = iter,
) -> Row:
    """Label SAMPLES by PROTOCOL and compare at each photo's full size; WATCH wraps them to show progress.

    Without a background rule the pixels of no class are left out; with one they are a further class, "background".

    Raises:
        ValueError, OSError: a photo cannot be read, or is labelled at another size than its truth.
    """
    check(benchmark, protocol)
    segmenter = prepare(segmenter, benchmark, protocol)
    num_words = len(benchmark.words())
    with_background = protocol.background != "none"
    matrix = np.zeros((num_words + with_background,) * 2, dtype=np.int64)
    seconds = 0.0
    for sample in watch(samples):
        start = time.perf_counter()
        labels = segmenter(sample.photo).labels
        seconds += time.perf_counter() - start
        truth = sample.read_truth()
        if not with_background:
            truth[truth == num_words] = IGNORE
        try:
            matrix += confusion(truth, labels, len(matrix), IGNORE)
        except ValueError as error:
            raise ValueError(f"{sample.photo}: {error}") from error
    found = scores(matrix)
    device = next(segmenter.method.parameters()).device
    names = [line.split("/")[0] for line in benchmark.words(protocol.names)] + ["background"] * with_background
    return Row(
        benchmark=benchmark.name,
        num_photos=len(samples),
        files_sha256=files_sha256(tuple(samples)),
        names_file=f"{benchmark.names[protocol.names]}.txt",
        names_sha256=benchmark.names_sha256(protocol.names),
        protocol=asdict(protocol) | {"templates": list(segmenter.templates)},
        model=segmenter.name,
        weights_sha256=segmenter.weights_hash,
        mean_iou=number(found.mean_iou),
        pixel_accuracy=number(found.pixel_accuracy),
        mean_accuracy=number(found.mean_accuracy),
        iou={name: number(value) for name, value in zip(names, found.iou.tolist(), strict=True)},
        seconds_per_photo=seconds / len(samples),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine(torch.get_num_threads(), device.type) | {"precision": segmenter.inference.precision},
    )


def prepare(segmenter: Segmenter, benchmark: Benchmark, protocol: Protocol) -> Segmenter:
    """Give a segmenter the protocol's words, background rule, templates and sizes."""
    inference = replace(
        segmenter.inference,
        side_px=protocol.side_px,
        max_long_px=protocol.max_long_px,
        max_whole_px=protocol.max_whole_px,
        window_px=protocol.window_px,
        stride_px=protocol.stride_px,
    )
    return segmenter.with_inference(inference).with_words(
        benchmark.words(protocol.names), protocol.background, protocol.templates or None
    )
