"""Whether a name at Hugging Face can be asked for, found out once and quickly, before transformers asks many times.

transformers asks for each of a model's files, and each time again and again while nobody answers: half a minute for a
machine without a network. Here one question is asked. If nobody answers, the cache has to do.
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

_LONGEST_SECONDS = 4.0  # for an answer, the search for the address included
_REMEMBERED_SECONDS = 60.0  # for which nobody is asked again after there was no answer
_COPY = "or give the folder of a copy (config.json, model.safetensors, tokenizer.json)"

_silent: dict[str, tuple[float, str]] = {}
"""Endpoints that did not answer: until when that counts, and why."""


@contextmanager
def reading(source: str) -> Iterator[bool]:
    """Read the folder or Hugging Face name SOURCE by transformers, inside a `with`.

    Args:
        source: A folder, or "owner/name".

    Yields:
        What to pass on as `local_files_only`: whether only files on this machine can be read.

    Raises:
        FileNotFoundError: there is no such name; or nobody answers, and the cache lacks what is read.
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
        raise FileNotFoundError(
            f"{source!r} is no folder and is not in the cache of Hugging Face's models, and {problem}: "
            f"try again with a network, {_COPY}"
        ) from error


def _ask(source: str) -> str:
    """Ask for SOURCE; return why there is no answer, which is empty if there is one.

    Raises:
        FileNotFoundError: the answer is that there is no such name.
    """
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE forbids to download it"
    until, problem = _silent.get(constants.ENDPOINT, (0.0, ""))
    if time.monotonic() < until:
        return problem

    try:
        _head(source)
    except EntryNotFoundError:
        pass  # the name is right; what it lacks, transformers says
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
            f"{source!r} is no folder, and Hugging Face has no model of that name, or none that is public"
        ) from error
    except HfHubHTTPError as error:
        return f"{constants.ENDPOINT} answers with the status {error.response.status_code}"
    except Exception as error:  # whatever the layers of the network raise
        reason = " ".join(str(error).split()) or type(error).__name__
        problem = f"{constants.ENDPOINT} cannot be reached ({reason})"
        _silent[constants.ENDPOINT] = time.monotonic() + _REMEMBERED_SECONDS, problem
        return problem
    return ""


def _head(source: str) -> None:
    """Ask once for one file of SOURCE; give up after a while, also where the address of the host is looked for."""
    answer: Future[None] = Future()

    def ask() -> None:
        try:
            url = hf_hub_url(source, "config.json", endpoint=constants.ENDPOINT)
            get_hf_file_metadata(url, timeout=_LONGEST_SECONDS)
            answer.set_result(None)
        except Exception as error:  # handed to the caller
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer.result(_LONGEST_SECONDS)
    except TookTooLong as error:
        raise TimeoutError(f"no answer within {_LONGEST_SECONDS:g} seconds") from error
