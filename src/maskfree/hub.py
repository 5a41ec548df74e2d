"""Models by name or folder, ready for words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dacite
import torch

from maskfree import checkpoint, methods
from maskfree.bundled import model_folder
from maskfree.inference import Inference
from maskfree.method import MethodConfig
from maskfree.nn.pretrained import fold_batch_norms
from maskfree.predict import Segmenter


def load(model: str | Path = "pocket", device: str = "cpu") -> Segmenter:
    """Return the Segmenter of a bundled model or of a checkpoint folder; it has no words yet.

    Raises:
        OSError: there is no such model, or its files cannot be read.
        ValueError: the checkpoint is damaged, or there is no such device.
    """
    method, tokenizer, run, weights_hash = checkpoint.load(model_folder(model), _configs(), _check(device))
    fold_batch_norms(method)
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=run["name"],
        weights_hash=weights_hash,
        templates=tuple(run["templates"]),
        inference=_inference(run.get("inference", {}), model),
    )


def _inference(settings: dict[str, Any], model: str | Path) -> Inference:
    try:
        return dacite.from_dict(Inference, settings, dacite.Config(strict=True))
    except (dacite.DaciteError, ValueError) as error:
        raise ValueError(f"the model {str(model)!r} has unusable inference settings: {error}") from error


def _configs() -> dict[str, type[MethodConfig]]:
    exported = vars(methods).values()
    return {c.__name__: c for c in exported if isinstance(c, type) and issubclass(c, MethodConfig)}


def _check(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {device!r} is not there: cpu, cuda or cuda:N") from error
    return device
