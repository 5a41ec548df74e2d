"""Models from files of others: what was read, and how it becomes a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskfree.hub import checkpoint
from maskfree.inference.config import Inference
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class ForeignModel:
    """Weights of others as a method, with all that segmenting needs."""

    method: Method
    """Method with the weights, on the CPU."""
    config: MethodConfig
    """Settings of the method."""
    tokenizer: Tokenizer
    """Tokenizer of the text encoder."""
    templates: tuple[str, ...]
    """Prompt templates."""
    inference: Inference
    """Default inference settings."""


def save(model: ForeignModel, out: Path, name: str, source: Mapping[str, Any]) -> None:
    """Write a model as a checkpoint.

    Args:
        model: Model to write.
        out: Folder of the checkpoint.
        name: Name of the model.
        source: Where the weights come from, for the reader of run.json.

    Raises:
        OSError: The folder cannot be written.
        ValueError: A weight is not finite, or the name cannot be one.
    """
    run = {
        "name": name,
        "templates": list(model.templates),
        "inference": asdict(model.inference),
        "source": dict(source),
    }
    checkpoint.save(out, model.method, model.config, model.tokenizer, run)
