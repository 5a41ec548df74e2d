"""`maskfree evaluate retrieval` as it is typed."""

from __future__ import annotations

import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maskfree.cli import main

pytest.importorskip("webdataset")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command in the test's folder; give its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return int(left.value.code or 0), streams.out, streams.err

    return call


@pytest.fixture
def shards(tmp_path: Path, photo: Callable[..., Image.Image]) -> Path:
    """Two shards with three photos of two sizes; the second photo has two captions."""
    texts = {"a": ["a dog"], "b": ["grass", "a green field"], "c": ["a red car"]}
    for number, keys in enumerate(("ab", "c")):
        with tarfile.open(tmp_path / f"pairs-{number}.tar", "w") as shard:
            for key in keys:
                photo((80, 64) if key == "a" else (48, 64)).save(tmp_path / f"{key}.jpg")
                (tmp_path / f"{key}.json").write_text(json.dumps({"captions": texts[key]}))
                for suffix in ("jpg", "json"):
                    shard.add(tmp_path / f"{key}.{suffix}", f"{key}.{suffix}")
    return tmp_path


def test_recalls_are_printed_and_the_command_makes_the_same_row(
    run, shards: Path, tiny_checkpoint: Path
):
    options = ("--model", tiny_checkpoint.name, "--side-px", 32)
    status, out, error = run("evaluate", "retrieval", "pairs-{0..1}.tar", *options)
    assert (status, error) == (0, "")
    for text in ("R@10", "photo", "caption", "retrieval-tiny.json"):
        assert text in out

    row = json.loads((shards / "results/retrieval-tiny.json").read_text())
    assert (row["num_photos"], row["num_captions"]) == (3, 4)
    assert [each["num_queries"] for each in row["rows"]] == [3, 4]
    assert [each["recall_5"] for each in row["rows"]] == [1, 1]

    assert run(*shlex.split(row["command"])[1:], "--results", "again")[0] == 0
    again = json.loads((shards / "again/retrieval-tiny.json").read_text())
    for key in ("rows", "protocol", "command", "captions_sha256", "weights_sha256"):
        assert again[key] == row[key]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "no shard was given"),
        (("none.tar",), "no shard 'none.tar'"),
        (("a.jpg",), "a.jpg: broken shard: "),
        (("tiny",), "no shard 'tiny': the folder holds no .tar file"),
        (("pairs-0.tar", "--model", "none"), "the model 'none' is unknown"),
        (("pairs-0.tar", "--results", "a.jpg"), "is a file: --results is a folder"),
        (("pairs-0.tar", "--model", "tiny", "--side-px", 0), "side_px is 0, must be "),
    ],
)
def test_bad_input_gives_one_line_and_no_row(
    run, shards: Path, tiny_checkpoint: Path, arguments: tuple[object, ...], line: str
):
    status, _, error = run("evaluate", "retrieval", *arguments)
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("maskfree: error: ")
    assert line in error
    assert not (shards / "results").exists()
