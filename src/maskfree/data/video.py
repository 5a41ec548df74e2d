"""Read the frames of a video file, an animated image or a folder of photos."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from maskfree.data.decoding import check_size
from maskfree.data.display_matrix import display_move
from maskfree.data.examples import PHOTO_SUFFIXES
from maskfree.data.moving_pictures import moving_frames, moving_pictures
from maskfree.data.photo import read_photo
from maskfree.data.photo_folders import only_photos

# About an hour of video; more is probably a mistake and would fill the disk.
MAX_FRAMES = 100_000
# Frame rate assumed for a folder of photos.
PHOTOS_PER_SECOND = 10.0
# Only FFmpeg's demuxers of videos: others render text, or open files that a list names.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": (
        "apng,asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,"
        "mpegts,mpegvideo,mjpeg,mxf,nut,ogg,webp_pipe,yuv4mpegpipe,mp3,flac,wav,aac"
    ),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A clip whose frames are read anew by each call of `frames`.

    Reading raises a ValueError if the file has no frame or more than `MAX_FRAMES`. If the file is
    damaged or cut short, the frames before the damage are read and a warning is logged.
    """

    source: Path
    """Video file, animated image or folder of photos."""
    rate: float
    """Frames per second."""
    num_frames: int | None
    """Number of frames; None if the file does not say."""
    frames: Callable[[], Iterator[tuple[str, Image.Image]]]
    """Iterates over pairs of a frame's name and its upright RGB image."""
    photos: tuple[Path, ...] = ()
    """Photos of a folder, which are its frames; empty for a file."""


def open_clip(source: Path) -> Clip:
    """Open a clip.

    Args:
        source: A video file, an animated image, or a folder whose photos are the frames. Photos are
            sorted by name, with numbers in numeric order.

    Returns:
        The clip, whose frames are not read yet.

    Raises:
        FileNotFoundError: The source does not exist, or the folder holds no photo.
        ValueError: The file is no video, two photos share a name, or PyAV is missing.
    """
    if source.is_dir():
        photos = sorted(only_photos(source.iterdir(), source), key=_in_numbers)
        if not photos:
            raise FileNotFoundError(
                f"the folder {source} holds no photo ({', '.join(PHOTO_SUFFIXES)})"
            )

        if len({path.stem for path in photos}) < len(photos):
            raise ValueError(
                f"two photos in {source} have the same name but for the suffix: "
                "frames need their own"
            )

        return Clip(source, PHOTOS_PER_SECOND, len(photos), partial(_photos, photos), tuple(photos))

    if not source.is_file():
        raise FileNotFoundError(f"there is no video or folder {source}")

    # Pillow reads animated images, PyAV everything else.
    if moving := moving_frames(source):
        count, rate = moving
        return Clip(source, rate, count, partial(_numbered, source, moving_pictures, count))

    # 25 frames per second if neither the header nor the frames tell the rate.
    with _opened(source) as (_, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        count = stream.frames or None
        if stream.sample_aspect_ratio not in (None, 0, 1):
            log.warning(
                "the pixels of %s are %s times as wide as high: its frames are taken as stored",
                source,
                stream.sample_aspect_ratio,
            )

        return Clip(source, rate, count, partial(_numbered, source, _video, count))


def need_video_files() -> None:
    """Check that PyAV is installed.

    Raises:
        ValueError: It is missing.
    """
    if not find_spec("av"):
        raise ValueError(
            "a video file needs PyAV: pip install 'maskfree[video]'; a folder of photos does not"
        )


def _photos(photos: list[Path]) -> Iterator[tuple[str, Image.Image]]:
    """Frames of a folder, named by the stems of its photos."""
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
    """Number the frames of a file; log a warning if it ends early."""
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
    """Frames of a video file, rotated as its display matrix says."""
    with _opened(source) as (container, stream):
        for frame in container.decode(stream):
            check_size(frame.width, frame.height, str(source))
            image = frame.to_image()
            move = display_move(frame)
            if move is not None:
                image = image.transpose(move)
            yield image


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video file and its first video stream; errors of PyAV become a one-line ValueError."""
    need_video_files()
    import av
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        with av.open(f"file:{source}", options=_OPTIONS) as container:
            # A cover image is stored as a video stream, too.
            films = []
            for stream in container.streams.video:
                if not stream.disposition & Disposition.attached_pic:
                    films.append(stream)

            if not films:
                message = f"{source} holds no video"
                if container.streams.video:
                    message += " but the picture of a cover"
                raise ValueError(message)

            # If the header has no size, it is checked when a frame is decoded.
            if films[0].width * films[0].height:
                check_size(films[0].width, films[0].height, str(source))
            yield container, films[0]
    except FFmpegError as error:
        raise ValueError(
            f"{source} is no video that can be read, or a damaged one: {error.strerror}"
        ) from error


def _in_numbers(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame10 after frame9."""
    key = []
    for part in re.split(r"(\d+)", path.stem):
        if part.isdecimal():
            key.append((int(part), ""))
        else:
            key.append((0, part))
    return [*key, (0, path.suffix)]
