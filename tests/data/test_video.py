"""Frames of video files and of folders, and clips written to a file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.data import video
from maskfree.data.video import open_clip, write_clip

COLOURS = [(200, 30, 30), (30, 190, 40), (40, 50, 210), (230, 220, 60)]


def pictures(size=(48, 32)):
    """Pictures of one colour each, whose left upper quarter is white."""
    for colour in COLOURS:
        picture = Image.new("RGB", size, colour)
        picture.paste((255, 255, 255), (0, 0, size[0] // 2, size[1] // 2))
        yield picture


def colours_of(images):
    return [np.asarray(image)[-4, -4].astype(int) for image in images]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    path = tmp_path / "film.mp4"
    assert write_clip(pictures(), path, rate=5) == 4
    return path


def turned(path: Path, degrees: int) -> Path:
    """A copy of the video that says of itself that it lies on its side."""
    import av

    copy = path.with_name(f"turned{degrees}.mp4")
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return copy


def test_a_video_gives_back_what_was_written(film: Path):
    clip = open_clip(film)
    assert (clip.rate, clip.num_frames) == (5.0, 4)
    names, images = zip(*clip.frames(), strict=True)
    assert names == ("00000", "00001", "00002", "00003")
    assert all((image.size, image.mode) == ((48, 32), "RGB") for image in images)
    np.testing.assert_allclose(colours_of(images), COLOURS, atol=12)
    assert len(list(clip.frames())) == 4  # a second time


def test_a_video_of_odd_sides_loses_a_row_and_a_column(tmp_path: Path):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    write_clip(pictures((35, 27)), tmp_path / "odd.mp4", rate=10)
    assert next(open_clip(tmp_path / "odd.mp4").frames())[1].size == (34, 26)


@pytest.mark.parametrize(("degrees", "size", "white"), [(90, (32, 48), (3, -4)), (180, (48, 32), (-4, -4))])
def test_a_video_that_lies_on_its_side_is_put_upright(film: Path, degrees, size, white):
    _, image = next(open_clip(turned(film, degrees)).frames())
    assert image.size == size
    whites = (np.asarray(image).min(axis=2) > 220).nonzero()
    middle = [float(axis.mean()) for axis in whites]  # of the quarter that was left and above
    assert (middle[0] < size[1] / 2, middle[1] < size[0] / 2) == {90: (False, True), 180: (False, False)}[degrees]


def test_frames_come_one_at_a_time(film: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "MAX_FRAMES", 2)
    frames = open_clip(film).frames()
    assert [next(frames)[0], next(frames)[0]] == ["00000", "00001"]
    with pytest.raises(ValueError, match="more than 2 frames"):
        next(frames)


def test_a_folder_is_read_by_number(tmp_path: Path):
    for number, picture in zip((10, 9, 1, 100), pictures(), strict=True):
        picture.save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    clip = open_clip(tmp_path)
    assert clip.num_frames == 4
    names, images = zip(*clip.frames(), strict=True)
    assert names == ("frame1", "frame9", "frame10", "frame100")
    assert [tuple(c) for c in colours_of(images)] == [COLOURS[i] for i in (2, 1, 0, 3)]


@pytest.mark.parametrize("suffix", video.PICTURES)
def test_an_animated_picture_has_all_frames(tmp_path: Path, suffix: str):
    path = tmp_path / "new" / f"moving{suffix}"
    assert write_clip(pictures(), path, rate=4) == 4
    with Image.open(path) as moving:
        assert (moving.n_frames, moving.size) == (4, (48, 32))
        shown = []
        for index in range(4):
            moving.seek(index)
            shown.append(moving.convert("RGB"))
            assert moving.info["duration"] == 250
    np.testing.assert_allclose(colours_of(shown), COLOURS, atol=12)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_an_animated_picture_is_small_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_clip(pictures((1000, 500)), tmp_path / "moving.gif", rate=4)
    with Image.open(tmp_path / "moving.gif") as moving:
        assert moving.size == (640, 320)
    monkeypatch.setattr(video, "MAX_PICTURES", 3)
    with pytest.raises(ValueError, match="3 frames at most"):
        write_clip(pictures(), tmp_path / "long.webp", rate=4)
    write_clip(pictures(), tmp_path / "long.mp4", rate=4)


def test_a_clip_that_fails_leaves_nothing(tmp_path: Path):
    def broken():
        yield from pictures()
        raise ValueError("the camera broke")

    with pytest.raises(ValueError, match="camera"):
        write_clip(broken(), tmp_path / "moving.webp", rate=4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "reason"), [("x.avi", ".webp, .gif, .mp4"), ("x.gif", "no picture")])
def test_what_cannot_be_written(tmp_path: Path, name: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        write_clip(iter(()), tmp_path / name, rate=4)


def test_what_is_no_clip(tmp_path: Path, film: Path):
    with pytest.raises(FileNotFoundError, match="no video or folder"):
        open_clip(tmp_path / "absent.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no photo"):
        open_clip(tmp_path / "empty")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"not a video at all" * 50)
    with pytest.raises(ValueError, match=r"noise.mp4 is no video") as raised:
        open_clip(noise)
    assert "\n" not in str(raised.value)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(film.read_bytes()[:-600])
    with pytest.raises(ValueError, match=r"cut.mp4"):
        list(open_clip(cut).frames())


def test_two_photos_of_one_name(tmp_path: Path):
    for suffix in ("png", "jpg"):
        next(pictures()).save(tmp_path / f"a.{suffix}")
    with pytest.raises(ValueError, match="same name"):
        open_clip(tmp_path)


def test_without_pyav_only_folders_work(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"maskfree\[video\]"):
        open_clip(film)
