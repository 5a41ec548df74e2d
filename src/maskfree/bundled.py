"""The models that are known by name, and where a model's folder is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

BUNDLED = {"pocket": "ViL-Seg, MobileNetV2 and a small BERT, trained on Flickr8k; in the package"}
PUBLISHED = {"groupvit": "nvidia/groupvit-gcc-yfcc", "groupvit-redcaps": "nvidia/groupvit-gcc-redcaps"}
"""Weights of others by the name that they have at Hugging Face; `hub.load` reads them through transformers."""


def model_folder(model: str | Path) -> Path:
    """Return the folder of a bundled model, or MODEL itself where it is a folder.

    Raises:
        FileNotFoundError: it is neither.
    """
    if model in BUNDLED:
        return Path(str(files("maskfree") / str(model)))
    if model in PUBLISHED:
        raise FileNotFoundError(f"the model {str(model)!r} is no checkpoint: it only segments and is evaluated")
    if not Path(model).is_dir():
        known = ", ".join((*BUNDLED, *PUBLISHED))
        raise FileNotFoundError(f"the model {str(model)!r} is unknown: {known}, or a checkpoint's folder")
    return Path(model)
