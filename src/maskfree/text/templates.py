"""The 80 prompt templates of CLIP's ImageNet evaluation, which also make the prompted entities of OVSegmentor."""

from __future__ import annotations

from pathlib import Path

IMAGENET_TEMPLATES: tuple[str, ...] = tuple(
    Path(__file__).with_name("imagenet_templates.txt").read_text(encoding="utf-8").splitlines()
)
"""Each holds `{}` once. Source: arXiv:2103.00020, 3.1.4, as released with its notebook on prompts."""
