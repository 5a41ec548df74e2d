"""Models at the Hugging Face Hub: in the cache, downloaded, or out of reach.

transformers requests each file of a model and retries each request, which takes half a minute on a
machine without a network. `reading` sends one request; if there is no answer, only the local cache
is used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

# huggingface_hub is imported where it is used, since the bundled model does without.

# Time limit of the request, DNS lookup included.
_LONGEST_SECONDS = 4.0
# After a failed request, the endpoint is not asked again for this long.
_REMEMBERED_SECONDS = 60.0
_COPY = "or give the folder of a copy (config.json, model.safetensors, tokenizer.json)"

# Files of weights that transformers reads; large ones come in numbered parts, with an index.
_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WEIGHT_NAME = re.compile(r"(model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin)")
# Files downloaded at a time: a model has one or two large ones.
_MAX_WORKERS = 4

_silent: dict[str, tuple[float, str]] = {}
"""Endpoints that did not answer: the monotonic time until which that counts, and the reason."""


class NotCachedError(FileNotFoundError):
    """A model is neither in the cache of the Hugging Face Hub nor can it be fetched."""


@contextmanager
def reading(source: str) -> Iterator[bool]:
    """Context manager in which transformers reads a model from a folder or the Hugging Face Hub.

    Args:
        source: A local folder, or a Hub name "owner/name".

    Yields:
        Value for the `local_files_only` argument of transformers: True if the Hub is unreachable.

    Raises:
        FileNotFoundError: The Hub has no model of that name.
        NotCachedError: The Hub does not answer, and the local cache lacks the model.
    """
    if Path(source).is_dir():
        yield False
        return

    problem = _ask(source)
    try:
        yield bool(problem)
    except OSError as error:
        if not problem:
            raise
        raise NotCachedError(
            f"{source!r} is no folder and is not in the cache of "
            f"Hugging Face's models, and {problem}: "
            f"try again with a network, {_COPY}"
        ) from error


def in_cache(source: str) -> bool:
    """Say whether the local cache has a model, without a network.

    Args:
        source: Hub name of the model.

    Returns:
        True if its configuration and weights are there.
    """
    if not _is_cached(source, "config.json"):
        return False
    return any(_is_cached(source, name) for name in _WEIGHT_FILES)


def download(source: str, weights: bool = True) -> Path:
    """Download a model into the cache; a download that broke off continues.

    The Hub client shows its progress.

    Args:
        source: Hub name of the model.
        weights: Fetch the weights too; False: only configuration and tokenizer.

    Returns:
        Folder of the model in the cache.

    Raises:
        OSError: The Hub cannot be reached, has no such model or weights, or the download broke
            off.
    """
    if problem := _ask(source):
        raise FileNotFoundError(f"{source!r} cannot be downloaded: {problem}")

    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        names = HfApi(endpoint=constants.ENDPOINT).list_repo_files(source)
        wanted = _wanted(names, weights)
        if weights and not any(_is_weights(name) for name in wanted):
            raise FileNotFoundError(f"{source!r} has no weights that transformers reads")
        folder = snapshot_download(
            source, allow_patterns=wanted, endpoint=constants.ENDPOINT, max_workers=_MAX_WORKERS
        )
    except FileNotFoundError:
        raise
    except Exception as error:
        # The network layers raise errors of all kinds.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(
            f"the download of {source!r} broke off, and continues when started again: {reason}"
        ) from error

    return Path(folder)


def _is_cached(source: str, name: str) -> bool:
    """Whether the cache has a file of a model."""
    from huggingface_hub import try_to_load_from_cache

    # The client returns a marker for a file that the Hub is known to lack.
    return isinstance(try_to_load_from_cache(source, name), str)


def _wanted(names: Sequence[str], weights: bool) -> list[str]:
    """Files of a model that transformers reads: weights of one format, settings and tokenizer."""
    safe = any(name.endswith(".safetensors") and _is_weights(name) for name in names)
    wanted = []
    for name in names:
        if _is_weights(name):
            # The second copy that many models have is not read.
            if weights and name.endswith(".safetensors") == safe:
                wanted.append(name)
        elif "/" not in name and name.endswith((".json", ".txt", ".model")):
            wanted.append(name)

    return wanted


def _is_weights(name: str) -> bool:
    """Whether a file of a model holds the weights, or a part of them."""
    return _WEIGHT_NAME.fullmatch(name) is not None


def _ask(source: str) -> str:
    """Ask the Hub for a model and return why there is no answer, or "" if there is one.

    Raises:
        FileNotFoundError: The Hub answers that there is no such name, or that it is gated.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE forbids to download it"

    until, problem = _silent.get(constants.ENDPOINT, (0.0, ""))
    if time.monotonic() < until:
        return problem

    try:
        _head(source)
    except EntryNotFoundError:
        # The repository exists but has no config.json: transformers reports what is missing.
        pass
    except HFValidationError as error:
        raise FileNotFoundError(
            f"{source!r} is no folder, and cannot be a name at Hugging Face"
        ) from error
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{source!r} is gated at Hugging Face: accept its terms there and log in"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{source!r} is no folder, and Hugging Face has no model "
            "of that name, or none that is public"
        ) from error
    except HfHubHTTPError as error:
        return f"{constants.ENDPOINT} answers with the status {error.response.status_code}"
    except Exception as error:
        # Any other error, whichever network layer raised it, counts as an unreachable endpoint.
        reason = " ".join(str(error).split()) or type(error).__name__
        problem = f"{constants.ENDPOINT} cannot be reached ({reason})"
        _silent[constants.ENDPOINT] = time.monotonic() + _REMEMBERED_SECONDS, problem
        return problem

    return ""


def _head(source: str) -> None:
    """Request the metadata of config.json once, with a time limit that includes the DNS lookup."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    answer: Future[None] = Future()

    def ask() -> None:
        """Send the request and store its outcome in `answer`."""
        try:
            url = hf_hub_url(source, "config.json", endpoint=constants.ENDPOINT)
            get_hf_file_metadata(url, timeout=_LONGEST_SECONDS)
            answer.set_result(None)
        except Exception as error:
            # Passed on to the waiting caller.
            answer.set_exception(error)

    # A thread, because the timeout of the request does not cover the DNS lookup.
    Thread(target=ask, daemon=True).start()
    try:
        answer.result(_LONGEST_SECONDS)
    except TookTooLong as error:
        raise TimeoutError(f"no answer within {_LONGEST_SECONDS:g} seconds") from error
