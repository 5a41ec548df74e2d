"""Folders as transformers saves them, of random small weights: each kind of the catalog."""

from __future__ import annotations

from pathlib import Path

import transformers

from image_text_models import image_text_model
from maskfree.text.tokenize import Tokenizer
from published_clip import clip_model
from tiny import TINY_CLIP_TEXT, TINY_CLIP_VISION, tiny_groupvit_config


def save_clip(folder: Path, tokenizer: Tokenizer) -> None:
    """A CLIP, with a tokenizer of transformers' own that knows letters and digits."""
    clip_model().save_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'\"-:();"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    words = ["<|startoftext|>", "<|endoftext|>", *pieces, "do", "dog</w>"]
    transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[("d", "o"), ("do", "g</w>")],
    ).save_pretrained(folder)


def save_siglip(folder: Path, tokenizer: Tokenizer) -> None:
    """A SigLIP, which has the configuration of a fixed SigLIP 2."""
    text = {**TINY_CLIP_TEXT, "projection_size": 24}
    config = transformers.SiglipConfig(text_config=text, vision_config=TINY_CLIP_VISION)
    transformers.SiglipModel(config).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")


def save_groupvit(folder: Path, tokenizer: Tokenizer) -> None:
    """A GroupViT."""
    tiny_groupvit_config().build().tower.save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")


def save_naflex(folder: Path, tokenizer: Tokenizer) -> None:
    """A SigLIP 2 of NaFlex."""
    image_text_model("siglip2").save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")


def save_metaclip(folder: Path, tokenizer: Tokenizer) -> None:
    """A MetaCLIP 2."""
    image_text_model("metaclip_2").save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")


def save_tipsv2(folder: Path, tokenizer: Tokenizer) -> None:
    """A TIPSv2."""
    image_text_model("tipsv2").save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")


KINDS = {
    "google/siglip2-base-patch16-naflex": save_naflex,
    "google/tipsv2-": save_tipsv2,
    "facebook/metaclip-2-": save_metaclip,
    "openai/clip-": save_clip,
    "google/siglip2-": save_siglip,
    "nvidia/groupvit-": save_groupvit,
}
"""How a source of the catalog is made small, by the beginning of its name."""


def save_like(source: str, folder: Path, tokenizer: Tokenizer) -> None:
    """Write a small model of the kind that SOURCE is of."""
    for start, save in KINDS.items():
        if source.startswith(start):
            folder.mkdir()
            save(folder, tokenizer)
            return
    raise AssertionError(f"say in tests/tiny_published.py how {source} is made small")
