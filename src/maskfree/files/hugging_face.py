"""Quick check whether the Hugging Face Hub is reachable, before transformers downloads a model.

transformers requests each file of a model and retries each request, which takes half a minute on a
machine without a network. This module sends one request; if there is no answer, only the local
cache is used.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

# Time limit of the request, DNS lookup included.
_LONGEST_SECONDS = 4.0
# After a failed request, the endpoint is not asked again for this long.
_REMEMBERED_SECONDS = 60.0
_COPY = "or give the folder of a copy (config.json, model.safetensors, tokenizer.json)"

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


def _ask(source: str) -> str:
    """Ask the Hub for a model and return why there is no answer, or "" if there is one.

    Raises:
        FileNotFoundError: The Hub answers that there is no such name, or that it is gated.
    """
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
