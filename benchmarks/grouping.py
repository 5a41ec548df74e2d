"""Batched spherical K-means against scikit-learn photo by photo, and the pixel-segment loss against
a loop over photos.

Times are taken in turns in one process; peak memory in a fresh process for each way, on the CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from harness import RESULTS, Ratio, median_seconds, report, resident_bytes
from maskfree.losses.pixel_segment import pixel_segment_contrast
from maskfree.ops.segments import grid, intersect, segment_sums, segment_values, spherical_kmeans

OURS, PEER = "K-means: ours, all views", "K-means: scikit-learn, view by view"
BLOCKS, LOOP, TABLE = "loss: ours", "loss: loop over views", "loss: one table of all pairs"
REGION_ROWS = 3  # a photo has 3 x 3 regions
CONCENTRATION = 10.0
ROUNDS = 3
"""Rounds of K-means, each of `repeats` in turn, whose range of ratios is reported."""


@dataclass(frozen=True)
class EvalJob:
    """What every way does."""

    views: int = 16
    """Views of a step, two a photo."""
    side: int = 28
    """Pixel embeddings on each side of a view."""
    dim: int = 384
    """Dimensions of a pixel embedding."""
    segments: int = 36
    """Clusters of a view."""
    iterations: int = 10
    """Iterations of K-means."""
    remembered: int = 1152
    """Segments of batches before, all of them negatives."""


USUAL = EvalJob()


@dataclass(frozen=True)
class Pairs:
    """What the loss compares: pixels view by view, and the segments of all views and of batches
    before.
    """

    pixels: Float[Tensor, "n d"]
    pixel_regions: Int[Tensor, " n"]
    segments: Float[Tensor, "m d"]
    segment_regions: Int[Tensor, " m"]


def main(
    work: EvalJob = USUAL,
    repeats: int = 7,
    threads: int = 1,
    peak_of: str | None = None,
    results: Path = RESULTS,
) -> None:
    """Time both ways of clustering and three of computing the loss with its gradients, and take
    their peak memory.

    Args:
        work: What every way does.
        repeats: Rounds of which the median counts.
        threads: Threads of torch and of scikit-learn.
        peak_of: Only print the peak memory of one way, in bytes: what the script asks of its own
            processes.
        results: Folder for the results file.
    """
    threadpool_limits(threads)
    torch.set_num_threads(threads)
    if peak_of is not None:
        sys.stdout.write(json.dumps(peak_memory(peak_of, work)))
        return
    found = {name: make(name, work) for name in (OURS, PEER, BLOCKS, LOOP, TABLE)}
    losses = [float(found[name]()) for name in (BLOCKS, LOOP, TABLE)]
    if max(losses) - min(losses) > 1e-4 * losses[0]:
        raise RuntimeError(f"the three ways of the loss disagree: {losses}")
    cosine = {name: mean_cosine(found[name](), work) for name in (OURS, PEER)}
    seconds = median_seconds(found, repeats, warm_up=1, clock=time.process_time)
    clustering = {name: found[name] for name in (OURS, PEER)}
    shares = []
    for _ in range(ROUNDS):
        taken = median_seconds(clustering, repeats, warm_up=1, clock=time.process_time)
        shares.append(taken[PEER] / taken[OURS])
    memory = {name: _in_fresh_process(name, work, threads) for name in found}
    rows = [
        {"way": name, "seconds": seconds[name], "peak_mib": round(memory[name] / 2**20, 1)}
        for name in found
    ]
    # K-means takes about as long either way: a single ratio would be noise.
    ratios = [
        Ratio(f"time over ours, {PEER}, least of {ROUNDS} rounds", min(shares)),
        Ratio(f"time over ours, {PEER}, most of {ROUNDS} rounds", max(shares)),
        Ratio(f"peak memory over ours, {PEER}", memory[PEER] / memory[OURS]),
    ]
    for peer in (LOOP, TABLE):
        share = seconds[peer] / seconds[BLOCKS]
        ratios.append(Ratio(f"time over ours, {peer}", share, "at least 1"))
        ratios.append(Ratio(f"peak memory over ours, {peer}", memory[peer] / memory[BLOCKS]))
    pairs = make_pairs(work)
    settings = asdict(work) | {
        "pixels": len(pairs.pixels),
        "segments_compared": len(pairs.segments),
        "concentration": CONCENTRATION,
        "repeats": repeats,
        "clock": "CPU seconds",
        "device": "cpu",
        "mean_cosine_to_center": {name: round(value, 4) for name, value in cosine.items()},
    }
    report("grouping", seconds, ratios, settings, results, rows)


def make(name: str, work: EvalJob) -> Callable[[], Tensor]:
    """Return one way with all it needs made beforehand; it returns labels or the loss."""
    if name == OURS:
        embeddings = make_embeddings(work)
        return lambda: spherical_kmeans(embeddings, work.segments, work.iterations)
    if name == PEER:
        return _scikit_learn(work)
    pairs = make_pairs(work)
    loss = {BLOCKS: _ours, LOOP: lambda pairs: _view_by_view(pairs, work.views), TABLE: _one_table}[
        name
    ]

    def step() -> Tensor:
        pairs.pixels.grad = pairs.segments.grad = None
        value = loss(pairs)
        value.backward()
        return value.detach()

    return step


def make_embeddings(work: EvalJob) -> Float[Tensor, "b d h w"]:
    """Thirty directions in smooth mixtures with noise: like a photo's, their K-means takes about
    ten iterations.
    """
    torch.manual_seed(0)
    fields = F.interpolate(
        torch.randn(work.views, 30, 7, 7), (work.side, work.side), mode="bicubic"
    )
    mixed = torch.einsum("bkhw,kd->bdhw", (3 * fields).softmax(1), torch.randn(30, work.dim))
    return F.normalize(mixed + 0.2 * torch.randn_like(mixed), dim=1)


def make_pairs(work: EvalJob) -> Pairs:
    """Cut the views along regions that both views of a photo share, as training does."""
    embeddings = make_embeddings(work)
    places = torch.arange(work.side) * REGION_ROWS // work.side
    regions = (places[:, None] * REGION_ROWS + places).expand(work.views, -1, -1)
    most = 2 * work.segments
    ids = intersect(spherical_kmeans(embeddings, work.segments, work.iterations), regions, most)
    sums, counts = segment_sums(embeddings, ids, most)
    photos = torch.arange(work.views)[:, None] // 2
    own = (segment_values(regions, ids, most) + photos * REGION_ROWS**2)[counts > 0]
    remembered = F.normalize(torch.randn(work.remembered, work.dim), dim=1)
    return Pairs(
        pixels=embeddings.movedim(1, -1).flatten(0, 2).requires_grad_(),
        pixel_regions=(regions + photos[..., None] * REGION_ROWS**2).where(ids >= 0, -1).flatten(),
        segments=torch.cat([F.normalize(sums[counts > 0], dim=1), remembered]).requires_grad_(),
        segment_regions=F.pad(own, (0, work.remembered), value=-2),
    )


def _scikit_learn(work: EvalJob) -> Callable[[], Tensor]:
    """K-means from the same grid on the same points, location appended.

    Neither of that is timed.
    """
    embeddings = make_embeddings(work)
    line = torch.linspace(-0.5, 0.5, work.side)
    places = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(work.views, -1, -1, -1)
    points = F.normalize(torch.cat([embeddings, places], 1), dim=1).flatten(2).mT.contiguous()
    start = F.one_hot(grid(work.segments, work.side, work.side).flatten(), work.segments).float()
    centers = ((start / start.sum(0)).T @ points).numpy()

    def run() -> Tensor:
        labels = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for view, first in zip(points.numpy(), centers, strict=True):
                fitted = KMeans(
                    work.segments, init=first, n_init="auto", max_iter=work.iterations, tol=0.0
                ).fit(view)
                labels.append(fitted.labels_)
        return torch.from_numpy(np.stack(labels)).view(work.views, work.side, work.side).long()

    return run


def _ours(pairs: Pairs) -> Tensor:
    return pixel_segment_contrast(
        pairs.pixels, pairs.pixel_regions, pairs.segments, pairs.segment_regions, CONCENTRATION
    )


def _one_table(pairs: Pairs) -> Tensor:
    return (
        _sum_of_losses(pairs.pixels, pairs.pixel_regions, pairs) / (pairs.pixel_regions >= 0).sum()
    )


def _view_by_view(pairs: Pairs, views: int) -> Tensor:
    of_views = zip(pairs.pixels.chunk(views), pairs.pixel_regions.chunk(views), strict=True)
    total = torch.stack(
        [_sum_of_losses(pixels, regions, pairs) for pixels, regions in of_views]
    ).sum()
    return total / (pairs.pixel_regions >= 0).sum()


def _sum_of_losses(
    pixels: Float[Tensor, "n d"], regions: Int[Tensor, " n"], pairs: Pairs
) -> Tensor:
    """Eq. 1 in torch's operations."""
    logits = CONCENTRATION * pixels @ pairs.segments.T
    positive = logits.masked_fill(
        regions[:, None] != pairs.segment_regions, torch.finfo(logits.dtype).min
    )
    return (logits.logsumexp(1) - positive.logsumexp(1))[regions >= 0].sum()


def mean_cosine(labels: Int[Tensor, "b h w"], work: EvalJob) -> float:
    """How close pixels are to the centers of their clusters, which is what K-means raises.

    Their location is left out.
    """
    sums, _ = segment_sums(make_embeddings(work), labels, work.segments)
    return float(sums.norm(dim=2).sum() / labels.numel())


def peak_memory(name: str, work: EvalJob) -> int:
    """Run one way twice, and return the most bytes that it took beyond what was there before."""
    run = make(name, work)
    Path("/proc/self/clear_refs").write_text(
        "5", encoding="ascii"
    )  # the peak starts anew, at the present size
    before = resident_bytes("VmRSS")
    for _ in range(2):
        run()
    return resident_bytes("VmHWM") - before


def _in_fresh_process(name: str, work: EvalJob, threads: int) -> int:
    options = {"peak-of": name, "threads": threads} | {
        f"work.{key}": value for key, value in asdict(work).items()
    }
    command = [
        sys.executable,
        str(Path(__file__)),
        *(f"--{key}={value}" for key, value in options.items()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    tyro.cli(main)
