"""What the study of CLIP-S4 measures beside mIoU on names: its probes, tracking, and agreement with
the teacher.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, benchmark
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.photo import read_photo
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.distillation.prototypes import SEGMENT_SCALE, class_cosines, phrases_of, segments
from maskfree.evaluation.probes.common import HALVES, Split, classes_of, results_row
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.evaluation.probes.knn import knn_probe
from maskfree.evaluation.probes.linear import linear_probe
from maskfree.evaluation.tracking import track_benchmark
from maskfree.hub import loading
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.propagation_config import PropagationConfig
from maskfree.ops.prototypes import top_prototypes
from maskfree.ops.segments import segment_sums, spherical_kmeans
from maskfree.progress import Watch
from studies.ledger import Samples

_SEGMENTS = 36


@dataclass(frozen=True)
class ProbeFigure:
    """Table 4: frozen embeddings, and the masks of one half of the photos for the other half."""

    name: str
    benchmark: str
    config: KnnConfig | LinearConfig

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Teach with each half, label the other, and count both together."""
        chosen, photos = benchmark(self.benchmark), samples[self.benchmark]
        halves = [
            Split(tuple(photos[::2]), tuple(photos[1::2])),
            Split(tuple(photos[1::2]), tuple(photos[::2])),
        ]
        counted = reduce(
            add, [self._probe(segmenter, half, classes_of(chosen), watch) for half in halves]
        )
        return asdict(results_row(counted, chosen, halves, HALVES, segmenter, self.config, command))

    def _probe(
        self, segmenter: Segmenter, split: Split, classes: Sequence[str], watch: Watch
    ) -> Any:
        if isinstance(self.config, KnnConfig):
            return knn_probe(segmenter, split.train, split.test, classes, self.config, watch)
        return linear_probe(segmenter, split.train, split.test, classes, self.config, watch)


@dataclass(frozen=True)
class TrackingFigure:
    """Table 5: the first mask of each sequence is followed."""

    name: str
    folder: Path
    side_px: int
    config: PropagationConfig

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Follow, and compare J and F."""
        rows = track_benchmark(segmenter, self.folder, self.config, self.side_px)
        settings = {"side_px": self.side_px, **asdict(self.config)}
        overall = asdict(rows[-1])
        return {
            "benchmark": "davis2016",
            "protocol": settings,
            "J": overall["j_mean"],
            "F": overall["f_mean"],
            "sequences": [asdict(row) for row in rows[:-1]],
            "parts": {},
            "command": command,
        }


@dataclass(frozen=True)
class SimilarityFigure:
    """Table 6's avgsim: the mean cosine of a model's segment embeddings and its teacher's in the
    same segments.
    """

    name: str
    benchmark: str
    teacher: str

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Cut each photo into segments by the model's embeddings, and compare."""
        teacher = loading.load(self.teacher, segmenter.device)
        cosines = [
            _similarity(segmenter, teacher, sample) for sample in watch(samples[self.benchmark])
        ]
        return {
            "benchmark": self.benchmark,
            "similarity": statistics.mean(cosines),
            "segments": _SEGMENTS,
            "parts": {},
            "command": command,
        }


@torch.inference_mode()
def _similarity(segmenter: Segmenter, teacher: Segmenter, sample: AnnotatedPhoto) -> float:
    photo = read_photo(sample.photo)
    own = embed(segmenter, photo)
    rows, columns = (max(1, int(length)) for length in own.extent)
    values = own.at(rows, columns)[None]
    ids = spherical_kmeans(values, _SEGMENTS)
    ours, counts = segment_sums(values, ids, _SEGMENTS)
    theirs, _ = segment_sums(embed(teacher, photo).at(rows, columns)[None], ids, _SEGMENTS)
    return F.cosine_similarity(ours, theirs, dim=2)[counts > 0].mean().item()


@dataclass(frozen=True)
class TopFigure:
    """Table 8: prototypes of the mean of so many segments, against those of 32.

    Nothing is trained.
    """

    name: str
    maps: Callable[[], TeacherMaps]
    words: tuple[str, ...]
    counts: tuple[int, ...]

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Return the mean cosine for each number."""
        settings = PrototypeConfig()
        found = segments(self.maps(), settings.num_segments)
        likeness = class_cosines(found, *phrases_of(segmenter.with_words(self.words, "none")))
        usual, _ = top_prototypes(found, likeness, settings.top, SEGMENT_SCALE)
        cosines = {
            str(count): (top_prototypes(found, likeness, count, SEGMENT_SCALE)[0] * usual)
            .sum(1)
            .mean()
            .item()
            for count in self.counts
        }
        return {"similarities": cosines, "segments": len(found), "parts": {}, "command": command}
