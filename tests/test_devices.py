"""Which device a network runs on."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskfree import devices
from maskfree.cli import main
from maskfree.hub import checkpoint, loading

WITH_A_DEVICE = {
    "segment": ("photo.png", "--words", "dog", "grass"),
    "track": (".", "--words", "dog", "grass"),
    "search": ("dog", "photo.png"),
    "evaluate": ("folder", "--data", "data"),
    "evaluate knn": ("folder", "--data", "data"),
    "prepare teacher": (".", "--out", "teacher"),
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(2, True)` has two GPUs, and Apple's."""

    def make(gpus: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("gpus", "mps", "chosen"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda")]
)
def test_auto_is_the_fastest_that_is_there(machine, gpus: int, mps: bool, chosen: str):
    machine(gpus, mps)
    assert devices.resolve() == devices.resolve("auto") == chosen


def test_devices_that_are_there_keep_their_name(machine):
    machine(2, True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps", "mps:0", "cpu:0"):
        assert devices.resolve(name) == devices.resolve(torch.device(name)) == name


def test_a_missing_device_is_said_with_those_that_are_there(machine):
    machine(2, False)
    for name in ("cuda:2", "mps", "meta", "CPU", "auto:0", "xla"):
        with pytest.raises(
            ValueError, match=r"is not there: choose from auto, cuda:0, cuda:1, cpu$"
        ):
            devices.resolve(name)


@pytest.mark.parametrize("load", [loading.load, checkpoint.load])
def test_auto_is_the_default(load):
    assert inspect.signature(load).parameters["device"].default == "auto"


@pytest.mark.parametrize("device", ["meta", "cuda:99", "nonsense"])
@pytest.mark.parametrize("command", WITH_A_DEVICE)
def test_every_command_lists_the_devices(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    photo,
    command: str,
    device: str,
):
    monkeypatch.chdir(tmp_path)
    photo().save("photo.png")
    folder = tmp_path / "data"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Image.new("L", (9, 7)).save(folder / part / name)
    (folder / "classes.txt").write_text("dog\ngrass\n")

    arguments: Sequence[str] = (*command.split(), *WITH_A_DEVICE[command], "--device", device)
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    there = ", ".join(("auto", *devices.available()))
    assert capsys.readouterr().err == (
        f"maskfree: error: the device {device!r} is not there: choose from {there}\n"
    )
