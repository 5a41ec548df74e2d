"""Fetch the files that a model needs into the cache of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from maskfree.files import hugging_face
from maskfree.hub.catalog import METHODS, MODELS, model_folder
from maskfree.hub.convert import clip
from maskfree.hub.model_name import is_open_clip
from maskfree.hub.readers import READERS, Located, locate, tokenizer_of
from maskfree.methods.maskclip.presets import METHOD_PRESETS


def fetch(model: str) -> str:
    """Fetch what a model needs to be loaded without a network.

    Args:
        model: Model as for `loading.load`.

    Returns:
        What was fetched and where it lies, for people.

    Raises:
        OSError: The files cannot be fetched, or there is no such model.
        ValueError: There is no such method, or the model is a folder.
    """
    if Path(model).is_dir() and model not in (*MODELS, *METHODS):
        raise ValueError(f"{model} is a folder: there is nothing to download")

    # The weights of such a method are a file, which only lacks its tokenizer.
    if model in METHODS and METHODS[model] is None:
        return _said(READERS[model].tokenizer, weights=False)

    located = locate(model)
    if located is None:
        # There may be no such model at all.
        return f"{model_folder(model)} needs no download"

    said = _fetched(located)
    preset = METHOD_PRESETS.get(located.method)
    if preset is None or preset.proxy is None or preset.proxy.weights is None:
        return said

    # Its last block attends by a second encoder, which has no tokenizer.
    folder = hugging_face.download(preset.proxy.weights)
    return f"{said}; {preset.proxy.weights}, with weights, in {folder}"


def _fetched(located: Located) -> str:
    """Fetch the weights and the tokenizer of a model that is not a checkpoint."""
    source, reader = located.source, READERS[located.method]
    if Path(source).is_dir():
        raise ValueError(f"{source} is a folder: there is nothing to download")

    if is_open_clip(source):
        # open_clip keeps its weights in the same cache.
        clip.read_open_clip(source.replace("/", ":"))
        return f"{source} of open_clip; {_said(reader.tokenizer, weights=False)}"

    if Path(source).is_file() or reader.saved is None:
        tokenizer = tokenizer_of(located)
        if Path(tokenizer).is_dir():
            return "is a file with its tokenizer and needs no download"
        return _said(tokenizer, weights=False)

    return _said(source, weights=True)


def _said(source: str, weights: bool) -> str:
    """Download a model of the Hub and say where it lies."""
    folder = hugging_face.download(source, weights)
    what = "with weights"
    if not weights:
        what = "its tokenizer"
    return f"{source}, {what}, in {folder}"
