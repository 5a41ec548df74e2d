"""The `maskfree download` command: fetch models for machines without a network."""

from __future__ import annotations

from rich.console import Console
from tyro.conf import Positional


def download(names: Positional[tuple[str, ...]]) -> int:
    """Fetch the files of models into the cache of Hugging Face, so that they load offline.

    A download that broke off continues where it was. To use a model on a machine without a
    network, copy the cache folder there and set HF_HOME to it.

    Args:
        names: Models as `--model` takes them: names of `maskfree models`, METHOD:SOURCE or Hugging
            Face names.

    Returns:
        Exit status 0.
    """
    from maskfree.hub.catalog import METHODS, MODELS
    from maskfree.hub.model_name import parse_model_name

    if not names:
        raise ValueError(f"no model was given: one of {', '.join(MODELS)}, or METHOD:SOURCE")
    # Wrong names are reported before the first download.
    for name in names:
        parse_model_name(name, METHODS)

    from maskfree.hub.downloading import fetch

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name in names:
        console.print(f"{name}: {fetch(name)}")
    return 0
