"""Ids and colors of the classes of a labeled data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from maskfree.label.labeled import UNLABELED, LabelClass, without_background
from maskfree.label.words_file import WordList, hash_words
from maskfree.results.drawing import distinct_colors
from maskfree.results.segmentation import BACKGROUND

# Color of the background, as in PASCAL VOC.
_BLACK = (0, 0, 0)
UNLABELED_COLOR = (224, 224, 192)
"""Color of pixels without a label, as in PASCAL VOC."""


def label_classes(words: WordList, has_background: bool, first_id: int) -> tuple[LabelClass, ...]:
    """Give each class its id and color.

    Args:
        words: Classes as a person wrote them, perhaps with ids and colors.
        has_background: Whether there is a background rule.
        first_id: Id of the first word, if the list has no ids. With 1, the background is 0.

    Returns:
        The words in their order, then the background if there is one. If it is not 0, its id
        follows the largest one.

    Raises:
        ValueError: A word is "background", and there is a background rule.
    """
    classes = words.vocabulary.classes
    ids = list(words.ids or _numbers(first_id, len(classes)))
    chosen = distinct_colors(len(classes)).tolist()
    given = words.colors or (None,) * len(classes)

    made = []
    for number, synonyms, color, other in zip(ids, classes, given, chosen, strict=True):
        red, green, blue = color or other
        made.append(LabelClass(number, synonyms[0], synonyms, (red, green, blue)))

    if has_background:
        if BACKGROUND in (name.casefold() for name in words.vocabulary.flatten()[0]):
            raise ValueError(
                f"the word {BACKGROUND!r} is also the name of what the background rule takes: "
                "leave it out, or give --background none"
            )
        number = 0
        if 0 in ids:
            [number] = _numbers(max(ids) + 1, 1)
        made.append(LabelClass(number, BACKGROUND, (), _BLACK))
    return tuple(made)


def palette(classes: Sequence[LabelClass]) -> UInt8[np.ndarray, "256 3"] | None:
    """Colors of a PNG's palette.

    Args:
        classes: Classes of the data set.

    Returns:
        Color of each id, black for those of no class; None if an id is above 255.
    """
    if max(each.id for each in classes) > UNLABELED:
        return None

    return colors_of_ids(classes, UNLABELED)


def colors_of_ids(classes: Sequence[LabelClass], last_id: int) -> UInt8[np.ndarray, "n 3"]:
    """Colors of all ids up to one.

    Args:
        classes: Classes of the data set; those with larger ids are left out.
        last_id: Last id, at least that of unlabeled pixels.

    Returns:
        Color of each id, black for those of no class.
    """
    colors = np.zeros((last_id + 1, 3), np.uint8)
    colors[UNLABELED] = UNLABELED_COLOR
    for each in classes:
        if each.id <= last_id:
            colors[each.id] = each.color
    return colors


def classes_text(classes: Sequence[LabelClass]) -> str:
    """Text of classes.txt, as `maskfree evaluate folder` reads it.

    Args:
        classes: Classes of the data set.

    Returns:
        One line for each id from 0 on, with synonyms behind slashes. Lines of no class are
        "unused-ID", but that of 0 is "background".
    """
    lines = {each.id: "/".join(each.synonyms) or each.name for each in classes}
    if BACKGROUND not in lines.values():
        lines.setdefault(0, BACKGROUND)
    return "".join(f"{lines.get(number, f'unused-{number}')}\n" for number in range(max(lines) + 1))


def words_sha256(classes: Sequence[LabelClass]) -> str:
    """Hash of the words of the classes, for the outputs.

    Args:
        classes: Classes of the data set.

    Returns:
        64 hexadecimal digits: the same as `WordList.sha256`.
    """
    return hash_words([each.synonyms for each in without_background(classes)])


def _numbers(first: int, count: int) -> list[int]:
    """Ids in order from the first one on, without that of unlabeled pixels."""
    numbers = [number for number in range(first, first + count + 1) if number != UNLABELED]
    return numbers[:count]
