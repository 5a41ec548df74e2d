"""Prompt templates: a class name is put into each, and the class is the mean of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def fill(templates: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """Put each phrase into each template; all texts of the first phrase come first.

    Raises:
        ValueError: there is no template, or one does not hold `{}` exactly once.

    >>> fill(["a {}", "the {}"], ["dog", "cat"])
    ['a dog', 'the dog', 'a cat', 'the cat']
    """
    if not templates:
        raise ValueError("no prompt templates were given: at least one is needed")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the prompt template {template!r} must hold {{}} exactly once")
    return [template.replace("{}", phrase) for phrase in phrases for template in templates]


def mean_over_templates(
    embeddings: Float[Tensor, "kt d"], num_templates: int
) -> Float[Tensor, "k d"]:
    """Average the unit-norm embeddings of `fill`'s texts per phrase; unit norm. Source: arXiv:2103.00020, 3.1.4."""
    return F.normalize(embeddings.unflatten(0, (-1, num_templates)).mean(1), dim=-1)
