"""`maskfree self-train`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory, log_to_stderr
from maskfree.config.extras import need
from maskfree.files.atomic import read_json
from maskfree.progress import Progress
from maskfree.signals import Stopped


def self_train(benchmark: Positional[str]) -> int:
    """Train a student on what a model says of unlabeled photos; `maskfree self-train --help` lists the settings.

    Args:
        benchmark: Name of a benchmark, whose photos and class list are taken, not its labels; or --photos and --words.
    """
    return self_train_with([benchmark])


def self_train_with(arguments: Sequence[str]) -> int:
    """Parse what follows `self-train`: the settings are those of a training."""
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
        """Train a student on what a model says of unlabeled photos: those of BENCHMARK, or of a folder.

        Args:
            benchmark: Name of a benchmark, whose photos and class list are taken, not its labels.
            data: Folder that holds the benchmark's files.
            photos: Folder of photos, in place of a benchmark.
            words: What to look for in them.
            model: Name of the teacher, or folder of its checkpoint.
            out: Folder of the run; the same command goes on after a stop.
            settings: How the student is made.
            quiet: Do not show how far the labelling has come.
        """
        # What is missing or wrong is said before the seconds that torch takes to be imported.
        need("maskfree self-train", "train")
        if bool(benchmark) == bool(photos):
            raise ValueError("give a benchmark, or --photos and --words")
        if photos and not words:
            raise ValueError("--words is missing: what to look for in the photos")
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
        console = Console(highlight=False, markup=False, soft_wrap=True)
        if benchmark:
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

    return tyro.cli(teach, prog="maskfree self-train", args=list(arguments))
