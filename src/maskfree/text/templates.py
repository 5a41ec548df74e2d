"""Prompt templates, among them the 80 of CLIP for ImageNet and those that MaskCLIP adds."""

from __future__ import annotations

from pathlib import Path

IMAGENET_TEMPLATES: tuple[str, ...] = tuple(
    Path(__file__).with_name("imagenet_templates.txt").read_text(encoding="utf-8").splitlines()
)
"""Templates that hold `{}` once; OVSegmentor uses them for its entity prompts too.

Source: arXiv:2103.00020, 3.1.4, as released in CLIP's notebook on prompts.
"""

SCENE_TEMPLATES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""Templates about scenes.

Source: arXiv:2104.13921, as released; MaskCLIP (arXiv:2112.01071) uses them too.
"""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "photo": ("a photo of a {}",),
    "ensemble": (
        "a photo of a {}",
        "a photo of the {}",
        "there is a {} in the picture",
        "a {} outdoors",
        "a close view of a {}",
        "a {} in the background",
        "someone next to a {}",
    ),
    "imagenet": IMAGENET_TEMPLATES,
    "maskclip": (*IMAGENET_TEMPLATES, *SCENE_TEMPLATES),
    "siglip": ("this is a photo of {}.",),
    # The nine prompts with which the authors of TIPSv2 (arXiv:2604.12012) evaluate segmentation, as
    # users of their notebook report them; it names them after TCL (arXiv:2212.00785).
    "tipsv2": (
        "itap of a {}.",
        "a bad photo of a {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
        "a photo of many {}.",
        "a photo of {}s.",
    ),
}

AUTHORS_TEMPLATES = ("a photo of a {}.",)
"""Template for class names in the code of GroupViT and OVSegmentor."""
