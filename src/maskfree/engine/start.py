"""Initial weights of a run: those that the method builds, a checkpoint's, or a finished run's."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from maskfree.engine import run_state
from maskfree.engine.config import Recipe
from maskfree.hub import checkpoint
from maskfree.hub.catalog import model_folder
from maskfree.hub.loading import read_config
from maskfree.method import Method
from maskfree.nn.activation_checkpointing import checkpoint_activations

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Checkpoint that a run takes its initial weights from."""

    model: Path
    """Folder of the checkpoint."""
    run: Path | None
    """Finished run that the checkpoint belongs to, if a run was named."""

    @classmethod
    def find(cls, init: str) -> Start:
        """Locate the initial weights.

        Args:
            init: Model name, checkpoint folder, or folder of a finished run.

        Returns:
            The checkpoint, and the run if `init` is one.
        """
        run = Path(init)
        if (run / "run.json").is_file() and (run / "model").is_dir():
            return cls(run / "model", run)
        return cls(model_folder(init), None)


def with_teacher(recipe: Recipe, start: Start | None) -> Recipe:
    """Take over what the method leaves to the checkpoint it starts from.

    Args:
        recipe: Settings of the run.
        start: Checkpoint to start from; None changes nothing.

    Returns:
        The settings, with the architecture of the parts that are the teacher's.

    Raises:
        ValueError: The checkpoint's settings are damaged.
        OSError: The checkpoint cannot be read.
    """
    if start is None:
        return recipe
    parts = read_config(start.model).student_parts()
    if parts is None:
        return recipe
    return replace(recipe, method=recipe.method.taught_by(parts))


def build_method(recipe: Recipe, start: Start | None) -> Method:
    """Build the method and load the initial weights, if any.

    Args:
        recipe: Settings of the run.
        start: Checkpoint to start from; None for weights as the method builds them.

    Returns:
        The method, ready for the first step or for a saved state.

    Raises:
        ValueError: A tensor of the checkpoint has another shape, or a name matches none.
        OSError: The checkpoint cannot be read.
    """
    method = recipe.method.build()
    if start is not None:
        fresh = checkpoint.start_from(
            start.model, method, dict(recipe.init_names), recipe.init_without
        )

        # Decoders and the like are in the run's last state only.
        if start.run is not None:
            fresh = _with_training_parts(start.run, method, fresh)
        parts = sorted({_part(name) for name in fresh})
        log.info("starting from %s; new are %s", recipe.init, ", ".join(parts) or "no weights")
    method.on_train_start()
    if recipe.train.checkpointing:
        checkpoint_activations(method)
    return method


def _part(name: str) -> str:
    """First two parts of a parameter name, such as `image.binding`."""
    return ".".join(name.split(".")[:2])


def _with_training_parts(run: Path, method: Method, missing: list[str]) -> list[str]:
    """Load parts that only training has, such as a decoder, from a run's last state.

    Args:
        run: Folder of the finished run.
        method: Method to fill in place.
        missing: Names of the tensors that the checkpoint did not have.

    Returns:
        Names of the tensors that the state does not have either.

    Raises:
        ValueError: A tensor of the state has another shape.
    """
    _, state = run_state.load_state(run) or (0, {})
    # The state has the method's tensors under "model/".
    tensors = {}
    for name in missing:
        if f"model/{name}" in state:
            tensors[name] = state[f"model/{name}"]

    try:
        method.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{run} does not fit the method: {error}") from error
    return [name for name in missing if name not in tensors]
