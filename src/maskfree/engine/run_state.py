"""A run's folder: its settings, and states that are written whole or not at all, from which it can go on."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from maskfree.files.atomic import read_json, replace_text
from maskfree.files.leftovers import remove_leftovers, replace_folder, unfinished_folder, writing

_FORMAT = 1
_KEPT = 2
_PACKAGES = (
    "maskfree",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "Pillow",
    "lightning-fabric",
    "webdataset",
)


def settings_of(recipe: Any) -> dict[str, Any]:
    """Spell out a config dataclass as JSON would give it back; configs within name their class."""
    return json.loads(json.dumps(_spelled(recipe)))


def _spelled(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _spelled(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__} | fields
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, tuple | list) else value


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """List the dotted names of the settings in which two nests of dicts differ.

    >>> differences({"data": {"seed": 1, "size": [2]}}, {"data": {"seed": 3, "size": [2]}})
    ['data.seed']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        below = [
            differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            for key in {**old, **new}
        ]
        return [path for paths in below for path in paths]
    return [] if old == new else [name]


def check_run(out: Path, settings: Mapping[str, Any], free: tuple[str, ...], resume: bool) -> None:
    """Make sure that a run with SETTINGS may start in OUT, or go on there; the settings in FREE may change.

    Raises:
        ValueError: OUT holds a run already, or one with other settings.
    """
    record = out / "run.json"
    if not record.exists():
        if resume:
            raise ValueError(f"nothing to resume in {out}: it holds no run.json")
        if others := [
            name for name in ("model", "state", "metrics.jsonl") if (out / name).exists()
        ]:
            raise ValueError(
                f"{out / others[0]} exists, and is no part of a run: give another --out"
            )
        return
    if not resume:
        raise ValueError(
            f"{out} holds a run already: continue it with --resume, or give another --out"
        )
    changed = [
        name for name in differences(read_record(out)["settings"], settings) if name not in free
    ]
    if changed:
        raise ValueError(
            f"{out} was started with another {', '.join(changed)}: resume needs the same settings"
        )


def read_record(out: Path) -> dict[str, Any]:
    """Read run.json.

    Raises:
        ValueError: it is damaged.
    """
    record = read_json(out / "run.json")
    if not isinstance(record, dict) or "settings" not in record:
        raise ValueError(f"{out / 'run.json'} is not the record of a run: it has no settings")
    return record


def write_record(out: Path, name: str, settings: Mapping[str, Any], world: int) -> dict[str, Any]:
    """Record every setting, versions, the machine and git's state in run.json; on resuming, note when and by what."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    circumstances = {
        "at": now,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": _versions(),
        "git": _git_state(),
    }
    out.mkdir(parents=True, exist_ok=True)
    if (out / "run.json").exists():
        record = read_record(out)
        record["resumed"] = [*record.get("resumed", []), circumstances]
    else:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "processes": world,
        }
        if torch.cuda.is_available():
            machine["accelerator"] = torch.cuda.get_device_name()
        record = {
            "format": _FORMAT,
            "name": name,
            **circumstances,
            "machine": machine,
            "settings": dict(settings),
        }
    replace_text(out / "run.json", json.dumps(record, indent=2) + "\n")
    return record


def save_state(out: Path, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write the state after STEP steps, then remove all but the last two."""
    folder = out / "state" / f"step-{step:08d}"
    # Copies, because safetensors refuses tensors that share memory and those in channels-last order.
    order = torch.contiguous_format
    copies = {
        name: tensor.detach().cpu().clone(memory_format=order) for name, tensor in tensors.items()
    }
    remove_leftovers(folder.parent)
    with writing(folder), unfinished_folder(folder.parent) as unfinished:
        save_file(copies, unfinished / "tensors.safetensors")
        (unfinished / "state.json").write_text(
            json.dumps({"format": _FORMAT, "step": step}), encoding="utf-8"
        )
        for file in unfinished.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        replace_folder(unfinished, folder)
    for old in _states(out)[:-_KEPT]:
        shutil.rmtree(old)


def load_state(out: Path) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Read the newest state, if there is one: the steps done, and its tensors.

    Raises:
        ValueError: it is of a later format or damaged.
    """
    states = _states(out)
    if not states:
        return None
    state = read_json(states[-1] / "state.json")
    if state["format"] != _FORMAT:
        raise ValueError(f"{states[-1]} has format {state['format']}; this version reads {_FORMAT}")
    path = states[-1] / "tensors.safetensors"
    try:
        return state["step"], load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged: {error}; without {states[-1]} a run goes on from the state before"
        ) from error


def _states(out: Path) -> list[Path]:
    return sorted((out / "state").glob("step-*"))


def _versions() -> dict[str, str]:
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name}
    return {"python": platform.python_version()} | {
        name: installed[name.lower()] for name in _PACKAGES if name.lower() in installed
    }


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this code lies in and whether it was changed since; None outside one."""
    here = Path(__file__).parents[1]
    try:
        commit, changes = (
            subprocess.run(
                ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": bool(changes)}
