"""What a run's record says of the code: versions and the state of the repository."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

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


def versions() -> dict[str, str]:
    """Read the versions of Python and of the packages that a training depends on.

    Returns:
        Version by name of what is installed.
    """
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name}
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        if name.lower() in installed:
            versions[name] = installed[name.lower()]
    return versions


def git_state() -> dict[str, Any] | None:
    """Read the state of this code's repository.

    Returns:
        Commit, and whether files changed since; None outside a checkout.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return None

    return {"commit": commit, "changed": bool(changes)}


def _git(*arguments: str) -> str:
    """Output of a git command in the folder of this code."""
    here = Path(__file__).parents[1]
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()
