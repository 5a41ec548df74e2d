"""Score of a checkpoint on a benchmark while its training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from torch import Tensor

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, Benchmark
from maskfree.data.benchmarks.catalog import benchmark as find_benchmark
from maskfree.evaluation.named_protocols import PROTOCOLS
from maskfree.evaluation.protocol import Protocol, check
from maskfree.evaluation.result_cache import DistInfo
from maskfree.evaluation.zero_shot import EvalJob, measure
from maskfree.hub.loading import load


@dataclass(frozen=True)
class BenchmarkScore:
    """Measures checkpoints on the first photos of a benchmark, by the first row of `own`."""

    benchmark: Benchmark
    """The benchmark."""
    samples: Sequence[AnnotatedPhoto]
    """Its photos that are measured on."""
    protocol: Protocol
    """The protocol."""

    @classmethod
    def find(cls, name: str, root: Path, photos: int) -> BenchmarkScore:
        """Find a benchmark and check that it can be measured.

        Args:
            name: Name of the benchmark.
            root: Folder that contains its files.
            photos: Number of photos, from the first one; 0: all.

        Returns:
            The measure.

        Raises:
            ValueError: There is no such benchmark.
            OSError: A file of the benchmark cannot be read.
        """
        benchmark = find_benchmark(name, root)
        protocol = PROTOCOLS["own"](benchmark)[0]
        check(benchmark, protocol)
        return cls(benchmark, benchmark.samples(root)[: photos or None], protocol)

    def __call__(self, checkpoint: Path, fabric: Fabric) -> dict[str, Any]:
        """Measure a checkpoint; collective over processes, which share the photos.

        Args:
            checkpoint: Folder of the checkpoint.
            fabric: The launched processes.

        Returns:
            The mean IoU in [0, 1] and what it was measured on, the same in all processes.
        """

        def total(tensor: Tensor) -> Tensor:
            """Sum a tensor over the processes.

            Args:
                tensor: Counts of this process.

            Returns:
                Their sum, on the CPU.
            """
            summed = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
            return cast("Tensor", summed).cpu()

        team = DistInfo(fabric.global_rank, fabric.world_size, total)
        work = EvalJob(self.benchmark, self.samples, "maskfree train", team=team)
        row = measure(load(checkpoint, str(fabric.device)), self.protocol, work, "own").row
        return {
            # None where no pixel of a class was counted.
            "mean_iou": row.mean_iou or 0.0,
            "benchmark": row.benchmark,
            "photos": row.num_photos,
            "files_sha256": row.files_sha256,
            "protocol": row.protocol,
        }
