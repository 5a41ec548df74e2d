"""`maskfree prepare`: its help, what is refused, and whole runs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maskfree.cli import main
from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.hub import loading

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


@pytest.fixture
def photos(tmp_path: Path, photo: Callable[..., Image.Image]) -> Path:
    """A folder of two photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.png", (83, 57)), ("b.png", (40, 90))):
        photo(size).save(folder / name)
    return folder


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
        (
            ["nouns"],
            "cannot prepare 'nouns': choose from entities, segments, teacher, prototypes",
        ),
        (["entities", "none.tar", "--out", "index"], "no shard 'none.tar'"),
        (["entities", "--out", "index"], "no shards were given"),
        (
            ["entities", "https://a.org/a.tar", "--out", "index"],
            "is at a URL: an index is made of files on disk",
        ),
        (["entities", "a.tar", "--out", "index", "--entities", "nope"], "no entity list 'nope'"),
        (
            ["entities", "a.tar", "--out", "index", "--entities", "twice.txt"],
            "line 2: the word 'dog' is there twice",
        ),
        (
            ["entities", "a.tar", "--out", "index", "--entities", "phrase.txt", "--match", "exact"],
            "'traffic light' has a space: an exact match compares single words",
        ),
        (["entities", "a.tar", "--out", "index", "--workers", "0"], "at least 1 process"),
        (
            ["entities", "a.tar", "--out", "index", "--entities", "auto", "--max-entities", "0"],
            "0 entities at most",
        ),
        (["entities", "a.tar", "--out", "folder"], "'folder' exists"),
        (["entities", "a.tar", "a.tar", "--out", "index"], "'a.tar' is given 2 times"),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing(shard, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(shard.parent)
    (shard.parent / "folder").mkdir()
    (shard.parent / "twice.txt").write_text("dog\ndog\n")
    (shard.parent / "phrase.txt").write_text("traffic light\n")
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


def test_what_a_run_left_that_was_killed_at_its_end_goes(shard: Path, tmp_path: Path):
    out = tmp_path / "index"
    arguments = ("entities", shard, "--out", out, "--workers", 1)
    assert not run(*arguments)
    left = tmp_path / "index.unfinished"
    left.mkdir()
    (left / "settings.json").write_text("{}")
    assert not run(*arguments, "--resume")
    assert not left.exists() and (out / "pairs.parquet").is_file()


def test_a_list_of_ones_own(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "list.txt").write_text("dog: animal\ncat: animal\nflurbel\ntram\n")
    assert (
        run("entities", shard, "--out", tmp_path / "index", "--entities", tmp_path / "list.txt")
        == 0
    )
    out = capsys.readouterr().out
    assert "animal 6, flurbel 3" in out
    assert "never occur: tram" in out
    assert "not in the lexicon, taken as they are: flurbel" in out


def test_entities_chosen_from_the_captions(shard: Path, tmp_path: Path):
    out = tmp_path / "index"
    assert (
        run(
            "entities",
            shard,
            "--out",
            out,
            "--entities",
            "auto",
            "--max-entities",
            2,
            "--min-pairs",
            3,
        )
        == 0
    )
    assert (out / "entities.txt").read_text() == "dog: dog\ncat: cat\n"
    summary = json.loads((out / "index.json").read_text())
    assert summary["entities"] == {"dog": 6, "cat": 3}
    assert summary["settings"] == {
        "entities": "auto",
        "max_words": 1000,
        "max_entities": 2,
        "min_pairs": 3,
        "tagger": "textblob",
    }


@pytest.mark.parametrize(
    ("what", "option"),
    [("segments", "--kind"), ("teacher", "--side-px"), ("prototypes", "--num-segments")],
)
def test_help_of_each(capsys: pytest.CaptureFixture[str], what: str, option: str):
    assert run(what, "--help") == 0
    assert option in capsys.readouterr().out


@pytest.mark.parametrize("what", ["entities", "segments", "teacher", "prototypes"])
def test_help_imports_nothing_heavy(what: str):
    code = f"""
import sys
from maskfree.cli import main
try:
    main(["prepare", "{what}", "--help"])
finally:
    sys.stderr.write(" ".join(name for name in ("torch", "transformers") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "" and f"maskfree prepare {what}" in done.stdout


def test_from_photos_to_prototypes(
    tiny_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    maps, out = tmp_path / "teacher", tmp_path / "prototypes.safetensors"
    look = ("teacher", photos, "--model", tiny_checkpoint, "--side-px", 48, "--out", maps)
    assert run(*look) == 0
    assert f"{maps}: 2 photos written, 0 were there, 0 skipped" in capsys.readouterr().out
    assert TeacherMaps(maps).of("b.png").shape == (18, 6, 3)
    assert run(*look) == 0
    assert "0 photos written, 2 were there" in capsys.readouterr().out

    find = (
        "prototypes",
        maps,
        "--words",
        "grass,sea/water",
        "sofa",
        "--model",
        tiny_checkpoint,
        "--out",
        out,
    )
    assert run(*find, "--top", 2, "--num-segments", 4) == 0
    assert f"{out}: prototypes of 3 words, " in capsys.readouterr().out
    assert Prototypes.read(out).names == ("grass", "sea/water", "sofa")
    assert run(*find, "--top", 500) == 2
    assert "a prototype is the mean of 500 segments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["teacher", "--out", "maps"], "no photos were given"),
        (["teacher", "empty", "--out", "maps"], "folder 'empty' holds no photo"),
        (["teacher", "nowhere", "--out", "maps"], "no shard 'nowhere'"),
        (
            ["teacher", "photos", "--out", "maps", "--model", "nobody"],
            "the model 'nobody' is unknown",
        ),
        (["teacher", "photos", "--out", "maps", "--side-px", "0"], "side_px is 0"),
        (["prototypes", "empty", "--words", "dog", "--out", "file"], "teacher.json is missing"),
        (
            ["prototypes", "empty", "--words", "dog", "dog", "--out", "file"],
            "the word 'dog' is repeated",
        ),
    ],
)
def test_bad_photos_and_words(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments,
    line,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos"]


def test_maps_of_another_model_are_refused(
    tiny_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert (
        run(
            "teacher",
            photos,
            "--model",
            tiny_checkpoint,
            "--side-px",
            48,
            "--out",
            tmp_path / "maps",
        )
        == 0
    )
    record = json.loads((tmp_path / "maps" / "teacher.json").read_text())
    assert record["weights_sha256"] == loading.load(tiny_checkpoint).weights_hash
    assert (
        run(
            "teacher",
            photos,
            "--model",
            tiny_checkpoint,
            "--side-px",
            64,
            "--out",
            tmp_path / "maps",
        )
        == 2
    )
    assert "was begun with another inference.side_px" in capsys.readouterr().err
