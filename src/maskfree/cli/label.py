"""The command `maskfree label`: label a data set of photos."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import (
    BAD_INPUT,
    Runtime,
    chosen_grouping,
    complain,
    keep_freed_memory,
    note,
    stay_offline,
)
from maskfree.config.extras import need
from maskfree.config.rules import Fraction, check
from maskfree.label.config import LabelConfig
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.inference.segmenter import Segmenter
    from maskfree.label.processes import Processes
    from maskfree.label.run import Job, LabelCounts
    from maskfree.label.store import Store

# Photos that could not be read which are named one by one.
_MAX_NAMED = 10


@dataclass(frozen=True)
class LabelOutput:
    """What is written beside the label maps, and what is done again."""

    review: Fraction = 0.05
    """Fraction of the photos, the least certain ones, that review.txt lists."""
    copy_review: Path | None = None
    """New folder for copies of the photos that review.txt lists, with their label maps."""
    redo: bool = False
    """Label all photos anew, also with other words, model or settings."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check(self)


def label(
    photos: Positional[tuple[str, ...]] = (),
    words: tuple[str, ...] = (),
    out: Path = Path("maskfree-labels"),
    model: str = "pocket",
    background: str | None = None,
    templates: str = "",
    config: Annotated[LabelConfig, OmitArgPrefixes] = LabelConfig(),  # noqa: B008 - frozen
    output: Annotated[LabelOutput, OmitArgPrefixes] = LabelOutput(),  # noqa: B008 - frozen
    runtime: Annotated[Runtime, OmitArgPrefixes] = Runtime(),  # noqa: B008 - frozen
    quiet: bool = False,
) -> int:
    """Label a data set: a label map for each of many photos.

    After an interruption the same command goes on; photos that are unchanged are not labeled again.

    Args:
        photos: Folders (photos at any depth), globs, photos, text files with a path in each line,
            and shards (.tar). None: only write further outputs of a labeled data set.
        words: Class names as for `segment`, or a file of them (.txt or .yaml).
        out: Folder of the data set: labels/NAME.png, classes.txt, manifest.sqlite, review.txt.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        background: Background rule, as for `segment`; None: that of the words file, or none.
        templates: Prompt templates: plain, photo or ensemble; the model's own if empty.
        config: What becomes of the scores.
        output: Further outputs.
        runtime: Device, batch size, input resolution and upsampling.
        quiet: Do not show progress.

    Returns:
        Exit status: 0, or 2 if a photo could not be read.
    """
