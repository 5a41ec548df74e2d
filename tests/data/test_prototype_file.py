"""Prototypes in a file, and the segments that unknown classes start from."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.cache.prototypes import Prototypes

NAMES = ("dog", "sofa/couch", "ciel bleu/café")


def prototypes() -> Prototypes:
    return Prototypes(NAMES, *(F.normalize(torch.randn(n, 6), dim=1) for n in (5, 3, 11)))


def test_they_come_back(tmp_path):
    path, written = tmp_path / "new" / "p.safetensors", prototypes()
    written.write(path)
    read = Prototypes.read(path)
    assert read.names == NAMES and read.synonyms == (1, 2, 2)
    for name in ("phrases", "known", "pool"):
        assert_close(getattr(read, name), getattr(written, name), atol=0, rtol=0)


def test_unknown_classes_start_from_different_segments_by_seed():
    found = prototypes()
    first, again, other = (found.unknown(4, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    rows = (found.unknown(11, 5) @ found.pool.T).argmax(1)
    assert sorted(rows.tolist()) == list(range(11))
    assert found.unknown(0, 0).shape == (0, 6)


def test_fewer_segments_than_unknown_classes():
    with pytest.raises(
        ValueError, match="12 unknown classes start from as many segments: there are 11"
    ):
        prototypes().unknown(12, 0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"p\.safetensors is missing: `maskfree prepare prototypes`"
    ):
        Prototypes.read(tmp_path / "p.safetensors")


@pytest.mark.parametrize("content", [b"", b"junk" * 50, "cut"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "p.safetensors"
    prototypes().write(path)
    path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"p\.safetensors holds no prototypes") as caught:
        Prototypes.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "names"),
    [("known", json.dumps(NAMES)), ("", None), ("", "3"), ("", "{"), ("pool", json.dumps(NAMES))],
)
def test_a_file_of_something_else_is_refused(tmp_path, missing, names):
    tensors = {name: torch.rand(3, 4) for name in ("phrases", "known", "pool") if name != missing}
    save_file(tensors, tmp_path / "p.safetensors", None if names is None else {"names": names})
    with pytest.raises(ValueError, match="holds no prototypes"):
        Prototypes.read(tmp_path / "p.safetensors")
