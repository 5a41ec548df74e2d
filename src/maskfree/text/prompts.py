"""Prompt templates and prompt ensembling: a class is the mean embedding of its prompts."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def fill(templates: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """Put each phrase into each template.

    Args:
        templates: Templates that hold `{}` exactly once; at least one.
        phrases: Words or phrases.

    Returns:
        The texts; all those of the first phrase come first.

    Raises:
        ValueError: There is no template, or one does not hold `{}` exactly once.

    Example:
        >>> fill(["a {}", "the {}"], ["dog", "cat"])
        ['a dog', 'the dog', 'a cat', 'the cat']
    """
    if not templates:
        raise ValueError("no prompt templates were given: at least one is needed")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the prompt template {template!r} must hold {{}} exactly once")

    texts = []
    for phrase in phrases:
        texts += [template.replace("{}", phrase) for template in templates]
    return texts


def mean_over_templates(
    embeddings: Float[Tensor, "kt d"], num_templates: int
) -> Float[Tensor, "k d"]:
    """Mean text embedding of each phrase over the templates (prompt ensembling).

    Args:
        embeddings: Unit-norm embeddings of the texts, in the order of `fill`.
        num_templates: Number of templates t.

    Returns:
        Unit-norm embedding of each phrase.

    Source: arXiv:2103.00020, 3.1.4.
    """
    return F.normalize(embeddings.unflatten(0, (-1, num_templates)).mean(1), dim=-1)
