"""Models by name or folder, ready for words."""

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
from maskfree.methods.maskclip.model import published_clip, usual_view
from maskfree.nn.pretrained import fold_batch_norms
from maskfree.text.templates import AUTHORS_TEMPLATES
from maskfree.text.tokenize import Tokenizer

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
)  # without them transformers makes up an empty tokenizer


def load(model: str | Path = "pocket", device: str | torch.device = "auto") -> Segmenter:
    """Return the Segmenter of a model by name or of a folder; it has no words yet.

    The folder is a checkpoint's, or that of a GroupViT, a CLIP or a SigLIP which transformers saved. DEVICE is "auto"
    (cuda, mps or cpu, the first that is there), "cpu", "mps", "cuda" or "cuda:N".

    Raises:
        OSError: there is no such model, or its files cannot be read.
        ValueError: the checkpoint is damaged, or there is no such device.
    """
    kind = _kind_of_transformers(model)
    if kind is not None:
        return _load_published(
            str(model), resolve(device), _read_groupvit if kind == "groupvit" else _read_clip
        )
    method, tokenizer, run, weights_hash = checkpoint.load(
        model_folder(model), _configs(), resolve(device)
    )
    fold_batch_norms(method)
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=run["name"],
        weights_hash=weights_hash,
        templates=tuple(run["templates"]),
        inference=_inference(run.get("inference", {}), model),
    )


class _Ready(NamedTuple):
    """Published weights, and how they are shown words and photos."""

    method: Method
    tokenizer: Tokenizer
    templates: tuple[str, ...]
    inference: Inference


def _load_published(model: str, device: str, read: Callable[[str, str], _Ready]) -> Segmenter:
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
    config = GroupViTConfig(weights=source)
    method = config.build()
    if Path(source).is_dir() and not any(
        (Path(source) / name).is_file() for name in _TOKENIZER_FILES
    ):
        raise FileNotFoundError(
            f"no tokenizer in {source!r}: it needs {' or '.join(_TOKENIZER_FILES)}"
        )
    tokenizer = Tokenizer.from_source(
        source, method.tower.config.text_config.max_position_embeddings
    )
    config.build_transform(tokenizer)  # which sees that they belong together
    return _Ready(method, tokenizer, AUTHORS_TEMPLATES, AUTHORS_INFERENCE)


def _read_clip(model: str, source: str) -> _Ready:
    config, tokenizer = published_clip(source, CLIPS[model][1] if model in CLIPS else None)
    return _Ready(
        config.build(), tokenizer, *usual_view(config.image.last_block, config.image.family)
    )


def _kind_of_transformers(model: str | Path) -> str | None:
    """What of which transformers saved weights MODEL is: "groupvit", "clip" or "siglip"; None of anything else."""
    if model in PUBLISHED:
        return "groupvit" if model in GROUPVITS else "clip"
    try:
        settings = read_json(Path(model) / "config.json")
    except OSError:
        return None
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    return kind if kind in ("groupvit", "clip", "siglip") else None


def _hash(module: nn.Module) -> str:
    """The SHA-256 of all weights with their names; that of a file would depend on who saved it."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()


def _inference(settings: dict[str, Any], model: str | Path) -> Inference:
    try:
        return dacite.from_dict(Inference, settings, dacite.Config(strict=True))
    except (dacite.DaciteError, ValueError) as error:
        raise ValueError(
            f"the model {str(model)!r} has unusable inference settings: {error}"
        ) from error


def _configs() -> dict[str, type[MethodConfig]]:
    exported = vars(methods).values()
    return {c.__name__: c for c in exported if isinstance(c, type) and issubclass(c, MethodConfig)}
