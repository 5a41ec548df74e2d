"""Every command that writes says of a full disk, in one line, which file was not written, and
leaves nothing half.
"""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate.result_rows import ROW
from maskfree.cli import main
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.reporting.results import write_row

STUDENT = "--side-px 48 --crop-px 32 --workers 0"
DISTILL = f"{STUDENT} --segments.kind felzenszwalb --top 2 --num-unknown 3"
TRAIN = "--train.steps 2 --train.batch-size 2 --train.accelerator cpu --train.save-every 1"
COMMANDS = (  # with the largest file that there is room for, and the one that there is none for
    ("segment photos/a.png --words dog sky --model tiny --out out", 150, "out/a.*"),
    ("label photos --words dog sky --model tiny --out out", 150, "out/label.json"),
    (
        "track photos --words dog --model tiny --side-px 64 --radius 2 --out out --animate webp",
        1500,
        "out/first.png",
    ),
    (
        "search dog photos --model tiny --side-px 64 --num-segments 4 --out out",
        1500,
        "out/dog.search.png",
    ),
    ("prepare segments photos --kind felzenszwalb --out out --workers 1", 5, "out/segments.json"),
    ("prepare teacher photos --model tiny --side-px 64 --out out", 5, "out/teacher.json"),
    ("prepare entities a.tar --out out --workers 1", 1500, "out.unfinished/"),
    (
        "evaluate coco-mini --data coco --model tiny --side-px 64 --results out",
        5,
        "out/.unfinished/",
    ),
    (
        "evaluate coco-mini --data coco --model tiny --side-px 64 --results out --report",
        9000,
        "out/coco-mini-tiny-",
    ),
    (
        "evaluate knn camvid --data data --neighbors 3 --segments 4 --model tiny --results out",
        150,
        "out/camvid-",
    ),
    ("evaluate linear camvid --data data --epochs 1 --model tiny --results out", 150, "/"),
    ("compare row.json --out out/chart.svg", 150, "out/chart.svg"),
    (
        f"train vilseg_debug --data.shapes 4 --data.workers 0 {TRAIN} --out out",
        30_000,
        "out/state/step-00000001",
    ),
    (
        f"distill clips4 photos --words dog --model tiny {DISTILL} {TRAIN} --out out",
        1500,
        "out/prototypes.safetensors",
    ),
    (
        f"distill pseudo-labels photos --words dog sky --model tiny {STUDENT} --accelerator cpu"
        " --out out",
        1500,
        "out/start",
    ),
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo, tiny_checkpoint: Path) -> Path:
    """What the commands read, in the folder in which they run."""
    monkeypatch.chdir(tmp_path)
    assert tiny_checkpoint == tmp_path / "tiny"
    (tmp_path / "photos").mkdir()
    for name in "abc":
        photo((80, 64)).save(tmp_path / "photos" / f"{name}.png")

    (tmp_path / "coco" / "images").mkdir(parents=True)
    photo((64, 48)).save(tmp_path / "coco" / "images" / "1.jpg")
    square = [[0, 0, 32, 0, 32, 24, 0, 24]]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}],
        "categories": [
            {"id": i, "name": name} for i, name in enumerate(benchmark("coco-mini-80").words())
        ],
        "annotations": [{"image_id": 1, "category_id": 0, "area": 768, "segmentation": square}],
    }
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(content))

    for part in ("train", "val"):
        labels = np.full((48, 64), 3, np.uint8)
        labels[:20] = 0
        for folder, picture in (("images", photo((64, 48))), ("labels", Image.fromarray(labels))):
            place = tmp_path / "data" / "camvid" / part / folder / "0.png"
            place.parent.mkdir(parents=True)
            picture.save(place)

    write_row(ROW, tmp_path).rename(tmp_path / "row.json")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for suffix, bytes_ in (("jpg", b"photo"), ("txt", b"a dog and a cat")):
            info = tarfile.TarInfo(f"0.{suffix}")
            info.size = len(bytes_)
            tar.addfile(info, io.BytesIO(bytes_))
    return tmp_path


def command_of(spelled: str) -> str:
    words = spelled.split()
    return " ".join(words[: 2 if words[0] in ("prepare", "distill", "evaluate", "train") else 1])


@pytest.mark.parametrize(
    ("spelled", "room", "file"), COMMANDS, ids=[f"{command_of(c)} {r}" for c, r, _ in COMMANDS]
)
def test_a_full_disk_is_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], largest_file, spelled, room, file
):
    if "entities" in spelled:
        pytest.importorskip("pyarrow", reason="the extra 'entities' is not installed")
    with largest_file(room), pytest.raises(SystemExit) as left:
        main(shlex.split(spelled))
    errors = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("maskfree: error: ")
    ]
    assert left.value.code == 2
    assert len(errors) == 1
    assert f"cannot write {file}" in errors[0] and errors[0].endswith(": File too large")
    assert not list(data.rglob(".maskfree*"))
