"""Models by name or folder, ready for words."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from maskfree import checkpoint, methods
from maskfree.method import MethodConfig
from maskfree.predict import Segmenter

BUNDLED = {"pocket": "ViL-Seg, MobileNetV2 and a small BERT, trained on Flickr8k; in the package"}


def load(model: str | Path = "pocket", device: str = "cpu") -> Segmenter:
    """Return the Segmenter of a bundled model or of a checkpoint folder; it has no words yet.

    Raises:
        OSError: there is no such model, or its files cannot be read.
        ValueError: the checkpoint is damaged, or there is no such device.
    """
    method, tokenizer, run, weights_hash = checkpoint.load(_folder(model), _configs(), _check(device))
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
