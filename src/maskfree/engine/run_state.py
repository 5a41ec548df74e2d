"""Run folder: the run.json record, and training states that are written atomically."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from maskfree.engine.circumstances import git_state, versions
from maskfree.files.atomic import read_json, replace_text
from maskfree.files.leftovers import remove_leftovers, replace_folder, unfinished_folder, writing
from maskfree.run_dir import differences, refuse_changes

_FORMAT = 1
# Stands for the value of a setting that a run does not know.
_UNKNOWN = object()
# The older state is a fallback if the newest one is damaged.
_KEPT = 2


def settings_of(recipe: Any) -> dict[str, Any]:
    """Convert a config dataclass to plain JSON values.

    Args:
        recipe: Config dataclass; configs inside it are converted too.

    Returns:
        Nested dicts and lists; each config has its class name under "class".
    """
    return json.loads(json.dumps(_spelled(recipe)))


def _spelled(value: Any) -> Any:
    """Convert dataclasses, mappings and sequences to dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        spelled = {"class": type(value).__name__}
        for field in dataclasses.fields(value):
            spelled[field.name] = _spelled(getattr(value, field.name))
        return spelled

    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}

    if isinstance(value, tuple | list):
        return [_spelled(item) for item in value]

    return value


def check_run(
    out: Path, settings: Mapping[str, Any], free: Sequence[str], resume: bool
) -> dict[str, tuple[Any, Any]]:
    """Check that a run may start in a folder, or resume there.

    Args:
        out: Folder of the run.
        settings: Settings of the run, as `settings_of` gives them.
        free: Dotted names of settings, or of groups of them, that may change on resuming.
        resume: Whether to resume the run in the folder.

    Returns:
        Settings that change on resuming: their values before and now, by dotted name.

    Raises:
        ValueError: The folder holds a run already, a run with other settings, or nothing to resume.
    """
    record = out / "run.json"
    if not record.exists():
        if resume:
            raise ValueError(f"nothing to resume in {out}: it holds no run.json")
        # Files of something else must not be overwritten.
        for name in ("model", "best", "milestones", "state", "metrics.jsonl"):
            if (out / name).exists():
                raise ValueError(
                    f"{out / name} exists, and is no part of a run: give another --out"
                )
        return {}

    if not resume:
        raise ValueError(
            f"{out} holds a run already: continue it with --resume, or give another --out"
        )

    before = read_record(out)["settings"]
    changed = {}
    for name in differences(before, settings):
        values = _value(before, name), _value(settings, name)
        # A setting that is newer than the run has no value before.
        if values[0] is not _UNKNOWN:
            changed[name] = values

    # Resuming needs the same settings, but for the free ones.
    refuse_changes(out, [name for name in changed if not _is_free(name, free)])
    return changed


def _value(settings: Mapping[str, Any], name: str) -> Any:
    """Value of a setting by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _UNKNOWN
        value = value[part]
    return value


def _is_free(name: str, free: Sequence[str]) -> bool:
    """Whether a setting, or a group that it belongs to, may change."""
    return any(name == each or name.startswith(f"{each}.") for each in free)


def read_record(out: Path) -> dict[str, Any]:
    """Read run.json.

    Args:
        out: Folder of the run.

    Returns:
        The record, with at least the key "settings".

    Raises:
        ValueError: The file is damaged.
    """
    record = read_json(out / "run.json")
    if not isinstance(record, dict) or "settings" not in record:
        raise ValueError(f"{out / 'run.json'} is not the record of a run: it has no settings")
    return record


def write_record(
    out: Path,
    name: str,
    settings: Mapping[str, Any],
    world: int,
    step: int = 0,
    changed: Mapping[str, tuple[Any, Any]] | None = None,
) -> dict[str, Any]:
    """Write run.json: settings, package versions, machine and git state.

    On resuming, the time, command, versions, number of processes and changed settings are appended
    to the existing record, whose settings become those of now.

    Args:
        out: Folder of the run.
        name: Name of the run's model.
        settings: Settings of the run, as `settings_of` gives them.
        world: Number of processes.
        step: Number of steps completed before this start.
        changed: Values before and now of the settings that change on resuming, by dotted name.

    Returns:
        The record as written.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    circumstances = {
        "at": now,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git": git_state(),
    }

    out.mkdir(parents=True, exist_ok=True)

    # A resumed run keeps its first record and lists the later starts.
    if (out / "run.json").exists():
        record = read_record(out)
        circumstances |= {"step": step, "processes": world, "changed": dict(changed or {})}
        record["resumed"] = [*record.get("resumed", []), circumstances]
        record["settings"] = dict(settings)
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
    """Write a training state, then remove all states but the last two.

    Args:
        out: Folder of the run.
        step: Number of steps completed.
        tensors: Everything that resuming needs, by name.
    """
    folder = out / "state" / f"step-{step:08d}"

    # Copies: safetensors refuses tensors that share memory or are in channels-last order.
    order = torch.contiguous_format
    copies = {
        name: tensor.detach().cpu().clone(memory_format=order) for name, tensor in tensors.items()
    }

    remove_leftovers(folder.parent)
    # The folder gets its name only once it is complete.
    with writing(folder), unfinished_folder(folder.parent) as unfinished:
        save_file(copies, unfinished / "tensors.safetensors")
        (unfinished / "state.json").write_text(
            json.dumps({"format": _FORMAT, "step": step}), encoding="utf-8"
        )

        # A state must be on disk before older ones are removed.
        for file in unfinished.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        replace_folder(unfinished, folder)

    for old in _states(out)[:-_KEPT]:
        shutil.rmtree(old)


def load_state(out: Path) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Read the newest training state.

    Args:
        out: Folder of the run.

    Returns:
        Number of steps completed and the tensors by name; None if there is no state.

    Raises:
        ValueError: The state is damaged or has an unknown format.
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
    """Folders of the saved states, oldest first."""
    return sorted((out / "state").glob("step-*"))
