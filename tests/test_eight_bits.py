"""Runtimes with fewer bits: ranges of inputs, their rounding, and who may ask for them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import maskfree
from maskfree.cli import main
from maskfree.cli.common import Execution
from maskfree.inference.runtimes import choice
from maskfree.inference.runtimes.eight_bits import checked_ranges, input_ranges, with_zero
from maskfree.inference.runtimes.sessions import OpenVinoBf16Session, OpenVinoInt8Session

RANGES = {"first": (-0.3, 1.9), "last": (0.0, 3.0)}


class Small(nn.Module):
    """An image side of a convolution, a depthwise one and one more."""

    patch_size = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.between = nn.Conv2d(6, 6, 3, groups=6, padding=1)
        self.last = nn.Conv2d(6, 5, 1)
        # A channel without weights has no range of its own.
        with torch.no_grad():
            self.last.weight[2].zero_()

    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.last(self.between(F.relu(self.first(images)))),)


@pytest.mark.parametrize("ends", [(-1.0, 2.0), (0.0, 6.0), (0.5, 6.0), (-3.0, -1.0), (-1e-3, 80.0)])
def test_zero_is_a_level_of_a_range_as_wide_as_the_given_one_with_zero(ends):
    low, high = with_zero(*ends)
    step = (high - low) / 255
    assert low <= 0 <= high and low / step == pytest.approx(round(low / step), abs=1e-6)
    wanted = min(ends[0], 0.0), max(ends[1], 0.0)
    assert high - low == pytest.approx(wanted[1] - wanted[0])
    assert abs(low - wanted[0]) <= 0.5 * step + 1e-9


def test_ranges_are_means_over_batches_of_all_but_depthwise_inputs():
    method, batches = Small(), [torch.rand(2, 3, 8, 12), 3 * torch.rand(1, 3, 16, 8) - 1]
    found = input_ranges(cast(Any, method), batches)
    assert set(found) == {"first", "last"}
    with torch.no_grad():
        inner = [method.between(F.relu(method.first(batch))) for batch in batches]
    for name, inputs in (("first", batches), ("last", inner)):
        wanted = [
            np.mean([float(getattr(each, end)()) for each in inputs]) for end in ("min", "max")
        ]
        assert found[name] == pytest.approx(tuple(wanted), rel=1e-5)
    assert not method.first._forward_pre_hooks


@pytest.mark.parametrize("pair", [(1, 1), (2, 1), [0], [0, 1, 2], None, ["a", 1], [0, np.inf]])
def test_what_is_no_range_is_refused(pair):
    assert checked_ranges({"good": [-1, 2.5]}) == {"good": (-1.0, 2.5)}
    with pytest.raises(
        ValueError, match=r"the range 'bad' is .*: two numbers, the smaller one first"
    ):
        checked_ranges({"good": [0, 1], "bad": pair})


def rounded(values: Tensor, low: Tensor | float, high: Tensor | float, levels: int) -> Tensor:
    """The closest of LEVELS numbers between LOW and HIGH."""
    step = (torch.as_tensor(high) - low) / (levels - 1)
    return (
        (values.clamp(torch.as_tensor(low), torch.as_tensor(high)) - low) / step
    ).round() * step + low


def in_plain_steps(method: Small, images: Tensor) -> Tensor:
    """`Small.look` with rounded inputs and weights, in torch."""

    def convolved(name: str, inputs: Tensor) -> Tensor:
        layer = getattr(method, name)
        largest = layer.weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-9)
        weights = rounded(layer.weight, -largest, largest, 255)
        inputs = rounded(inputs, *with_zero(*RANGES[name]), 256)
        return F.conv2d(inputs, weights, layer.bias, padding=layer.padding)

    return convolved("last", method.between(F.relu(convolved("first", images))))


@pytest.mark.slow
@torch.inference_mode()
def test_eight_bits_are_rounded_inputs_and_weights(tmp_path: Path):
    pytest.importorskip("openvino", reason="openvino, of the extra `openvino`, is not installed")
    from maskfree.inference.runtimes.export import export

    method, images = Small().eval(), 2 * torch.rand(2, 3, 8, 16) - 0.2
    export(cast(Any, method), tmp_path / "small.onnx", {})
    (exact,) = method.look(images)
    plain = in_plain_steps(method, images)
    assert (plain - exact).abs().max() > 1e-3, "8 bits show"

    (found,) = OpenVinoInt8Session(tmp_path / "small.onnx", RANGES)(images)
    # Depthwise layers may compute in bf16, whose eight bits move values by a step here and there.
    assert_close(found, plain, atol=0.02, rtol=0.02)
    assert (found - plain).abs().mean() < 0.5 * (plain - exact).abs().mean()
    (halved,) = OpenVinoBf16Session(tmp_path / "small.onnx")(images)
    assert_close(halved, exact, atol=0.02, rtol=0.02)

    with pytest.raises(ValueError, match="has no layer 'other': it has no 8-bit form"):
        OpenVinoInt8Session(tmp_path / "small.onnx", {**RANGES, "other": (0, 1)})(images)


def test_a_session_is_pickled_with_its_ranges():
    again = pickle.loads(pickle.dumps(OpenVinoInt8Session(Path("a.onnx"), RANGES)))
    assert (again.path, again.input_ranges, again.name) == (Path("a.onnx"), RANGES, "openvino-int8")


def test_a_model_without_ranges_has_no_eight_bit_form(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "need_runtime", lambda _: None)
    with pytest.raises(ValueError, match=r"no 8-bit form: its run\.json stores no input_ranges"):
        choice.choose("openvino-int8", cast(Any, Small()), "hash", torch.device("cpu"))


def test_the_bundled_model_stores_the_ranges_of_all_its_layers():
    model = maskfree.load("pocket", "cpu")
    found = input_ranges(model.method, [torch.rand(1, 3, 64, 96)])
    assert set(model.input_ranges) == set(found) and len(found) > 90


def test_ranges_of_a_checkpoint_are_checked(tiny_checkpoint: Path):
    place = tiny_checkpoint / "run.json"
    run = json.loads(place.read_text())
    place.write_text(json.dumps(run | {"input_ranges": {"a.layer": [0, 2]}}))
    assert maskfree.load(tiny_checkpoint, "cpu").input_ranges == {"a.layer": (0.0, 2.0)}
    place.write_text(json.dumps(run | {"input_ranges": {"a.layer": [2, 0]}}))
    with pytest.raises(ValueError, match=r"unusable input_ranges: the range 'a\.layer' is"):
        maskfree.load(tiny_checkpoint, "cpu")
    place.write_text(json.dumps(run | {"input_ranges": [1]}))
    with pytest.raises(
        ValueError, match=r"not a checkpoint's: wrong value type for field .input_ranges"
    ):
        maskfree.load(tiny_checkpoint, "cpu")


def status(arguments: list[str]) -> object:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code


def test_fast_is_the_runtime_in_eight_bits(monkeypatch: pytest.MonkeyPatch, capsys):
    asked = []
    monkeypatch.setattr("maskfree.cli.common.need_runtime", asked.append)
    assert Execution(fast=True).chosen_runtime() == "openvino-int8"
    assert Execution(runtime="openvino-int8", fast=True).chosen_runtime() == "openvino-int8"
    assert Execution(runtime="torch").chosen_runtime() == "torch"
    assert Execution().chosen_runtime() == "auto"
    assert asked == ["openvino-int8", "openvino-int8", "torch", "auto"]
    assert status(["segment", "a.jpg", "--words", "sky", "--fast", "--runtime", "onnx"]) == 2
    assert "--fast is --runtime openvino-int8: leave --runtime onnx out" in capsys.readouterr().err


@pytest.mark.slow
def test_fast_labels_of_the_bundled_model_are_mostly_those_of_torch(tmp_path: Path, monkeypatch):
    pytest.importorskip("openvino", reason="openvino, of the extra `openvino`, is not installed")
    monkeypatch.setenv("MASKFREE_CACHE", str(tmp_path / "cache"))
    photo = str(Path(__file__).parents[1] / "examples" / "pagoda.jpg")
    words = ["--words", "building", "sky", "tree"]
    for name, option in (("exact", ["--runtime", "torch"]), ("fast", ["--fast"])):
        assert status(["segment", photo, *words, *option, "--out", str(tmp_path / name)]) == 0
    record = json.loads((tmp_path / "fast" / "pagoda.json").read_text())
    assert record["runtime"] == "openvino-int8"
    exact, fast = (
        np.asarray(Image.open(tmp_path / name / "pagoda.png")) for name in ("exact", "fast")
    )
    assert 0.9 < np.mean(exact == fast) < 1
