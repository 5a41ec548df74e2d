"""Catalog of the models that can be loaded by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from maskfree.files.leftovers import whole

BUNDLED = {"pocket": "ViL-Seg, MobileNetV2 and a small BERT, trained on Flickr8k; in the package"}
"""Models that come with the package, each with a description."""
GROUPVITS = {
    "groupvit": "nvidia/groupvit-gcc-yfcc",
    "groupvit-redcaps": "nvidia/groupvit-gcc-redcaps",
}
"""Hugging Face names of the published GroupViT weights."""
_CLIP, _LARGE, _SIGLIP = (
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "google/siglip2-base-patch16-224",
)
CLIPS = {
    "maskclip": (_CLIP, "maskclip"),
    "maskclip-large": (_LARGE, "maskclip"),
    "sclip": (_CLIP, "sclip"),
    "clearclip": (_CLIP, "clearclip"),
    "naclip": (_CLIP, "naclip"),
    "naclip-large": (_LARGE, "naclip"),
    "siglip": (_SIGLIP, "trained"),
}
"""Weights of a CLIP, and the name of the forward pass of its last block."""
PUBLISHED = GROUPVITS | {name: source for name, (source, _) in CLIPS.items()}
"""Hugging Face names of published weights; `hub.load` reads them through transformers."""


DESCRIPTIONS = {
    "groupvit": "GroupViT, its authors' weights",
    "groupvit-redcaps": "GroupViT, its authors' weights",
    "maskclip": "CLIP ViT-B/16 read as MaskCLIP does",
    "maskclip-large": "CLIP ViT-L/14 read as MaskCLIP does",
    "sclip": "CLIP ViT-B/16 read as SCLIP does",
    "clearclip": "CLIP ViT-B/16 read as ClearCLIP does",
    "naclip": "CLIP ViT-B/16 read as NACLIP does",
    "naclip-large": "CLIP ViT-L/14 read as NACLIP does",
    "siglip": "SigLIP 2 ViT-B/16, patch by patch",
}
"""Description of each model in `PUBLISHED`."""


def list_models() -> list[str]:
    """List the models that `maskfree.load` knows by name.

    Returns:
        Names, those of bundled models first; the others are fetched from Hugging Face.
    """
    return [*BUNDLED, *PUBLISHED]


def model_folder(model: str | Path) -> Path:
    """Find the folder of a model.

    Args:
        model: Name of a bundled model, or a checkpoint folder.

    Returns:
        Folder of the checkpoint.

    Raises:
        FileNotFoundError: There is no such model or folder, or the model is not a checkpoint.
    """
    if model in BUNDLED:
        return Path(str(files("maskfree") / str(model)))

    if model in PUBLISHED:
        raise FileNotFoundError(
            f"the model {str(model)!r} is no checkpoint: it only segments and is evaluated"
        )

    folder = whole(Path(model))
    if not folder.is_dir():
        known = ", ".join((*BUNDLED, *PUBLISHED))
        raise FileNotFoundError(
            f"the model {str(model)!r} is unknown: {known}, or a checkpoint's folder"
        )

    return folder
