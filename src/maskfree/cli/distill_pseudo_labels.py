"""The `maskfree distill pseudo-labels` command: train on the confident labels of a model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import Conduct, keep_freed_memory, log_to_stderr, stay_offline
from maskfree.config.extras import need
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.files.atomic import read_json
from maskfree.progress import Progress
from maskfree.signals import Stopped


def pseudo_labels(
    photos: Positional[tuple[Path, ...]] = (),
    words: tuple[str, ...] = (),
    benchmark: str | None = None,
    data: Path | None = None,
    model: str = "pocket",
    out: Path = Path("runs/pseudo-labels"),
    settings: Annotated[SelfTrainConfig, OmitArgPrefixes] = SelfTrainConfig(),  # noqa: B008 - frozen
    conduct: Annotated[Conduct, OmitArgPrefixes] = Conduct(),  # noqa: B008 - frozen
) -> int:
    """Train a student on a model's pseudo-labels of unlabeled photos.

    The photos and words are the given ones, or those of a benchmark.

    Args:
        photos: Folders of photos, which are searched at any depth.
        words: Class names known to occur in the photos, separated by commas or spaces; "/"
            separates synonyms.
        benchmark: Name of a benchmark, of which the photos and class list are used, not the
            labels; instead of PHOTOS and --words.
        data: Folder that contains the files of the benchmark.
        model: The teacher: name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        out: Output folder of the run; after an interruption the same command resumes it.
        settings: Settings of the self-training.
        conduct: What the run shows, and whether it may use the network.

    Returns:
        Exit status 0.
    """
    # Check packages and arguments before importing torch, which takes seconds.
    need("maskfree distill pseudo-labels", "train")
    words, found = _find(photos, words, benchmark, data)

    log_to_stderr()
    keep_freed_memory()
    stay_offline(conduct.offline)
    from maskfree.distillation.self_training import self_train

    trained = self_train(model, words, found, out, settings, Progress(conduct.quiet))
    if trained is None:
        raise Stopped("the last step of training is saved")

    # Show the command that evaluates or applies the student.
    if benchmark:
        # The training photos are not evaluated on; the benchmark without the suffix is.
        evaluated = benchmark.removesuffix("-train")
        side_px = read_json(trained / "run.json")["inference"]["side_px"]
        options = ["--data", str(data), "--model", str(trained), "--side-px", str(side_px)]
        command = f"maskfree evaluate {evaluated} {shlex.join(options)}"
    else:
        options = ["--words", *words, "--model", str(trained)]
        command = f"maskfree segment PHOTO {shlex.join(options)}"

    Console(highlight=False, markup=False, soft_wrap=True).print(command)
    return 0


def _find(
    photos: Sequence[Path], words: tuple[str, ...], benchmark: str | None, data: Path | None
) -> tuple[tuple[str, ...], list[Path]]:
    """Class names and paths of the photos, as given or of a benchmark."""
    from maskfree.data.benchmarks import catalog
    from maskfree.data.photo_folders import find_photos

    if bool(benchmark) == bool(photos):
        raise ValueError("give photos and --words, or --benchmark and --data")

    if not benchmark:
        if not words:
            raise ValueError("--words is missing: what to look for in the photos")
        return words, [Path(photo) for photo in find_photos(list(map(str, photos)))]

    # Only the class list and the photos of the benchmark are used, not its masks.
    if data is None:
        raise ValueError(f"--data is missing: the folder that holds {benchmark}")
    chosen = catalog.benchmark(benchmark, data)
    return chosen.words(), [sample.photo for sample in chosen.samples(data)]
