"""`maskfree distill`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional

from maskfree.cli.common import keep_freed_memory, log_to_stderr
from maskfree.config.extras import need
from maskfree.progress import Progress
from maskfree.signals import Stopped


def distill(photos: Positional[tuple[str, ...]]) -> int:
    """Train a sharper student of any model on photos without labels; `maskfree distill --help` lists the settings.

    Args:
        photos: Folders of photos, or WebDataset shards.
    """
    return distill_with(photos)


def distill_with(arguments: Sequence[str]) -> int:
    """Parse what follows `distill`: the settings are those of a training."""
    from maskfree.data.photo_sources import read_sources
    from maskfree.distillation.clips4_config import DistillConfig
    from maskfree.text.vocabulary import Vocabulary

    def teach(
        photos: Positional[tuple[str, ...]],
        words: tuple[str, ...],
        model: str = "pocket",
        out: Path = Path("runs/distilled"),
        settings: Annotated[DistillConfig, tyro.conf.arg(name="")] = DistillConfig(),  # noqa: B008 - frozen
        quiet: bool = False,
    ) -> int:
        """Train a sharper student of a model on PHOTOS without labels; it takes any words, these and others.

        Args:
            photos: Folders of photos, or WebDataset shards: files, globs, braces as in train-{000..005}.tar.
            words: What is known to be in the photos; a comma separates words as a space does, "/" separates synonyms.
            model: The teacher: a model's name (see `maskfree models`), a checkpoint's folder, or that of a CLIP.
            out: Folder of the run; the same command goes on after a stop.
            settings: How the student is made.
            quiet: Do not show how far the preparation has come.
        """
        # What is missing or wrong is said before the seconds that torch takes to be imported.
        need("maskfree distill", "train", "regions")
        read_sources(photos)
        Vocabulary.parse(words)
        log_to_stderr()
        keep_freed_memory()
        from maskfree.distillation.clips4 import distill as run

        trained = run(model, words, photos, out, settings, Progress(quiet))
        if trained is None:
            raise Stopped("the last step of training is saved")
        told = ["--words", *words, "--model", str(trained)]
        Console(highlight=False, markup=False, soft_wrap=True).print(
            f"maskfree segment PHOTO {shlex.join(told)}"
        )
        return 0

    return tyro.cli(teach, prog="maskfree distill", args=list(arguments))
