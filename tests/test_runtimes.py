"""Runtimes of the image side: the exported network, its choice, and what is refused."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import maskfree
from maskfree.inference.runtimes import choice
from maskfree.inference.runtimes.sessions import OnnxSession, OpenVinoSession, Session
from maskfree.nn.dense_clip_config import PRESETS, PROXY, DenseClipConfig, LastBlock
from tiny import (
    TINY_CLIP_VISION,
    TINY_IMAGE,
    TINY_TAG_SCORES,
    spread_out,
    tiny_maskclip_config,
    tiny_vilseg_config,
)

ROOT = Path(__file__).parents[1]
WORDS = ["dog", "grass", "red sofa"]


@pytest.fixture(params=[False, True], ids=["embedding", "tag scores"])
def method(request):
    torch.manual_seed(3)
    scores = TINY_TAG_SCORES if request.param else None
    return spread_out(tiny_vilseg_config(vision=None, tag_scores=scores).build().eval())


@torch.inference_mode()
def test_an_image_side_and_a_comparison_are_the_whole(method):
    images = torch.rand(2, 3, 48, 80)
    words = torch.nn.functional.normalize(torch.randn(5, method.group(images).embeddings.shape[2]))
    seen = method.look(images)
    assert len(seen) == (1 if method.tag_scores is None else 3)
    read = method.read_words(words)
    assert torch.equal(method.compare(seen, read, (48, 80)), method.segment(images, words))
    assert torch.equal(method.groups_of(seen[:1]).embeddings, method.group(images).embeddings)


@pytest.mark.slow
def test_an_export_gives_what_torch_gives_for_other_sizes(method, tmp_path: Path):
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra `fast`, is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime, of `fast`, is not installed")
    from maskfree.inference.runtimes.export import INPUT, export

    path = tmp_path / "tiny.onnx"
    assert export(method, path, {"model": "tiny"}) < 1e-4
    images = torch.rand(3, 3, 112, 64)
    with torch.inference_mode():
        expected = method.look(images)
    sessions: list[Session] = [OnnxSession(path)]
    if choice.find_spec("openvino") is not None:
        sessions.append(OpenVinoSession(path))
    for session in sessions:
        for found, other in zip(session(images), expected, strict=True):
            assert_close(found, other, atol=1e-4, rtol=1e-4)
        (embedded,) = session.embed(images)
        assert_close(embedded, expected[0], atol=1e-4, rtol=1e-4)

    about = {each.key: each.value for each in onnx.load(path).metadata_props}["maskfree"]
    assert json.loads(about)["patch_px"] == 16 and json.loads(about)["model"] == "tiny"
    assert onnx.load(path).graph.input[0].name == INPUT
    assert list(tmp_path.glob("*")) == [path] or len(sessions) == 2


@pytest.fixture(params=[None, 0.9], ids=["cosines", "smoothed by keys"])
def clip(request):
    torch.manual_seed(3)
    image = DenseClipConfig(
        architecture={**TINY_CLIP_VISION, "projection_dim": 18},
        last_block=PRESETS["naclip"],
        positions="factor",
    )
    config = tiny_maskclip_config(image=image, prompt_denoise=0.3, key_smoothing=request.param)
    return config.build().eval()


@torch.inference_mode()
def test_the_image_side_of_a_clip_and_a_comparison_are_the_whole(clip):
    images = torch.rand(2, 3, 48, 80)
    words = torch.nn.functional.normalize(torch.randn(5, 18))
    whole = clip.segment(images, words)
    seen = clip.look(images)
    assert torch.equal(clip.compare(seen, clip.read_words(words), (48, 80)), whole)
    assert torch.equal(clip.groups_of(seen[:1]).embeddings, clip.group(images).embeddings)
    assert (whole == -1).any() and (whole != -1).any(), "some words are dropped"

    groups, again = clip.group(images), clip.groups_of(clip.look(images)[:1])
    assert torch.equal(again.embeddings, groups.embeddings)
    assert torch.equal(again.overall, groups.overall)


@pytest.mark.slow
@torch.inference_mode()
def test_an_exported_clip_gives_what_torch_gives_on_its_own_grid_too(clip, tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of `fast`, is not installed")
    from maskfree.inference.runtimes.export import export

    path = tmp_path / "clip.onnx"
    assert export(clip, path, {}) < 1e-4
    # Positions are resized to all sizes but the one that they were trained for.
    size, patch = TINY_CLIP_VISION["image_size"], clip.patch_size
    session = OnnxSession(path)
    for height, width in ((size, size), (size, size + 3 * patch), (size - patch, size)):
        images = torch.rand(2, 3, height, width)
        for found, other in zip(session(images), clip.look(images), strict=True):
            assert_close(found, other, atol=1e-4, rtol=1e-4)


class _Sized(torch.nn.Module):
    """An image side that works for photos of one size alone."""

    patch_size = 4

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (images + torch.ones(88, 124),)


@pytest.mark.slow
def test_a_network_for_photos_of_one_size_is_refused(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of `fast`, is not installed")
    from maskfree.inference.runtimes.export import export

    with pytest.raises(ValueError, match="_Sized of these settings cannot be exported"):
        export(cast(Any, _Sized()), tmp_path / "sized.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("last_block", [PROXY, LastBlock("qk", stitch_px=32)])
def test_a_clip_that_depends_on_sizes_has_no_image_side(last_block):
    image = DenseClipConfig(
        architecture={**TINY_CLIP_VISION, "projection_dim": 18}, last_block=last_block
    )
    proxy = TINY_IMAGE if last_block is PROXY else None
    clip = tiny_maskclip_config(image=image, proxy=proxy).build()
    with pytest.raises(ValueError, match="has no image side of its own: only torch runs it"):
        clip.look(torch.rand(1, 3, 64, 64))


class _Doubled(Session):
    """A runtime whose image side differs, so that it shows where it is used."""

    name = "onnx"

    def _open(self, *, embedding):
        def run(images: np.ndarray) -> list[np.ndarray]:
            size = (len(images), 18, images.shape[2] // 16, images.shape[3] // 16)
            return [np.random.default_rng(int(embedding)).normal(size=size).astype(np.float32)]

        return run


def test_a_segmenter_uses_its_session_for_float32_alone(tiny_checkpoint: Path, photo):
    model = maskfree.load(tiny_checkpoint, "cpu").with_words(WORDS)
    assert model.embeddings is not None
    assert model.embeddings.shape[1] == 18, "the size in _Doubled"
    other = replace(model, session=_Doubled(Path("none")))
    assert model.runtime == "torch" and other.runtime == "onnx"
    result = other(photo())
    assert result.record["runtime"] == "onnx"
    assert (result.labels != model(photo()).labels).any()

    halved = model.inference.changed(precision="bfloat16")
    assert np.array_equal(
        other.with_inference(halved)(photo()).labels, model.with_inference(halved)(photo()).labels
    )


def test_embeddings_of_patches_come_from_the_first_output_of_a_session(
    tiny_checkpoint: Path, photo
):
    model = maskfree.load(tiny_checkpoint, "cpu")
    model = model.with_inference(model.inference.changed(grouping="pixels"))
    other = replace(model, session=_Doubled(Path("none")))
    found, own = other.embed_image(photo()), model.embed_image(photo())
    assert found.values.shape == own.values.shape and found.extent == own.extent
    expected = np.random.default_rng(1).normal(size=(1, *found.values.shape)).astype(np.float32)
    assert_close(found.values, torch.nn.functional.normalize(torch.from_numpy(expected[0]), dim=0))

    halved = model.inference.changed(precision="bfloat16")
    assert other.with_inference(halved).runtime == "torch"
    assert_close(
        other.with_inference(halved).embed_image(photo()).values,
        model.with_inference(halved).embed_image(photo()).values,
    )


def test_a_session_is_pickled_as_its_file():
    session = _Doubled(Path("some.onnx"))
    session(torch.rand(1, 3, 16, 16))
    again = pickle.loads(pickle.dumps(session))
    assert again.path == Path("some.onnx")
    assert torch.equal(again(torch.rand(1, 3, 32, 16))[0], session(torch.rand(1, 3, 32, 16))[0])


@pytest.mark.parametrize(
    ("name", "device", "cache", "said"),
    [
        ("onnx", "cpu", "off", "keeps the exported network in the user's cache"),
        ("onnx", "meta", "here", "runs on the CPU, not on meta"),
    ],
)
def test_what_cannot_run_is_refused(
    name, device, cache, said, method, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(choice, "need_runtime", lambda _: None)
    monkeypatch.setenv("MASKFREE_CACHE", cache)
    with pytest.raises(ValueError, match=said):
        choice.choose(name, method, "hash", torch.device(device))


def test_auto_takes_the_fastest_installed_where_the_network_is_exported(
    method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MASKFREE_CACHE", str(tmp_path))
    installed = {"onnxruntime", "openvino"}
    monkeypatch.setattr(choice, "find_spec", lambda name: name if name in installed else None)

    def chosen(model_hash: str = "one", device: str = "cpu") -> str | None:
        session = choice.choose("auto", method, model_hash, torch.device(device))
        return session and session.name

    assert chosen() is None
    path = choice._path("one")
    path.parent.mkdir()
    path.write_bytes(b"network")
    assert chosen() == "openvino"
    assert chosen("other") is None and chosen("") is None and chosen(device="meta") is None
    assert choice.choose("torch", method, "one", torch.device("cpu")) is None
    installed.remove("openvino")
    assert chosen() == "onnx"
    installed.clear()
    assert chosen() is None


def test_few_exported_networks_are_kept(tmp_path: Path):
    import os

    for number in range(10):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(b"network")
        os.utime(path, (number, number))
        path.with_suffix(".openvino").mkdir()
        (path.with_suffix(".openvino") / "compiled").write_bytes(b"x")
    choice._remove_oldest(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{n}.{kind}" for n in range(2, 10) for kind in ("onnx", "openvino")}


def test_a_method_without_an_image_side_says_so():
    from tiny import tiny_groupvit_config

    with pytest.raises(ValueError, match="GroupViT has no image side of its own: only torch"):
        tiny_groupvit_config().build().look(torch.rand(1, 3, 32, 32))


def run_the_example(folder: Path, network: Path) -> np.ndarray:
    """Run the example of the docs beside a network, words and a photo; return its labels."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (example,) = [block for block in blocks if "onnxruntime" in block]
    assert "torch" not in example

    shutil.copy(network, folder / "pocket.onnx")
    shutil.copy(ROOT / "examples" / "pagoda.jpg", folder / "photo.jpg")
    model = maskfree.load("pocket", "cpu")
    np.save(folder / "words.npy", model.embed_text(["sky", "tree", "building"]).numpy())
    report = (
        f"{example}\nnumpy.save('labels.npy', labels)\n"
        "import sys\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", report], check=True, cwd=folder)
    return np.load(folder / "labels.npy")


@pytest.mark.slow
@torch.inference_mode()
def test_the_example_without_torch_gives_the_labels_of_cosines(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of `fast`, is not installed")
    from maskfree.inference.runtimes.export import export

    model = maskfree.load("pocket", "cpu")
    export(model.method, tmp_path / "network.onnx", {})
    labels = run_the_example(tmp_path, tmp_path / "network.onnx")

    photo = Image.open(ROOT / "examples" / "pagoda.jpg").convert("RGB").resize((512, 384))
    image = torch.from_numpy(np.asarray(photo, np.float32)).permute(2, 0, 1)[None] / 255
    words = model.embed_text(["sky", "tree", "building"])
    groups = model.method.group(image)
    cosines = groups.spread(groups.embeddings @ words.T)
    assert np.mean(labels == cosines[0].argmax(0).numpy()) > 0.999
    assert len(np.unique(labels)) == 3
