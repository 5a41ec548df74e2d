"""`maskfree evaluate` on small trees with the tiny model: rows, tables, the command in the row, and
bad input.
"""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from maskfree.cli import main
from maskfree.cli.evaluate_options import Changes, plan_protocols
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.named_protocols import DEFAULT_THRESHOLD
from maskfree.evaluation.reporting.results import read_row


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
        "categories": [
            {"id": i, "name": name} for i, name in enumerate(benchmark("coco-mini-80").words())
        ],
        "annotations": [
            {"image_id": i, "category_id": 0, "area": 768, "segmentation": square} for i in (1, 2)
        ],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


def run(*arguments):
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in ("evaluate", *arguments)])
    return raised.value.code


def test_all_protocols_of_a_benchmark_are_measured_and_printed(
    coco_root, tiny_checkpoint, tmp_path, capsys
):
    results = tmp_path / "results"
    options = (
        "--data",
        coco_root,
        "--model",
        tiny_checkpoint,
        "--results",
        results,
        "--side-px",
        64,
    )
    assert run("coco-mini", *options) == 0
    rows = [read_row(path) for path in results.iterdir()]
    protocols = {(row.protocol["names"], row.protocol["background"]) for row in rows}
    assert protocols == {(n, b) for n in ("plain", "synonyms") for b in ("none", DEFAULT_THRESHOLD)}
    assert {(row.num_photos, row.model, row.protocol["side_px"]) for row in rows} == {
        (2, "tiny", 64)
    }
    assert {len(row.iou) for row in rows} == {20, 21}
    printed = capsys.readouterr().out
    assert "coco-mini, 2 photos, model tiny" in printed
    assert "accuracy" in printed
    assert "tv monitor" in printed


def test_the_command_in_a_row_makes_that_row(coco_root, tiny_checkpoint, tmp_path):
    results = tmp_path / "results"
    options = (
        "--data",
        coco_root,
        "--model",
        tiny_checkpoint,
        "--names",
        "synonyms",
        "--side-px",
        64,
    )
    assert run("coco-mini", *options, "--background", "threshold:0.2", "--results", results) == 0
    (path,) = results.iterdir()
    before = read_row(path)
    path.unlink()
    program, command, *arguments = shlex.split(before.command)
    assert (program, command) == ("maskfree", "evaluate")
    assert run(*arguments, "--results", results) == 0
    after = read_row(path)
    same = (
        "protocol",
        "iou",
        "mean_iou",
        "pixel_accuracy",
        "files_sha256",
        "weights_sha256",
        "command",
    )
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]


def test_a_benchmark_without_background_has_one_protocol(tiny_checkpoint, tmp_path, photo):
    for folder in ("val/images", "val/labels"):
        (tmp_path / folder).mkdir(parents=True)
    photo((64, 48)).save(tmp_path / "val/images/a.png")
    Image.fromarray(np.full((48, 64), 3, np.uint8)).save(tmp_path / "val/labels/a.png")
    options = (
        "--data",
        tmp_path,
        "--model",
        tiny_checkpoint,
        "--results",
        tmp_path / "results",
        "--side-px",
        64,
    )
    assert run("camvid", *options) == 0
    rows = [read_row(path) for path in (tmp_path / "results").iterdir()]
    assert {row.protocol["background"] for row in rows} == {"none"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["coco"], "unknown benchmark 'coco': choose from voc20, voc21, "),
        (
            ["camvid"],
            (
                "val/images is missing; camvid needs (val/images/*.* "
                "or val/*.png) and (val/labels/*.png or"
            ),
        ),
        (
            ["coco-mini", "--names", "nick"],
            "coco-mini has no name set 'nick': choose from plain, synonyms",
        ),
        (["coco-mini", "--background", "dark"], "the background rule 'dark' is unknown"),
        (["coco-mini", "--model", "nowhere"], "the model 'nowhere' is unknown"),
        (["coco-mini", "--templates", "bare"], "the prompt set 'bare' is unknown"),
    ],
)
def test_bad_input_gives_one_line_and_no_row(
    coco_root, tiny_checkpoint, tmp_path, capsys, arguments, line
):
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
    assert (
        "nowhere is no folder; coco-mini needs images/*.jpg and instances.json"
        in capsys.readouterr().err
    )


def test_a_file_as_results_folder_is_refused(coco_root, tmp_path, capsys):
    (tmp_path / "results").write_text("")
    assert run("coco-mini", "--data", coco_root, "--results", tmp_path / "results") == 2
    assert "results is a file: --results is a folder" in capsys.readouterr().err


def tiny(coco_root, tiny_checkpoint, tmp_path, *more):
    where = (
        "--data",
        coco_root,
        "--model",
        tiny_checkpoint,
        "--results",
        tmp_path / "results",
        "--side-px",
        64,
    )
    return run("coco-mini", *where, *more)


def test_a_sweep_writes_one_file_with_a_curve(coco_root, tiny_checkpoint, tmp_path, capsys):
    assert (
        tiny(
            coco_root,
            tiny_checkpoint,
            tmp_path,
            "--names",
            "plain",
            "--sweep",
            "threshold",
            "0:0.3:0.1",
        )
        == 0
    )
    path, picture = sorted((tmp_path / "results").iterdir())
    content = json.loads(path.read_text())
    assert [row["protocol"]["background"] for row in content["rows"]] == [
        f"threshold:{t:g}" for t in (0, 0.1, 0.2, 0.3)
    ]
    assert content["rows"][0]["command"].endswith(
        "--sweep threshold 0:0.3:0.1 --protocol own --names plain --side-px 64"
    )
    assert picture.suffix == ".svg"
    assert "0.3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sweep", "line"),
    [
        (("size", "0:1:0.1"), "--sweep 'size' is unknown: only threshold can be swept"),
        (("threshold", "0.5"), "--sweep threshold '0.5' is not FIRST:LAST:STEP"),
        (("threshold", "0:1:0"), "at most 1001 steps"),
        (("threshold", "0:2:0.1"), "LAST <= 1"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(
    coco_root, tiny_checkpoint, tmp_path, capsys, sweep, line
):
    assert tiny(coco_root, tiny_checkpoint, tmp_path, "--sweep", *sweep) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_report_and_a_chart_lie_beside_the_row(coco_root, tiny_checkpoint, tmp_path):
    more = (
        "--names",
        "plain",
        "--background",
        "threshold:0.1",
        "--report",
        "--chart",
        "--boundaries",
    )
    assert tiny(coco_root, tiny_checkpoint, tmp_path, *more) == 0
    paths = sorted((tmp_path / "results").iterdir())
    stem = paths[1].stem
    ends = ["-reliability.svg", ".html", ".json", ".svg"]
    assert [path.name for path in paths] == [f"{stem}{end}" for end in ends]
    assert paths[0].read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    row = read_row(paths[2])
    assert row.boundary_f is not None
    assert row.reliability is not None
    assert " --boundaries " in row.command


@pytest.mark.parametrize(
    "protocol", ["tcl", "sclip", "groupvit", "unseen", "unseen-among-all", "all-as-unseen"]
)
def test_protocols_go_by_name(coco_root, tiny_checkpoint, tmp_path, protocol):
    results = tmp_path / "results"
    where = ("--data", coco_root, "--model", tiny_checkpoint, "--results", results)
    assert run("coco-mini", *where, "--protocol", protocol) == 0
    (path,) = results.iterdir()
    assert read_row(path).protocol_name == protocol


def test_several_benchmarks_and_protocols_go_into_one_run(coco_root, tiny_checkpoint, tmp_path):
    where = (
        "--data",
        coco_root,
        "--model",
        tiny_checkpoint,
        "--results",
        tmp_path / "results",
        "--side-px",
        64,
    )
    more = ("--protocol", "own", "unseen", "--names", "plain", "--background", "none")
    assert run("coco-mini", "coco-mini-80", *where, "--protocol", "own", *more[3:]) == 0
    rows = [read_row(path) for path in (tmp_path / "results").iterdir()]
    assert {row.benchmark for row in rows} == {"coco-mini", "coco-mini-80"}
    assert run("coco-mini", *where, *more) == 0
    assert len(list((tmp_path / "results").iterdir())) == 3


def test_an_unknown_protocol_is_refused(coco_root, tiny_checkpoint, tmp_path, capsys):
    assert tiny(coco_root, tiny_checkpoint, tmp_path, "--protocol", "best") == 2
    assert (
        "the protocol 'best' is unknown: choose from own, tcl, sclip, groupvit"
        in capsys.readouterr().err
    )


def test_datasets_lists_layouts_and_what_is_missing(coco_root, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["datasets", "--root", str(coco_root)])
    assert not raised.value.code
    printed = capsys.readouterr().out
    assert "voc21: PASCAL VOC 2012" in printed
    assert "layout: leftImg8bit/val" in printed
    found = printed[printed.index("coco-mini: ") :].splitlines()[3]
    assert "2" in found and "missing" not in found


def test_compare_shows_all_rows_and_their_differences(coco_root, tiny_checkpoint, tmp_path, capsys):
    assert tiny(coco_root, tiny_checkpoint, tmp_path) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        main(["compare", *map(str, (tmp_path / "results").iterdir())])
    assert not raised.value.code
    table = capsys.readouterr().out
    assert "4 rows by 4 protocols" in table and "threshold:0.25" in table
    with pytest.raises(SystemExit) as raised:
        main(["compare", "--differences", *map(str, (tmp_path / "results").iterdir())])
    assert not raised.value.code
    assert "not ranked together: names (plain | synonyms), background " in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_counts_of_one(coco_root, tiny_checkpoint, tmp_path):
    def options(name):
        where = [
            "--data",
            coco_root,
            "--model",
            tiny_checkpoint,
            "--results",
            tmp_path / name,
            "--side-px",
            64,
        ]
        return list(
            map(str, ["evaluate", "coco-mini", *where, "--names", "plain", "--background", "none"])
        )

    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
    ]
    code = tmp_path / "run.py"
    code.write_text("from maskfree.cli import main\nmain()\n")
    done = subprocess.run(
        [*torchrun, code, *options("two")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(SystemExit):
        main(options("one"))
    (one,), (two,) = (list((tmp_path / name).iterdir()) for name in ("one", "two"))
    one, two = read_row(one), read_row(two)
    same = ("iou", "mean_iou", "confusions", "parts", "files_sha256", "num_photos", "protocol")
    assert [getattr(one, name) for name in same] == [getattr(two, name) for name in same]


def test_groups_of_pixels_change_a_protocol_and_are_in_its_command():
    changes = Changes(grouping="clusters", regions="soft")
    (planned,) = plan_protocols(benchmark("coco-mini"), ["unseen"], changes)
    assert (planned.name, planned.protocol.inference.grouping) == ("custom", "soft clusters")
    options = " ".join(planned.options)
    assert "--grouping clusters" in options and "--regions soft" in options
    with pytest.raises(ValueError, match="--regions hard is for clusters of an online head"):
        plan_protocols(benchmark("coco-mini"), ["own"], Changes(grouping="kmeans", regions="hard"))
