"""Extras: the list of their modules, and what commands say where they are missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bare_environment
from maskfree.config import extras

ROOT = Path(__file__).parents[1]
MODULES = {"faiss-cpu": "faiss", "open-clip-torch": "open_clip", "scikit-image": "skimage"}
"""Those that bear another name than the package which brings them."""


def module_of(requirement: str) -> str:
    name = re.sub(r"[-_.]+", "-", re.split(r"[><=\[ ]", requirement)[0]).lower()
    return MODULES.get(name, name.replace("-", "_"))


def test_the_extras_are_those_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for extra, names in extras.EXTRAS.items():
        assert sorted(map(module_of, declared[extra])) == sorted(names)
    assert set(declared) - set(extras.EXTRAS) == {"docs", "test", "dev"}
    assert {
        module for names in extras.EXTRAS.values() for module in names
    } <= bare_environment.HIDDEN


@pytest.mark.parametrize(
    ("missing", "named", "said"),
    [
        ({"webdataset"}, ("train",), "it needs webdataset: pip install 'maskfree[train]'"),
        (
            {"higra", "webdataset"},
            ("train", "regions"),
            "it needs webdataset, higra: pip install 'maskfree[train,regions]'",
        ),
        ({"scipy"}, ("train", "video"), "it needs scipy: pip install 'maskfree[train]'"),
    ],
)
def test_a_missing_module_names_its_extra(
    missing: set[str], named: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        extras.need("it", *named)
    extras.need("it", *named, modules=("tensorboard",))


def test_every_command_without_the_extras():
    ran = subprocess.run(
        [sys.executable, bare_environment.__file__, "--hide-extras"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
