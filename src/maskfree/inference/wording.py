"""Words and a background for a Segmenter: parsed, embedded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from maskfree.inference.class_embeddings import (
    chosen_background,
    embed_classes,
    prompt_templates,
    scored_classes,
)
from maskfree.text.background import Background, default_rule
from maskfree.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from maskfree.inference.segmenter import Segmenter


def worded(
    segmenter: Segmenter,
    words: Sequence[str],
    background: str | Background | None,
    templates: str | Sequence[str] | None,
) -> Segmenter:
    """Give words to a Segmenter, as `Segmenter.with_words` does.

    Args:
        segmenter: Model, with or without words.
        words: Class names; "sofa/couch" gives synonyms of one class.
        background: Background rule or its text; None keeps the present one.
        templates: Name of a prompt set, or prompts; None keeps the present ones.

    Returns:
        A new Segmenter with vocabulary and embeddings.

    Raises:
        ValueError: Words, background or templates break their rules, or the model does not know a
            word or cannot tell two apart.
    """
    vocabulary = Vocabulary.parse(words)
    if templates is None:
        templates = segmenter.templates
    segmenter = replace(segmenter, templates=prompt_templates(templates))

    if background is None:
        background = segmenter.background
    if isinstance(background, str):
        background = Background.parse(background)
    if background.chosen:
        return _embedded(segmenter, vocabulary, background)

    # Nobody asked for a rule: few words get one of their own.
    none = Background(chosen=False)
    rule = replace(Background.parse(default_rule(len(vocabulary.classes))), chosen=False)
    if not rule:
        return _embedded(segmenter, vocabulary, none)
    try:
        return _embedded(segmenter, vocabulary, rule)
    except ValueError:
        # The model does not tell words for the scene apart.
        return _embedded(segmenter, vocabulary, none)


def _embedded(segmenter: Segmenter, vocabulary: Vocabulary, background: Background) -> Segmenter:
    """A Segmenter for words and a background, whose words are embedded together."""
    method, tokenizer, templates = segmenter.method, segmenter.tokenizer, segmenter.templates
    if background.automatic:
        background = chosen_background(
            method, tokenizer, templates, vocabulary, background, segmenter.text_cache
        )

    embeddings = embed_classes(
        method,
        tokenizer,
        templates,
        scored_classes(vocabulary, background),
        segmenter.name,
        segmenter.text_cache,
    )
    return replace(segmenter, vocabulary=vocabulary, background=background, embeddings=embeddings)
