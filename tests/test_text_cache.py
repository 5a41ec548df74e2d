"""Text embeddings kept on disk: exact, bounded, and never an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import maskfree
from maskfree.cli import main
from maskfree.inference import text_cache
from maskfree.inference.text_cache import TextCache

WORDS = ["dog", "sofa/couch", "grass"]
CPU = torch.device("cpu")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the embeddings."""
    monkeypatch.setenv("MASKFREE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def num_encoded(monkeypatch: pytest.MonkeyPatch):
    """Number of batches that text encoders were given."""
    from maskfree.nn.text_encoders import TextEncoder

    calls = []
    encode = TextEncoder.forward
    monkeypatch.setattr(
        TextEncoder, "forward", lambda self, tokens: calls.append(1) or encode(self, tokens)
    )
    return lambda: len(calls)


def test_the_second_run_encodes_nothing_and_is_bit_equal(
    kept: Path, tiny_checkpoint: Path, num_encoded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MASKFREE_CACHE", "off")
    expected = maskfree.load(tiny_checkpoint, "cpu").with_words(WORDS).embeddings
    assert not kept.exists() and num_encoded() == 1

    monkeypatch.setenv("MASKFREE_CACHE", str(kept.parent))
    for runs in (2, 2):
        found = maskfree.load(tiny_checkpoint, "cpu").with_words(WORDS).embeddings
        assert num_encoded() == runs
        assert torch.equal(found, expected)


def test_an_option_switches_the_cache_off(kept: Path, tmp_path: Path, tiny_checkpoint: Path):
    photo = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "green").save(photo)
    command = ["segment", str(photo), "--words", "dog", "cat", "car", "--model"]
    command += [str(tiny_checkpoint), "--quiet", "--out", str(tmp_path / "out")]

    for option, num_files in (("--no-cache", 0), ("--cache", 1)):
        # The option holds for its own process, which here is the one of all tests.
        os.environ["MASKFREE_CACHE"] = str(kept.parent)
        with pytest.raises(SystemExit) as done:
            main([*command, option])
        assert done.value.code == 0
        assert len(list(kept.glob("*"))) == num_files


@pytest.mark.parametrize(
    ("words", "templates"),
    [(["dog", "grass", "sky"], None), (["sofa/couch", "dog", "grass"], None), (WORDS, ["the {}"])],
)
def test_another_list_or_template_is_encoded(
    kept: Path, tiny_checkpoint: Path, num_encoded, words, templates
):
    model = maskfree.load(tiny_checkpoint, "cpu")
    model.with_words(WORDS)
    model.with_words(words, templates=templates)
    assert num_encoded() == 2
    assert len(list(kept.iterdir())) == 2


def test_other_weights_settings_or_tokenizer_never_share(kept: Path, saved, tiny_checkpoint: Path):
    hashes = {maskfree.load(tiny_checkpoint, "cpu").text_hash}
    for name, old, new in [
        ("run.json", '"pooling": "usual"', '"pooling": "first"'),
        ("tokenizer.json", '"max_length":32', '"max_length":31'),
    ]:
        path = tiny_checkpoint / name
        before = path.read_text()
        assert before.count(old) == 1
        path.write_text(before.replace(old, new))
        hashes.add(maskfree.load(tiny_checkpoint, "cpu").text_hash)
        path.write_text(before)
    assert len(hashes) == 3


@pytest.mark.parametrize("damage", [b"", b"x" * 10, None])
def test_a_damaged_file_is_ignored_and_replaced(
    kept: Path, tiny_checkpoint: Path, num_encoded, damage
):
    model = maskfree.load(tiny_checkpoint, "cpu")
    expected = model.with_words(WORDS).embeddings
    (path,) = kept.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    path.write_bytes(bytes(flipped) if damage is None else damage)
    assert torch.equal(model.with_words(WORDS).embeddings, expected)
    assert num_encoded() == 2
    assert path.read_bytes() == whole


def test_the_folder_is_bounded_and_the_oldest_go(kept: Path, monkeypatch: pytest.MonkeyPatch):
    cache, size = TextCache("e", CPU), 4 * 100 * 10 + 200
    monkeypatch.setattr(text_cache, "MAX_BYTES", 5 * size)
    for number in range(4):
        cache.write(["{}"], [f"word {number}"], torch.full((10, 100), float(number)))
        for path in kept.iterdir():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))

    # Reading makes the first file the newest.
    assert cache.read(["{}"], ["word 0"]) is not None
    for number in (4, 5):
        cache.write(["{}"], [f"word {number}"], torch.full((10, 100), float(number)))
    found = [cache.read(["{}"], [f"word {number}"]) is not None for number in range(6)]
    assert found == [True, False, True, True, True, True]
    assert sum(path.stat().st_size for path in kept.iterdir()) <= 5 * size

    # A list that would fill most of the folder is not kept.
    cache.write(["{}"], ["large"], torch.zeros(100, 100))
    assert cache.read(["{}"], ["large"]) is None


def test_a_folder_that_cannot_be_written_is_no_error(kept: Path, tiny_checkpoint: Path):
    kept.parent.write_text("a file")
    model = maskfree.load(tiny_checkpoint, "cpu")
    expected = model.with_words(WORDS).embeddings
    assert torch.equal(model.with_words(WORDS).embeddings, expected)


def test_threads_and_device_are_part_of_the_name(kept: Path):
    cache = TextCache("e", CPU)
    cache.write(["{}"], ["dog"], torch.ones(1, 3))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert cache.read(["{}"], ["dog"]) is None
    finally:
        torch.set_num_threads(threads)
    assert cache.read(["{}"], ["dog"]) is not None
    assert TextCache("e", torch.device("meta")).read(["{}"], ["dog"]) is None
    assert TextCache("f", CPU).read(["{}"], ["dog"]) is None


WRITER = """
import torch
from maskfree.inference.text_cache import TextCache
cache = TextCache("e", torch.device("cpu"))
for _ in range(40):
    cache.write(["{}"], ["dog"], torch.ones(50, 300))
    found = cache.read(["{}"], ["dog"])
    assert found is not None and found.eq(1).all()
"""


def test_several_processes_write_the_same_file(kept: Path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert [path.suffix for path in kept.iterdir()] == [".embeddings"]
