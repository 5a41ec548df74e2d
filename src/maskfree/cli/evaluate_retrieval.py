"""The `maskfree evaluate retrieval` command: photos and captions that find each other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg

from maskfree.cli.common import Network, keep_freed_memory
from maskfree.cli.probes import ProbeOutput
from maskfree.config.extras import need

if TYPE_CHECKING:
    from maskfree.evaluation.retrieval import RetrievalRow


def retrieval(
    shards: Annotated[Positional[tuple[str, ...]], arg(metavar="SHARD ...")],
    model: str = "pocket",
    output: Annotated[ProbeOutput, OmitArgPrefixes] = ProbeOutput(),  # noqa: B008 - frozen
    network: Annotated[Network, OmitArgPrefixes] = Network(),  # noqa: B008 - frozen
) -> int:
    """Retrieve captions by photos and photos by captions, and measure recall at 1, 5 and 10.

    A photo's query counts if any of its captions is among the best; each caption is a query. One
    embedding of the whole photo is compared with those of the captions, without prompts.

    Args:
        shards: WebDataset shards of the test photos with their captions: files, globs, or brace
            expressions.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        output: Output options; the row is retrieval-MODEL.json.
        network: Input resolution and device of the network.

    Returns:
        Exit status 0.
    """
    from maskfree.data.shards import find_shards

    if not shards:
        raise ValueError("no shard was given: name files of photos with captions")
    need("reading shards", "train", modules=("webdataset",))
    if output.results.exists() and not output.results.is_dir():
        raise NotADirectoryError(f"the results {output.results} is a file: --results is a folder")
    found = find_shards(shards)

    keep_freed_memory()
    network.apply()
    from maskfree.evaluation.retrieval import read_pairs, retrieve_captions, write_retrieval
    from maskfree.hub import loading
    from maskfree.progress import Progress

    pairs = read_pairs(found)
    loaded = loading.load(model, network.device)
    segmenter = loaded.with_inference(loaded.inference.changed(side_px=network.side_px))

    # The recorded command has the resolution in use, also where it was the model's own.
    command = ["maskfree", "evaluate", "retrieval", *shards, "--model", model]
    command += ["--side-px", str(segmenter.inference.side_px)]

    rows = retrieve_captions(segmenter, pairs, Progress(output.quiet, "photos"))
    path = write_retrieval(rows, segmenter, pairs, shlex.join(command), output.results)

    Console().print(_table(rows), str(path))
    return 0


def _table(rows: Sequence[RetrievalRow]) -> Table:
    """Table of the recalls of both directions, in percent."""
    table = Table("query")
    for heading in ("queries", "R@1", "R@5", "R@10"):
        table.add_column(heading, justify="right")

    for row in rows:
        recalls = (row.recall_1, row.recall_5, row.recall_10)
        cells = [f"{recall:.1%}" for recall in recalls]
        table.add_row(row.query, f"{row.num_queries:,}", *cells)
    return table
