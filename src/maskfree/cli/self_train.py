"""The `maskfree self-train` command: self-training on the pseudo-labels of a model."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory, log_to_stderr
from maskfree.cli.parsing import parse_call
from maskfree.config.extras import need
from maskfree.files.atomic import read_json
from maskfree.progress import Progress
from maskfree.signals import Stopped


def self_train(benchmark: Positional[str]) -> int:
    """Train a student on a model's pseudo-labels of unlabeled photos.

    For the settings, see `maskfree self-train --help`.

    Args:
        benchmark: Name of a benchmark, of which the photos and class list are used, not the labels;
            or give --photos and --words instead.

    Returns:
        Exit status 0.
    """
    return self_train_with([benchmark])


def self_train_with(arguments: Sequence[str]) -> int:
    """Parse the arguments of `self-train` and run it.

    Args:
        arguments: Command line after `self-train`.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.catalog import benchmark as known
    from maskfree.data.photo_folders import find_photos
    from maskfree.distillation.self_training_config import SelfTrainConfig

    def teach(
        benchmark: Positional[str] = "",
        data: Path | None = None,
        photos: Path | None = None,
        words: tuple[str, ...] = (),
        model: str = "pocket",
        out: Path = Path("runs/self-training"),
        settings: Annotated[SelfTrainConfig, OmitArgPrefixes] = SelfTrainConfig(),  # noqa: B008 - frozen
        quiet: bool = False,
    ) -> int:
        """Train a student on a model's pseudo-labels of unlabeled photos.

        The photos are those of a benchmark, or of a folder.

        Args:
            benchmark: Name of a benchmark, of which the photos and class list are used, not the
                labels.
            data: Folder that contains the files of the benchmark.
            photos: Folder of photos, instead of a benchmark.
            words: Class names for these photos.
            model: Name of the teacher, or folder of its checkpoint.
            out: Output folder of the run; after an interruption the same command resumes it.
            settings: Settings of the self-training.
            quiet: Do not show the progress of the labeling.

        Returns:
            Exit status 0.
        """
        # Check packages and arguments before importing torch, which takes seconds.
        need("maskfree self-train", "train")
        if bool(benchmark) == bool(photos):
            raise ValueError("give a benchmark, or --photos and --words")
        if photos and not words:
            raise ValueError("--words is missing: what to look for in the photos")

        # Only the class list and the photos of the benchmark are used, not its masks.
        if benchmark:
            if data is None:
                raise ValueError(f"--data is missing: the folder that holds {benchmark}")
            chosen = known(benchmark, data)
            words, found = chosen.words(), [sample.photo for sample in chosen.samples(data)]
        else:
            found = [Path(photo) for photo in find_photos([str(photos)])]

        log_to_stderr()
        keep_freed_memory()
        from maskfree.distillation.self_training import self_train as run

        trained = run(model, words, found, out, settings, Progress(quiet))
        if trained is None:
            raise Stopped("the last step of training is saved")

        # Show the command that evaluates or applies the student.
        console = Console(highlight=False, markup=False, soft_wrap=True)
        if benchmark:
            # The training photos are not evaluated on; the benchmark without the suffix is.
            measured = benchmark.removesuffix("-train")
            side_px = read_json(trained / "run.json")["inference"]["side_px"]
            console.print(
                f"maskfree evaluate {measured} --data {data} --model {trained} --side-px {side_px}"
            )
        else:
            console.print(
                f"maskfree segment PHOTO {shlex.join(['--words', *words, '--model', str(trained)])}"
            )
        return 0

    return parse_call(teach, "maskfree self-train", arguments)()
