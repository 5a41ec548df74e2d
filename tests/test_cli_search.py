"""`maskfree search`: what is printed and written, and one line for what is wrong."""

import json

import pytest
from PIL import Image

from maskfree.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in ("search", *arguments)])
    return raised.value.code


@pytest.fixture
def folder(tmp_path, photo):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(3):
        photo((60 + 8 * number, 48)).save(root / f"{number}.png")
    return root


def test_a_ranked_list_a_contact_sheet_and_json(folder, photo, tiny_checkpoint, tmp_path, capsys):
    photo((50, 40)).save(tmp_path / "alone.jpg")
    options = (
        "--model",
        tiny_checkpoint,
        "--side-px",
        64,
        "--out",
        tmp_path / "out",
        "--top",
        3,
        "--num-segments",
        4,
    )
    assert run("sofa/couch", tmp_path / "alone.jpg", folder, *options) == 0
    *ranked, last = capsys.readouterr().out.splitlines()
    assert len(ranked) == 3
    assert last.startswith("3 segments of 4 photos -> ")
    record = json.loads((tmp_path / "out/sofa.search.json").read_text())
    assert record["word"] == ["sofa", "couch"]
    assert (record["photos"], record["skipped"], record["side_px"]) == (4, [], 64)
    assert record["model"]["name"] == "tiny"
    scores = [hit["score"] for hit in record["hits"]]
    assert scores == sorted(scores, reverse=True)
    for line, hit in zip(ranked, record["hits"], strict=True):
        assert hit["photo"] in line
        assert f"{hit['score']:.3f}" in line
        assert line.endswith("box " + " ".join(map(str, hit["box"])))
    assert len({hit["photo"] for hit in record["hits"]}) == 3
    with Image.open(tmp_path / "out/sofa.search.png") as sheet:
        assert sheet.width > 600


def test_several_words_have_results_of_their_own_in_one_pass(folder, tiny_checkpoint, tmp_path):
    options = ("--model", tiny_checkpoint, "--side-px", 64, "--num-segments", 4)
    assert run("dog,sofa/couch", folder, *options, "--out", tmp_path / "both") == 0
    both = sorted(path.name for path in (tmp_path / "both").iterdir())
    assert both == ["dog.search.json", "dog.search.png", "sofa.search.json", "sofa.search.png"]

    assert run("dog", folder, *options, "--no-index", "--out", tmp_path / "one") == 0
    alone, together = (
        json.loads((tmp_path / out / "dog.search.json").read_text()) for out in ("one", "both")
    )
    assert alone["hits"] == together["hits"]


def test_an_unreadable_photo_is_reported_and_the_rest_is_done(
    folder, tiny_checkpoint, tmp_path, capsys
):
    (folder / "broken.jpg").write_bytes(b"no photo")
    assert (
        run("dog", folder, "--model", tiny_checkpoint, "--side-px", 64, "--out", tmp_path / "out")
        == 2
    )
    captured = capsys.readouterr()
    assert captured.err.startswith("maskfree: error: ")
    assert "broken.jpg is not an image" in captured.err
    assert "3 segments of 3 photos" in captured.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("dog",), "no photos were given"),
        (("", "photos"), "the word is empty"),
        (("dog,dog", "photos"), "dog"),
        (("dog", "nowhere"), "there is no photo or folder nowhere"),
        (("dog", "empty"), "folder 'empty' holds no photo"),
        (("dog", "photos", "--top", 0), "top is 0, must be at least 1"),
        (
            ("dog", "photos", "--segments", "nowhere"),
            "the segments 'nowhere' are neither kmeans nor a folder",
        ),
        (("dog", "photos", "--out", "photos/0.png"), "is a file: --out is a folder"),
        (("dog", "photos", "--model", "no such model"), "the model 'no such model' is unknown"),
    ],
)
def test_bad_input_gives_one_line_and_no_files(
    folder, tmp_path, monkeypatch, capsys, arguments, line
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("maskfree: error: ")
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "maskfree-out").exists()
