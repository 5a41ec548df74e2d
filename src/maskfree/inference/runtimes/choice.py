"""Which runtime runs the image side of a model, and where its exported network is kept."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from maskfree.files.user_cache import VARIABLE, cache_folder, is_off
from maskfree.inference.runtimes.eight_bits import InputRanges
from maskfree.inference.runtimes.export import export
from maskfree.inference.runtimes.names import MODULES, RuntimeName, need_runtime
from maskfree.inference.runtimes.sessions import (
    OnnxSession,
    OpenVinoBf16Session,
    OpenVinoInt8Session,
    OpenVinoSession,
    Session,
)
from maskfree.method import Method

log = logging.getLogger(__name__)

_SESSIONS: dict[str, type[Session]] = {
    kind.name: kind
    for kind in (OnnxSession, OpenVinoSession, OpenVinoBf16Session, OpenVinoInt8Session)
}
# Those that give the labels of torch, the fastest first.
_ORDER = ("openvino", "onnx")
# Networks that are kept; the bundled model's has 45 MB.
_MAX_FILES = 8


def choose(
    name: RuntimeName,
    method: Method,
    model_hash: str,
    device: torch.device,
    input_ranges: InputRanges | None = None,
) -> Session | None:
    """Find the runtime of a model's image side.

    Args:
        name: Runtime; "auto": the fastest that is installed, if the network has been exported
            before.
        method: Method in eval mode.
        model_hash: Hash of its weights and settings; "" if they are not known.
        device: Device of the method.
        input_ranges: Ranges of the inputs of its layers, for "openvino-int8".

    Returns:
        The exported network; None for torch.

    Raises:
        ValueError: The runtime is not installed, cannot run the method, or the cache is off.
        OSError: The network cannot be written.
    """
    if name == "torch":
        return None
    if name == "auto":
        return _kept(model_hash, device)

    need_runtime(name)
    if name == "openvino-int8" and not input_ranges:
        raise ValueError(
            "the model has no 8-bit form: its run.json stores no input_ranges, "
            "which the bundled model's does"
        )
    if device.type != "cpu":
        raise ValueError(f"the runtime {name} runs on the CPU, not on {device}: add --device cpu")
    if is_off() or not model_hash:
        raise ValueError(
            f"the runtime {name} keeps the exported network in the user's cache, "
            f"which --no-cache or ${VARIABLE} switches off"
        )

    path = _path(model_hash)
    if not path.is_file():
        log.warning("the network is exported for other runtimes, once; this takes a minute or two")
        export(method, path, {"model_sha256": model_hash})
        _remove_oldest(path.parent)
    return _SESSIONS[name](path, input_ranges)


def _kept(model_hash: str, device: torch.device) -> Session | None:
    """The fastest installed runtime of a network that was exported before, if there is one."""
    if device.type != "cpu" or is_off() or not model_hash or not _path(model_hash).is_file():
        return None
    for name in _ORDER:
        if find_spec(MODULES[name]) is not None:
            return _SESSIONS[name](_path(model_hash))
    return None


def _path(model_hash: str) -> Path:
    """File of a model's exported network."""
    subject = [model_hash, version("maskfree"), version("torch")]
    name = hashlib.sha256(json.dumps(subject).encode()).hexdigest()
    return cache_folder() / "runtimes" / f"{name}.onnx"


def _remove_oldest(folder: Path) -> None:
    """Remove the networks that were exported longest ago."""
    newest_first = sorted(
        folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime_ns, reverse=True
    )
    for path in newest_first[_MAX_FILES:]:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            for compiled in path.with_suffix(".openvino").iterdir():
                compiled.unlink()
            path.with_suffix(".openvino").rmdir()
