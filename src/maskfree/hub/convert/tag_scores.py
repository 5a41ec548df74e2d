"""Add tag scores (image classifier and concept head) to a trained ViL-Seg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.methods.vilseg.tag_scores import VocabularyTexts
from maskfree.methods.vilseg.tag_scores_config import TagScoresConfig
from maskfree.nn.pretrained import read_classifier
from maskfree.text.prompts import fill, mean_over_templates
from maskfree.text.tags import CAPTION_CONCEPTS, IMAGENET_TAGS, read_tags
from maskfree.text.tokenize import Tokenizer

# Bounds the memory of the text encoder.
_TEXTS_AT_ONCE = 64


def add_tag_scores(
    method: ViLSeg,
    config: ViLSegConfig,
    tag_scores: TagScoresConfig,
    tokenizer: Tokenizer,
    templates: Sequence[str],
    tags: Path = IMAGENET_TAGS,
    concepts: Path = CAPTION_CONCEPTS,
) -> tuple[ViLSeg, ViLSegConfig]:
    """Add a classifier and a new concept head to a trained ViL-Seg.

    Args:
        method: Trained method.
        config: Its settings.
        tag_scores: Settings of the tag scores, with the classifier's weights; the numbers of names
            are filled in.
        tokenizer: Tokenizer of the method.
        templates: Prompt templates of the names; use those of the class names at inference.
        tags: File with names and kinds of the classifier's classes, in its order; see `read_tags`.
        concepts: File with names of the concepts that the head learns to find.

    Returns:
        The same ViL-Seg with tag scores, and its settings.

    Raises:
        OSError: The weights or a list cannot be read.
        ValueError: They do not fit one another, or no weights are named.
    """
    classes, nouns = read_tags(tags), read_tags(concepts)
    names, kinds = [tag.names for tag in classes], [tag.kinds for tag in classes]
    words = [tag.names for tag in nouns]

    # Buffers of the branch are sized by the lists.
    tag_scores = replace(
        tag_scores,
        num_tags=len(classes),
        num_tag_names=sum(map(len, names)),
        num_tag_kinds=sum(map(len, kinds)),
        num_concepts=len(nouns),
        num_concept_names=sum(map(len, words)),
    )

    # The branch is the only part without trained weights.
    whole = replace(config, tag_scores=tag_scores)
    extended = whole.build()
    extended.load_state_dict(method.state_dict(), strict=False)
    branch = extended.tag_scores
    assert branch is not None
    if tag_scores.image.weights is None:
        raise ValueError("tag_scores.image.weights is not set: name the classifier's folder")

    # The classifier becomes a 1x1 convolution over patches.
    _copy(read_classifier(tag_scores.image.weights, len(classes)), branch.classifier)

    # Names and kinds are embedded once, as constants of the branch.
    for texts, entries in (
        (branch.tag_names, names),
        (branch.tag_kinds, kinds),
        (branch.concept_names, words),
    ):
        _fill(texts, entries, lambda phrases: _embed(method, tokenizer, templates, phrases))

    return extended, whole


@torch.no_grad()
def _copy(linear: nn.Linear, convolution: nn.Conv2d) -> None:
    """Copy a linear layer into a 1x1 convolution."""
    convolution.weight.copy_(linear.weight[:, :, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(linear.bias)


def _fill(
    texts: VocabularyTexts,
    entries: Sequence[Sequence[str]],
    embed: Callable[[Sequence[str]], Tensor],
) -> None:
    """Embed the names of all entries and record which entry each belongs to."""
    # A phrase that several entries share is embedded once.
    phrases = sorted({phrase for entry in entries for phrase in entry})
    place = {phrase: index for index, phrase in enumerate(phrases)}
    flat = [(place[phrase], owner) for owner, entry in enumerate(entries) for phrase in entry]

    texts.texts.copy_(embed(phrases)[[index for index, _ in flat]])
    texts.owners.copy_(torch.tensor([owner for _, owner in flat]))


@torch.no_grad()
def _embed(
    method: ViLSeg, tokenizer: Tokenizer, templates: Sequence[str], phrases: Sequence[str]
) -> Tensor:
    """Embed phrases as class names are embedded at inference."""
    texts = fill(templates, phrases)
    parts = [
        texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)
    ]
    return mean_over_templates(
        torch.cat([method.encode_text(tokenizer(part)) for part in parts]), len(templates)
    )
