"""Shared fixtures; also switches on the checks of shapes and types in the whole package."""

from __future__ import annotations

import itertools
import re
import resource
import string
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

import maskfree.methods  # settings come before the checks, since they name bad values themselves

with install_import_hook("maskfree", "beartype.beartype"):
    for _module in iter_modules(
        maskfree.methods.__path__
    ):  # everything that they import is checked too
        import_module(f"maskfree.methods.{_module.name}")

import tokenizers
from PIL import Image
from safetensors.torch import load_file

from maskfree.methods.vilseg.model import ViLSeg
from maskfree.text.tokenize import Tokenizer
from shared_folder import SHARED
from tiny import CAPTIONS, spread_out, tiny_vilseg_config

# Files of a method that tests/test_fourth_method.py copies into the package: no tests.
collect_ignore = ["fourth_method"]

_number_of_test = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_number_of_test))
    monkeypatch.setenv("MASKFREE_CACHE", str(folder))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A word-piece tokenizer of the words in `CAPTIONS` and all letters and digits.

    Its vocabulary is written out, since a trainer numbers it otherwise in every run.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    words = re.findall(r"\w+|[^\w\s]", " ".join(CAPTIONS).lower())
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *sorted(set(words))]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    model.add_special_tokens(special)
    model.normalizer = tokenizers.normalizers.BertNormalizer()
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return Tokenizer(model, max_length=32)


@pytest.fixture
def tiny_vilseg() -> ViLSeg:
    """A built tiny ViL-Seg without L_vision, as a user loads it."""
    torch.manual_seed(0)
    return spread_out(tiny_vilseg_config(vision=None).build().eval())


@pytest.fixture
def tiny_checkpoint(tmp_path: Path, tiny_vilseg: ViLSeg, tiny_tokenizer: Tokenizer) -> Path:
    """The folder of a saved `tiny_vilseg`."""
    from maskfree.hub import checkpoint

    folder = tmp_path / "tiny"
    config = tiny_vilseg_config(vision=None).for_inference()
    checkpoint.save(
        folder,
        tiny_vilseg,
        config,
        tiny_tokenizer,
        {"name": "tiny", "templates": ["a photo of a {}"]},
    )
    return folder


@pytest.fixture
def saved(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Callable[[str, Any], Path]:
    """`saved(name, config)` is the folder of a random model."""

    from maskfree.hub import checkpoint

    def save(name: str, config: Any) -> Path:
        about = {
            "name": name,
            "templates": ["a {}"],
            "inference": {"score": "product", "max_whole_px": 1},
        }
        checkpoint.save(tmp_path / name, config.build(), config, tiny_tokenizer, about)
        return tmp_path / name

    return save


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"the development data {SHARED} are absent")
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Callable[[str], Path]:
    """`shared_data("coco-mini")` is that data set's folder."""

    def find(name: str) -> Path:
        folder = shared / "data" / name
        if not folder.is_dir():
            pytest.skip(f"the data set {folder} is absent")
        return folder

    return find


@pytest.fixture(scope="session")
def fixture_tensors() -> Callable[[str], dict[str, torch.Tensor]]:
    """`fixture_tensors("iic_loss")` are the numbers that the original code gave."""

    def read(name: str) -> dict[str, torch.Tensor]:
        path = SHARED / "fixtures" / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"the reference numbers {path} are absent")
        return load_file(path)

    return read


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """`with largest_file(1000):` no file grows beyond so many bytes: an error of the disk as on a
    full one.
    """

    @contextmanager
    def limited(num_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def photo() -> Callable[..., Image.Image]:
    """`photo((width, height), mode)` is a picture with a different smooth pattern in
    each channel.
    """

    def make(size: tuple[int, int] = (83, 57), mode: str = "RGB") -> Image.Image:
        x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
        channels = np.stack([x, y, (x - 0.5) ** 2 + (y - 0.5) ** 2], axis=-1)
        return Image.fromarray((channels * 255).astype(np.uint8)).convert(mode)

    return make
