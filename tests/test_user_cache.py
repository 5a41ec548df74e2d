"""Where what can be computed again is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maskfree.files.user_cache import cache_folder


def test_the_variable_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MASKFREE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


@pytest.mark.skipif(sys.platform != "linux", reason="the places of Linux")
def test_without_it_the_place_is_the_system_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("MASKFREE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "maskfree"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/maskfree"
