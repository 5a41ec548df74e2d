"""One thread that runs the network, on photos of equal size and words together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from maskfree.inference.photos import PreparedPhoto
from maskfree.inference.pipeline import score_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.serve.metrics import Metrics

Scores: TypeAlias = Float[Tensor, "k hp wp"]

# Weight of the last forward pass in the mean time of a photo.
_NEWEST = 0.2


@dataclass(eq=False)
class _Job:
    """A photo that waits for its scores."""

    segmenter: Segmenter
    """Model with its words and settings."""
    photo: PreparedPhoto
    """The photo as the network sees it."""
    result: Future[Scores] = field(default_factory=Future)
    """Its scores, once they are there; a cancelled one is left out."""

    @property
    def kind(self) -> tuple[object, ...]:
        """What photos of one forward pass have in common."""
        return id(self.segmenter), self.photo.padded.shape


class Batcher:
    """Queue of photos before the network.

    A single thread takes the oldest photo and all that can share its forward pass: those of the
    same model, words and settings, which come to the same size for the network. Nobody waits for
    company: what has queued up during a forward pass is the next batch.

    Args:
        max_batch: Most photos of a forward pass.
        metrics: Counters of the server.
    """

    def __init__(self, max_batch: int, metrics: Metrics) -> None:
        self._max_batch = max_batch
        self._metrics = metrics
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stops = False
        self._thread = threading.Thread(target=self._work, name="maskfree-network", daemon=True)
        self.seconds_per_photo = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread once the queue is empty."""
        with self._changed:
            self._stops = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether photos are worked on.

        Returns:
            True between `start` and `stop`.
        """
        return self._thread.is_alive()

    def submit(self, segmenter: Segmenter, photo: PreparedPhoto) -> Future[Scores]:
        """Queue a photo.

        Args:
            segmenter: Model with its words and settings; photos share a forward pass only if they
                have the very same one.
            photo: The photo as the network sees it.

        Returns:
            Its scores as `score_photos` returns them; cancel it if nobody wants them any more.
        """
        job = _Job(segmenter, photo)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def _work(self) -> None:
        """Run the network until the server stops."""
        while True:
            with self._changed:
                while not self._jobs and not self._stops:
                    self._changed.wait()
                if not self._jobs:
                    return
                batch = self._next_batch()

            if batch:
                self._score(batch)

    def _next_batch(self) -> list[_Job]:
        """Take the oldest job and those that fit it; cancelled ones are dropped."""
        batch: list[_Job] = []
        left: deque[_Job] = deque()

        while self._jobs:
            job = self._jobs.popleft()
            fits = not batch or (job.kind == batch[0].kind and len(batch) < self._max_batch)
            if not fits:
                left.append(job)
            elif job.result.set_running_or_notify_cancel():
                batch.append(job)

        self._jobs = left
        return batch

    def _score(self, batch: list[_Job]) -> None:
        """Score photos in one forward pass and hand out the results."""
        started = time.perf_counter()
        try:
            scores = score_photos(batch[0].segmenter, [job.photo for job in batch])
            for job, score in zip(batch, scores, strict=True):
                job.result.set_result(score)
        # Whatever is wrong with these photos, the thread goes on with the next ones.
        except Exception as error:
            for job in batch:
                if not job.result.done():
                    job.result.set_exception(error)
            return

        seconds = (time.perf_counter() - started) / len(batch)
        if self.seconds_per_photo:
            seconds = (1 - _NEWEST) * self.seconds_per_photo + _NEWEST * seconds
        self.seconds_per_photo = seconds
        self._metrics.batch.observe(len(batch))
        self._metrics.photos.labels(batch[0].segmenter.name).inc(len(batch))
