"""`maskfree convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional


def convert(
    kind: Positional[Literal["ovsegmentor", "clip"]],
    file: Positional[str],
    out: Positional[Path],
    tokenizer: str | None = None,
    heads: int | None = None,
    text_heads: int | None = None,
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu",
    last_block: str | None = None,
) -> int:
    """Make a model's folder OUT of FILE, a checkpoint that the authors of a method released.

    Nothing that FILE names is imported or run.

    Args:
        kind: Whose checkpoint it is.
        file: What `torch.save` wrote. Of a clip: the state dict of OpenAI or open_clip, also as safetensors, or the
            folder or Hugging Face name of a CLIP or SigLIP that transformers reads.
        out: Folder for the model; it must not exist.
        tokenizer: Folder or Hugging Face name of the text encoder's tokenizer; by default that of BERT's base or CLIP.
        heads: Attention heads of the image encoder; by default 8, and for a clip one for each 64 channels.
        text_heads: Attention heads of the text encoder; by default 12, and for a clip one for each 64 channels.
        activation: Of a clip's file: quick_gelu in OpenAI's, gelu in most of open_clip's.
        last_block: How a clip's last block is read: maskclip, value_only, sclip, clearclip, naclip and others.
    """
    from maskfree.hub.convert import convert_clip, convert_ovsegmentor

    if kind == "clip":
        both = None if heads is None and text_heads is None else (heads or 0, text_heads or 0)
        convert_clip(
            file, out, last_block=last_block, tokenizer=tokenizer, activation=activation, heads=both
        )
    else:
        convert_ovsegmentor(
            Path(file), out, tokenizer or "bert-base-uncased", heads or 8, text_heads or 12
        )
    Console(highlight=False, markup=False, soft_wrap=True).print(
        f"{out}: maskfree segment PHOTO --model {out}"
    )
    return 0
