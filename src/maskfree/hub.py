"""Models by name or folder, ready for words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import dacite
import torch
from torch import nn

from maskfree import checkpoint, methods
from maskfree.bundled import PUBLISHED, model_folder
from maskfree.inference import AUTHORS_INFERENCE, Inference
from maskfree.method import MethodConfig
from maskfree.methods.groupvit import GroupViTConfig
from maskfree.nn.pretrained import fold_batch_norms
from maskfree.predict import Segmenter
from maskfree.text.prompts import AUTHORS_TEMPLATES
from maskfree.text.tokenize import Tokenizer

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")  # without them transformers makes up an empty tokenizer


def load(model: str | Path = "pocket", device: str = "cpu") -> Segmenter:
    """Return the Segmenter of a model by name or of a folder; it has no words yet.

    The folder is a checkpoint's, or that of a GroupViT which transformers saved.

    Raises:
        OSError: there is no such model, or its files cannot be read.
        ValueError: the checkpoint is damaged, or there is no such device.
    """
    if model in PUBLISHED or _is_groupvit(Path(model)):
        return _load_groupvit(str(model), _check(device))
    method, tokenizer, run, weights_hash = checkpoint.load(model_folder(model), _configs(), _check(device))
    fold_batch_norms(method)
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=run["name"],
        weights_hash=weights_hash,
        templates=tuple(run["templates"]),
        inference=_inference(run.get("inference", {}), model),
    )


def _load_groupvit(model: str, device: str) -> Segmenter:
    source = PUBLISHED.get(model, model)
    try:
        config = GroupViTConfig(weights=source)
        method = config.build().to(device).eval()
        if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _TOKENIZER_FILES):
            raise FileNotFoundError(f"no tokenizer in {source!r}: it needs {' or '.join(_TOKENIZER_FILES)}")
        tokenizer = Tokenizer.from_source(source, method.tower.config.text_config.max_position_embeddings)
        config.build_transform(tokenizer)  # which sees that they belong together
    except FileNotFoundError as error:
        if model not in PUBLISHED:
            raise
        raise FileNotFoundError(
            f"the model {model!r} is not in the cache, and {source} cannot be downloaded from Hugging Face: try again "
            "with a network, or give the folder of a copy (config.json, model.safetensors, tokenizer.json)"
        ) from error
    return Segmenter(
        method=method,
        tokenizer=tokenizer,
        name=Path(model).name,
        weights_hash=_hash(method),
        templates=AUTHORS_TEMPLATES,
        inference=AUTHORS_INFERENCE,
    )


def _is_groupvit(folder: Path) -> bool:
    """Whether transformers saved a GroupViT to FOLDER."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("model_type") == "groupvit"


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
        raise ValueError(f"the model {str(model)!r} has unusable inference settings: {error}") from error


def _configs() -> dict[str, type[MethodConfig]]:
    exported = vars(methods).values()
    return {c.__name__: c for c in exported if isinstance(c, type) and issubclass(c, MethodConfig)}


def _check(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {device!r} is not there: cpu, cuda or cuda:N") from error
    return device
