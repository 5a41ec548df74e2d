"""The `maskfree train` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from maskfree.cli.common import keep_freed_memory, log_to_stderr
from maskfree.cli.kinds import asks_help
from maskfree.cli.parsing import parse_call, parse_settings
from maskfree.cli.stopping import NOTHING
from maskfree.config.extras import need
from maskfree.signals import Stopped

if TYPE_CHECKING:
    from maskfree.engine.config import ValidationConfig
    from maskfree.evaluation.during_training import BenchmarkScore

COMMON = (
    "out",
    "resume",
    "recipe.init",
    # Files that the settings of a method name, and that lie elsewhere for every user.
    "recipe.method.image.weights",
    "recipe.method.text.weights",
    "recipe.method.tokenizer",
    "recipe.method.entities",
    "recipe.method.segments",
    "recipe.method.teacher",
    "recipe.method.prototypes",
    "recipe.data.shards",
    "recipe.data.images",
    "recipe.data.index",
    "recipe.data.workers",
    "recipe.train.steps",
    "recipe.train.batch_size",
    "recipe.train.accumulate",
    "recipe.train.learning_rate",
    "recipe.train.weight_decay",
    "recipe.train.precision",
    "recipe.train.accelerator",
    "recipe.train.devices",
    "recipe.train.seed",
    "recipe.train.save_every",
)
"""Settings that `maskfree train RECIPE --help` lists, where the recipe has them."""


def train(recipe: Annotated[Positional[str], arg(metavar="RECIPE")]) -> int:
    """Train a model.

    For the settings of a recipe, see `maskfree train RECIPE --help`; a wrong RECIPE lists all.

    Args:
        recipe: Name of a recipe; each of its settings is an option.

    Returns:
        Exit status 0.
    """
    return train_recipe([recipe])


def train_recipe(arguments: Sequence[str]) -> int:
    """Parse the arguments of `train` and run it; the options depend on the recipe.

    Args:
        arguments: Command line after `train`: the name of a recipe, then its options.

    Returns:
        Exit status 0.
    """
    from maskfree.recipes import RECIPES, Run

    if asks_help(arguments):
        return parse_call(train, "maskfree train", arguments)()
    if not arguments:
        raise ValueError(f"give a recipe: {', '.join(RECIPES)}")
    if arguments[0] not in RECIPES:
        raise ValueError(f"give a recipe: {', '.join(RECIPES)}; not {arguments[0]!r}")

    # The recipe's own settings are the defaults of the options.
    name = arguments[0]
    default = Run(RECIPES[name](), out=Path("runs") / name)
    run = parse_settings(Run, f"maskfree train {name}", arguments[1:], default, COMMON)

    # Missing packages are reported before torch is imported.
    recipe = run.whole()
    need(f"maskfree train {name}", "train", *recipe.extras())

    recipe = recipe.with_steps()
    log_to_stderr()
    keep_freed_memory()
    try:
        from maskfree.engine.train import RESUME_SETTINGS, fit

        measure = _measure(recipe.validation)
        done = fit(recipe, run.out, run.resume, RESUME_SETTINGS, measure)
    except KeyboardInterrupt:
        # Without run.json the training had not begun, and there is nothing to resume.
        if not (run.out / "run.json").exists():
            raise Stopped(NOTHING) from None
        raise Stopped("the last saved state is kept") from None

    if done < recipe.train.steps:
        raise Stopped(f"step {done} of {recipe.train.steps} is saved")
    return 0


def _measure(validation: ValidationConfig) -> BenchmarkScore | None:
    """Measure that the best model is selected by; None without a benchmark."""
    if validation.benchmark is None:
        return None

    from maskfree.evaluation.during_training import BenchmarkScore

    name, root = validation.benchmark
    return BenchmarkScore.find(name, Path(root), validation.photos)
