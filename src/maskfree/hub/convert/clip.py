"""CLIP from a file of OpenAI or open_clip, or as transformers saved it, written as a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from torch import Tensor

from maskfree.files import tensors
from maskfree.hub import checkpoint
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.maskclip.model import MaskCLIP, named_block, published_clip, usual_view
from maskfree.nn.clip_weights import clip_architectures, is_resnet, renamed_clip
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.text.tokenize import Tokenizer

TOKENIZER = "openai/clip-vit-base-patch16"
"""Of every CLIP of OpenAI, and of open_clip's with the same vocabulary."""

_PLACES = {  # our name of what CLIPModel's names begin with
    "vision_model.": "image.tower.vision_model.",
    "visual_projection.": "image.tower.visual_projection.",
    "text_model.": "text.encoder.tower.",
    "text_projection.": "text.projection.",
    "logit_scale": "log_scale",
    "visual.": "image.tower.",  # of a ResNet, whose names are open_clip's here, too
}

OPEN_CLIP = "open_clip:"
"""What a model's name in open_clip begins with here: open_clip:ViT-B-16:laion2b_s34b_b88k."""

Activation = Literal["quick_gelu", "gelu"]


def convert_clip(
    source: str,
    out: Path,
    *,
    last_block: str | None = None,
    tokenizer: str | None = None,
    activation: Activation = "quick_gelu",
    heads: tuple[int, int] | None = None,
) -> None:
    """Write the CLIP in SOURCE to the folder OUT.

    SOURCE is a file of weights, a folder or name that transformers reads, or "open_clip:MODEL:WEIGHTS". LAST_BLOCK is a
    name in `nn.dense_clip.PRESETS`. A file tells neither TOKENIZER nor ACTIVATION nor attention HEADS (image, text);
    what transformers saved tells all, and TOKENIZER replaces its own.

    Raises:
        OSError: SOURCE cannot be read, OUT exists or cannot be written, or there is no such tokenizer.
        ValueError: SOURCE is damaged or no CLIP, tensors do not fit, or there is no such last block.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: name a folder that is yet to be made")
    if source.startswith(OPEN_CLIP) or Path(source).is_file():
        if source.startswith(OPEN_CLIP):
            state, activation, heads = read_open_clip(source.removeprefix(OPEN_CLIP))
        else:
            state = read_state(Path(source))
        config = _config(state, last_block or "maskclip", activation, heads)
        method = fill(config, state)
        longest = config.text.architecture["max_position_embeddings"]
        words = Tokenizer.from_source(tokenizer or TOKENIZER, int(longest))  # pyright: ignore[reportArgumentType]
    else:
        config, words = published_clip(source, last_block)
        if tokenizer is not None:
            words = Tokenizer.from_source(tokenizer, words.max_length)
        method = config.build()
    config.text.check(words.vocabulary_size, words.max_length)
    templates, inference = usual_view(config.image.last_block, config.image.family)
    run = {
        "name": out.name,
        "templates": list(templates),
        "inference": asdict(inference),
        "source": {"weights": Path(source).name if Path(source).exists() else source},
    }
    checkpoint.save(out, method, config, words, run)


def fill(config: MaskCLIPConfig, state: Mapping[str, Tensor]) -> MaskCLIP:
    """Build the method of CONFIG with the weights of STATE, under OpenAI's and open_clip's names.

    Raises:
        ValueError: a tensor is missing, left over or misshapen.
    """
    method = config.build()
    own = {_theirs(name): name for name in method.state_dict()}
    expected = {theirs: method.state_dict()[name] for theirs, name in own.items()}
    method.load_state_dict(
        {own[name]: tensor for name, tensor in renamed_clip(state, expected).items()}
    )
    return method


def _theirs(name: str) -> str:
    """The name in a CLIPModel of what is called NAME in a `MaskCLIP`."""
    theirs, ours = next((theirs, ours) for theirs, ours in _PLACES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def _config(
    state: Mapping[str, Tensor],
    last_block: str,
    activation: Activation,
    heads: tuple[int, int] | None,
) -> MaskCLIPConfig:
    vision, text = clip_architectures(state, activation, heads)
    return MaskCLIPConfig(
        image=DenseClipConfig(
            "clip_resnet" if is_resnet(state) else "clip",
            vision,
            last_block=named_block(last_block),
        ),
        text=TextEncoderConfig("clip", text, frozen=True),
        text_projection=ProjectionConfig(bias=False),
        embed_dim=state["text_projection"].shape[1],
    )


def read_open_clip(name: str) -> tuple[dict[str, Tensor], Activation, tuple[int, int]]:
    """Load the open_clip model NAME, "MODEL:WEIGHTS"; return its tensors, activation and attention heads.

    Raises:
        ValueError: open_clip is not installed, knows no such model, or cannot read its weights.
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
    except Exception as error:  # also those of the network and of the weights' own reader
        raise ValueError(
            f"open_clip cannot load {name!r}: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    modules = dict(model.named_modules())
    image, text = (modules.get(f"{tower}transformer.resblocks.0") for tower in ("visual.", ""))
    text = text or modules.get("text.transformer.resblocks.0")
    heads = (
        image.attn.num_heads if image else 0,
        text.attn.num_heads if text else 0,
    )  # 0: a ResNet, or no CLIP
    quick = any(isinstance(module, QuickGELU) for module in modules.values())
    return _plain(model.state_dict()), "quick_gelu" if quick else "gelu", heads


def read_state(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of weights, as `tensors.read_state` does.

    What training scripts put before names goes: "module." and open_clip's "text.".

    Raises:
        ValueError: it holds no tensors with names, or is damaged.
    """
    return _plain(tensors.read_state(file))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without what training scripts and open_clip's newer models put before their names."""
    return {
        key.removeprefix("module.").removeprefix("text."): value for key, value in state.items()
    }
