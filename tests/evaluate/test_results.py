"""Rows survive the file, tell protocols apart by name, and are written whole or not at all."""

import json
from dataclasses import replace

import pytest
from result_rows import ROW as A_ROW

from maskfree.evaluation.reporting.results import (
    machine,
    number,
    read_row,
    versions,
    write_json,
    write_row,
)

ROW = replace(
    A_ROW,
    benchmark="coco-mini",
    protocol={
        "names": "plain",
        "background": "threshold:0.3",
        "side_px": 448,
        "templates": ["a photo of a {}"],
    },
    parts={"unseen classes": 0.25},
    confusions=[["dog", "sheep", 0.125]],
    versions=versions(),
    machine=machine(threads=1),
)


def test_a_row_survives_the_file(tmp_path):
    path = write_row(ROW, tmp_path / "new")
    assert read_row(path) == ROW
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_row_of_before_there_were_confidences_is_read(tmp_path):
    path = write_row(ROW, tmp_path)
    content = json.loads(path.read_text())
    del content["reliability"]
    path.write_text(json.dumps(content))
    assert read_row(path) == ROW


def test_the_file_name_tells_what_ran(tmp_path):
    assert write_row(ROW, tmp_path).name.startswith("coco-mini-pocket-own-plain-threshold-0.3-")


@pytest.mark.parametrize(
    "change",
    [
        {"names": "synonyms"},
        {"background": "threshold:0.4"},
        {"side_px": 336},
        {"templates": ["{}"]},
    ],
)
def test_another_protocol_has_another_file(change):
    assert replace(ROW, protocol=ROW.protocol | change).stem != ROW.stem


def test_a_new_run_of_the_same_protocol_replaces_the_old(tmp_path):
    assert write_row(ROW, tmp_path) == write_row(replace(ROW, weights_sha256="b" * 64), tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "row.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"row.json is no results row of format 2"):
        read_row(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_json({"kept": True}, tmp_path / "x.json")
    with pytest.raises(ValueError, match="JSON"):
        write_json({"value": float("nan")}, path)
    assert json.loads(path.read_text()) == {"kept": True}
    assert len(list(tmp_path.iterdir())) == 1


def test_nan_becomes_none():
    assert (number(float("nan")), number(0.5)) == (None, 0.5)
