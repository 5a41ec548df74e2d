"""The models that come with the package, and where a model's folder is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

BUNDLED = {"pocket": "ViL-Seg, MobileNetV2 and a small BERT, trained on Flickr8k; in the package"}


def model_folder(model: str | Path) -> Path:
    """Return the folder of a bundled model, or MODEL itself where it is a folder.

    Raises:
        FileNotFoundError: it is neither.
    """
    if model in BUNDLED:
        return Path(str(files("maskfree") / str(model)))
    if not Path(model).is_dir():
        raise FileNotFoundError(f"the model {str(model)!r} is unknown: {', '.join(BUNDLED)}, or a checkpoint's folder")
    return Path(model)
