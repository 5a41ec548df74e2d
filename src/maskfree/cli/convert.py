"""`maskfree convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional


def convert(
    kind: Positional[Literal["ovsegmentor"]],
    file: Positional[Path],
    out: Positional[Path],
    tokenizer: str = "bert-base-uncased",
    heads: int = 8,
    text_heads: int = 12,
) -> int:
    """Make a model's folder OUT of FILE, a checkpoint that the authors of a method released.

    Nothing that FILE names is imported or run.

    Args:
        kind: Whose checkpoint it is.
        file: What `torch.save` wrote.
        out: Folder for the model; it must not exist.
        tokenizer: Folder or Hugging Face name of the tokenizer of the text encoder.
        heads: Attention heads of the image encoder; the released configuration has 8.
        text_heads: Attention heads of the text encoder; BERT's base has 12.
    """
    from maskfree.convert import convert_ovsegmentor

    convert_ovsegmentor(file, out, tokenizer, heads, text_heads)
    Console(highlight=False, markup=False, soft_wrap=True).print(f"{out}: maskfree segment PHOTO --model {out}")
    return 0
