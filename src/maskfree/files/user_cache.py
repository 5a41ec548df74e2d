"""The folder for what can be computed again: text embeddings, search indexes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "MASKFREE_CACHE"
"""Environment variable that names another folder, or switches the cache off."""
_OFF = ("off", "0", "none")


def is_off() -> bool:
    """Whether the user wants nothing to be kept.

    Returns:
        True if $MASKFREE_CACHE is off, 0 or none.
    """
    return os.environ.get(VARIABLE, "").casefold() in _OFF


def cache_folder() -> Path:
    """Return the user's cache folder of maskfree, which need not exist; deleting it is safe.

    Returns:
        $MASKFREE_CACHE if set, else the folder `maskfree` in the system's place for caches:
        $XDG_CACHE_HOME or ~/.cache, ~/Library/Caches on macOS, %LOCALAPPDATA% on Windows.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()

    if sys.platform == "win32":
        usual = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        usual = "~/Library/Caches"
    else:
        usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(usual).expanduser() / "maskfree"
