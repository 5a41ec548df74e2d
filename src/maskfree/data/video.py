"""The frames of a clip, from a video file or a folder of photos, one after the other; and clips written to a file."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from maskfree.data.decoding import check_size
from maskfree.data.display_matrix import display_move
from maskfree.data.examples import PHOTO_SUFFIXES
from maskfree.data.moving_pictures import moving_frames, moving_pictures
from maskfree.data.photo import read_photo
from maskfree.data.photo_folders import only_photos
from maskfree.files.leftovers import unfinished_folder, writing
from maskfree.files.outputs import CLIP_MARK

MAX_FRAMES = 100_000  # an hour of most videos: more is a mistake that would fill a disk
PHOTOS_PER_SECOND = 10.0  # of a folder of photos, which does not say
PICTURES = (".webp", ".gif")
VIDEO = ".mp4"
MAX_PICTURES = 1000  # in an animated picture, which Pillow holds in memory as a whole; a video has no such limit
_PICTURE_PX = 640  # longer side of an animated picture, at most
# Of FFmpeg's readers those of videos: others draw texts, or follow a list to other files.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "apng,asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,"
    "mpegts,mpegvideo,mjpeg,mxf,nut,ogg,webp_pipe,yuv4mpegpipe,mp3,flac,wav,aac",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A clip; each call of `frames` reads it anew, as pairs of a name and an upright RGB photo.

    Reading raises a ValueError in one line where the file has no frame or more than `MAX_FRAMES`. Where it is damaged
    or cut short the frames before are read, and a warning says so.
    """

    source: Path
    rate: float  # frames per second
    num_frames: int | None  # None: the file does not say
    frames: Callable[[], Iterator[tuple[str, Image.Image]]]
    photos: tuple[Path, ...] = ()  # those of a folder, which are the frames


def open_clip(source: Path) -> Clip:
    """Open a video file, an animated picture, or a folder whose photos are the frames: by name, 10 after 9.

    Raises:
        FileNotFoundError: there is no SOURCE, or no photo in it.
        ValueError: it is no video, two photos have one name, or PyAV is missing.
    """
    if source.is_dir():
        photos = sorted(only_photos(source.iterdir(), source), key=_in_numbers)
        if not photos:
            raise FileNotFoundError(
                f"the folder {source} holds no photo ({', '.join(PHOTO_SUFFIXES)})"
            )
        if len({path.stem for path in photos}) < len(photos):
            raise ValueError(
                f"two photos in {source} have the same name but for the suffix: frames need their own"
            )
        return Clip(source, PHOTOS_PER_SECOND, len(photos), partial(_photos, photos), tuple(photos))
    if not source.is_file():
        raise FileNotFoundError(f"there is no video or folder {source}")
    if moving := moving_frames(source):
        count, rate = moving
        return Clip(source, rate, count, partial(_numbered, source, moving_pictures, count))
    with _opened(source) as (_, stream):
        rate, count = float(stream.average_rate or stream.guessed_rate or 25), stream.frames or None
        if stream.sample_aspect_ratio not in (None, 0, 1):
            log.warning(
                "the pixels of %s are %s times as wide as high: its frames are taken as stored",
                source,
                stream.sample_aspect_ratio,
            )
        return Clip(source, rate, count, partial(_numbered, source, _video, count))


def write_clip(pictures: Iterable[Image.Image], path: Path, rate: float) -> int:
    """Write RGB pictures of one size as an animated picture (.webp, .gif) or a video (.mp4); return how many.

    They are taken one by one. PATH, whose folder is made if need be, appears when it is whole. An animated picture is
    at most 640 pixels wide or high; a video of odd sides loses its last row or column.

    Raises:
        ValueError: the suffix is another one, there is no picture or too many, or PyAV is missing.
        OSError: it cannot be written.
    """
    if path.suffix not in (*PICTURES, VIDEO):
        raise ValueError(
            f"a clip cannot be written as {path.name}: {', '.join((*PICTURES, VIDEO))} can"
        )
    count = 0

    def counted() -> Iterator[Image.Image]:
        nonlocal count
        for picture in pictures:
            count += 1
            check_length(count, path)
            yield picture

    others = counted()
    first = next(others, None)
    if first is None:
        raise ValueError(f"there is no picture to write into {path}")
    write = _write_video if path.suffix == VIDEO else _write_pictures
    with writing(path), unfinished_folder(path.parent) as unfinished:
        written = unfinished / path.name  # by its suffix the libraries know the format
        write(first, others, written, rate)
        written.replace(path)
    return count


def check_length(count: int, path: Path) -> None:
    """Raise a ValueError, in one line, if COUNT frames are too many for a clip at PATH."""
    if path.suffix in PICTURES and count > MAX_PICTURES:
        raise ValueError(
            f"an animated picture has {MAX_PICTURES} frames at most, {path.name} would have more: use mp4"
        )


def need_video_files() -> None:
    """Raise a ValueError, in one line, if PyAV is missing."""
    if not find_spec("av"):
        raise ValueError(
            "a video file needs PyAV: pip install 'maskfree[video]'; a folder of photos does not"
        )


def _photos(photos: list[Path]) -> Iterator[tuple[str, Image.Image]]:
    if len(photos) > MAX_FRAMES:
        raise ValueError(
            f"{photos[0].parent} has {len(photos)} photos: {MAX_FRAMES} frames are the most"
        )
    for path in photos:
        yield path.stem, read_photo(path)


def _numbered(
    source: Path,
    read: Callable[[Path], Iterator[Image.Image]],
    count: int | None,
) -> Iterator[tuple[str, Image.Image]]:
    """Name the frames of a file, as far as they can be read; say so if that is not to the end."""
    index = -1
    try:
        for index, image in enumerate(read(source)):
            if index == MAX_FRAMES:
                break
            yield f"{index:05d}", image
    except ValueError as error:
        if index < 0:
            raise
        log.warning("%s; frames before that, which are used: %d", error, index + 1)
        return

    if index == MAX_FRAMES:
        raise ValueError(f"{source} has more than {MAX_FRAMES} frames: so many are the most")
    if index < 0:
        raise ValueError(f"{source} holds no frame that can be read")
    if count and index + 1 < count:
        log.warning(
            "%s holds %d frames, of the %d that it tells of: it is cut short",
            source,
            index + 1,
            count,
        )


def _video(source: Path) -> Iterator[Image.Image]:
    with _opened(source) as (container, stream):
        for frame in container.decode(stream):
            check_size(frame.width, frame.height, str(source))
            move = display_move(frame)
            image = frame.to_image()
            yield image if move is None else image.transpose(move)


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Any, Any]]:
    """A video file and its first film; what PyAV raises becomes one line."""
    need_video_files()
    import av
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        with av.open(f"file:{source}", options=_OPTIONS) as container:
            films = [
                each
                for each in container.streams.video
                if not each.disposition & Disposition.attached_pic
            ]
            if not films:
                cover = " but the picture of a cover" if container.streams.video else ""
                raise ValueError(f"{source} holds no video{cover}")
            if films[0].width * films[0].height:  # else it is known when a frame is decoded
                check_size(films[0].width, films[0].height, str(source))
            yield container, films[0]
    except FFmpegError as error:
        raise ValueError(
            f"{source} is no video that can be read, or a damaged one: {error.strerror}"
        ) from error


def _write_pictures(
    first: Image.Image, others: Iterator[Image.Image], path: Path, rate: float
) -> None:
    shrink = min(1.0, _PICTURE_PX / max(first.size))
    size = max(1, round(first.width * shrink)), max(1, round(first.height * shrink))
    small, *rest = (
        picture.resize(size, Image.Resampling.BILINEAR) for picture in chain([first], others)
    )
    duration = max(20, round(1000 / rate))  # ms; of shorter ones browsers make a tenth of a second
    settings: dict[str, Any] = {"optimize": False, "comment": CLIP_MARK}
    if path.suffix == ".webp":
        settings = {"quality": 80, "method": 2, "xmp": CLIP_MARK}
    small.save(path, save_all=True, append_images=rest, duration=duration, loop=0, **settings)


def _write_video(
    first: Image.Image, others: Iterator[Image.Image], path: Path, rate: float
) -> None:
    need_video_files()
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    width, height = (
        max(2, side - side % 2) for side in first.size
    )  # colors are stored at half the size
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = CLIP_MARK.decode()
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in chain([first], others):
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _in_numbers(path: Path) -> list[tuple[int, str]]:
    """Sort key by which frame10 comes after frame9."""
    return [
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.stem)
    ] + [(0, path.suffix)]
