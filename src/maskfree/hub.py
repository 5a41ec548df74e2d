"""Models by name or folder, ready for words."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from maskfree import checkpoint, methods
from maskfree.bundled import BUNDLED
from maskfree.method import MethodConfig
from maskfree.nn.pretrained import fold_batch_norms
from maskfree.predict import Segmenter


def load(model: str | Path = "pocket", device: str = "cpu") -> Segmenter:
    """Return the Segmenter of a bundled model or of a checkpoint folder; it has no words yet.

    Raises:
        OSError: there is no such model, or its files cannot be read.
        ValueError: the checkpoint is damaged, or there is no such device.
    """
    method, tokenizer, run, weights_hash = checkpoint.load(_folder(model), _configs(), _check(device))
    fold_batch_norms(method)
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=run["name"],
        weights_hash=weights_hash,
        templates=tuple(run["templates"]),
    )


def _folder(model: str | Path) -> Path:
    if model in BUNDLED:
        return Path(str(files("maskfree") / str(model)))
    if not Path(model).is_dir():
        raise FileNotFoundError(f"the model {str(model)!r} is unknown: {', '.join(BUNDLED)}, or a checkpoint's folder")
    return Path(model)


def _configs() -> dict[str, type[MethodConfig]]:
    exported = vars(methods).values()
    return {c.__name__: c for c in exported if isinstance(c, type) and issubclass(c, MethodConfig)}


def _check(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {device!r} is not there: cpu, cuda or cuda:N") from error
    return device
