"""Region maps on disk: reading them by key, making them in several processes, going on after a
stop.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from maskfree.data.cache.region_maps import SegmentMaps, encode_map
from maskfree.data.cache.region_preparation import SegmentPreparation


def write(folder, name, regions):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(encode_map(regions))


def halves(photo: np.ndarray) -> np.ndarray:
    regions = np.zeros(photo.shape[:2], np.uint8)
    regions[:, photo.shape[1] // 2 :] = 1
    return regions


def stop_at_blue(photo: np.ndarray) -> np.ndarray:
    if tuple(photo[0, 0]) == (0, 0, 255):
        raise KeyboardInterrupt
    return halves(photo)


def refuse(photo: np.ndarray) -> np.ndarray:
    raise AssertionError("no map is missing")


def photos(folder, **colors):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, color) in enumerate(colors.items()):
        Image.new("RGB", (20 + number, 14), color).save(folder / f"{name}.png")
    return str(folder)


def through(items, name):
    return items


def prepare(sources, out, map_of=halves, **settings):
    workers = settings.pop("workers", 1)
    return SegmentPreparation(tuple(sources), out, settings, workers).run(map_of, through)


def test_a_map_comes_back_by_the_photos_key_and_at_the_photos_size(tmp_path):
    regions = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write(tmp_path, "kitchen.v2.png", regions)
    maps = pickle.loads(pickle.dumps(SegmentMaps(tmp_path)))
    assert (maps.of("some/folder/kitchen.v2.jpg") == regions).all()
    assert (maps.of("kitchen.v2", (2, 3)) == regions).all()
    assert (maps.of("kitchen.v2", (4, 6)) == regions.repeat(2, 0).repeat(2, 1)).all()


@pytest.mark.parametrize("of_map", [(333, 500), (167, 250), (84, 125), (341, 512)])
@pytest.mark.parametrize("of_photo", [(333, 500), (167, 250), (42, 63)])
def test_a_photo_decoded_smaller_still_matches(tmp_path, of_map, of_photo):
    write(tmp_path, "a.png", np.zeros(of_map, np.uint8))
    assert SegmentMaps(tmp_path).of("a", of_photo).shape == of_photo


@pytest.mark.parametrize("of_photo", [(500, 333), (333, 333), (300, 500), (333, 520)])
def test_a_map_of_another_shape_is_refused(tmp_path, of_photo):
    write(tmp_path, "a.png", np.zeros((333, 500), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png is 333x500 .* has the shape of its photo"):
        SegmentMaps(tmp_path).of("a", of_photo)


def test_a_missing_map_names_file_and_command(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"no region map .*b\.png for the photo 'x/b\.jpg'.*prepare segments",
    ):
        SegmentMaps(tmp_path).of("x/b.jpg")


def test_a_map_of_16_bits_is_read_as_far_as_there_are_regions(tmp_path):
    Image.fromarray(np.array([[0, 254, 255]], np.uint16)).save(tmp_path / "a.png")
    assert SegmentMaps(tmp_path).of("a").tolist() == [[0, 254, 255]]
    Image.fromarray(np.array([[0, 256]], np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png holds region 256: 254 is the last"):
        SegmentMaps(tmp_path).of("b")


@pytest.mark.parametrize("kind", ["RGB", "JPEG", "text", "cut"])
def test_what_is_no_map_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "text":
        path.write_text("no picture")
    elif kind == "cut":
        path.write_bytes(
            encode_map(np.random.default_rng(0).integers(0, 9, (50, 60), np.uint8))[:200]
        )
    else:
        image = Image.new("L" if kind == "JPEG" else kind, (5, 4))
        image.save(path, "JPEG" if kind == "JPEG" else "PNG")
    with pytest.raises(ValueError, match=r"a\.png.*a PNG of one 8-bit channel") as raised:
        SegmentMaps(tmp_path).of("a", (4, 5))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_maps_are_made_broken_photos_counted(tmp_path, workers):
    source = photos(tmp_path / "p", a="red", b="lime", c="blue")
    (tmp_path / "p" / "d.jpg").write_bytes(b"broken")
    summary = prepare([source], tmp_path / "out", workers=workers, kind="x")
    assert summary["counts"] == {"photos": 4, "made": 3, "kept": 0, "broken": 1}
    assert summary["photos_per_second"] > 0 and summary["mean_regions"] == 2
    assert json.loads((tmp_path / "out" / "segments.json").read_text()) == summary
    for number, name in enumerate("abc"):
        expected = halves(np.zeros((14, 20 + number, 3)))
        assert (SegmentMaps(tmp_path / "out").of(f"{source}/{name}.png") == expected).all()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
        "segments.json",
    ]


def test_a_stopped_run_leaves_nothing_half_done_and_goes_on(tmp_path):
    source, out = photos(tmp_path / "p", a="red", b="blue", c="lime"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare([source], out, stop_at_blue, kind="x")
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "segments.json"]
    assert prepare([source], out, kind="x")["counts"] == {
        "photos": 3,
        "made": 2,
        "kept": 1,
        "broken": 0,
    }
    again = prepare([source], out, refuse, kind="x")
    assert again["counts"]["kept"] == 3 and again["photos_per_second"] is None


def test_another_runs_settings_are_refused(tmp_path):
    source = photos(tmp_path / "p", a="red")
    prepare([source], tmp_path / "out", kind="x", most=3)
    with pytest.raises(ValueError, match=r"another settings\.most: give another folder"):
        prepare([source], tmp_path / "out", kind="x", most=4)


def test_two_photos_of_one_name_are_refused(tmp_path):
    first, second = photos(tmp_path / "p", a="red"), photos(tmp_path / "q", a="lime")
    with pytest.raises(ValueError, match="have one name, a"):
        prepare([first, second], tmp_path / "out")


def test_folders_without_photos_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no photo"):
        prepare([str(tmp_path / "empty")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of the 1 photos"):
        prepare([str(tmp_path / "empty")], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        prepare([str(tmp_path / "empty")], tmp_path / "file")


def test_photos_of_shards(tmp_path):
    photo = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(photo, "PNG")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, content in (
            ("000017.png", photo.getvalue()),
            ("000017.txt", b"red"),
            ("18.png", b"broken"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    counts = prepare([str(tmp_path / "s.tar")], tmp_path / "out")["counts"]
    assert counts == {"photos": 2, "made": 1, "kept": 0, "broken": 1}
    assert SegmentMaps(tmp_path / "out").of("000017", (7, 9)).shape == (7, 9)
