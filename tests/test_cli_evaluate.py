"""`maskfree evaluate` on small trees with the tiny model: rows, tables, the command in the row, and bad input."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from maskfree.cli import main
from maskfree.data.benchmarks import benchmark
from maskfree.evaluate import zero_shot
from maskfree.evaluate.results import read_row


@pytest.fixture
def coco_root(tmp_path, photo):
    """Two photos with a person in the left upper quarter."""
    root = tmp_path / "coco"
    (root / "images").mkdir(parents=True)
    for i in (1, 2):
        photo((64, 48)).save(root / "images" / f"{i}.jpg")
    square = [[0, 0, 32, 0, 32, 24, 0, 24]]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(benchmark("coco-mini-80").words())],
        "annotations": [{"image_id": i, "category_id": 0, "area": 768, "segmentation": square} for i in (1, 2)],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


def run(*arguments):
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in ("evaluate", *arguments)])
    return raised.value.code


def test_all_protocols_of_a_benchmark_are_measured_and_printed(coco_root, tiny_checkpoint, tmp_path, capsys):
    results = tmp_path / "results"
    options = ("--data", coco_root, "--model", tiny_checkpoint, "--results", results, "--side-px", 64)
    assert run("coco-mini", *options) == 0
    rows = [read_row(path) for path in results.iterdir()]
    protocols = {(row.protocol["names"], row.protocol["background"]) for row in rows}
    assert protocols == {(n, b) for n in ("plain", "synonyms") for b in ("none", zero_shot.DEFAULT_THRESHOLD)}
    assert {(row.num_photos, row.model, row.protocol["side_px"]) for row in rows} == {(2, "tiny", 64)}
    assert {len(row.iou) for row in rows} == {20, 21}
    printed = capsys.readouterr().out
    assert "coco-mini, 2 photos, model tiny" in printed
    assert "pixel accuracy" in printed
    assert "tv monitor" in printed


def test_the_command_in_a_row_makes_that_row(coco_root, tiny_checkpoint, tmp_path):
    results = tmp_path / "results"
    options = ("--data", coco_root, "--model", tiny_checkpoint, "--names", "synonyms", "--side-px", 64)
    assert run("coco-mini", *options, "--background", "threshold:0.2", "--results", results) == 0
    (path,) = results.iterdir()
    before = read_row(path)
    path.unlink()
    program, command, *arguments = shlex.split(before.command)
    assert (program, command) == ("maskfree", "evaluate")
    assert run(*arguments, "--results", results) == 0
    after = read_row(path)
    same = ("protocol", "iou", "mean_iou", "pixel_accuracy", "files_sha256", "weights_sha256", "command")
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]


def test_a_benchmark_without_background_has_one_protocol(tiny_checkpoint, tmp_path, photo):
    for folder in ("val/images", "val/labels"):
        (tmp_path / folder).mkdir(parents=True)
    photo((64, 48)).save(tmp_path / "val/images/a.png")
    Image.fromarray(np.full((48, 64), 3, np.uint8)).save(tmp_path / "val/labels/a.png")
    options = ("--data", tmp_path, "--model", tiny_checkpoint, "--results", tmp_path / "results", "--side-px", 64)
    assert run("camvid", *options) == 0
    assert len(list((tmp_path / "results").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["coco"], "unknown benchmark 'coco': choose from coco-mini, coco-mini-80, camvid, camvid-train"),
        (["camvid"], "val/images is missing; the layout is val/images/* and val/labels/*.png"),
        (["coco-mini", "--names", "nick"], "coco-mini has no name set 'nick': choose from plain, synonyms"),
        (["coco-mini", "--background", "dark"], "the background rule 'dark' is unknown"),
        (["coco-mini", "--model", "nowhere"], "the model 'nowhere' is unknown"),
        (["coco-mini", "--templates", "bare"], "the prompt set 'bare' is unknown"),
    ],
)
def test_bad_input_gives_one_line_and_no_row(coco_root, tiny_checkpoint, tmp_path, capsys, arguments, line):
    results = tmp_path / "results"
    model = [] if "--model" in arguments else ["--model", tiny_checkpoint]
    assert run(*arguments, *model, "--data", coco_root, "--results", results) == 2
    error = capsys.readouterr().err
    assert error.startswith("maskfree: error: ")
    assert line in error
    assert error.count("\n") == 1
    assert not results.exists()


def test_a_wrong_folder_is_named_before_the_model_is_looked_for(tmp_path, capsys):
    assert run("coco-mini", "--data", tmp_path / "nowhere", "--model", "no such model") == 2
    assert "nowhere is no folder; coco-mini needs images/*.jpg and instances.json" in capsys.readouterr().err


def test_a_file_as_results_folder_is_refused(coco_root, tmp_path, capsys):
    (tmp_path / "results").write_text("")
    assert run("coco-mini", "--data", coco_root, "--results", tmp_path / "results") == 2
    assert "results is a file: --results is a folder" in capsys.readouterr().err
