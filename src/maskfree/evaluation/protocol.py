"""What a number depends on besides the model and the photos, and the protocols of the field under their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from maskfree.config import rules
from maskfree.config.rules import Count, PositiveFraction, Side, Weight
from maskfree.data.benchmarks.catalog import Benchmark
from maskfree.inference.config import Inference, Refinement
from maskfree.inference.segmenter import Segmenter
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary
from maskfree.types import BACKGROUND

DEFAULT_THRESHOLD = "threshold:0.25"  # from captions, by benchmarks/threshold.py; for the present pocket it says 0.2
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
ALWAYS_WINDOWS = 1  # no photo is small enough to be seen whole


@dataclass(frozen=True)
class Protocol:
    """Rows of different protocols are not comparable. None means the model's own, which the row spells out."""

    names: str = "plain"
    """Name set of the benchmark: plain, synonyms, ..."""
    background: str = "none"
    """none: pixels of no class are left out; threshold:T or words:W,W: they must be found."""
    candidates: Literal["all", "unseen"] = "all"
    """Classes that the model chooses among; of "unseen", pixels of other classes are left out."""
    scored: Literal["all", "unseen"] = "all"
    """Classes whose IoU is averaged, and whose pixels the accuracies count."""
    side_px: Side = Inference.side_px
    """Shorter side of the photo as the network sees it."""
    max_long_px: Side = Inference.max_long_px
    """Its longer side at most; the shorter one gives way."""
    max_whole_px: Side = Inference.max_whole_px
    """A photo with a longer side than this is seen through sliding windows."""
    window_px: Side = Inference.window_px
    """Side of a window."""
    stride_px: Side = Inference.stride_px
    """Step from window to window."""
    templates: str | None = None
    """A prompt set, or a prompt with {} for the name."""
    score: Literal["cosine", "softmax", "product"] = "cosine"
    """What a threshold applies to; see `Inference`."""
    logit_scale: Weight | None = None
    """Factor on cosines before a softmax."""
    top_classes: Count = Inference.top_classes
    """For the score "product": classes of each window that may win."""
    smooth: Count | None = None
    """Width in patches over which scores are averaged."""
    class_prior: Weight | None = None
    """Weight of how clearly a class wins in the whole photo."""
    class_prior_share: PositiveFraction | None = None
    """Share of the patches that say so."""
    class_prior_max: Weight | None = None
    """Margin beyond which a clearer win counts no more."""
    refine: Refinement = "none"
    """How scores are brought to pixels."""

    def __post_init__(self) -> None:
        rules.check(self)


_OF_INFERENCE = Protocol.__dataclass_fields__.keys() & Inference.__dataclass_fields__.keys()


def check(benchmark: Benchmark, protocol: Protocol) -> None:
    """See that BENCHMARK can be measured by PROTOCOL, before any model is loaded.

    Raises:
        ValueError: it has no such name set, no unseen classes, does not know its background; or a rule is malformed.
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
    """Give a segmenter the protocol's words, background rule, templates, sizes and scores."""
    own, settings = segmenter.inference, {}
    for name in _OF_INFERENCE:
        value = getattr(protocol, name)
        settings[name] = getattr(own, name) if value is None else value
    inference = replace(own, **settings)
    if not inference.logit_scale and inference.score != "cosine":
        inference = replace(inference, logit_scale=segmenter.logit_scale)
    words = [line for line, _ in candidates(benchmark, protocol)]
    return segmenter.with_inference(inference).with_words(
        words, protocol.background, protocol.templates
    )


def candidates(benchmark: Benchmark, protocol: Protocol) -> list[tuple[str, int]]:
    """List the lines of the class list that the model chooses among, each with its id in the truth."""
    plain = benchmark.words()
    lines = list(zip(benchmark.words(protocol.names), range(len(plain)), strict=True))
    return (
        lines
        if protocol.candidates == "all"
        else [line for line in lines if plain[line[1]] in benchmark.unseen]
    )


def spelled(segmenter: Segmenter, protocol: Protocol) -> Protocol:
    """Replace what is None by what SEGMENTER, prepared for PROTOCOL, does instead."""
    return replace(protocol, **{name: getattr(segmenter.inference, name) for name in _OF_INFERENCE})


def own(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """Ours: photos seen whole, each name set, and the model's own smoothing; with background by a cosine threshold."""
    rules = ("none", DEFAULT_THRESHOLD) if benchmark.background else ("none",)
    sets = [names for names in benchmark.names if names in ("plain", "synonyms")]
    return tuple(Protocol(names=names, background=rule) for rule in rules for names in sets)


def tcl(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """TCL's (arXiv:2212.00785): plain names, 448 px, windows of 448 every 224.

    Differs: its threshold of 0.5 on a sigmoid with a learned scale and bias is one of 0.25 on the cosine.
    """
    rule = "threshold:0.25" if benchmark.background else "none"
    return (_bare(Protocol(background=rule, max_whole_px=ALWAYS_WINDOWS)),)


def sclip(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """The SCLIP family's (arXiv:2312.01597): 336 px, windows of 224 every 112, synonyms and background words.

    Differs: windows are averaged patch by patch before they are enlarged; the prompts are the model's own.
    """
    names = next(names for names in ("sclip", "synonyms", "plain") if names in benchmark.names)
    taken = {word.strip() for line in benchmark.words(names) for word in line.split("/")}
    others = ",".join(word for word in SCLIP_BACKGROUND if word not in taken)
    if benchmark.name.startswith("context"):  # which names nearly everything that the list does
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
    """GroupViT's and OVSegmentor's: 448 px, windows of 448 every 224, one-hot groups, a product of softmaxes.

    The thresholds are those of OVSegmentor's paper (arXiv:2301.09121): VOC .9, Context .35, COCO .9. The published code
    has .95 for VOC; `--background threshold:.95` gives that.
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
    """ViL-Seg's (arXiv:2207.08455, 4.1): only the unseen classes are candidates, and only their pixels count."""
    return (Protocol(candidates="unseen", scored="unseen"),)


def unseen_among_all(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """The same classes scored, where the model chooses among all classes: the other reading of that section."""
    return (Protocol(scored="unseen"),)


def all_as_unseen(benchmark: Benchmark) -> tuple[Protocol, ...]:
    """ViL-Seg's Table 2 and Fig. 6: all classes count and compete, pixels of no class do not."""
    return (Protocol(),)


def _bare(protocol: Protocol) -> Protocol:
    """As the published protocols are: without smoothing and class_prior."""
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
