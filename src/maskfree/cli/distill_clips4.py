"""The `maskfree distill clips4` command: distill a student with sharper masks from a teacher."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, arg

from maskfree.cli.common import Conduct, keep_freed_memory, log_to_stderr, stay_offline
from maskfree.config.extras import need
from maskfree.distillation.clips4_config import DistillConfig
from maskfree.progress import Progress
from maskfree.signals import Stopped


def clips4(
    photos: Positional[tuple[str, ...]],
    words: tuple[str, ...],
    model: str = "pocket",
    out: Path = Path("runs/distilled"),
    settings: Annotated[DistillConfig, arg(name="")] = DistillConfig(),  # noqa: B008 - frozen
    conduct: Annotated[Conduct, OmitArgPrefixes] = Conduct(),  # noqa: B008 - frozen
) -> int:
    """Distill a student with sharper masks from a model, on photos without labels.

    The student segments any words, the given ones and others.

    Args:
        photos: Folders of photos, or WebDataset shards: files, globs, or brace expressions such
            as train-{000..005}.tar.
        words: Class names known to occur in the photos, separated by commas or spaces; "/"
            separates synonyms.
        model: The teacher: name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        out: Output folder of the run; after an interruption the same command resumes it.
        settings: Settings of the distillation.
        conduct: What the run shows, and whether it may use the network.

    Returns:
        Exit status 0.
    """
    from maskfree.data.photo_sources import read_sources
    from maskfree.text.vocabulary import Vocabulary

    # Check packages and arguments before importing torch, which takes seconds.
    need("maskfree distill clips4", "train", "regions")
    read_sources(photos)
    Vocabulary.parse(words)

    log_to_stderr()
    keep_freed_memory()
    stay_offline(conduct.offline)
    from maskfree.distillation.clips4 import distill as run

    trained = run(model, words, photos, out, settings, Progress(conduct.quiet))
    if trained is None:
        raise Stopped("the last step of training is saved")

    # Show the command that applies the student.
    options = shlex.join(["--words", *words, "--model", str(trained)])
    Console(highlight=False, markup=False, soft_wrap=True).print(
        f"maskfree segment PHOTO {options}"
    )
    return 0
