"""Load models by name or folder, ready to be given class names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dacite
import torch
from torch import nn

from maskfree import methods
from maskfree.devices import resolve
from maskfree.files.atomic import read_json
from maskfree.hub import checkpoint
from maskfree.hub.catalog import CLIPS, GROUPVITS, PUBLISHED, model_folder
from maskfree.inference.config import AUTHORS_INFERENCE, Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.methods.maskclip.model import default_inference, published_clip
from maskfree.nn.convolutions import fold_batch_norms
from maskfree.text.templates import AUTHORS_TEMPLATES
from maskfree.text.tokenize import Tokenizer

# Without one of these transformers makes up an empty tokenizer.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
)


def load(model: str | Path = "pocket", device: str | torch.device = "auto") -> Segmenter:
    """Load a model by name or from a folder.

    Args:
        model: Model name, checkpoint folder, or folder of a GroupViT, CLIP or SigLIP that
            transformers saved.
        device: "auto" (the first available of cuda, mps and cpu), "cpu", "mps", "cuda" or "cuda:N".

    Returns:
        Segmenter of the model, which has no class names yet.

    Raises:
        OSError: There is no such model, or its files cannot be read.
        ValueError: The checkpoint is damaged, or there is no such device.
    """
    kind = _kind_of_transformers(model)
    if kind == "groupvit":
        return _load_published(str(model), resolve(device), _read_groupvit)
    if kind is not None:
        return _load_published(str(model), resolve(device), _read_clip)

    method, tokenizer, run, weights_hash = checkpoint.load(
        model_folder(model), _configs(), resolve(device)
    )

    # Folding the batch norms into the convolutions makes inference faster.
    fold_batch_norms(method)
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=run["name"],
        weights_hash=weights_hash,
        templates=tuple(run["templates"]),
        inference=_inference(run.get("inference", {}), model),
    )


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


class _Ready(NamedTuple):
    """Published weights with their tokenizer, prompt templates and inference settings."""

    method: Method
    tokenizer: Tokenizer
    templates: tuple[str, ...]
    inference: Inference


def _load_published(model: str, device: str, read: Callable[[str, str], _Ready]) -> Segmenter:
    """Segmenter of weights that transformers reads."""
    source = PUBLISHED.get(model, model)
    try:
        ready = read(model, source)
    except FileNotFoundError as error:
        if model not in PUBLISHED:
            raise
        raise FileNotFoundError(f"the model {model!r} cannot be read: {error}") from error

    method = ready.method.to(device).eval()
    return Segmenter(
        method=method,
        tokenizer=ready.tokenizer,
        name=Path(model).name,
        weights_hash=_hash(method),
        templates=ready.templates,
        inference=ready.inference,
    )


def _read_groupvit(model: str, source: str) -> _Ready:
    """Read a GroupViT through transformers."""
    config = GroupViTConfig(weights=source)
    method = config.build()
    folder = Path(source)
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    if folder.is_dir() and not has_tokenizer:
        raise FileNotFoundError(
            f"no tokenizer in {source!r}: it needs {' or '.join(_TOKENIZER_FILES)}"
        )

    max_length = method.tower.config.text_config.max_position_embeddings
    tokenizer = Tokenizer.from_source(source, max_length)
    # Building the transform checks that tokenizer and weights belong together.
    config.build_transform(tokenizer)
    return _Ready(method, tokenizer, AUTHORS_TEMPLATES, AUTHORS_INFERENCE)


def _read_clip(model: str, source: str) -> _Ready:
    """Read a CLIP or SigLIP through transformers."""
    last_block = None
    if model in CLIPS:
        last_block = CLIPS[model][1]

    config, tokenizer = published_clip(source, last_block)
    templates, inference = default_inference(config.image.last_block, config.image.family)
    return _Ready(config.build(), tokenizer, templates, inference)


def _kind_of_transformers(model: str | Path) -> str | None:
    """Model type of weights saved by transformers: groupvit, clip or siglip; else None."""
    if model in GROUPVITS:
        return "groupvit"
    if model in PUBLISHED:
        return "clip"

    try:
        settings = read_json(Path(model) / "config.json")
    except OSError:
        return None

    if not isinstance(settings, dict):
        return None

    kind = settings.get("model_type")
    if kind not in ("groupvit", "clip", "siglip"):
        return None
    return kind


def _hash(module: nn.Module) -> str:
    """SHA-256 of all weights with their names; a file's hash would depend on who saved it."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()


def _inference(settings: dict[str, Any], model: str | Path) -> Inference:
    """Inference settings of a checkpoint; ValueError if they do not fit the fields."""
    try:
        return dacite.from_dict(Inference, settings, dacite.Config(strict=True))
    except (dacite.DaciteError, ValueError) as error:
        raise ValueError(
            f"the model {str(model)!r} has unusable inference settings: {error}"
        ) from error


def _configs() -> dict[str, type[MethodConfig]]:
    """Config classes of all methods, by name."""
    configs = {}
    for exported in vars(methods).values():
        if isinstance(exported, type) and issubclass(exported, MethodConfig):
            configs[exported.__name__] = exported

    return configs
