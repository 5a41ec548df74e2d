"""A server with tiny models, answering in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.serve.app import create_app
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models
from maskfree.text.tokenize import Tokenizer

LOCAL = "http://127.0.0.1:8000"
# Loaded by schemathesis alone, which need not be installed: no tests.
collect_ignore = ["schema_hooks.py"]


@pytest.fixture
def tiny(tiny_vilseg: ViLSeg, tiny_tokenizer: Tokenizer) -> Segmenter:
    """A model with class levels, as the bundled one has."""
    inference = Inference(side_px=64, class_level=0.5)
    return Segmenter(tiny_vilseg, tiny_tokenizer, "tiny", inference=inference)


@pytest.fixture
def models(tiny: Segmenter) -> Models:
    """Two models of one network: the second one looks closer."""
    closer = replace(tiny, name="closer", inference=Inference(side_px=96))
    return Models({"tiny": tiny, "closer": closer}, max_words=12)


@pytest.fixture
def serving(models: Models) -> Iterator[Callable[..., TestClient]]:
    """`serving(Access(...), Limits(...))` is a client of a running app."""
    clients: list[TestClient] = []

    def start(access: Access = Access(), limits: Limits = Limits()) -> TestClient:  # noqa: B008
        app = create_app(models, access, limits)
        client = TestClient(app, base_url=LOCAL, raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serving: Callable[..., TestClient]) -> TestClient:
    return serving()


@pytest.fixture
def png(photo: Callable[..., Image.Image]) -> bytes:
    """Bytes of a photo of 83x57."""
    stream = io.BytesIO()
    photo((83, 57)).save(stream, "PNG")
    return stream.getvalue()
