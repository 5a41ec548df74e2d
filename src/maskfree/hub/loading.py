"""Load models by name or folder, ready to be given class names."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dacite
import torch

from maskfree import methods
from maskfree.devices import resolve
from maskfree.files.hugging_face import NotCachedError
from maskfree.hub import checkpoint
from maskfree.hub.catalog import MODELS, model_folder
from maskfree.hub.foreign_model import ForeignModel, save
from maskfree.hub.readers import READERS, Located, locate, read
from maskfree.hub.weights import file_hash
from maskfree.inference.calibration import Calibration
from maskfree.inference.config import Inference
from maskfree.inference.runtimes.eight_bits import InputRanges, checked_ranges
from maskfree.inference.segmenter import Segmenter
from maskfree.method_config import MethodConfig
from maskfree.nn.convolutions import fold_batch_norms
from maskfree.nn.linear import use_onednn
from maskfree.text.tokenize import Tokenizer

Settings = TypeVar("Settings", Inference, Calibration)


def load(model: str | Path = "pocket", device: str | torch.device = "auto") -> Segmenter:
    """Load a model by its name, by method and source, or from a folder.

    Args:
        model: Name of `list_models`; METHOD, SOURCE or METHOD:SOURCE, as in
            "naclip:openai/clip-vit-large-patch14"; or folder of a checkpoint. A source is a Hugging
            Face name, a folder that transformers saved, a model of open_clip such as
            "ViT-B-16/laion2b_s34b_b88k", or a file that its authors released.
        device: "auto" (the first available of cuda, mps and cpu), "cpu", "mps", "cuda" or "cuda:N".

    Returns:
        Segmenter of the model, which has no class names yet.

    Raises:
        OSError: There is no such model, or its files cannot be read.
        ValueError: There is no such method or device, or the weights are damaged.
    """
    place = resolve(device)
    with _named_in_errors(model):
        located = locate(model)
        if located is not None:
            return _segmenter(located, read(located), place)

    method, tokenizer, run, weights_hash = checkpoint.load(model_folder(model), _configs(), place)

    # Folding the batch norms into the convolutions makes inference faster.
    fold_batch_norms(method)
    use_onednn(method)
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=run["name"],
        weights_hash=weights_hash,
        text_hash=_text_hash(weights_hash, run["method"], run["config"], tokenizer),
        templates=tuple(run["templates"]),
        inference=_settings(Inference, run.get("inference", {}), model),
        calibration=_settings(Calibration, run.get("calibration", {}), model),
        input_ranges=_ranges(run.get("input_ranges", {}), model),
    )


def checkpoint_of(model: str | Path, folder: Path) -> Path:
    """Find the checkpoint of a teacher, or make one of weights of others.

    Args:
        model: Model as for `load`.
        folder: Folder in which a checkpoint is made, under the model's name; one that is there
            already is taken.

    Returns:
        Folder of the checkpoint.

    Raises:
        OSError: There is no such model, its files cannot be read, or the folder cannot be written.
        ValueError: There is no such method, it cannot teach, or the weights are damaged.
    """
    with _named_in_errors(model):
        located = locate(model)
        if located is None:
            return model_folder(model)
        if not READERS[located.method].teaches:
            raise ValueError(
                f"{located.name} cannot teach: a student cannot take the text side of a "
                f"{located.method}"
            )

        made = folder / located.name
        if not made.exists():
            save(read(located), made, located.name, {"weights": located.source})

    return made


def read_config(folder: Path) -> MethodConfig:
    """Read the settings of a checkpoint's method, without its weights.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        Settings of the method.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The settings do not fit, or the method is unknown.
    """
    return checkpoint.read_config(folder, _configs())


@contextmanager
def _named_in_errors(model: str | Path) -> Iterator[None]:
    """Name the model, and the command that fetches it, where weights are missing."""
    try:
        yield
    except NotCachedError as error:
        fetch = shlex.join(["maskfree", "download", str(model)])
        raise FileNotFoundError(
            f"the model {str(model)!r} cannot be read: {error}; `{fetch}` fetches it"
        ) from error
    except FileNotFoundError as error:
        # A path names itself.
        if Path(model).exists() or str(model) not in MODELS:
            raise
        raise FileNotFoundError(f"the model {str(model)!r} cannot be read: {error}") from error


def _segmenter(located: Located, model: ForeignModel, device: str) -> Segmenter:
    """Segmenter of weights of others."""
    method = model.method.to(device).eval()
    weights_hash = file_hash(method.state_dict())
    use_onednn(method)
    return Segmenter(
        method=method,
        tokenizer=model.tokenizer,
        name=located.name,
        weights_hash=weights_hash,
        text_hash=_text_hash(weights_hash, model.config, model.tokenizer),
        templates=model.templates,
        inference=model.inference,
    )


def _text_hash(weights_hash: str, *parts: object) -> str:
    """SHA-256 of weights, settings and tokenizer."""
    digest = hashlib.sha256(weights_hash.encode())
    for part in parts:
        text = repr(part)
        if isinstance(part, Tokenizer):
            text = part.serialized()
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()


def _settings(kind: type[Settings], settings: dict[str, Any], model: str | Path) -> Settings:
    """Inference settings or calibration of a checkpoint; ValueError if they do not fit."""
    try:
        return dacite.from_dict(kind, settings, dacite.Config(strict=True))
    except (dacite.DaciteError, ValueError) as error:
        raise ValueError(
            f"the model {str(model)!r} has unusable {kind.__name__.lower()} settings: {error}"
        ) from error


def _ranges(values: dict[str, Any], model: str | Path) -> InputRanges:
    """Ranges of the inputs of a checkpoint's layers; ValueError if they are none."""
    try:
        return checked_ranges(values)
    except ValueError as error:
        raise ValueError(f"the model {str(model)!r} has unusable input_ranges: {error}") from error


def _configs() -> dict[str, type[MethodConfig]]:
    """Config classes of all methods, by name."""
    configs = {}
    for exported in vars(methods).values():
        if isinstance(exported, type) and issubclass(exported, MethodConfig):
            configs[exported.__name__] = exported

    return configs
