"""Bounds on what a server accepts at once, and who may ask it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; beyond them a request is refused in words."""

    max_bytes: int = 20 * 2**20
    """Bytes of a request's body."""
    max_pixels: int = 25_000_000
    """Pixels of a photo; in memory each takes three bytes."""
    max_words: int = 200
    """Words of a request, synonyms included. Each costs a text embedding and a score map."""
    max_waiting: int = 32
    """Photos in the queue and at work; more are answered 429."""
    max_open: int = 128
    """Requests at once, those that are still being uploaded included."""
    body_seconds: float = 30.0
    """Time in which a request's body must arrive."""
    answer_seconds: float = 60.0
    """Time from the arrival of a request to its answer."""
    max_batch: int = 4
    """Photos of one forward pass."""


@dataclass(frozen=True)
class Access:
    """Who may ask a server."""

    token: str = ""
    """Token that requests must carry; empty: none is asked for."""
    hosts: tuple[str, ...] = ()
    """Names with a dot under which browsers may reach the server without a token."""
    label_studio: str = ""
    """Address of the Label Studio whose photos are fetched; empty: none are."""
    label_studio_key: str = ""
    """API key or personal access token of that Label Studio."""
