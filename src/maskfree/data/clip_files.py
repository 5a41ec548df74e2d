"""Write images as a video or an animated image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from maskfree.data.video import need_video_files
from maskfree.files.leftovers import unfinished_folder, writing
from maskfree.files.outputs import CLIP_MARK

PICTURES = (".webp", ".gif")
VIDEO = ".mp4"
# Largest number of frames of an animated image, which Pillow holds in memory; a video has no such
# limit.
MAX_PICTURES = 1000
# Longest side of an animated image, in pixels.
_PICTURE_PX = 640


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

    write = _write_pictures
    if path.suffix == VIDEO:
        write = _write_video

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
            f"an animated picture has {MAX_PICTURES} frames at most, "
            f"{path.name} would have more: use mp4"
        )


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

    codec = "mpeg4"
    if "libx264" in av.codecs_available:
        codec = "libx264"

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
