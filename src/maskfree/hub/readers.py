"""Readers of weights of others: one for each method that `--model METHOD:SOURCE` names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskfree.hub.catalog import BEST_METHODS, METHODS, MODELS
from maskfree.hub.convert import clip, groupvit, ovsegmentor
from maskfree.hub.foreign_model import ForeignModel
from maskfree.hub.model_name import ModelName, is_open_clip, may_be_hub_name, parse_model_name
from maskfree.inference.config import AUTHORS_INFERENCE
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.methods.maskclip.presets import METHOD_PRESETS
from maskfree.nn.clip_weights import model_type
from maskfree.text.templates import AUTHORS_TEMPLATES
from maskfree.text.tokenize import Tokenizer

# Without one of these transformers makes up an empty tokenizer.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
)


@dataclass(frozen=True)
class Reader:
    """How the weights of a method are read."""

    file: Callable[[Path, str, str], ForeignModel]
    """Function of (file, method, tokenizer) that reads a file of weights."""
    tokenizer: str
    """Hugging Face name of the tokenizer of weights in a file, which is not among them."""
    saved: Callable[[str, str], ForeignModel] | None = None
    """Function of (source, method) that reads what transformers saved in a folder or at the Hub."""
    open_clip: Callable[[str, str, str], ForeignModel] | None = None
    """Function of (name, method, tokenizer) that reads a model of open_clip."""
    teaches: bool = True
    """Whether a student can take the text encoder; False is reported before weights are read."""


@dataclass(frozen=True)
class Located:
    """A model whose weights are not a checkpoint of this package."""

    name: str
    """Short name, for results."""
    method: str
    """Method that reads it, a key of `READERS`."""
    source: str
    """Folder, file, Hub name or name of open_clip."""


def locate(model: str | Path) -> Located | None:
    """Find out how a model is read.

    Args:
        model: Name, METHOD, METHOD:SOURCE, SOURCE or folder.

    Returns:
        The method and the source; None: the model is a checkpoint, bundled or in a folder.

    Raises:
        OSError: The source cannot be read.
        ValueError: There is no such method, or it does not read the source.
    """
    text = str(model)
    if isinstance(model, Path):
        # A path is a folder or a file, whatever its name.
        name = ModelName(None, text)
    elif entry := MODELS.get(text):
        if not entry.source:
            return None
        return Located(text, entry.method, entry.source)
    elif text not in METHODS and Path(text).exists():
        # A path may hold a colon.
        name = ModelName(None, text)
    else:
        name = parse_model_name(text, METHODS)

    source = name.source or METHODS[str(name.method)]
    if source is None:
        raise ValueError(f"the weights of {text} have no name of their own: give {text}:FILE")

    method = name.method or _best_method(source)
    if method is None:
        return None

    # A checkpoint states its method itself.
    if (Path(source) / "run.json").is_file() and not (Path(source) / "config.json").is_file():
        raise ValueError(
            f"{source!r} is a checkpoint, which states its method: leave {method}: out"
        )
    return Located(name.short, method, source)


def read(located: Located) -> ForeignModel:
    """Read a model.

    Args:
        located: Method and source.

    Returns:
        The model.

    Raises:
        OSError: The source or its tokenizer cannot be read.
        ValueError: The source is damaged, or is not one that the method reads.
    """
    reader, source, method = READERS[located.method], located.source, located.method
    if Path(source).is_file():
        return reader.file(Path(source), method, tokenizer_of(located))

    if is_open_clip(source) and not Path(source).exists():
        if reader.open_clip is None:
            raise ValueError(f"{source!r} is a CLIP of open_clip, which {method} does not read")
        return reader.open_clip(source.replace("/", ":"), method, reader.tokenizer)

    if reader.saved is None:
        raise FileNotFoundError(f"there is no file {source!r}: {method} reads a file of weights")
    if not Path(source).is_dir() and not may_be_hub_name(source):
        raise FileNotFoundError(
            f"{source!r} is no folder, no file, no name at Hugging Face (OWNER/NAME) and none of "
            "open_clip (ViT-B-16/WEIGHTS)"
        )
    return reader.saved(source, method)


def tokenizer_of(located: Located) -> str:
    """Find the tokenizer of weights in a file.

    Args:
        located: Model whose source is a file.

    Returns:
        Folder of the file if a tokenizer lies beside it; else the Hugging Face name of the
        method's tokenizer.
    """
    folder = Path(located.source).parent
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return str(folder)
    return READERS[located.method].tokenizer


def _best_method(source: str) -> str | None:
    """Method for what transformers saved; None if the source is nothing of transformers."""
    if Path(source).is_file():
        raise ValueError(
            f"{source!r} is a file, which does not say what it holds: give METHOD:{source}, "
            f"with one of {', '.join(METHODS)}"
        )
    if is_open_clip(source) and not Path(source).exists():
        return BEST_METHODS["clip"]

    # A checkpoint has no config.json; a folder with neither is reported as no checkpoint.
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        return None
    if not folder.is_dir() and not may_be_hub_name(source):
        return None

    kind = model_type(source)
    if kind not in BEST_METHODS:
        raise ValueError(
            f"{source!r} is a model of the kind {kind!r}, which no method reads: "
            f"one of {', '.join(BEST_METHODS)}"
        )
    return BEST_METHODS[kind]


def _read_groupvit(source: str, method: str) -> ForeignModel:
    """Read a GroupViT through transformers."""
    kind = model_type(source)
    if kind != "groupvit":
        raise ValueError(f"{source!r} is a model of the kind {kind!r}, not a GroupViT")

    config = GroupViTConfig(weights=source)
    network = config.build()
    folder = Path(source)
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    if folder.is_dir() and not has_tokenizer:
        raise FileNotFoundError(
            f"no tokenizer in {source!r}: it needs {' or '.join(_TOKENIZER_FILES)}"
        )

    max_length = network.tower.config.text_config.max_position_embeddings
    tokenizer = Tokenizer.from_source(source, max_length)
    # Building the transform checks that tokenizer and weights belong together.
    config.build_transform(tokenizer)
    return ForeignModel(network, config, tokenizer, AUTHORS_TEMPLATES, AUTHORS_INFERENCE)


_DENSE_CLIP = Reader(
    saved=clip.read_clip,
    file=clip.read_clip_file,
    open_clip=clip.read_clip_of_open_clip,
    tokenizer=clip.TOKENIZER,
)
READERS = {
    **dict.fromkeys(METHOD_PRESETS, _DENSE_CLIP),
    "groupvit": Reader(
        saved=_read_groupvit,
        file=lambda file, method, tokenizer: groupvit.read_groupvit_file(file, tokenizer),
        tokenizer=groupvit.TOKENIZER,
        teaches=False,
    ),
    "ovsegmentor": Reader(
        file=lambda file, method, tokenizer: ovsegmentor.read_ovsegmentor(file, tokenizer),
        tokenizer=ovsegmentor.TOKENIZER,
    ),
}
"""Reader of each method in `catalog.METHODS`."""
