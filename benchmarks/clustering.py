"""The online clustering head against K-means per photo, on 28x28 pixel embeddings of 512
dimensions.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro
from torch.nn import functional as F

from harness import RESULTS, Ratio, median_seconds, report
from maskfree.nn.cluster_head import ClusterHead
from maskfree.ops.kmeans import kmeans


def main(
    clusters: int = 20,
    side: int = 28,
    dim: int = 512,
    iterations: int = 30,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Cluster the patches of one photo both ways.

    Args:
        clusters: Number of clusters.
        side: Patches on each side.
        dim: Dimensions of a pixel embedding.
        iterations: Iterations of K-means at most; it stops when no label changes.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # A smooth field with noise, as embeddings of a photo are: separate blobs would let K-means stop
    # too early.
    maps = F.interpolate(
        torch.randn(1, dim, 7, 7), (side, side), mode="bicubic"
    ) + 0.5 * torch.randn(1, dim, side, side)
    pixels = maps.flatten(2).mT.contiguous()
    head = ClusterHead(dim=dim, num_clusters=clusters).eval()
    with torch.inference_mode():
        seconds = median_seconds(
            {
                "online head": lambda: head(maps).argmax(1),
                "K-means": lambda: kmeans(pixels, clusters, iterations=iterations),
            },
            repeats=15,
        )
    ratio = Ratio(
        "K-means over online head", seconds["K-means"] / seconds["online head"], "at least 10"
    )
    settings = {"clusters": clusters, "side": side, "dim": dim, "iterations": iterations}
    report("clustering", seconds, [ratio], settings, results)


if __name__ == "__main__":
    tyro.cli(main)
