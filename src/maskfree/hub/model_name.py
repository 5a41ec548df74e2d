"""How a model is named: NAME, METHOD, METHOD:SOURCE or SOURCE."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PureWindowsPath

# What stands before a colon if it is a method: no path, and no drive of Windows (C:\models).
_METHOD = re.compile(r"[A-Za-z][\w-]+")
# Architectures of open_clip whose weights can be read; no name at the Hub begins so.
_OPEN_CLIP = re.compile(r"(ViT-|RN\d)[\w-]*/[\w.-]+")
# Names at the Hub have one owner, and neither drive nor spaces.
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class ModelName:
    """A model's name in its parts."""

    method: str | None
    """Method that reads the weights; None: the best one for their kind."""
    source: str | None
    """Folder, file, Hub name or name of open_clip; None: the method's own default."""

    @property
    def short(self) -> str:
        """Name for results and file names, without folders.

        Returns:
            The last part of the source, after the method if there is one and the source does not
            begin with it.
        """
        if self.source is None:
            return str(self.method)

        # The last part of a path of either system, without the suffix of a file of weights.
        last = PureWindowsPath(self.source).name or self.source
        last = re.sub(r"\.(pth|pt|bin|safetensors)$", "", last)
        if is_open_clip(self.source):
            last = self.source.replace("/", "-")

        if self.method is None or last.startswith(self.method):
            return last
        return f"{self.method}-{last}"


def parse_model_name(text: str, methods: Collection[str]) -> ModelName:
    """Take a model's name apart.

    A name of a method wins over a folder of that name, which is given as "./NAME".

    Args:
        text: METHOD, METHOD:SOURCE or SOURCE.
        methods: Names of the known methods.

    Returns:
        The parts of the name.

    Raises:
        ValueError: There is no such method, or no source follows the colon.
    """
    if text in methods:
        return ModelName(text, None)

    before, colon, source = text.partition(":")
    if not colon or not _METHOD.fullmatch(before):
        return ModelName(None, text)

    if before not in methods:
        raise ValueError(
            f"{text!r}: there is no method {before!r}: one of {', '.join(sorted(methods))}"
        )
    if not source:
        raise ValueError(f"{text!r} names no source: leave the colon out, or {before}:SOURCE")

    return ModelName(before, source)


def is_open_clip(source: str) -> bool:
    """Say whether a source is a model of open_clip.

    Args:
        source: Source of a model.

    Returns:
        True for ARCHITECTURE/WEIGHTS, as in ViT-B-16/laion2b_s34b_b88k.
    """
    return _OPEN_CLIP.fullmatch(source) is not None


def may_be_hub_name(source: str) -> bool:
    """Say whether a source can be a name at the Hugging Face Hub.

    Args:
        source: Source of a model.

    Returns:
        True for OWNER/NAME, as in openai/clip-vit-base-patch16.
    """
    return _HUB.fullmatch(source) is not None and not is_open_clip(source)
