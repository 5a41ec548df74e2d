"""From a photo's bytes and words to its result, with bounds on what is under way."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import TypeVar

from fastapi import Request
from torch import OutOfMemoryError

from maskfree.data.decoding import PictureError
from maskfree.data.photo import read_photo
from maskfree.inference.photos import PreparedPhoto, prepare_photo
from maskfree.inference.pipeline import segmentation_of
from maskfree.inference.segmenter import Segmenter
from maskfree.results.segmentation import Segmentation
from maskfree.serve.batching import Batcher, Scores
from maskfree.serve.errors import Refused
from maskfree.serve.limits import Limits
from maskfree.serve.metrics import Metrics
from maskfree.serve.models import Models, Wanted

Result = TypeVar("Result")

# Longest name of a photo in a record, in letters and in bytes: file systems allow 255 bytes, of
# which suffixes need some.
_MAX_NAME, _MAX_NAME_BYTES = 100, 200


class Service:
    """The work of a server: decoding, text embeddings, the network, label maps.

    Args:
        models: Loaded models.
        limits: Bounds of requests.
        metrics: Counters of the server.
    """

    def __init__(self, models: Models, limits: Limits, metrics: Metrics) -> None:
        self.models = models
        self.limits = limits
        self.metrics = metrics
        self._batcher = Batcher(limits.max_batch, metrics)
        # What is beside the network: decoding, embedding of words, enlarging.
        self._workers = ThreadPoolExecutor(os.cpu_count() or 1, "maskfree-photo")
        self._num_waiting = 0

    def start(self) -> None:
        """Start the thread of the network."""
        self._batcher.start()

    def stop(self) -> None:
        """Finish what is under way and end the threads."""
        self._batcher.stop()
        self._workers.shutdown()

    @property
    def is_ready(self) -> bool:
        """Whether another photo would be taken.

        Returns:
            True if the network's thread runs and the queue has room.
        """
        return self._batcher.is_alive and self._num_waiting < self.limits.max_waiting

    async def segment(
        self, request: Request, content: bytes, name: str, wanted: Wanted
    ) -> Segmentation:
        """Segment a photo.

        Args:
            request: The request; when its client leaves, the work ends.
            content: Bytes of the photo's file.
            name: Name of the file, for the record.
            wanted: Model, words and settings.

        Returns:
            The result.

        Raises:
            Refused: The photo or the words cannot be used, there are too many requests, or it took
                too long.
        """
        async with self._admitted():
            segmenter, photo, scores = await self._score(request, content, name, wanted)
            return await self._run(lambda: segmentation_of(segmenter, photo, scores))

    async def score(
        self,
        request: Request,
        content: bytes,
        wanted: Wanted,
        finish: Callable[[Segmenter, PreparedPhoto, Scores], Result],
    ) -> Result:
        """Score a photo, and make something of the scores.

        Args:
            request: The request; when its client leaves, the work ends.
            content: Bytes of the photo's file.
            wanted: Model, words and settings.
            finish: Makes the result, in a thread beside the network's.

        Returns:
            What `finish` returns.

        Raises:
            Refused: As for `segment`.
        """
        async with self._admitted():
            segmenter, photo, scores = await self._score(request, content, "", wanted)
            return await self._run(lambda: finish(segmenter, photo, scores))

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run other work in a thread, within the bounds of photos.

        Args:
            work: The work.

        Returns:
            What it returns.

        Raises:
            Refused: There are too many requests, or it took too long or broke a rule.
        """
        async with self._admitted():
            return await self._run(work)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Run work in a thread, without a place in the queue.

        Args:
            work: Work of a request that was admitted, or is quick.

        Returns:
            What it returns.
        """
        return await self._run(work)

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Take a place among the photos that are under way, for a bounded time."""
        if self._num_waiting >= self.limits.max_waiting:
            seconds = math.ceil(self._num_waiting * self._batcher.seconds_per_photo)
            raise Refused(
                429,
                f"{self._num_waiting} photos are waiting: try again",
                {"retry-after": str(max(1, seconds))},
            )

        self._num_waiting += 1
        self.metrics.waiting.set(self._num_waiting)
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                yield
        except TimeoutError:
            raise Refused(
                503,
                f"no answer within {self.limits.answer_seconds:g} s",
                {"retry-after": "10"},
            ) from None
        finally:
            self._num_waiting -= 1
            self.metrics.waiting.set(self._num_waiting)

    async def _score(
        self, request: Request, content: bytes, name: str, wanted: Wanted
    ) -> tuple[Segmenter, PreparedPhoto, Scores]:
        """Decode a photo, embed its words, and wait for its scores."""
        segmenter = await self._run(lambda: self.models.segmenter(wanted))
        photo = await self._run(lambda: self._prepare(segmenter, content, name))

        future = self._batcher.submit(segmenter, photo)
        scores = await _while_connected(request, future)
        return segmenter, photo, scores

    def _prepare(self, segmenter: Segmenter, content: bytes, name: str) -> PreparedPhoto:
        """Decode a photo and resize it for the network."""
        try:
            image = read_photo(content, max_pixels=self.limits.max_pixels)
        except PictureError as error:
            if "too many pixels" in str(error) or "are allowed" in str(error):
                most = self.limits.max_pixels
                raise Refused(413, f"the photo is too large: {most} pixels are the most") from error
            raise Refused(422, str(error)) from error
        return prepare_photo(
            image, plain_name(name), segmenter.inference, segmenter.method.patch_size
        )

    async def _run(self, work: Callable[[], Result]) -> Result:
        """Run work in a thread; what breaks a rule is the request's fault."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._workers, work)
        except ValueError as error:
            raise Refused(422, str(error)) from error
        except MemoryError as error:
            raise Refused(503, "the server has not enough memory for this") from error


def plain_name(name: str) -> str:
    """Reduce the name that a client gave a photo to a harmless file name.

    Args:
        name: Any text, also a path of another system.

    Returns:
        Its last part without unprintable letters; "photo" if nothing is left.
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(letter for letter in last if letter.isprintable())[-_MAX_NAME:]
    return kept.encode("utf-8", "ignore")[-_MAX_NAME_BYTES:].decode("utf-8", "ignore") or "photo"


async def _while_connected(request: Request, future: Future[Scores]) -> Scores:
    """Wait for scores; if the client leaves, the photo leaves the queue."""
    scores = asyncio.wrap_future(future)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({scores, left}, return_when=asyncio.FIRST_COMPLETED)
        if not scores.done():
            # Nobody reads this answer; the status is for the counters.
            raise Refused(499, "the client left")
        return scores.result()
    except ValueError as error:
        raise Refused(422, str(error)) from error
    except (MemoryError, OutOfMemoryError) as error:
        raise Refused(503, "the server has not enough memory for this") from error
    finally:
        future.cancel()
        left.cancel()


async def _left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
