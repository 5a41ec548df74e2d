"""The `maskfree convert` command: convert released checkpoints to maskfree's format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional


def convert(
    kind: Positional[Literal["ovsegmentor", "groupvit", "clip"]],
    file: Positional[str],
    out: Positional[Path],
    tokenizer: str | None = None,
    heads: int | None = None,
    text_heads: int | None = None,
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu",
    last_block: str | None = None,
) -> int:
    """Convert a checkpoint that the authors of a method released into a model folder of maskfree.

    No code that the checkpoint refers to is imported or executed.

    Args:
        kind: Type of the checkpoint: ovsegmentor, groupvit, or clip for CLIP, MetaCLIP 2, SigLIP
            and TIPSv2.
        file: Checkpoint file that `torch.save` wrote, of any version. For clip: a state dict of
            OpenAI or open_clip, also as safetensors, or the folder or Hugging Face name of such a
            model that transformers can read.
        out: Output folder for the model; it must not exist.
        tokenizer: Folder or Hugging Face name of the text encoder's tokenizer; by default that of
            BERT base (RoBERTa base if the text encoder is one) or, for groupvit and clip, of CLIP.
        heads: Number of attention heads of the image encoder; by default 8, for clip one per 64
            channels, as always for groupvit.
        text_heads: Number of attention heads of the text encoder; by default 12, for clip one per
            64 channels, as always for groupvit.
        activation: Activation of a clip file: quick_gelu for OpenAI's, gelu for most of
            open_clip's.
        last_block: Variant of the last transformer block of a clip: maskclip, value_only, sclip,
            clearclip, naclip and others.

    Returns:
        Exit status 0.
    """
    from maskfree.hub.convert import (
        convert_clip,
        convert_groupvit,
        convert_ovsegmentor,
        groupvit,
        ovsegmentor,
    )

    # The conversion of a clip derives its default numbers of heads from the weights.
    if kind == "clip":
        # One number without the other becomes 0 heads, which the conversion refuses.
        both = None
        if heads is not None or text_heads is not None:
            both = (heads or 0, text_heads or 0)

        convert_clip(
            file, out, last_block=last_block, tokenizer=tokenizer, activation=activation, heads=both
        )
    elif kind == "groupvit":
        convert_groupvit(Path(file), out, tokenizer or groupvit.TOKENIZER)
    else:
        words = tokenizer or ovsegmentor.TOKENIZER
        convert_ovsegmentor(Path(file), out, words, heads or 8, text_heads or 12)

    Console(highlight=False, markup=False, soft_wrap=True).print(
        f"{out}: maskfree segment PHOTO --model {out}"
    )
    return 0
