"""The `maskfree evaluate knn` command: k-NN probing of a model's patch embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import Network
from maskfree.cli.probes import ProbeOutput, run_probe
from maskfree.evaluation.probes.config import KnnConfig


def knn(
    benchmark: Positional[str],
    data: Path,
    model: str = "pocket",
    output: Annotated[ProbeOutput, OmitArgPrefixes] = ProbeOutput(),  # noqa: B008 - frozen
    network: Annotated[Network, OmitArgPrefixes] = Network(),  # noqa: B008 - frozen
    config: Annotated[KnnConfig, OmitArgPrefixes] = KnnConfig(),  # noqa: B008 - frozen
) -> int:
    """Evaluate a model's frozen embeddings by a k-NN classifier fit on labeled masks.

    A segment gets the class of the nearest segments of the training photos. The network is not
    trained, and its text encoder is not used. If the benchmark has no training photos, each half of
    its photos is evaluated with a classifier fit on the other half.

    Args:
        benchmark: Name of a benchmark; `maskfree datasets` describes them.
        data: Folder that contains the files of the benchmarks, or their folders.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        output: Output options.
        network: Input resolution and device of the network.
        config: Settings of the classifier.

    Returns:
        Exit status 0.
    """
    return run_probe("knn", benchmark, data, model, output, network, config)
