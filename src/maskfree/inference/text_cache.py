"""Text embeddings kept on disk between processes, exact by construction.

One file holds the embeddings of one list of phrases. Its name is a hash of everything that the
numbers depend on, the whole list among it: the last bits of an embedding may depend on the texts
that were encoded beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from maskfree.files.atomic import replace_bytes
from maskfree.files.user_cache import cache_folder, is_off
from maskfree.ops import onednn

MAX_BYTES = 2**26
"""Size of all files together, in bytes; over it the files that were used longest ago go."""

_SUFFIX = ".embeddings"
_NAME = "embeddings"
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class TextCache:
    """Embeddings of lists of phrases by one text encoder on one device."""

    encoder: str
    """Hash of the weights, the settings and the tokenizer of the text encoder."""
    device: torch.device
    """Device that computes the embeddings."""

    def read(self, templates: Sequence[str], phrases: Sequence[str]) -> Float[Tensor, "k d"] | None:
        """Read the embeddings of a list of phrases.

        Args:
            templates: Prompt templates.
            phrases: All phrases that are embedded together.

        Returns:
            What `write` was given; None if there is no such file, or it is damaged.
        """
        if is_off():
            return None

        path = self._path(templates, phrases)
        try:
            content = path.read_bytes()
            # A time of use, so that files in use stay.
            os.utime(path)
        except OSError:
            return None

        digest, saved = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(saved).digest() != digest:
            return None
        try:
            return load(saved)[_NAME].to(self.device)
        except (SafetensorError, KeyError):
            return None

    def write(
        self,
        templates: Sequence[str],
        phrases: Sequence[str],
        embeddings: Float[Tensor, "k d"],
    ) -> None:
        """Keep the embeddings of a list of phrases; a full or read-only disk is no error.

        Args:
            templates: Prompt templates.
            phrases: All phrases that are embedded together.
            embeddings: Embedding of each phrase.
        """
        if is_off():
            return

        saved = save({_NAME: embeddings.cpu().contiguous()})
        if len(saved) > MAX_BYTES // 4:
            return
        path = self._path(templates, phrases)
        with suppress(OSError):
            replace_bytes(path, hashlib.sha256(saved).digest() + saved)
            _keep_within(path.parent, MAX_BYTES)

    def _path(self, templates: Sequence[str], phrases: Sequence[str]) -> Path:
        """File of a list of phrases."""
        subject = [
            self.encoder,
            str(self.device),
            *_circumstances(),
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            list(templates),
            list(phrases),
        ]
        if self.device.type == "cuda":
            subject.append(torch.cuda.get_device_name(self.device))
        name = hashlib.sha256(json.dumps(subject).encode()).hexdigest()
        return cache_folder() / "text" / (name + _SUFFIX)


@cache
def _circumstances() -> tuple[str, ...]:
    """Versions and processor, which may change the last bits of an embedding."""
    packages = ("maskfree", "torch", "transformers", "tokenizers")
    processor = (platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability())
    return (*map(version, packages), *processor, str(onednn.is_faster()))


def _keep_within(folder: Path, max_bytes: int) -> None:
    """Remove the files that were used longest ago until the rest fits."""
    files = []
    for path in folder.glob(f"*{_SUFFIX}"):
        # Another process may remove files at the same time.
        with suppress(FileNotFoundError):
            state = path.stat()
            files.append((state.st_mtime_ns, state.st_size, path))

    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
