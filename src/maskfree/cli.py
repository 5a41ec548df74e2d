"""The `maskfree` command: thin functions over the API, which they import when they run, so that `--help` is quick."""

from __future__ import annotations

import ctypes
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

BAD_INPUT = 2  # exit status of every user error, as of argument errors
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_MALLOC = {  # parameters of glibc's mallopt(3)
    -3: 2**28,  # M_MMAP_THRESHOLD: larger blocks still go back at once
    -1: 2**30,  # M_TRIM_THRESHOLD: free memory at the heap's end that is kept
    -2: 2**26,  # M_TOP_PAD: the heap grows by at least so much
}


@dataclass(frozen=True)
class Runtime:
    """How the network is run."""

    side_px: int = 448
    """Shorter side of the photo as the network sees it."""
    batch_size: int = 4
    """Photos or windows that go through the network together."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


def segment(
    photos: Positional[tuple[Path, ...]] = (),
    words: tuple[str, ...] = (),
    model: str = "pocket",
    out: Path = Path("maskfree-out"),
    background: str = "none",
    templates: str = "",
    runtime: Annotated[Runtime, OmitArgPrefixes] = Runtime(),
) -> int:
    """Label every pixel of PHOTOS with one of WORDS: an index PNG, an overlay and a JSON sidecar for each photo.

    Args:
        photos: Photos of any size and mode.
        words: What to look for; a comma separates words as a space does, "/" separates synonyms (sofa/couch).
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        out: Folder for the results; made if need be.
        background: none, threshold:T (pixels whose best cosine is below T) or words:wall,sky (words that compete).
        templates: Prompt set: plain, photo or ensemble; the model's own if empty.
        runtime: How the network is run.
    """
    from maskfree.text.background import Background
    from maskfree.text.vocabulary import Vocabulary

    # What is wrong in the arguments is said before the seconds that torch takes to be imported.
    if not photos:
        raise ValueError("no photos were given: they come first, before --words")
    Vocabulary.parse(words)
    Background.parse(background)
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")

    _keep_freed_memory()
    from maskfree import hub
    from maskfree.predict import Inference, PhotoError

    inference = Inference(side_px=runtime.side_px, batch_size=runtime.batch_size)
    loaded = hub.load(model, runtime.device).with_inference(inference)
    segmenter = loaded.with_words(words, background, templates or None)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    num_bad = 0
    for photo, stem, result in zip(photos, _stems(photos), segmenter.segment_many(photos), strict=True):
        if isinstance(result, PhotoError):
            _complain(result.reason)
            num_bad += 1
            continue
        files = result.save(out, stem)
        largest_first = sorted(result.areas().items(), key=lambda item: -item[1])
        areas = ", ".join(f"{name} {area:.1%}" for name, area in largest_first if area > 0)
        console.print(f"{photo}: {areas} -> {', '.join(map(str, files))}")
    return BAD_INPUT if num_bad else 0


def models() -> int:
    """List the models that `--model` knows by name."""
    from maskfree.bundled import BUNDLED

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, description in BUNDLED.items():
        console.print(f"{name}: {description}")
    return 0


def evaluate(
    benchmark: Positional[str],
    data: Path,
    model: str = "pocket",
    names: tuple[str, ...] = (),
    background: tuple[str, ...] = (),
    templates: str = "",
    results: Path = Path("results"),
    runtime: Annotated[Runtime, OmitArgPrefixes] = Runtime(),
) -> int:
    """Measure a model on BENCHMARK (mIoU, pixel accuracy, IoU of each class); each protocol gives a row of results.

    Args:
        benchmark: coco-mini, coco-mini-80, camvid or camvid-train.
        data: Folder that holds the benchmark's files.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        names: Name sets to measure with, plain or synonyms; all that the benchmark has if none is given.
        background: Background rules to measure with, as for `segment`; with "none" only pixels of a class count.
            If none is given: none and, where the benchmark labels its background, threshold:0.3.
        templates: Prompt set: plain, photo or ensemble; the model's own if empty.
        results: Folder for the rows.
        runtime: How the network is run.
    """
    from maskfree.data import benchmarks

    # What is wrong with the folder is said before torch is imported and a model loaded.
    chosen = benchmarks.benchmark(benchmark)
    samples = chosen.samples(data)
    if results.exists() and not results.is_dir():
        raise NotADirectoryError(f"the results {results} is a file: --results is a folder")

    _keep_freed_memory()
    from maskfree.evaluate import tables, zero_shot

    protocols = zero_shot.protocols(chosen, names, background, side_px=runtime.side_px, templates=templates)

    from rich.progress import track

    from maskfree import hub
    from maskfree.evaluate.results import write_row

    segmenter = hub.load(model, runtime.device)
    segmenter = segmenter.with_inference(replace(segmenter.inference, batch_size=runtime.batch_size))
    rows, console = [], Console()
    for protocol in protocols:
        command = ["maskfree", "evaluate", benchmark, "--data", str(data), "--model", model, *protocol.options()]
        label = f"{protocol.names} names, background {protocol.background}"
        watch = partial(track, description=label, console=console, transient=True)
        rows.append(zero_shot.measure(segmenter, chosen, samples, protocol, shlex.join(command), watch))
        write_row(rows[-1], results)
    console.print(tables.summary(rows), tables.by_class(rows))
    return 0


def train(recipe: Positional[str]) -> int:
    """Train a model; `maskfree train RECIPE --help` lists its settings, and a wrong RECIPE all recipes.

    Args:
        recipe: Name of a recipe; every one of its settings is an option.
    """
    return _train([recipe])


def _train(arguments: Sequence[str]) -> int:
    """Parse what follows `train`: the options depend on the recipe, whose import takes seconds."""
    if missing := [name for name in ("lightning_fabric", "webdataset", "tensorboard") if not find_spec(name)]:
        raise ValueError(f"training needs {', '.join(missing)}: pip install 'maskfree[train]'")
    from maskfree.recipes import RECIPES, Run
    from maskfree.train import fit

    if not arguments or arguments[0] not in RECIPES:
        raise ValueError(f"give a recipe: {', '.join(RECIPES)}" + (f"; not {arguments[0]!r}" if arguments else ""))
    name = arguments[0]
    default = Run(RECIPES[name](), out=Path("runs") / name)
    run = tyro.cli(Run, prog=f"maskfree train {name}", args=arguments[1:], default=default)
    _log_to_stderr()
    _keep_freed_memory()
    recipe = run.whole()
    return 0 if fit(recipe, run.out, run.resume) == recipe.train.steps else INTERRUPTED


DESCRIPTION = "Label every pixel of a photo with your own words. `maskfree --version` tells which release this is."
COMMANDS: dict[str, Callable[..., Any]] = {"segment": segment, "train": train, "evaluate": evaluate, "models": models}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that ARGUMENTS (by default the process's own) name, and exit with its status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        Console(highlight=False).print(f"maskfree {version('maskfree')}")
        sys.exit(0)
    try:
        if arguments[:1] == ["train"] and arguments[1:2] not in ([], ["-h"], ["--help"]):
            sys.exit(_train(arguments[1:]))
        status = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="maskfree", description=DESCRIPTION, args=arguments
        )
    except (ValueError, OSError) as error:
        _complain(str(error) or type(error).__name__)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(status or 0)


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next tensor instead of handing each one back to the system.

    By default every large tensor is fresh pages from the kernel, which clears them one by one: on a CPU that costs a
    good part of a network's time. What is kept is bounded: blocks up to a size, and free memory up to another. Only the
    command does this; a program that imports the package keeps its own settings. Elsewhere than on glibc: nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    process = ctypes.CDLL(None)
    for parameter, value in _MALLOC.items():
        process.mallopt(parameter, value)


def _log_to_stderr() -> None:
    import logging

    from rich.logging import RichHandler

    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False) if console.is_terminal else logging.StreamHandler()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def _complain(message: str) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"maskfree: error: {line}\n")


def _stems(photos: Sequence[Path]) -> list[str]:
    """Names for the results, none twice: a second photo of the same stem gets "-2", unless another photo has that."""
    taken: set[str] = set()
    own = {photo.stem.casefold() for photo in photos}
    stems = []
    for photo in photos:
        stem, number = photo.stem, 2
        while stem.casefold() in taken or (number > 2 and stem.casefold() in own):
            stem, number = f"{photo.stem}-{number}", number + 1
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
