"""Evaluation protocols of the literature and of this project, by name: `PROTOCOLS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maskfree.data.benchmarks.catalog import Benchmark
from maskfree.evaluation.protocol import Protocol
from maskfree.inference.config import AUTHORS_INFERENCE, Inference
from maskfree.results.segmentation import BACKGROUND

# Chosen from captions by benchmarks/threshold.py, which gives 0.2 for the current pocket model.
DEFAULT_THRESHOLD = "threshold:0.25"
# Background words of the SCLIP family.
SCLIP_BACKGROUND = [
    "sky",
    "wall",
    "tree",
    "wood",
    "grass",
    "road",
    "sea",
    "river",
    "mountain",
    "sands",
    "desk",
    "bed",
    "building",
    "cloud",
    "lamp",
    "door",
    "window",
    "wardrobe",
    "ceiling",
    "shelf",
    "curtain",
    "stair",
    "floor",
    "hill",
    "rail",
    "fence",
]
# Limit in pixels that every photo exceeds, so that all are segmented through sliding windows.
ALWAYS_WINDOWS = 1
# "a photo of a category" in section 3.3 of ViL-Seg's paper.
_VILSEG_PROMPT = "a photo of a {}"
# Shorter sides in pixels where SCLIP's is not 336.
_SCLIP_SIDES_PX = {"cityscapes": 560, "coco-stuff": 448, "coco-stuff-27": 448}


def own(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """This project's protocol: whole photos, each name set and the model's own smoothing.

    Background, where the benchmark has it, is predicted by a cosine threshold.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.
    """
    rules = ["none"]
    if benchmark.background:
        rules.append(DEFAULT_THRESHOLD)

    protocols = []
    for rule in rules:
        for names in benchmark.names:
            if names in ("plain", "synonyms"):
                protocols.append(Protocol(names=names, background=rule))
    return tuple(protocols)


def tcl(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """TCL's protocol: plain names, shorter side of 448 px, windows of 448 px with stride 224.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: arXiv:2212.00785.

    Differs: TCL thresholds a sigmoid with learned scale and bias at 0.5; here the threshold is 0.25
    on the cosine.
    """
    rule = _rule_of(benchmark, "threshold:0.25")
    return (_bare(background=rule, inference=Inference(max_whole_px=ALWAYS_WINDOWS)),)


def sclip(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """Protocol of SCLIP and its successors: 336 px, windows of 224 px with stride 112.

    Class names have synonyms, and background is a list of words.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: arXiv:2312.01597.

    Differs: Patch scores of overlapping windows are averaged before they are enlarged, and the
    prompts are the model's own.
    """
    names = "plain"
    for better in ("synonyms", "sclip"):
        if better in benchmark.names:
            names = better

    # Words that name a class of the benchmark cannot be background.
    taken = set()
    for line in benchmark.words(names):
        taken |= {word.strip() for word in line.split("/")}
    others = ",".join(word for word in SCLIP_BACKGROUND if word not in taken)

    # The classes of PASCAL Context cover nearly all words of the list.
    if benchmark.name.startswith("context"):
        others = BACKGROUND

    inference = Inference(
        side_px=_SCLIP_SIDES_PX.get(benchmark.name, 336),
        max_whole_px=ALWAYS_WINDOWS,
        window_px=224,
        stride_px=112,
        score="softmax",
        logit_scale=40.0,
    )
    rule = _rule_of(benchmark, f"words:{others}")
    return (_bare(names=names, background=rule, inference=inference),)


def groupvit(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """Protocol of GroupViT and OVSegmentor: 448 px, windows of 448 px with stride 224.

    Group assignments are one-hot, and the score is a product of softmaxes.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: Thresholds of OVSegmentor's paper (arXiv:2301.09121): VOC 0.9, Context 0.35, COCO 0.9.

    Differs: The published code has 0.95 for VOC, which `--background threshold:.95` gives.
    """
    threshold = 0.9
    if benchmark.name.startswith("context"):
        threshold = 0.35
    rule = _rule_of(benchmark, f"threshold:{threshold}")
    return (_bare(background=rule, templates="a photo of a {}.", inference=AUTHORS_INFERENCE),)


def unseen(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """ViL-Seg's protocol: only unseen classes are candidates, and only their pixels count.

    Scores are neither smoothed nor changed by a class prior. The groups are the model's own: the
    paper's are the clusters of an online head.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: arXiv:2207.08455, section 4.1.
    """
    return (_bare(candidates="unseen", scored="unseen", templates=_VILSEG_PROMPT),)


def unseen_among_all(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """Variant of `unseen` in which the model chooses among all classes.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: The other possible reading of arXiv:2207.08455, section 4.1.
    """
    return (_bare(scored="unseen", templates=_VILSEG_PROMPT),)


def all_as_unseen(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """ViL-Seg's protocol for all classes: all count and compete, unlabeled pixels do not.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: arXiv:2207.08455, Table 2 and Fig. 6.
    """
    return (_bare(templates=_VILSEG_PROMPT),)


def _rule_of(benchmark: Benchmark, rule: str) -> str:
    """Background rule, or none for a benchmark that does not label its background."""
    return rule if benchmark.background else "none"


def _bare(**settings: Any) -> Protocol:
    """Protocol without smoothing and class prior, as the published ones have neither."""
    return Protocol(smooth=1, class_prior=0.0, **settings)


PROTOCOLS: dict[str, Callable[[Benchmark], tuple[Protocol, ...]]] = {
    "own": own,
    "tcl": tcl,
    "sclip": sclip,
    "groupvit": groupvit,
    "unseen": unseen,
    "unseen-among-all": unseen_among_all,
    "all-as-unseen": all_as_unseen,
}
