"""The `maskfree prepare prototypes` command: mean embeddings of the segments of known words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import stay_offline
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.progress import Progress


def prototypes(
    teacher: Positional[Path],
    words: tuple[str, ...],
    out: Path,
    model: str = "pocket",
    templates: str = "",
    search: Annotated[PrototypeConfig, OmitArgPrefixes] = PrototypeConfig(),  # noqa: B008 - frozen
    quiet: bool = False,
    offline: bool = False,
) -> int:
    """Compute prototypes of words from precomputed teacher embeddings.

    They are the known classes when a student is trained.

    Args:
        teacher: Folder that `maskfree prepare teacher` wrote.
        words: Known classes, separated by commas or spaces; "/" separates synonyms (sofa/couch).
        out: Output file for the prototypes.
        model: The model that wrote the teacher folder.
        templates: Prompt templates: plain, photo or ensemble; the model's own if empty.
        search: Settings of the search.
        quiet: Do not show progress.
        offline: Use no network: only models in the package, in folders and in the cache of Hugging
            Face.

    Returns:
        Exit status 0.
    """
    stay_offline(offline)
    from maskfree.data.cache.teacher_maps import TeacherMaps
    from maskfree.distillation.prototypes import prepare_prototypes
    from maskfree.hub import loading

    _check_file(out, teacher, Path(model))

    segmenter = loading.load(model).with_words(words, "none", templates or None)
    found, lost = prepare_prototypes(segmenter, TeacherMaps(teacher), search, Progress(quiet))
    found.write(out)

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{out}: prototypes of {len(found.names)} words, {len(found.pool)} segments for unknown "
        "classes"
    )
    if lost:
        console.print(
            f"  no segment resembles these most, so theirs are of something else: {', '.join(lost)}"
        )
    return 0


def _check_file(out: Path, teacher: Path, model: Path) -> None:
    """Check that writing prototypes overwrites no embeddings, no weights and no other file."""
    from maskfree.data.cache.prototypes import Prototypes
    from maskfree.files.outputs import Outputs

    if out.is_dir():
        raise IsADirectoryError(f"the output {out} is a folder: --out is a file")

    Outputs([*teacher.glob("*"), *model.glob("*")]).add(out)
    # An existing file is replaced only if it holds prototypes; reading anything else raises.
    if out.exists():
        Prototypes.read(out)
