"""Text embeddings of the classes: prompts are embedded in batches, averaged and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskfree.inference.scoring import device_of
from maskfree.inference.text_cache import TextCache
from maskfree.method import Method
from maskfree.results.segmentation import BACKGROUND
from maskfree.text.background import Background, words_of_no_class
from maskfree.text.known_words import check_distinct, check_known
from maskfree.text.prompts import fill, mean_over_templates
from maskfree.text.templates import TEMPLATES
from maskfree.text.vocabulary import Vocabulary
from maskfree.types import Tokens

# Texts per batch of the text encoder.
_BATCH_SIZE = 64
# Relative closeness to a class from which an everyday word is no background; "automobile" and "car"
# have .9 in the bundled model, "pavement" and "path" .3.
_TOO_CLOSE = 0.6


def prompt_templates(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates of a named prompt set, or the given ones.

    Args:
        chosen: Name of a prompt set, a template, or a list of templates.

    Returns:
        Prompt templates.

    Raises:
        ValueError: There is no prompt set of that name.
    """
    if not isinstance(chosen, str):
        return tuple(chosen)
    if chosen in TEMPLATES:
        return TEMPLATES[chosen]
    if "{}" in chosen:
        return (chosen,)

    raise ValueError(
        f"the prompt set {chosen!r} is unknown: {', '.join(TEMPLATES)}, or a prompt that holds {{}}"
    )


def scored_classes(vocabulary: Vocabulary, background: Background) -> Vocabulary:
    """Return all classes that a model scores: those of the user, then the background words.

    Args:
        vocabulary: Classes to segment.
        background: Background rule.

    Returns:
        All classes, each with its synonyms.

    Raises:
        ValueError: A word occurs twice, or is the name of the background under a background rule.
    """
    classes = (*vocabulary.classes, *background.words)
    together = Vocabulary.parse(["/".join(synonyms) for synonyms in classes])

    if background and BACKGROUND in map(str.casefold, vocabulary.flatten()[0]):
        raise ValueError(f"the word {BACKGROUND!r} is taken by the background rule {background}")
    return together


def embed_phrases(
    method: Method,
    tokenizer: Callable[[Sequence[str]], Tokens],
    templates: Sequence[str],
    phrases: Sequence[str],
    cache: TextCache | None = None,
) -> tuple[Float[Tensor, "k d"], list[tuple[int, ...]]]:
    """Embed phrases, averaged over prompt templates.

    Args:
        method: Model that embeds texts.
        tokenizer: Turns texts into a padded batch of token ids.
        templates: Prompt templates.
        phrases: Words or phrases.
        cache: Embeddings kept on disk; None: they are computed anew.

    Returns:
        Unit-norm embedding of each phrase, and its token ids in the first template.
    """
    texts = fill(templates, phrases)
    ids = _token_ids(tokenizer, texts[:: len(templates)])
    kept = None
    if cache is not None:
        kept = cache.read(templates, phrases)
    if kept is not None:
        return kept, ids

    embeddings = mean_over_templates(_embed_texts(method, tokenizer, texts), len(templates))
    if cache is not None:
        cache.write(templates, phrases, embeddings)
    return embeddings, ids


def embed_classes(
    method: Method,
    tokenizer: Callable[[Sequence[str]], Tokens],
    templates: Sequence[str],
    classes: Vocabulary,
    model: str,
    cache: TextCache | None = None,
) -> Float[Tensor, "p d"]:
    """Embed all synonyms of classes, and check that the model knows and distinguishes them.

    Args:
        method: Model that embeds texts.
        tokenizer: Turns texts into a padded batch of token ids.
        templates: Prompt templates.
        classes: Classes, each with its synonyms.
        model: Name of the model, for messages.
        cache: Embeddings kept on disk; None: they are computed anew.

    Returns:
        Unit-norm embedding of each synonym, class by class.

    Raises:
        ValueError: The model does not know a word or cannot tell two classes apart.
    """
    phrases, class_of = classes.flatten()
    check_known(tokenizer, phrases, model)

    embeddings, tokens = embed_phrases(method, tokenizer, templates, phrases, cache)
    check_distinct(phrases, class_of, tokens, embeddings, model)
    return embeddings


def chosen_background(
    method: Method,
    tokenizer: Callable[[Sequence[str]], Tokens],
    templates: Sequence[str],
    vocabulary: Vocabulary,
    rule: Background,
    cache: TextCache | None = None,
) -> Background:
    """Choose the words of an automatic background: those far from every class.

    Args:
        method: Model that embeds texts.
        tokenizer: Turns texts into a padded batch of token ids.
        templates: Prompt templates.
        vocabulary: Classes to segment.
        rule: The automatic background rule.
        cache: Embeddings kept on disk; None: they are computed anew.

    Returns:
        The rule with its words.

    Raises:
        ValueError: No word is far enough from every class.
    """
    words = words_of_no_class(vocabulary, rule.scene)
    phrases = vocabulary.flatten()[0]
    embeddings, _ = embed_phrases(method, tokenizer, templates, [*words, *phrases], cache)
    is_far = far_from_classes(embeddings[: len(words)], embeddings[len(words) :]).tolist()
    kept = [(word,) for word, far in zip(words, is_far, strict=True) if far]

    if not kept:
        raise ValueError(
            f"the background rule {rule} has no word that is far from every class: "
            "name background words as words:W,W,..."
        )
    return replace(rule, words=tuple(kept))


def far_from_classes(
    words: Float[Tensor, "n d"], classes: Float[Tensor, "p d"]
) -> Bool[Tensor, " n"]:
    """Tell which everyday words are far enough from every class to be background.

    Cosines of texts differ from model to model, so that a word is too close by its cosine to a
    class relative to the median cosine of the words among themselves.

    Args:
        words: Unit-norm embeddings of the words.
        classes: Unit-norm embeddings of the classes' phrases.

    Returns:
        True for the words that are.
    """
    usual = (words @ words.T).median()
    closeness = ((words @ classes.T).amax(1) - usual) / (1 - usual)
    return closeness < _TOO_CLOSE


@torch.inference_mode()
def _embed_texts(
    method: Method, tokenizer: Callable[[Sequence[str]], Tokens], texts: Sequence[str]
) -> Float[Tensor, "n d"]:
    """Embed texts in batches."""
    device = device_of(method)
    embeddings: list[Tensor] = []
    for start in range(0, len(texts), _BATCH_SIZE):
        tokens = tokenizer(texts[start : start + _BATCH_SIZE])
        embeddings.append(method.encode_text(tokens.to(device)))
    return torch.cat(embeddings)


def _token_ids(
    tokenizer: Callable[[Sequence[str]], Tokens], texts: Sequence[str]
) -> list[tuple[int, ...]]:
    """Token ids of each text, without padding."""
    ids: list[tuple[int, ...]] = []
    for start in range(0, len(texts), _BATCH_SIZE):
        tokens = tokenizer(texts[start : start + _BATCH_SIZE])
        for row, known in zip(tokens.ids, tokens.mask, strict=True):
            ids.append(tuple(row[known].tolist()))
    return ids
