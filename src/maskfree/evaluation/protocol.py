"""Evaluation protocols: what a score depends on besides the model and the photos.

`PROTOCOLS` lists the protocols of the literature by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from maskfree.config import rules
from maskfree.config.rules import Count, PositiveFraction, Side, Weight
from maskfree.data.benchmarks.catalog import Benchmark
from maskfree.inference.config import Inference, Refinement
from maskfree.inference.segmenter import Segmenter
from maskfree.results.segmentation import BACKGROUND
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary

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


@dataclass(frozen=True)
class Protocol:
    """Settings that a score depends on; rows of different protocols are not comparable.

    None stands for the model's own setting, which the results row spells out.
    """

    names: str = "plain"
    """Name set of the benchmark, such as plain or synonyms."""
    background: str = "none"
    """Background rule: "none" leaves out pixels of no class; "threshold:T" and "words:W,W" predict
    background as a further class.
    """
    candidates: Literal["all", "unseen"] = "all"
    """Classes that the model chooses among; with "unseen", pixels of other classes are left out."""
    scored: Literal["all", "unseen"] = "all"
    """Classes whose IoU is averaged and whose pixels count for the accuracies."""
    side_px: Side = Inference.side_px
    """Shorter side of the resized photo, in pixels."""
    max_long_px: Side = Inference.max_long_px
    """Maximum longer side of the resized photo, in pixels; limits the shorter side."""
    max_whole_px: Side = Inference.max_whole_px
    """Longest side, in pixels, up to which a photo is segmented without sliding windows."""
    window_px: Side = Inference.window_px
    """Side of a sliding window, in pixels."""
    stride_px: Side = Inference.stride_px
    """Stride of the sliding windows, in pixels."""
    templates: str | None = None
    """Name of a prompt set, or a prompt with {} in place of the class name."""
    score: Literal["cosine", "softmax", "product"] = "cosine"
    """Score that a background threshold applies to; see `Inference`."""
    logit_scale: Weight | None = None
    """Factor on the cosines before a softmax."""
    top_classes: Count = Inference.top_classes
    """Number of classes that may win in each window, for the score "product"."""
    smooth: Count | None = None
    """Width, in patches, of the spatial averaging of scores."""
    class_prior: Weight | None = None
    """Weight of the image-level class prior."""
    class_prior_share: PositiveFraction | None = None
    """Share of the patches that the class prior is computed from."""
    class_prior_max: Weight | None = None
    """Margin at which the class prior is clipped."""
    refine: Refinement = "none"
    """Refinement of patch scores to pixels."""

    def __post_init__(self) -> None:
        rules.check(self)


_OF_INFERENCE = Protocol.__dataclass_fields__.keys() & Inference.__dataclass_fields__.keys()


def check(benchmark: Benchmark, protocol: Protocol) -> None:
    """Check that a benchmark can be measured by a protocol, before any model is loaded.

    Args:
        benchmark: Benchmark to measure on.
        protocol: Protocol to measure by.

    Raises:
        ValueError: The benchmark lacks the name set, unseen classes or background labels that the
            protocol needs, or a rule is malformed.
    """
    Vocabulary.parse(benchmark.words(protocol.names))

    rule = Background.parse(protocol.background)
    if rule and not benchmark.background:
        raise ValueError(f"{benchmark.name} does not label its background: use --background none")

    if "unseen" in (protocol.candidates, protocol.scored) and not benchmark.unseen:
        raise ValueError(f"{benchmark.name} has no unseen classes: its papers name none")
    if rule and (protocol.candidates, protocol.scored) != ("all", "all"):
        raise ValueError(
            "unseen classes are measured without a background rule: use --background none"
        )


def prepare(segmenter: Segmenter, benchmark: Benchmark, protocol: Protocol) -> Segmenter:
    """Configure a segmenter for a benchmark and a protocol.

    Args:
        segmenter: Segmenter to start from.
        benchmark: Benchmark that provides the class names.
        protocol: Protocol; fields that are None keep the segmenter's own settings.

    Returns:
        Segmenter with the protocol's words, background rule, prompts, sizes and scores.
    """
    own, settings = segmenter.inference, {}

    # None in the protocol stands for the model's own setting.
    for name in _OF_INFERENCE:
        value = getattr(protocol, name)
        settings[name] = getattr(own, name) if value is None else value
    inference = replace(own, **settings)

    # A softmax needs a scale: by default the one that the model learned.
    if not inference.logit_scale and inference.score != "cosine":
        inference = replace(inference, logit_scale=segmenter.logit_scale)

    words = [line for line, _ in candidates(benchmark, protocol)]
    return segmenter.with_inference(inference).with_words(
        words, protocol.background, protocol.templates
    )


def candidates(benchmark: Benchmark, protocol: Protocol) -> list[tuple[str, int]]:
    """List the classes that the model chooses among.

    Args:
        benchmark: Benchmark that provides the class names.
        protocol: Protocol, which selects the name set and the candidates.

    Returns:
        Line of the class list and id in the truth maps, for each candidate.
    """
    plain = benchmark.words()
    lines = list(zip(benchmark.words(protocol.names), range(len(plain)), strict=True))
    return (
        lines
        if protocol.candidates == "all"
        else [line for line in lines if plain[line[1]] in benchmark.unseen]
    )


def spelled(segmenter: Segmenter, protocol: Protocol) -> Protocol:
    """Replace each None of a protocol by the setting that applies instead.

    Args:
        segmenter: Segmenter prepared for the protocol.
        protocol: Protocol to complete.

    Returns:
        Protocol with all inference settings spelled out.
    """
    return replace(protocol, **{name: getattr(segmenter.inference, name) for name in _OF_INFERENCE})


def own(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """This project's protocol: whole photos, each name set and the model's own smoothing.

    Background, where the benchmark has it, is predicted by a cosine threshold.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.
    """
    rules = ("none", DEFAULT_THRESHOLD) if benchmark.background else ("none",)
    sets = [names for names in benchmark.names if names in ("plain", "synonyms")]
    return tuple(Protocol(names=names, background=rule) for rule in rules for names in sets)


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
    rule = "threshold:0.25" if benchmark.background else "none"
    return (_bare(Protocol(background=rule, max_whole_px=ALWAYS_WINDOWS)),)


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
    names = next(names for names in ("sclip", "synonyms", "plain") if names in benchmark.names)

    # Words that name a class of the benchmark cannot be background.
    taken = {word.strip() for line in benchmark.words(names) for word in line.split("/")}
    others = ",".join(word for word in SCLIP_BACKGROUND if word not in taken)

    # The classes of PASCAL Context cover nearly all words of the list.
    if benchmark.name.startswith("context"):
        others = BACKGROUND

    return (
        _bare(
            Protocol(
                names=names,
                background=f"words:{others}" if benchmark.background else "none",
                side_px={"cityscapes": 560, "coco-stuff": 448, "coco-stuff-27": 448}.get(
                    benchmark.name, 336
                ),
                max_whole_px=ALWAYS_WINDOWS,
                window_px=224,
                stride_px=112,
                score="softmax",
                logit_scale=40.0,
            )
        ),
    )


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
    threshold = 0.35 if benchmark.name.startswith("context") else 0.9
    return (
        _bare(
            Protocol(
                background=f"threshold:{threshold}" if benchmark.background else "none",
                max_whole_px=ALWAYS_WINDOWS,
                templates="a photo of a {}.",
                score="product",
            )
        ),
    )


def unseen(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """ViL-Seg's protocol: only unseen classes are candidates, and only their pixels count.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: arXiv:2207.08455, section 4.1.
    """
    return (Protocol(candidates="unseen", scored="unseen"),)


def unseen_among_all(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """Variant of `unseen` in which the model chooses among all classes.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: The other possible reading of arXiv:2207.08455, section 4.1.
    """
    return (Protocol(scored="unseen"),)


def all_as_unseen(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """ViL-Seg's protocol for all classes: all count and compete, unlabeled pixels do not.

    Args:
        benchmark: Benchmark to measure on.

    Returns:
        The protocols to run on it.

    Source: arXiv:2207.08455, Table 2 and Fig. 6.
    """
    return (Protocol(),)


def _bare(protocol: Protocol) -> Protocol:
    """Switch off smoothing and class prior, as the published protocols have neither."""
    # Defaults for what has no effect while the prior is off.
    off = Inference()
    return replace(
        protocol,
        smooth=1,
        class_prior=0.0,
        class_prior_share=off.class_prior_share,
        class_prior_max=off.class_prior_max,
    )


PROTOCOLS: dict[str, Callable[[Benchmark], tuple[Protocol, ...]]] = {
    "own": own,
    "tcl": tcl,
    "sclip": sclip,
    "groupvit": groupvit,
    "unseen": unseen,
    "unseen-among-all": unseen_among_all,
    "all-as-unseen": all_as_unseen,
}
