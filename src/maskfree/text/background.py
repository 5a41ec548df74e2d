"""Background rules: which pixels are assigned to no class."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from maskfree.text.tags import CAPTION_CONCEPTS, IMAGENET_TAGS, read_tags
from maskfree.text.vocabulary import Vocabulary

BACKGROUND_WORDS = CAPTION_CONCEPTS.with_name("background_words.txt")
"""Everyday words, each with names that mean the same, and its kinds, as `read_tags` reads them."""
SCENE_WORDS = ("sky", "wall", "floor", "grass", "road", "water", "tree", "building")
"""Words for what surrounds things, which compete with few words. Names of `BACKGROUND_WORDS`."""
# So many words compete with each other well enough; with fewer, one would cover the whole photo.
_ENOUGH_WORDS = 3


@dataclass(frozen=True)
class Background:
    """Background rule: no background, a cosine threshold, or background words."""

    threshold: float | None = None
    """Pixels whose best cosine is below this value are background, in [-1, 1]; None for no
    threshold."""
    words: tuple[tuple[str, ...], ...] = ()
    """Words whose pixels are background, each with its synonyms."""
    automatic: bool = False
    """Whether the words are those of `BACKGROUND_WORDS` that mean none of the classes."""
    scene: bool = False
    """Whether of the automatic words only those of `SCENE_WORDS` compete."""
    chosen: bool = field(default=True, compare=False)
    """Whether somebody asked for the rule; otherwise it follows from the number of words."""

    @classmethod
    def parse(cls, rule: str) -> Background:
        """Parse a background rule.

        Args:
            rule: `none`, `threshold:T` with T in [-1, 1], `words:W,W,...`, `scene` or `auto`: scene
                or everyday words that mean none of the classes, chosen once these are known.

        Returns:
            The background rule.

        Raises:
            ValueError: The rule is none of them.

        Example:
            >>> Background.parse("words:wall,sky/cloud").words
            (('wall',), ('sky', 'cloud'))
        """
        kind, _, value = rule.strip().partition(":")
        if kind == "none" and not value:
            return cls()
        if kind == "auto" and not value:
            return cls(automatic=True)
        if kind == "scene" and not value:
            return cls(automatic=True, scene=True)
        if kind == "threshold":
            try:
                threshold = float(value)
            except ValueError:
                threshold = math.nan

            # Also refuses NaN.
            if not -1 <= threshold <= 1:
                raise ValueError(
                    f"the background threshold {value!r} is not a cosine: a number in [-1, 1]"
                )

            return cls(threshold=threshold)

        if kind == "words":
            return cls(words=Vocabulary.parse([value]).classes)

        raise ValueError(
            f"the background rule {rule!r} is unknown: "
            "none, scene, auto, threshold:T or words:W,W,..."
        )

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"threshold:{self.threshold:g}"
        if self.scene:
            return "scene"
        if self.automatic:
            return "auto"
        if self.words:
            return "words:" + ",".join(map("/".join, self.words))
        return "none"

    def __bool__(self) -> bool:
        return self.threshold is not None or self.automatic or bool(self.words)


def default_rule(num_words: int) -> str:
    """Return the background rule where nobody asked for one.

    Args:
        num_words: Number of classes.

    Returns:
        `scene` for fewer than three, otherwise `none`.
    """
    if num_words < _ENOUGH_WORDS:
        return "scene"
    return "none"


def words_of_no_class(vocabulary: Vocabulary, scene: bool = False) -> tuple[str, ...]:
    """Return the everyday words that mean none of the classes.

    A word is left out if it, a related word or its kind is a class, also as the last word of a
    phrase or in the plural, or if it is the kind of a class of ImageNet that the classes name.

    Args:
        vocabulary: Classes to segment.
        scene: Only words of `SCENE_WORDS`.

    Returns:
        Words of `BACKGROUND_WORDS`, in its order.
    """
    classes = {form for phrase in vocabulary.flatten()[0] for form in _forms(phrase)}

    # A labrador is a dog, so that "dog" is no background where "labrador" is a class.
    meant = set(classes)
    for tag in read_tags(IMAGENET_TAGS):
        if not classes.isdisjoint(name.casefold() for name in tag.names):
            meant.update(tag.kinds)

    entries = read_tags(BACKGROUND_WORDS)
    if scene:
        entries = tuple(entry for entry in entries if entry.names[0] in SCENE_WORDS)
    return tuple(entry.names[0] for entry in entries if meant.isdisjoint(entry.names + entry.kinds))


def _forms(phrase: str) -> tuple[str, ...]:
    """Forms in which a phrase is looked up: as it is and its last word, also without a plural s."""
    phrase = phrase.casefold()
    last = phrase.split()[-1]
    return phrase, phrase.removesuffix("s"), last, last.removesuffix("s")
