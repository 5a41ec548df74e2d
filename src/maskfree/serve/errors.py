"""Errors of requests, answered as JSON with one line of words."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

# Longest message: an error may quote what was sent.
_MAX_CHARACTERS = 300


class Refused(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status of the answer.
        reason: What is wrong, in one line.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, one_line(reason), headers)


def one_line(text: str) -> str:
    """Put a message on one line of bounded length.

    Args:
        text: The message.

    Returns:
        The message with single spaces, cut at 300 characters.
    """
    line = " ".join(text.split()).encode("utf-8", "replace").decode()
    if len(line) > _MAX_CHARACTERS:
        line = line[: _MAX_CHARACTERS - 3] + "..."
    return line


def error_answer(
    status: int, reason: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Make the answer to a request that failed.

    Args:
        status: HTTP status.
        reason: What is wrong.
        headers: Headers of the answer.

    Returns:
        JSON `{"error": reason}`.
    """
    return JSONResponse({"error": one_line(reason)}, status, headers)


def answer_errors(app: FastAPI) -> None:
    """Make an app answer every error in words.

    Args:
        app: The app.
    """

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return error_answer(error.status_code, str(error.detail), error.headers)

    async def unfit(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_answer(422, "; ".join(map(_rule, error.errors()[:3])))

    async def failed(request: Request, error: Exception) -> JSONResponse:
        # The traceback goes to the log; a client learns nothing of the machine.
        return error_answer(500, "the server failed at this request; its log says why")

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, unfit)
    app.add_exception_handler(Exception, failed)


def _rule(error: Mapping[str, object]) -> str:
    """One broken rule of a request: the field and what is wrong with it."""
    place = error.get("loc", ())
    assert isinstance(place, tuple)
    name = ".".join(str(part) for part in place[1:])
    return f"{name or 'the request'}: {error.get('msg', 'does not fit')}"
