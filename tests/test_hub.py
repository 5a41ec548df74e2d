from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import maskfree
from maskfree import hub
from maskfree.nn.pretrained import FrozenBatchNorm


def test_folder_becomes_a_segmenter(tiny_checkpoint: Path, photo):
    segmenter = hub.load(tiny_checkpoint)
    assert segmenter.name == "tiny"
    assert segmenter.templates == ("a photo of a {}",)
    assert len(segmenter.weights_hash) == 64
    result = segmenter.with_words(["dog", "grass"])(photo((83, 57)))
    assert result.record["model"] == {"name": "tiny", "weights_sha256": segmenter.weights_hash}
    assert hub.load(str(tiny_checkpoint)).weights_hash == segmenter.weights_hash


def test_batch_norms_are_folded(tiny_checkpoint: Path):
    modules = list(hub.load(tiny_checkpoint).method.modules())
    assert any(isinstance(module, torch.nn.Conv2d) for module in modules)
    assert not any(isinstance(module, FrozenBatchNorm) for module in modules)


def test_unknown_model():
    with pytest.raises(FileNotFoundError, match="the model 'pockett' is unknown: pocket, or a checkpoint's folder"):
        hub.load("pockett")


def test_folder_without_a_checkpoint(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint: it has no"):
        hub.load(tmp_path)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", ""])
def test_unknown_device(tiny_checkpoint: Path, device: str):
    with pytest.raises(ValueError, match="is not there: cpu, cuda or cuda:N"):
        hub.load(tiny_checkpoint, device)


def test_package_offers_the_main_names():
    assert maskfree.load is hub.load
    assert {maskfree.Segmenter.__name__, maskfree.Segmentation.__name__} == {"Segmenter", "Segmentation"}
    assert maskfree.__version__.count(".") == 2
    assert set(maskfree.__all__) <= set(dir(maskfree))
    with pytest.raises(AttributeError, match="has no attribute 'segmenter'"):
        _ = maskfree.segmenter


def test_importing_the_package_imports_nothing_heavy():
    code = "import maskfree, sys; assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not (Path(hub.__file__).parent / "pocket" / "run.json").is_file(), reason="no bundled model yet")
def test_bundled_model_is_small_and_named():
    folder = Path(hub.__file__).parent / "pocket"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 32e6
    assert hub.load().name == "pocket"
