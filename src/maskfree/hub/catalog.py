"""Catalog of the models that have a name, and of the methods that a model can be read with.

A new family of weights gets an entry in `BEST_METHODS`, a new method one in `METHODS` and in
`readers.READERS`, and a model that people should find by name one in `MODELS`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from maskfree.files.leftovers import whole
from maskfree.hub.catalog_entry import CatalogEntry, Quality

_CLIP, _LARGE, _SIGLIP = (
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "google/siglip2-base-patch16-224",
)
_GROUPVIT = "nvidia/groupvit-gcc-yfcc"
METHODS: dict[str, str | None] = {
    "maskclip": _CLIP,
    "value_only": _CLIP,
    "clip_surgery": _CLIP,
    "sclip": _CLIP,
    "clearclip": _CLIP,
    "naclip": _CLIP,
    "trained": _CLIP,
    "radseg": _CLIP,
    "proxyclip": _CLIP,
    "corrclip": _CLIP,
    "lposs": _CLIP,
    "stitched": _CLIP,
    "groupvit": _GROUPVIT,
    "ovsegmentor": None,
}
"""Methods that `--model METHOD:SOURCE` accepts, each with its default source.

None: the method's weights are no model of the Hub, so the source has to be named. Those of
`methods.maskclip.presets.METHOD_PRESETS` read the kinds of `nn.image_text_families`.
"""
BEST_METHODS = {
    "clip": "naclip",
    "metaclip_2": "naclip",
    "siglip": "trained",
    "siglip2": "trained",
    "tipsv2": "trained",
    "groupvit": "groupvit",
}
"""Method that reads a folder or Hub name given alone, by the model type that transformers saved."""


_OPENAI = "MIT"
_NVIDIA = "NVIDIA, source code"
# What all readings of these weights have in common.
_BASE_16 = CatalogEntry(
    name="",
    method="",
    source=_CLIP,
    size_mb=602,
    license=_OPENAI,
    commercial=True,
    patch_px=16,
    side_px=336,
    description="",
)
_LARGE_14 = replace(_BASE_16, source=_LARGE, size_mb=1714, patch_px=14)
# NACLIP's README prints numbers with PAMR only, which is not the default here.
_ENTRIES = (
    CatalogEntry(
        name="pocket",
        method="vilseg",
        source="",
        size_mb=37,
        license="Apache-2.0; its photos for research",
        commercial=False,
        patch_px=16,
        side_px=384,
        description="ViL-Seg's losses and tag scores, no clusters; Flickr8k, in the package",
    ),
    CatalogEntry(
        name="groupvit",
        method="groupvit",
        source=_GROUPVIT,
        size_mb=226,
        license=_NVIDIA,
        commercial=False,
        patch_px=16,
        side_px=448,
        description="GroupViT, its authors' weights",
        quality=Quality(voc21=52.3, context60=22.4, printed_in="GroupViT's README"),
    ),
    CatalogEntry(
        name="groupvit-redcaps",
        method="groupvit",
        source="nvidia/groupvit-gcc-redcaps",
        size_mb=226,
        license=_NVIDIA,
        commercial=False,
        patch_px=16,
        side_px=448,
        description="GroupViT, its authors' weights",
        quality=Quality(voc21=50.8, context60=23.7, printed_in="GroupViT's README"),
    ),
    replace(
        _BASE_16,
        name="maskclip",
        method="maskclip",
        side_px=448,
        description="CLIP ViT-B/16 read as MaskCLIP does",
        quality=Quality(43.4, 74.9, 23.2, 11.9, "SCLIP's paper"),
    ),
    replace(
        _LARGE_14,
        name="maskclip-large",
        method="maskclip",
        side_px=448,
        description="CLIP ViT-L/14 read as MaskCLIP does",
    ),
    replace(
        _BASE_16,
        name="sclip",
        method="sclip",
        description="CLIP ViT-B/16 read as SCLIP does",
        quality=Quality(59.6, 81.5, 31.7, 16.5, "SCLIP's README"),
    ),
    replace(
        _BASE_16,
        name="clearclip",
        method="clearclip",
        description="CLIP ViT-B/16 read as ClearCLIP does",
        quality=Quality(51.8, 80.9, 32.6, 16.7, "not noted"),
    ),
    replace(
        _BASE_16,
        name="naclip",
        method="naclip",
        description="CLIP ViT-B/16 read as NACLIP does",
        quality=Quality(58.9, None, 32.2, 17.4, "another paper's table"),
    ),
    replace(
        _LARGE_14,
        name="naclip-large",
        method="naclip",
        description="CLIP ViT-L/14 read as NACLIP does",
    ),
    CatalogEntry(
        name="proxyclip",
        method="proxyclip",
        source=_CLIP,
        size_mb=945,
        license="MIT; DINO: Apache-2.0",
        commercial=True,
        patch_px=8,
        side_px=336,
        description="CLIP ViT-B/16 that attends as DINO ViT-B/8 sees fit",
        also="facebook/dino-vitb8",
        quality=Quality(61.3, 80.3, 35.3, 20.2, "ProxyCLIP's README and abstract"),
    ),
    CatalogEntry(
        name="corrclip",
        method="corrclip",
        source=_CLIP,
        size_mb=945,
        license="MIT; DINO: Apache-2.0",
        commercial=True,
        patch_px=8,
        side_px=336,
        description="CLIP ViT-B/16 that attends as DINO ViT-B/8 within segments of contours",
        also="facebook/dino-vitb8",
    ),
    CatalogEntry(
        name="lposs",
        method="lposs",
        source=_CLIP,
        size_mb=945,
        license="MIT; DINO: Apache-2.0",
        commercial=True,
        patch_px=16,
        side_px=448,
        description="CLIP ViT-B/16 whose scores spread over patches that DINO ViT-B/16 finds alike",
        also="facebook/dino-vitb16",
    ),
    # Published numbers of these two are of RADIO, and of another way to join windows.
    replace(
        _BASE_16,
        name="radseg",
        method="radseg",
        description="CLIP ViT-B/16 with RADSeg's recursive attention",
    ),
    replace(
        _BASE_16,
        name="stitched",
        method="stitched",
        description="CLIP ViT-B/16 whose windows are joined before the last block",
    ),
    CatalogEntry(
        name="siglip",
        method="trained",
        source=_SIGLIP,
        size_mb=1535,
        license="Apache-2.0",
        commercial=True,
        patch_px=16,
        side_px=448,
        description="SigLIP 2 ViT-B/16, patch by patch",
    ),
    CatalogEntry(
        name="siglip2-naflex",
        method="trained",
        source="google/siglip2-base-patch16-naflex",
        size_mb=1535,
        license="Apache-2.0",
        commercial=True,
        patch_px=16,
        side_px=448,
        description="SigLIP 2 NaFlex ViT-B/16, trained on photos of their own shape",
    ),
    # Sizes of these are four bytes a parameter, as their cards count them.
    CatalogEntry(
        name="tipsv2",
        method="trained",
        source="google/tipsv2-b14",
        size_mb=786,
        license="Apache-2.0",
        commercial=True,
        patch_px=14,
        side_px=448,
        description="TIPSv2 ViT-B/14, trained to align patches with texts",
        quality=Quality(ade=17.4, printed_in="TIPSv2's README"),
    ),
    CatalogEntry(
        name="tipsv2-large",
        method="trained",
        source="google/tipsv2-l14",
        size_mb=1950,
        license="Apache-2.0",
        commercial=True,
        patch_px=14,
        side_px=448,
        description="TIPSv2 ViT-L/14, trained to align patches with texts",
        quality=Quality(ade=24.7, printed_in="TIPSv2's README"),
    ),
    CatalogEntry(
        name="metaclip2",
        method="naclip",
        source="facebook/metaclip-2-worldwide-b16",
        size_mb=2410,
        license="CC BY-NC 4.0",
        commercial=False,
        patch_px=16,
        side_px=336,
        description="MetaCLIP 2 ViT-B/16, words of 300 languages, read as NACLIP does",
    ),
)
MODELS = {entry.name: entry for entry in _ENTRIES}
"""Models by name, that of the package first; the others are read from the Hugging Face Hub."""


def list_models() -> list[str]:
    """List the models that `maskfree.load` knows by name.

    Returns:
        Names, that of the bundled model first; the others are fetched from Hugging Face.
    """
    return list(MODELS)


def model_folder(model: str | Path) -> Path:
    """Find the folder of a model that is a checkpoint.

    Args:
        model: Name of a bundled model, or a checkpoint folder.

    Returns:
        Folder of the checkpoint.

    Raises:
        FileNotFoundError: There is no such model or folder, or the model is not a checkpoint.
    """
    # A path is a folder, whatever its name.
    if isinstance(model, str) and (entry := MODELS.get(model)):
        if not entry.source:
            return Path(str(files("maskfree") / entry.name))
        raise FileNotFoundError(
            f"the model {str(model)!r} is no checkpoint: maskfree convert makes one"
        )

    folder = whole(Path(model))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the model {str(model)!r} is unknown: {', '.join(MODELS)}, or a checkpoint's folder"
        )

    return folder
