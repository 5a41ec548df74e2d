"""Frames of video files and of folders, and clips written to a file."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.data import clip_files, video
from maskfree.data.clip_files import write_clip
from maskfree.data.video import open_clip

COLORS = [(200, 30, 30), (30, 190, 40), (40, 50, 210), (230, 220, 60)]


def pictures(size=(48, 32)):
    """Pictures of one color each, whose left upper quarter is white."""
    for color in COLORS:
        picture = Image.new("RGB", size, color)
        picture.paste((255, 255, 255), (0, 0, size[0] // 2, size[1] // 2))
        yield picture


def colors_of(images):
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
    np.testing.assert_allclose(colors_of(images), COLORS, atol=12)
    assert len(list(clip.frames())) == 4  # a second time


def test_a_video_of_odd_sides_loses_a_row_and_a_column(tmp_path: Path):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    write_clip(pictures((35, 27)), tmp_path / "odd.mp4", rate=10)
    assert next(open_clip(tmp_path / "odd.mp4").frames())[1].size == (34, 26)


@pytest.mark.parametrize(
    ("degrees", "size", "white"), [(90, (32, 48), (3, -4)), (180, (48, 32), (-4, -4))]
)
def test_a_video_that_lies_on_its_side_is_put_upright(film: Path, degrees, size, white):
    _, image = next(open_clip(turned(film, degrees)).frames())
    assert image.size == size
    whites = (np.asarray(image).min(axis=2) > 220).nonzero()
    middle = [float(axis.mean()) for axis in whites]  # of the quarter that was left and above
    assert (middle[0] < size[1] / 2, middle[1] < size[0] / 2) == {
        90: (False, True),
        180: (False, False),
    }[degrees]


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
    assert [tuple(c) for c in colors_of(images)] == [COLORS[i] for i in (2, 1, 0, 3)]


@pytest.mark.parametrize("suffix", clip_files.PICTURES)
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
    np.testing.assert_allclose(colors_of(shown), COLORS, atol=12)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_an_animated_picture_is_small_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_clip(pictures((1000, 500)), tmp_path / "moving.gif", rate=4)
    with Image.open(tmp_path / "moving.gif") as moving:
        assert moving.size == (640, 320)
    monkeypatch.setattr(clip_files, "MAX_PICTURES", 3)
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


@pytest.mark.parametrize(
    ("name", "reason"), [("x.avi", ".webp, .gif, .mp4"), ("x.gif", "no picture")]
)
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


def test_without_pyav_only_folders_work(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"maskfree\[video\]"):
        open_clip(film)


CORNERS = {
    "red": (220, 20, 20),
    "green": (20, 140, 20),
    "white": (250, 250, 250),
    "blue": (20, 20, 230),
}


def four_corners(size=(96, 64)) -> Image.Image:
    """As it is stored: red and green above, white and blue below."""
    picture = Image.new("RGB", size, CORNERS["red"])
    width, height = size
    picture.paste(CORNERS["green"], (width // 2, 0, width, height // 2))
    picture.paste(CORNERS["white"], (0, height // 2, width // 2, height))
    picture.paste(CORNERS["blue"], (width // 2, height // 2, width, height))
    return picture


def corners_of(image: Image.Image) -> str:
    """The colors of the corners, row by row."""
    places = [
        (5, 5),
        (image.width - 6, 5),
        (5, image.height - 6),
        (image.width - 6, image.height - 6),
    ]
    found = []
    for place in places:
        pixel = np.array(image.getpixel(place), int)
        found.append(min(CORNERS, key=lambda name: np.abs(pixel - CORNERS[name]).sum()))
    return " ".join(found)


def with_matrix(film: Path, a: int, b: int, c: int, d: int) -> Path:
    """A copy of an MP4 whose track header says how the film is shown."""
    content = bytearray(film.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    numbers = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    struct.pack_into(">9i", content, place, *numbers)
    copy = film.with_name("shown.mp4")
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [  # (x, y) is shown at (ax + cy, bx + dy)
        ((1, 0, 0, 1), "red green white blue"),
        ((-1, 0, 0, 1), "green red blue white"),
        ((1, 0, 0, -1), "white blue red green"),
        ((-1, 0, 0, -1), "blue white green red"),
        ((0, 1, -1, 0), "white red blue green"),
        ((0, -1, 1, 0), "green blue red white"),
        ((0, 1, 1, 0), "red white green blue"),
        ((0, -1, -1, 0), "blue green white red"),
    ],
)
def test_a_film_is_turned_and_mirrored_as_its_matrix_says(tmp_path: Path, matrix, shown: str):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    film = tmp_path / "film.mp4"
    write_clip([four_corners()] * 2, film, rate=5)
    _, image = next(open_clip(with_matrix(film, *matrix)).frames())
    assert image.size == ((96, 64) if matrix[0] else (64, 96))
    assert corners_of(image) == shown


@pytest.mark.real
def test_a_mirrored_film_and_one_with_a_cover(shared: Path):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    _, image = next(open_clip(shared / "faults/video_mirrored/rot_mirrored.mp4").frames())
    assert corners_of(image) == "green red blue white"
    for number in (0, 1):
        frames = list(open_clip(shared / f"faults/cover_art/cover_mp4_{number}.mp4").frames())
        assert [image.size for _, image in frames] == [(96, 64)] * 3
        assert corners_of(frames[0][1]) == "red green white blue"
    with pytest.raises(ValueError, match="holds no video but the picture of a cover"):
        open_clip(shared / "faults/cover_art/song_with_cover.flac")
    moving = open_clip(shared / "faults/animated_webp_clip/w.webp")
    assert [image.size for _, image in moving.frames()] == [(96, 64)] * moving.num_frames


def write_film(path: Path, films: list[tuple[tuple[int, int], bool]], sound: bool = False) -> Path:
    """A file of films of that size, of which some are the picture of a cover."""
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    with av.open(str(path), "w") as container:
        streams = []
        for size, cover in films:
            stream = container.add_stream("mjpeg", rate=5)
            stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
            if cover:
                stream.disposition = av.stream.Disposition.attached_pic
            streams.append(stream)
        if sound:
            streams.append(container.add_stream("pcm_s16le", rate=8000))
        for stream, (size, cover) in zip(streams, films, strict=False):
            for _ in range(1 if cover else 3):
                picture = Image.new("RGB", size, (200, 30, 30))
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode(None))
        if sound:
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 800), np.int16), format="s16", layout="mono"
            )
            frame.sample_rate = 8000
            container.mux(streams[-1].encode(frame))
            container.mux(streams[-1].encode(None))
    return path


@pytest.mark.parametrize("order", [1, -1])
def test_the_film_is_read_and_not_the_picture_of_its_cover(tmp_path: Path, order: int):
    path = write_film(tmp_path / "film.mp4", [((96, 64), False), ((40, 40), True)][::order])
    assert {image.size for _, image in open_clip(path).frames()} == {(96, 64)}


def test_a_file_without_a_film_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"sound.wav holds no video$"):
        open_clip(write_film(tmp_path / "sound.wav", [], sound=True))
    playlist = tmp_path / "list.m3u8"
    film = write_film(tmp_path / "film.ts", [((96, 64), False)])
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{film.name}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ValueError, match=r"list.m3u8 is (a list of other files|no video)"):
        open_clip(playlist)


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_ten_bits_are_brought_to_eight(
    tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture
):
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    path = tmp_path / "ten.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        frame = av.VideoFrame.from_image(four_corners()).reformat(format="yuv420p10le")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    [(_, image)] = open_clip(path).frames()
    assert corners_of(image) == "red green white blue"
    np.testing.assert_allclose(np.asarray(image)[10, 10], CORNERS["red"], atol=8)
    assert not caplog.messages


def test_pixels_that_are_not_square_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        container.mux(
            stream.encode(av.VideoFrame.from_image(four_corners()).reformat(format="yuv420p"))
        )
        container.mux(stream.encode(None))
    [(_, image)] = open_clip(path).frames()
    assert image.size == (96, 64)
    assert caplog.messages == [
        f"the pixels of {path} are 16/11 times as wide as high: its frames are taken as stored"
    ]


def test_of_a_film_that_was_cut_off_what_is_there_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write_film(tmp_path / "film.avi", [((96, 64), False)])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"00dc", 0, whole.index(b"idx1")) + 4])
    frames = list(open_clip(path).frames())
    assert [name for name, _ in frames] == ["00000", "00001"]
    assert caplog.messages == [f"{path} holds 2 frames, of the 3 that it tells of: it is cut short"]


def test_a_film_that_breaks_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    path = write_film(tmp_path / "film.avi", [((96, 64), False)])

    def breaking(source: Path):
        yield four_corners()
        raise ValueError(f"{source} is damaged")

    monkeypatch.setattr(video, "_video", breaking)
    assert len(list(open_clip(path).frames())) == 1
    assert caplog.messages == [f"{path} is damaged; frames before that, which are used: 1"]


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_animated_pictures_are_clips(tmp_path: Path, suffix: str):
    first, *others = pictures()
    path = tmp_path / f"moving.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(path, save_all=True, append_images=others, duration=200, loop=0, **options)
    clip = open_clip(path)
    assert (clip.num_frames, clip.rate) == (4, 5.0)
    names, images = zip(*clip.frames(), strict=True)
    assert names == ("00000", "00001", "00002", "00003")
    assert {(image.size, image.mode) for image in images} == {((48, 32), "RGB")}
    np.testing.assert_allclose(colors_of(images), COLORS, atol=6)


def test_the_picture_before_the_film_of_a_png_is_no_frame(tmp_path: Path):
    first, *others = pictures()
    path = tmp_path / "moving.png"
    first.save(path, save_all=True, append_images=others, default_image=True, duration=100)
    clip = open_clip(path)
    assert clip.num_frames == 3
    assert [tuple(c) for c in colors_of([image for _, image in clip.frames()])] == COLORS[1:]


def test_a_photo_is_a_clip_of_one_frame_and_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    four_corners().save(tmp_path / "photo.jpg", exif=exif, quality=95)
    [(_, image)] = open_clip(tmp_path / "photo.jpg").frames()
    assert corners_of(image) == "white red blue green"


def test_a_file_with_an_odd_name_is_no_address(tmp_path: Path, film: Path):
    odd = film.rename(tmp_path / "concat:a|http:b.mp4")
    assert len(list(open_clip(odd).frames())) == 4
