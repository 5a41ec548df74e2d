"""`maskfree prepare`: its help, what is refused, and whole runs."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from maskfree.cli import main

CAPTIONS = ["Two dogs run", "a dog and a cat", "a zebra", "trees", "a flurbel"] * 3


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Fifteen pairs."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(CAPTIONS):
            for suffix, content in (("jpg", b"photo"), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def run(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as raised:
        main(["prepare", *map(str, arguments)])
    return raised.value.code


def test_help(capsys: pytest.CaptureFixture[str]):
    assert run("--help") == 0
    assert "maskfree prepare entities --help" in " ".join(capsys.readouterr().out.split())
    assert run("entities", "--help") == 0
    assert "--resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nouns"], "say what to prepare: entities; not 'nouns'"),
        (["entities", "none.tar", "--out", "index"], "no shard 'none.tar'"),
        (["entities", "--out", "index"], "no shards were given"),
        (["entities", "https://a.org/a.tar", "--out", "index"], "is at a URL: an index is made of files on disk"),
        (["entities", "a.tar", "--out", "index", "--entities", "nope"], "no entity list 'nope'"),
        (["entities", "a.tar", "--out", "index", "--entities", "twice.txt"], "line 2: the word 'dog' is there twice"),
        (["entities", "a.tar", "--out", "index", "--workers", "0"], "at least 1 process"),
        (["entities", "a.tar", "--out", "index", "--entities", "auto", "--most", "0"], "0 entities at most"),
        (["entities", "a.tar", "--out", "folder"], "'folder' exists"),
        (["entities", "a.tar", "a.tar", "--out", "index"], "'a.tar' is given 2 times"),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing(shard, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(shard.parent)
    (shard.parent / "folder").mkdir()
    (shard.parent / "twice.txt").write_text("dog\ndog\n")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("maskfree: error: ")
    assert line in error
    assert error.count("\n") == 1
    assert not list(shard.parent.glob("index*"))


def test_a_run_says_what_it_found(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("entities", shard, "--out", tmp_path / "index") == 0
    out = capsys.readouterr().out
    assert "15 pairs read, 9 kept, of 1 shards" in out
    assert "no entity: 6" in out
    assert "3 of 73 entities occur, in so many pairs: dog 6, cat 3, zebra 3" in out
    assert (tmp_path / "index" / "pairs.parquet").is_file()
    assert str(tmp_path) not in (tmp_path / "index" / "index.json").read_text()
    assert run("entities", shard, "--out", tmp_path / "index") == 2
    assert run("entities", shard, "--out", tmp_path / "index", "--resume") == 0
    assert "is finished\n15 pairs read" in capsys.readouterr().out


def test_a_list_of_ones_own(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "list.txt").write_text("dog: animal\ncat: animal\nflurbel\ntram\n")
    assert run("entities", shard, "--out", tmp_path / "index", "--entities", tmp_path / "list.txt") == 0
    out = capsys.readouterr().out
    assert "animal 6, flurbel 3" in out
    assert "never occur: tram" in out
    assert "not in the lexicon, taken as they are: flurbel" in out


def test_entities_chosen_from_the_captions(shard: Path, tmp_path: Path):
    out = tmp_path / "index"
    assert run("entities", shard, "--out", out, "--entities", "auto", "--most", 2, "--least", 3) == 0
    assert (out / "entities.txt").read_text() == "dog: dog\ncat: cat\n"
    summary = json.loads((out / "index.json").read_text())
    assert summary["entities"] == {"dog": 6, "cat": 3}
    assert summary["settings"] == {"entities": "auto", "max_words": 1000, "most": 2, "least": 3, "tagger": "textblob"}
