"""The models that are known by name, and where a model's folder is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from maskfree.files.leftovers import whole

BUNDLED = {"pocket": "ViL-Seg, MobileNetV2 and a small BERT, trained on Flickr8k; in the package"}
GROUPVITS = {
    "groupvit": "nvidia/groupvit-gcc-yfcc",
    "groupvit-redcaps": "nvidia/groupvit-gcc-redcaps",
}
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
"""Weights of a CLIP, and what its last block does."""
PUBLISHED = GROUPVITS | {name: source for name, (source, _) in CLIPS.items()}
"""Weights of others by the name that they have at Hugging Face; `hub.load` reads them through transformers."""


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
"""What each of `PUBLISHED` is."""


def model_folder(model: str | Path) -> Path:
    """Return the folder of a bundled model, or MODEL itself where it is a folder.

    Raises:
        FileNotFoundError: it is neither.
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
