"""`maskfree evaluate tracking` as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree import cli


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command in an empty folder; give its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return int(left.value.code or 0), streams.out, streams.err

    return call


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    ids = np.zeros((64, 80), np.uint8)
    ids[16:48, 20:60] = 255
    Image.fromarray(ids).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


SMALL = ("--side-px", 64, "--radius", 2)


def test_the_benchmark(run, tmp_path: Path, mask: Path, photo, tiny_checkpoint: Path):
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = tmp_path / "davis" / kind / "480p" / "still"
        folder.mkdir(parents=True)
        for index in range(4):
            picture = photo((80, 64)) if suffix == "jpg" else Image.open(mask)
            picture.save(folder / f"{index:05d}.{suffix}")
    status, out, error = run("evaluate", "tracking", "davis", "--model", tiny_checkpoint, *SMALL)
    assert (status, error) == (0, "")
    assert "still" in out and "overall" in out
    row = json.loads((tmp_path / "results/tracking-tiny.json").read_text())
    assert row["command"].startswith("maskfree evaluate tracking davis --model ")
    assert row["command"].endswith(
        "--top-k 5 --context 7 --radius 2 --temperature 0.1 --side-px 64 --finer 1 --device auto"
    )
    assert row["protocol"]["propagation"]["radius"] == 2
    assert run("evaluate", "tracking", "davis", "--sequences", "cow")[2].startswith(
        "maskfree: error: there is no sequence"
    )
    (tmp_path / "frames").mkdir()
    assert run("evaluate", "tracking", "frames")[0] == 2


def test_the_benchmark_by_words(run, tmp_path: Path, photo, tiny_checkpoint: Path):
    """Only scenes with words can be measured; the row says how often the words labeled a frame."""
    ids = np.zeros((64, 80), np.uint8)
    ids[16:48, 20:60] = 255
    for scene in ("dog", "still"):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "davis" / kind / "480p" / scene).mkdir(parents=True)
        for index in range(4):
            path = Path("480p") / scene / f"{index:05d}"
            photo((80, 64)).save(tmp_path / "davis/JPEGImages" / path.with_suffix(".jpg"))
            Image.fromarray(ids).save(tmp_path / "davis/Annotations" / path.with_suffix(".png"))

    def call(*options: object) -> tuple[int, str, str]:
        return run("evaluate", "tracking", "davis", "--model", tiny_checkpoint, *SMALL, *options)

    status, _, error = call("--by-words", "--every", 2, "--sequences", "dog")
    assert (status, error) == (0, "")
    row = json.loads((tmp_path / "results/tracking-words-tiny-every-2.json").read_text())
    assert (row["kind"], row["every"]) == ("tracking-words", 2)
    assert row["words"]["dog"][0] == "dog"
    assert "--sequences dog --by-words --every 2 --top-k" in row["command"]
    assert [part["sequence"] for part in row["rows"]] == ["dog", "overall"]

    for options, reason in (
        (("--by-words", "--sequences", "still"), "'still' has no words"),
        (("--by-words",), "there is no sequence 'blackswan'"),
        (("--by-words", "--every", -1), "--every -1 must not be negative"),
        (("--every", 3), "give --by-words too"),
    ):
        status, out, error = call(*options)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert reason in error
