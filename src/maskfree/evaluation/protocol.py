"""Evaluation protocol: what a score depends on besides the model and the photos."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from maskfree.config import rules
from maskfree.config.rules import Count, Weight
from maskfree.data.benchmarks.catalog import Benchmark
from maskfree.inference.config import MAX_LONG_PX, Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.class_prior import CLASS_PRIOR_MAX, CLASS_PRIOR_SHARE
from maskfree.ops.group_scores import TOP_CLASSES
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary

# Settings that follow the model and the machine, whatever the protocol.
_OF_MODEL = ("batch_size", "precision")


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
    templates: str | None = None
    """Name of a prompt set, or a prompt with {} in place of the class name."""
    smooth: Count | None = None
    """Width, in patches, of the spatial averaging of scores."""
    class_prior: Weight | None = None
    """Weight of the image-level class prior."""
    inference: Inference = field(default_factory=Inference)
    """Sizes, windows, kind of score and refinement.

    Its batch size and precision have no effect; a logit scale of 0, a vote "none" and a
    grouping "own" are the model's own.
    """

    def __post_init__(self) -> None:
        rules.check(self)

        for name in ("smooth", "class_prior"):
            if getattr(self.inference, name) != getattr(Inference, name):
                raise ValueError(f"inference.{name} is set: a protocol has its own {name}")


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
    own = segmenter.inference

    # None in the protocol, and a scale of 0, stand for the model's own setting.
    smooth = own.smooth if protocol.smooth is None else protocol.smooth
    class_prior = own.class_prior if protocol.class_prior is None else protocol.class_prior
    # Protocols that set the class prior have no levels either.
    class_level = own.class_level if protocol.class_prior is None else 0.0
    inference = replace(
        protocol.inference,
        batch_size=own.batch_size,
        precision=own.precision,
        smooth=smooth,
        class_prior=class_prior,
        class_level=class_level,
        logit_scale=protocol.inference.logit_scale or own.logit_scale,
    )

    # A method's vote is part of it.
    if inference.vote == "none":
        inference = replace(inference, vote=own.vote)

    # So is a checkpoint's own choice of groups.
    if inference.grouping == "own":
        inference = replace(inference, grouping=own.grouping)

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
    plain = names = benchmark.words()
    if protocol.names != "plain":
        names = benchmark.words(protocol.names)
    lines = list(zip(names, range(len(plain)), strict=True))
    if protocol.candidates == "all":
        return lines

    return [line for line in lines if plain[line[1]] in benchmark.unseen]


def record(prepared: Segmenter, protocol: Protocol) -> dict[str, Any]:
    """Spell out everything that a score depends on, for a row of results.

    Args:
        prepared: Segmenter prepared for the protocol.
        protocol: Protocol.

    Returns:
        Settings by name, without None; constants are among them, so that rows stay apart should a
        constant change.
    """
    own = asdict(prepared.inference)
    settings = {name: value for name, value in own.items() if name not in _OF_MODEL}
    # Most models have no vote, and rows of before there were any stay comparable.
    if prepared.inference.vote == "none":
        del settings["vote"]
    # Levels have no effect under a threshold.
    if not prepared.inference.class_level or prepared.background.threshold is not None:
        del settings["class_level"]
    # The model's own groups are part of its weights' hash or its settings.
    if prepared.inference.grouping == "own":
        del settings["grouping"]
    # The maximum, as in rows of before there was a choice.
    if prepared.inference.synonyms == "max":
        del settings["synonyms"]

    return {
        "names": protocol.names,
        "background": protocol.background,
        "candidates": protocol.candidates,
        "scored": protocol.scored,
        **settings,
        "max_long_px": MAX_LONG_PX,
        "top_classes": TOP_CLASSES,
        "class_prior_share": CLASS_PRIOR_SHARE,
        "class_prior_max": CLASS_PRIOR_MAX,
        "templates": list(prepared.templates),
    }
