"""Read the frames of a video file, an animated image or a folder of photos, and write clips."""

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

# About an hour of video; more is probably a mistake and would fill the disk.
MAX_FRAMES = 100_000
# Frame rate assumed for a folder of photos.
PHOTOS_PER_SECOND = 10.0
PICTURES = (".webp", ".gif")
VIDEO = ".mp4"
# Most frames of an animated image, which Pillow holds in memory; a video has no such limit.
MAX_PICTURES = 1000
# Longest side of an animated image, in pixels.
_PICTURE_PX = 640
# Only FFmpeg's demuxers of videos: others render text, or open files that a list names.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "apng,asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,"
    "mpegts,mpegvideo,mjpeg,mxf,nut,ogg,webp_pipe,yuv4mpegpipe,mp3,flac,wav,aac",
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
                f"two photos in {source} have the same name but for the suffix: frames need their own"
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
        rate, count = float(stream.average_rate or stream.guessed_rate or 25), stream.frames or None
        if stream.sample_aspect_ratio not in (None, 0, 1):
            log.warning(
                "the pixels of %s are %s times as wide as high: its frames are taken as stored",
                source,
                stream.sample_aspect_ratio,
            )

        return Clip(source, rate, count, partial(_numbered, source, _video, count))


def write_clip(pictures: Iterable[Image.Image], path: Path, rate: float) -> int:
    """Write images as an animated image (.webp, .gif) or a video (.mp4).

    The images are consumed one by one. The file appears only when it is complete. An animated image
    is at most 640 pixels wide or high; a video of odd width or height loses its last column or row.

    Args:
        pictures: RGB images of one size.
        path: File to write; its folder is created if needed.
        rate: Frames per second.

    Returns:
        The number of images written.

    Raises:
        ValueError: The suffix is not supported, there is no image or too many, or PyAV is missing.
        OSError: The file cannot be written.
    """
    if path.suffix not in (*PICTURES, VIDEO):
        raise ValueError(
            f"a clip cannot be written as {path.name}: {', '.join((*PICTURES, VIDEO))} can"
        )

    count = 0

    def counted() -> Iterator[Image.Image]:
        """Count the images and check their number.

        Yields:
            Each image.
        """
        nonlocal count
        for picture in pictures:
            count += 1
            check_length(count, path)
            yield picture

    # Take the first image early: it tells the size, and without it no file is made.
    others = counted()
    first = next(others, None)

    if first is None:
        raise ValueError(f"there is no picture to write into {path}")

    write = _write_video if path.suffix == VIDEO else _write_pictures
    with writing(path), unfinished_folder(path.parent) as unfinished:
        # The libraries choose the format by the suffix.
        written = unfinished / path.name
        write(first, others, written, rate)
        written.replace(path)

    return count


def check_length(count: int, path: Path) -> None:
    """Check that a clip does not have too many frames for its format.

    Args:
        count: Number of frames.
        path: File that the clip goes to.

    Raises:
        ValueError: An animated image would have too many frames.
    """
    if path.suffix in PICTURES and count > MAX_PICTURES:
        raise ValueError(
            f"an animated picture has {MAX_PICTURES} frames at most, {path.name} would have more: use mp4"
        )


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
            move = display_move(frame)
            image = frame.to_image()
            yield image if move is None else image.transpose(move)


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
            films = [
                each
                for each in container.streams.video
                if not each.disposition & Disposition.attached_pic
            ]

            if not films:
                cover = " but the picture of a cover" if container.streams.video else ""
                raise ValueError(f"{source} holds no video{cover}")

            # If the header has no size, it is checked when a frame is decoded.
            if films[0].width * films[0].height:
                check_size(films[0].width, films[0].height, str(source))
            yield container, films[0]
    except FFmpegError as error:
        raise ValueError(
            f"{source} is no video that can be read, or a damaged one: {error.strerror}"
        ) from error


def _write_pictures(
    first: Image.Image, others: Iterator[Image.Image], path: Path, rate: float
) -> None:
    """Write an animated image."""
    shrink = min(1.0, _PICTURE_PX / max(first.size))
    size = max(1, round(first.width * shrink)), max(1, round(first.height * shrink))
    small, *rest = (
        picture.resize(size, Image.Resampling.BILINEAR) for picture in chain([first], others)
    )
    # In ms; browsers replace shorter durations by 100 ms.
    duration = max(20, round(1000 / rate))
    settings: dict[str, Any] = {"optimize": False, "comment": CLIP_MARK}

    if path.suffix == ".webp":
        settings = {"quality": 80, "method": 2, "xmp": CLIP_MARK}
    small.save(path, save_all=True, append_images=rest, duration=duration, loop=0, **settings)


def _write_video(
    first: Image.Image, others: Iterator[Image.Image], path: Path, rate: float
) -> None:
    """Write a video with H.264, or MPEG-4 where that is not available."""
    need_video_files()
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # yuv420p stores colors at half the resolution, so both sides must be even.
    width, height = (max(2, side - side % 2) for side in first.size)
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = CLIP_MARK.decode()
        # 1001 is the denominator of NTSC frame rates such as 30000/1001.
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

        for picture in chain([first], others):
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            container.mux(stream.encode(frame))

        # Flush the frames that the encoder still holds.
        container.mux(stream.encode(None))


def _in_numbers(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame10 after frame9."""
    return [
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.stem)
    ] + [(0, path.suffix)]
