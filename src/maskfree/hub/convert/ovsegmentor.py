"""Convert the released checkpoint of OVSegmentor without unpickling it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path

from torch import Tensor

from maskfree.data.config import ViewConfig
from maskfree.files.tensors import listed_names
from maskfree.hub.convert.released_file import read_released
from maskfree.hub.foreign_model import ForeignModel, save
from maskfree.inference.config import AUTHORS_INFERENCE
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig
from maskfree.nn.encoder_config import TextEncoderConfig, Value
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.grouping_weights import official_image_keys, official_projection_keys
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.text.templates import AUTHORS_TEMPLATES
from maskfree.text.tokenize import Tokenizer

TOKENIZER = "bert-base-uncased"
"""Default tokenizer, that of the authors' text encoder; for their ViT-S, which has RoBERTa as text
encoder, it stands for `roberta-base`."""
_ROBERTA_TOKENIZER = "roberta-base"
RELEASED_THRESHOLDS = {"voc": 0.95, "context": 0.35, "coco-object": 0.9, "coco-stuff": 0.95}
"""Background thresholds by data set; ADE20K is evaluated without background.

Only recorded in run.json, for its reader.
"""

# Released tensors that inference does not use.
_DROPPED = re.compile(
    r"img_encoder_momentum\..*|logit_scale_mask|text_encoder\.transformer\.embeddings\.position_ids"
    r"|text_encoder\.transformer\.pooler\.dense\.(weight|bias)|multimodal_groupingblock\.blocks\.0\.assign\..*"
)
_BERT, _TOWER, _DECODER = "text_encoder.transformer.", "text.encoder.tower.", "entity.decoder."
_PROJECTORS = {
    "img_projector": "image_projection",
    "text_projector": "text.projection",
    "bridge_projector": "entity.bridge",
}
# Parts of the entity decoder: name here, and released name.
_DECODER_PARTS = {
    "norm_text": "norm_tokens",
    "norm_groups": "norm_x",
    "cross": "pre_assign_attn",
    "block": "post_attn",
    "norm": "norm_new_x",
}
# Maps to the narrower of both widths, where images and texts have different ones.
_ALIGNED = {"widen": "align_proj_text", "narrow": "align_proj_img"}
# Attention heads of the entity decoder, whatever the encoder has.
_DECODER_HEADS = 8
# Settings of RoBERTa that differ from those of BERT, and leave no trace in the tensors.
_ROBERTA = {"layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
# Batch counter of batch norms, which a checkpoint may lack: nothing reads it.
_COUNTER = ".num_batches_tracked"


def convert_ovsegmentor(
    file: Path, out: Path, tokenizer: str, num_heads: int = 8, num_text_heads: int = 12
) -> None:
    """Convert a released OVSegmentor to a checkpoint.

    All sizes are read from the tensors, but for the numbers of attention heads, which do not show
    there.

    Args:
        file: Released file.
        out: Folder to write, which must not exist.
        tokenizer: Folder or name of the tokenizer.
        num_heads: Attention heads of the image encoder.
        num_text_heads: Attention heads of the text encoder.

    Raises:
        OSError: The file cannot be read, the folder exists or cannot be written, or there is no
            such tokenizer.
        ValueError: The file is damaged, refers to unexpected code, or its tensors do not fit.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: name a folder that is yet to be made")

    model = read_ovsegmentor(file, tokenizer, num_heads, num_text_heads)
    save(model, out, "ovsegmentor", {"file": file.name, "thresholds": RELEASED_THRESHOLDS})


def read_ovsegmentor(
    file: Path, tokenizer: str = TOKENIZER, num_heads: int = 8, num_text_heads: int = 12
) -> ForeignModel:
    """Read a released OVSegmentor.

    Args:
        file: Released file.
        tokenizer: Folder or name of the tokenizer.
        num_heads: Attention heads of the image encoder.
        num_text_heads: Attention heads of the text encoder.

    Returns:
        The model.

    Raises:
        OSError: The file cannot be read, or there is no such tokenizer.
        ValueError: The file is damaged, refers to unexpected code, or its tensors do not fit.
    """
    released = read_released(file, "ovsegmentor")
    config = ovsegmentor_config(released, num_heads, num_text_heads)

    longest = int(config.text.architecture["max_position_embeddings"])  # pyright: ignore[reportArgumentType]
    if config.text.family == "roberta":
        # Its positions begin after the padding token's id.
        longest -= _ROBERTA["pad_token_id"] + 1
        if tokenizer == TOKENIZER:
            tokenizer = _ROBERTA_TOKENIZER
    words = Tokenizer.from_source(tokenizer, min(77, longest))
    config.text.check(words.vocabulary_size, words.max_length)

    method = config.build()
    method.load_state_dict(renamed(released, method.state_dict(), config.image.depths))
    return ForeignModel(method, config, words, AUTHORS_TEMPLATES, AUTHORS_INFERENCE)


def ovsegmentor_config(
    released: Mapping[str, Tensor], num_heads: int, num_text_heads: int
) -> OVSegmentorConfig:
    """Settings of a released OVSegmentor, with sizes read from its tensors.

    What the tensors do not show is as in the released code.

    Args:
        released: Released tensors by name.
        num_heads: Attention heads of the image encoder.
        num_text_heads: Attention heads of the text encoder.

    Returns:
        Settings of the method.

    Raises:
        ValueError: A tensor that shows a size is missing or has the wrong number of axes, or a
            number of heads does not divide its width.
    """
    dim, _, patch_px, _ = _shape(released, "img_encoder.patch_embed.proj.weight", 4)
    num_positions = _squeezed(_shape(released, "img_encoder.pos_embed"))[0]
    depths = tuple(
        _count(released, rf"img_encoder\.layers\.{stage}\.blocks\.(\d+)\.") for stage in (0, 1)
    )

    _, width = _shape(released, f"{_BERT}embeddings.word_embeddings.weight", 2)

    # Reshaping into heads needs whole channels for each.
    for heads, channels, side in ((num_heads, dim, "image"), (num_text_heads, width, "text")):
        if heads < 1 or channels % heads:
            raise ValueError(
                f"{heads} attention heads do not divide the {channels} "
                f"channels of the {side} encoder"
            )

    num_groups, num_tokens = (
        _shape(released, "img_encoder.layers.0.downsample.mlp_inter.fc2.weight", 2)[0],
        _shape(released, "img_encoder.layers.0.group_token", 3)[1],
    )
    if num_groups == num_tokens:
        raise ValueError(
            f"the checkpoint mixes {num_tokens} tokens to as many groups: released models to fewer"
        )

    return OVSegmentorConfig(
        image=GroupingEncoderConfig(
            patch_px=patch_px,
            side_px=patch_px * isqrt(num_positions),
            dim=dim,
            num_heads=num_heads,
            depths=(depths[0], depths[1]),
            num_groups=num_groups,
            num_tokens=num_tokens,
            form="released",
        ),
        text=_text_encoder(released, num_text_heads),
        tokenizer=None,
        embed_dim=_shape(released, "img_projector.linear_out.weight", 3)[0],
        image_projection=_projection(released, "img_projector"),
        text_projection=_projection(released, "text_projector"),
        entity=EntityConfig(
            num_heads=_DECODER_HEADS,
            bridge=_projection(released, "bridge_projector"),
        ),
        masks=None,
        views=ViewConfig(side_px=patch_px * isqrt(num_positions)),
        form="released",
    )


def _text_encoder(released: Mapping[str, Tensor], num_heads: int) -> TextEncoderConfig:
    """Settings of the text encoder, with sizes read from the tensors."""
    num_words, width = _shape(released, f"{_BERT}embeddings.word_embeddings.weight", 2)
    num_types = _shape(released, f"{_BERT}embeddings.token_type_embeddings.weight", 2)[0]
    architecture: dict[str, Value] = {
        "vocab_size": num_words,
        "hidden_size": width,
        "num_hidden_layers": _count(released, rf"{re.escape(_BERT)}encoder\.layer\.(\d+)\."),
        "num_attention_heads": num_heads,
        "intermediate_size": _shape(
            released, f"{_BERT}encoder.layer.0.intermediate.dense.weight", 2
        )[0],
        "max_position_embeddings": _shape(
            released, f"{_BERT}embeddings.position_embeddings.weight", 2
        )[0],
        "type_vocab_size": num_types,
    }

    # BERT tells two parts of a text apart, RoBERTa does not.
    if num_types == 1:
        return TextEncoderConfig(
            family="roberta", architecture=architecture | _ROBERTA, pooling="first"
        )
    return TextEncoderConfig(family="bert", architecture=architecture, pooling="first")


def renamed(
    released: Mapping[str, Tensor], state: Mapping[str, Tensor], depths: tuple[int, int]
) -> dict[str, Tensor]:
    """Rename and reshape released tensors to those of the method.

    Shapes may differ by axes of length 1: the released code has convolutions of length 1 for linear
    layers, and positions as a batch of one.

    Args:
        released: Released tensors by name.
        state: State dict of the method.
        depths: Number of blocks of the image encoder's two stages.

    Returns:
        Tensors with the names and shapes of `state`.

    Raises:
        ValueError: A tensor is missing, left over or of the wrong shape.
    """
    ours = official_names(state, depths)

    missing, left_over, misshapen = [], [], []
    for key in released:
        if key not in ours and not _DROPPED.fullmatch(key):
            left_over.append(key)

    for key, name in ours.items():
        if key in released:
            stored, expected = tuple(released[key].shape), tuple(state[name].shape)
            if _squeezed(stored) != _squeezed(expected):
                misshapen.append(f"{key} {stored}, not {expected}")
        elif not key.endswith(_COUNTER):
            missing.append(key)

    # Report all problems of a kind at once.
    problems = {"missing": missing, "left over": left_over, "misshapen": misshapen}
    if found := [f"{kind}: {listed_names(keys)}" for kind, keys in problems.items() if keys]:
        raise ValueError(f"the checkpoint is no OVSegmentor as released; {'; '.join(found)}")

    tensors = dict(state)
    for key, name in ours.items():
        if key in released:
            tensors[name] = released[key].reshape(state[name].shape)

    return tensors


def official_names(state: Mapping[str, Tensor], depths: tuple[int, int]) -> dict[str, str]:
    """Map the tensor names of a released checkpoint to those of the method.

    Args:
        state: State dict of the method.
        depths: Number of blocks of the image encoder's two stages.

    Returns:
        Name here by released name, for every tensor of `state`.
    """
    names = {"logit_scale": "cross.log_scale"}
    for official, own in official_image_keys(depths).items():
        names[f"img_encoder.{official}"] = f"image.{own}"

    for projector, projection in _PROJECTORS.items():
        for official, own in official_projection_keys().items():
            names[f"{projector}.{official}"] = f"{projection}.{own}"

    # The text encoder and the entity decoder keep the rest of their names.
    for name in state:
        if name.startswith(_TOWER):
            names[_BERT + name.removeprefix(_TOWER)] = name
        elif name.startswith(_DECODER):
            part, _, rest = name.removeprefix(_DECODER).partition(".")
            if part in _ALIGNED:
                names[f"{_ALIGNED[part]}.{rest}"] = name
                continue
            names[f"multimodal_groupingblock.blocks.0.{_DECODER_PARTS[part]}.{rest}"] = name

    assert set(names.values()) == set(state), set(names.values()) ^ set(state)
    return names


def _projection(released: Mapping[str, Tensor], projector: str) -> ProjectionConfig:
    """Settings of a projection, with its hidden width read from the tensors."""
    return ProjectionConfig(
        kind="batchnorm_mlp", hidden=_shape(released, f"{projector}.linear_hidden.0.weight", 3)[0]
    )


def _shape(
    released: Mapping[str, Tensor], key: str, num_axes: int | None = None
) -> tuple[int, ...]:
    """Shape of a released tensor; ValueError if it is missing or has other axes."""
    if key not in released:
        raise ValueError(f"the checkpoint is no OVSegmentor as released; missing: {key}")
    shape = tuple(released[key].shape)
    if num_axes is not None and len(shape) != num_axes:
        raise ValueError(f"the checkpoint is no OVSegmentor as released; misshapen: {key} {shape}")
    return shape


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape without the axes of length 1."""
    return tuple(length for length in shape if length != 1)


def _count(released: Mapping[str, Tensor], pattern: str) -> int:
    """Number of different layers among the names that match a pattern."""
    numbers = {int(match[1]) for key in released if (match := re.match(pattern, key))}
    return len(numbers)
