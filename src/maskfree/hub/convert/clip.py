"""Convert CLIP weights of OpenAI, open_clip or transformers to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from maskfree.files import tensors
from maskfree.hub.foreign_model import ForeignModel, save
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.maskclip.model import MaskCLIP
from maskfree.methods.maskclip.presets import named_preset
from maskfree.methods.maskclip.published import default_inference, published_clip
from maskfree.nn.clip_weights import clip_architectures, is_resnet, renamed_clip
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.text.tokenize import Tokenizer

TOKENIZER = "openai/clip-vit-base-patch16"
"""Default tokenizer: that of all CLIPs of OpenAI and of open_clip's with this vocabulary."""

# Name prefixes in transformers' CLIPModel, each with the prefix here.
_PLACES = {
    "vision_model.": "image.tower.vision_model.",
    "visual_projection.": "image.tower.visual_projection.",
    "text_model.": "text.encoder.tower.",
    "text_projection.": "text.projection.",
    "logit_scale": "log_scale",
    # Of a ResNet, whose names here are open_clip's.
    "visual.": "image.tower.",
}

OPEN_CLIP = "open_clip:"
"""Prefix of a model name of open_clip, as in open_clip:ViT-B-16:laion2b_s34b_b88k."""

Activation = Literal["quick_gelu", "gelu"]
"""Activation function of the transformer blocks."""


def convert_clip(
    source: str,
    out: Path,
    *,
    last_block: str | None = None,
    tokenizer: str | None = None,
    activation: Activation = "quick_gelu",
    heads: tuple[int, int] | None = None,
) -> None:
    """Convert a CLIP to a checkpoint.

    Weights saved by transformers come with their tokenizer, activation and number of heads; a plain
    file of weights does not say them.

    Args:
        source: File of weights, folder or name that transformers reads, or
            "open_clip:MODEL:WEIGHTS".
        out: Folder to write, which must not exist.
        last_block: Name of a method in `METHOD_PRESETS` of MaskCLIP.
        tokenizer: Folder or name of a tokenizer; replaces that of the weights.
        activation: Activation of the transformer blocks, for a file of weights.
        heads: Attention heads of the image and the text encoder, for a file of weights.

    Raises:
        OSError: The source cannot be read, the folder exists or cannot be written, or there is no
            such tokenizer.
        ValueError: The source is damaged or not a CLIP, its tensors do not fit, or there is no such
            last block.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: name a folder that is yet to be made")

    if source.startswith(OPEN_CLIP):
        ready = read_clip_of_open_clip(
            source.removeprefix(OPEN_CLIP), last_block or "maskclip", tokenizer or TOKENIZER
        )
    elif Path(source).is_file():
        ready = read_clip_file(
            Path(source), last_block or "maskclip", tokenizer or TOKENIZER, activation, heads
        )
    else:
        ready = read_clip(source, last_block, tokenizer)

    # Of a file only the name is recorded, not its folder.
    origin = source
    if Path(source).exists():
        origin = Path(source).name
    save(ready, out, out.name, {"weights": origin})


def read_clip(
    source: str, last_block: str | None = None, tokenizer: str | None = None
) -> ForeignModel:
    """Read a CLIP, or another image-text model, that transformers saved.

    Args:
        source: Folder or Hugging Face name.
        last_block: Name of a method in `METHOD_PRESETS` of MaskCLIP; None: that of the model's
            family, "maskclip" for a CLIP.
        tokenizer: Folder or name of a tokenizer; replaces that of the weights.

    Returns:
        The model.

    Raises:
        OSError: The weights or the tokenizer cannot be read.
        ValueError: They are damaged, not a CLIP, or do not fit each other, or there is no such
            last block.
    """
    config, words = published_clip(source, last_block, tokenizer)
    return _checked(config, config.build(), words, last_block)


def read_clip_file(
    file: Path,
    last_block: str,
    tokenizer: str = TOKENIZER,
    activation: Activation = "quick_gelu",
    heads: tuple[int, int] | None = None,
) -> ForeignModel:
    """Read a CLIP from a file of weights.

    Args:
        file: File of weights with the names of OpenAI or open_clip.
        last_block: Name of a method in `METHOD_PRESETS` of MaskCLIP.
        tokenizer: Folder or name of the tokenizer.
        activation: Activation of the transformer blocks.
        heads: Attention heads of the image and the text encoder; None: one per 64 channels.

    Returns:
        The model.

    Raises:
        OSError: The file or the tokenizer cannot be read.
        ValueError: The file is damaged or not a CLIP, or there is no such last block.
    """
    return _filled(read_state(file), last_block, tokenizer, activation, heads)


def read_clip_of_open_clip(name: str, last_block: str, tokenizer: str = TOKENIZER) -> ForeignModel:
    """Read a CLIP through open_clip.

    Args:
        name: Model and weights, as in "ViT-B-16:laion2b_s34b_b88k".
        last_block: Name of a method in `METHOD_PRESETS` of MaskCLIP.
        tokenizer: Folder or name of the tokenizer.

    Returns:
        The model.

    Raises:
        OSError: The tokenizer cannot be read.
        ValueError: open_clip is not installed or has no such model, its weights are not those of a
            CLIP of OpenAI's form, or there is no such last block.
    """
    state, activation, heads = read_open_clip(name)
    return _filled(state, last_block, tokenizer, activation, heads)


def _filled(
    state: Mapping[str, Tensor],
    last_block: str,
    tokenizer: str,
    activation: Activation,
    heads: tuple[int, int] | None,
) -> ForeignModel:
    """Model of plain weights, whose sizes are read from the tensors."""
    config = _config(state, last_block, activation, heads)
    method = fill(config, state)
    max_length = config.text.architecture["max_position_embeddings"]
    words = Tokenizer.from_source(tokenizer, int(max_length))  # pyright: ignore[reportArgumentType]
    return _checked(config, method, words, last_block)


def _checked(
    config: MaskCLIPConfig, method: MaskCLIP, words: Tokenizer, last_block: str | None
) -> ForeignModel:
    """Model with the prompts and windows it was published with; the tokenizer has to fit."""
    config.text.check(words.vocabulary_size, words.max_length)
    templates, inference = default_inference(config.image.last_block, config.image.family)
    if last_block is not None:
        inference = named_preset(last_block).inference or inference
    return ForeignModel(method, config, words, templates, inference)


def fill(config: MaskCLIPConfig, state: Mapping[str, Tensor]) -> MaskCLIP:
    """Build a method and load CLIP weights into it.

    Args:
        config: Settings of the method.
        state: Weights under the names of OpenAI and open_clip.

    Returns:
        The method with these weights.

    Raises:
        ValueError: A tensor is missing, left over or of the wrong shape.
    """
    method = config.build()
    own = method.state_dict()
    # A proxy has its own weights already.
    names = {_clip_name(name): name for name in own if not name.startswith("proxy.")}
    expected = {clip_name: own[name] for clip_name, name in names.items()}

    loaded = renamed_clip(state, expected)
    method.load_state_dict(own | {names[clip_name]: tensor for clip_name, tensor in loaded.items()})
    return method


def _clip_name(name: str) -> str:
    """Name in a CLIPModel of a parameter of `MaskCLIP`."""
    for clip_prefix, prefix in _PLACES.items():
        if name.startswith(prefix):
            return clip_prefix + name.removeprefix(prefix)
    raise AssertionError(f"no CLIP has a parameter like {name}")


def _config(
    state: Mapping[str, Tensor],
    last_block: str,
    activation: Activation,
    heads: tuple[int, int] | None,
) -> MaskCLIPConfig:
    """Settings that fit the weights."""
    vision, text = clip_architectures(state, activation, heads)
    family = "clip"
    if is_resnet(state):
        family = "clip_resnet"

    config = MaskCLIPConfig(
        image=DenseClipConfig(family, vision),
        text=TextEncoderConfig("clip", text, frozen=True),
        text_projection=ProjectionConfig(bias=False),
        embed_dim=state["text_projection"].shape[1],
    )
    return named_preset(last_block).apply(config)


def read_open_clip(name: str) -> tuple[dict[str, Tensor], Activation, tuple[int, int]]:
    """Load a model through open_clip.

    Args:
        name: Model and weights, as in "ViT-B-16:laion2b_s34b_b88k".

    Returns:
        Weights by name, activation, and attention heads of the image and the text encoder.

    Raises:
        ValueError: open_clip is not installed, has no such model, or cannot read its weights.
    """
    try:
        import open_clip  # pyright: ignore[reportMissingImports] - an extra that drags in torchvision
        from open_clip.transformer import QuickGELU  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"{OPEN_CLIP}{name} needs open_clip: pip install 'maskfree[zoo]'"
        ) from error

    model_name, _, weights = name.partition(":")
    try:
        model = open_clip.create_model(model_name, pretrained=weights, require_pretrained=True)
    except Exception as error:  # also those of the network and of the weight reader
        raise ValueError(
            f"open_clip cannot load {name!r}: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error

    modules = dict(model.named_modules())
    # Heads are counted in the first block of each tower; newer models nest the text tower.
    image = modules.get("visual.transformer.resblocks.0")
    text = modules.get("transformer.resblocks.0") or modules.get("text.transformer.resblocks.0")
    heads = (_num_heads(image), _num_heads(text))

    activation: Activation = "gelu"
    if any(isinstance(module, QuickGELU) for module in modules.values()):
        activation = "quick_gelu"

    return _plain(model.state_dict()), activation, heads


def _num_heads(block: Any) -> int:
    """Attention heads of a block of open_clip; 0 without one: of a ResNet, or not of a CLIP."""
    if block is None:
        return 0
    return block.attn.num_heads


def read_state(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of weights, without the name prefixes "module." and "text.".

    Args:
        file: File of weights, in a format of `tensors.read_state`.

    Returns:
        Tensors by name.

    Raises:
        ValueError: The file holds no named tensors, or is damaged.
    """
    return _plain(tensors.read_state(file))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the name prefixes of training scripts and of open_clip's newer models."""
    plain = {}
    for key, value in state.items():
        plain[key.removeprefix("module.").removeprefix("text.")] = value

    return plain
