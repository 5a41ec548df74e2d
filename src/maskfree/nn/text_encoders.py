"""Text encoders with networks from transformers, and pooling of token features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.bert import DEFAULTS, FIXED, Bert
from maskfree.nn.configurations import plain_fields, read_configuration
from maskfree.nn.encoder_config import TextEncoderConfig, Value
from maskfree.nn.known_settings import known_settings
from maskfree.nn.pretrained import make_tower
from maskfree.types import Tokens


class TextEncoder(nn.Module):
    """Text encoder with pooling: one feature per text.

    A frozen encoder has no dropout and no gradient. In training it caches the feature of every text
    that it has seen (on the CPU, by token ids), since captions are repeated in every epoch. At
    inference it does not, so that the last bits of a feature never depend on earlier calls.
    """

    _MAX_CACHED = 500_000
    """Maximum number of cached features."""

    def __init__(
        self,
        *,
        tower: nn.Module,
        pool: Callable[[Tensor, Tokens], Tensor],
        channels: int,
        frozen: bool,
        filled: tuple[int, int] | None = None,
    ):
        """Wrap a network as a text encoder.

        Args:
            tower: Text network of transformers.
            pool: Function of (token features, tokens) that returns one feature per text.
            channels: Number of channels of the features.
            frozen: Keep the network's weights fixed and cache its features.
            filled: Length and padding token id for networks that attend to padding and need texts
                of full length.
        """
        super().__init__()
        self.tower = tower.requires_grad_(not frozen)
        self.channels = channels
        self.frozen = frozen
        self.pool = pool
        self._filled = filled
        self._kept: dict[bytes, Tensor] = {}

        # Cached features belong to the weights that they were computed with.
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, tokens: Tokens) -> Float[Tensor, "b c"]:
        """Encode texts.

        Args:
            tokens: Token ids and mask of the texts.

        Returns:
            One feature per text, not normalized.
        """
        if not self.frozen or not self.training:
            return self._encode(tokens)

        # The token ids without padding identify a text.
        keys = [
            ids[mask].cpu().numpy().tobytes()
            for ids, mask in zip(tokens.ids, tokens.mask, strict=True)
        ]
        features = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = {key: row for row, key in enumerate(keys) if key not in features}

        # Encode each new text once, also if it occurs several times in the batch.
        if fresh:
            rows = torch.tensor(list(fresh.values()), device=tokens.ids.device)
            with torch.no_grad():
                encoded = self._encode(Tokens(tokens.ids[rows], tokens.mask[rows])).float().cpu()

            # Clone the rows, since a view would keep the whole batch in memory.
            new = {key: feature.clone() for key, feature in zip(fresh, encoded, strict=True)}
            features |= new
            # The size of the cache is limited, to bound its memory.
            if len(self._kept) < self._MAX_CACHED:
                self._kept |= new

        return torch.stack([features[key] for key in keys]).to(tokens.ids.device)

    def each(self, tokens: Tokens) -> Float[Tensor, "b l c"]:
        """Encode texts to one feature per token.

        Args:
            tokens: Token ids and mask of the texts.

        Returns:
            One feature per token, including padding; at the full text length if texts are padded to
            it.
        """
        if self._filled is not None:
            # SigLIP attends to padding, so texts are padded to the full length without a mask.
            length, token = self._filled
            ids = tokens.ids.masked_fill(~tokens.mask, token)
            return self.tower(
                input_ids=F.pad(ids, (0, length - ids.shape[1]), value=token)
            ).last_hidden_state

        return self.tower(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state

    def _encode(self, tokens: Tokens) -> Tensor:
        """Encode texts without the cache."""
        return self.pool(self.each(tokens), tokens)


def _mean_of_tokens(hidden: Float[Tensor, "b l c"], tokens: Tokens) -> Float[Tensor, "b c"]:
    """Return the mean over the tokens that are not padding."""
    weight = tokens.mask[:, :, None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def _last_token(hidden: Float[Tensor, "b l c"], tokens: Tokens) -> Float[Tensor, "b c"]:
    """Return the last token that is not padding, which tokenizers make the end token."""
    return hidden[torch.arange(len(hidden), device=hidden.device), tokens.mask.sum(1) - 1]


def _first_token(hidden: Float[Tensor, "b l c"], tokens: Tokens) -> Float[Tensor, "b c"]:
    """Return the first token."""
    return hidden[:, 0]


def _last_place(hidden: Float[Tensor, "b l c"], tokens: Tokens) -> Float[Tensor, "b c"]:
    """Return the last position, including padding."""
    return hidden[:, -1]


_POOLS = {"mean": _mean_of_tokens, "first": _first_token, "last": _last_token, "place": _last_place}


@dataclass(frozen=True)
class TextFamily:
    """How the text encoders of one family are built."""

    configuration: str
    """Name of the configuration class in transformers."""
    model: str
    """Name of the model class in transformers."""
    pooling: str
    """Default pooling, a key of `_POOLS`."""
    has_head: bool = False
    """The network ends in a projection, which the encoder must not contain."""
    fills_texts: bool = False
    """Texts are filled up to full length with a padding token that the network attends to."""
    options: dict[str, bool] = field(default_factory=dict)
    """Further keyword arguments of the model class."""
    dropouts: tuple[str, ...] = ("attention_dropout",)
    """Names of the dropouts in the configuration."""
    counts_from_padding: bool = False
    """Positions begin after the id of the padding token, which takes as many embeddings away."""


_BERT = TextFamily(
    "BertConfig",
    "BertModel",
    "mean",
    options={"add_pooling_layer": False},
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
)
_FAMILIES = {
    "bert": _BERT,
    "roberta": replace(
        _BERT, configuration="RobertaConfig", model="RobertaModel", counts_from_padding=True
    ),
    "clip": TextFamily("CLIPTextConfig", "CLIPTextModel", "last"),
    "metaclip_2": TextFamily("MetaClip2TextConfig", "MetaClip2TextModel", "last"),
    "siglip": TextFamily(
        "SiglipTextConfig", "SiglipTextModel", "place", has_head=True, fills_texts=True
    ),
    "siglip2": TextFamily(
        "Siglip2TextConfig", "Siglip2TextModel", "place", has_head=True, fills_texts=True
    ),
    "tipsv2": TextFamily("Tipsv2TextConfig", "Tipsv2TextModel", "mean"),
}


def build_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """Build a text encoder from its settings.

    Args:
        config: Settings of the encoder; its `weights` are loaded if they are set.

    Returns:
        The encoder.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The settings do not fit the family, or the weights do not fit the network.
    """
    family = _FAMILIES[config.family]
    configuration = _configuration(config)
    if isinstance(configuration, SimpleNamespace):
        tower = Bert(configuration)
    else:
        tower = make_tower(family.model, configuration, config.weights, **family.options)
    if family.has_head:
        tower.head = nn.Identity()

    filled = None
    if family.fills_texts:
        filled = (configuration.max_position_embeddings, configuration.pad_token_id)

    pooling = config.pooling
    if pooling == "usual":
        pooling = family.pooling

    return TextEncoder(
        tower=tower,
        pool=_POOLS[pooling],
        channels=configuration.hidden_size,
        frozen=config.frozen,
        filled=filled,
    )


def spelled_out(config: TextEncoderConfig) -> TextEncoderConfig:
    """Copy settings with the full architecture and without pretrained weights.

    Args:
        config: Settings whose architecture may come from pretrained weights.

    Returns:
        Settings that build the same network without access to the pretrained weights.
    """
    family = _FAMILIES[config.family]
    configuration = read_configuration(family.configuration, config.weights, _changes(config))
    return replace(config, architecture=plain_fields(configuration), weights=None)


def check_tokens(config: TextEncoderConfig, vocabulary_size: int, max_length: int) -> None:
    """Check that a text encoder accepts the output of a tokenizer.

    Args:
        config: Settings of the text encoder.
        vocabulary_size: Number of token ids of the tokenizer.
        max_length: Number of tokens after which the tokenizer truncates a text.

    Raises:
        ValueError: The encoder's vocabulary or its maximum text length is smaller.
    """
    configuration = _configuration(config)
    family = _FAMILIES[config.family]
    if vocabulary_size > configuration.vocab_size:
        raise ValueError(
            f"the tokenizer has {vocabulary_size} tokens, "
            f"the text encoder {configuration.vocab_size}"
        )

    longest = configuration.max_position_embeddings
    if family.counts_from_padding:
        longest -= configuration.pad_token_id + 1
    if max_length > longest:
        raise ValueError(
            f"the tokenizer cuts texts at {max_length} tokens, the text encoder takes {longest}"
        )


def _configuration(config: TextEncoderConfig) -> Any:
    """Return the settings of a BERT that is built here, or the configuration of transformers."""
    changes = _changes(config)
    if config.family == "bert" and config.weights is None:
        settings = known_settings(DEFAULTS, FIXED, changes)
        if settings is not None:
            return settings

    return read_configuration(_FAMILIES[config.family].configuration, config.weights, changes)


def _changes(config: TextEncoderConfig) -> dict[str, Value]:
    """Return the architecture overrides, without dropout if the encoder is frozen."""
    if not config.frozen:
        return config.architecture

    # Cached features must not depend on dropout.
    return config.architecture | dict.fromkeys(_FAMILIES[config.family].dropouts, 0.0)


def _forget(encoder: TextEncoder, _: Any) -> None:
    """Drop cached features; a function of the module, since a lambda cannot be pickled."""
    encoder._kept.clear()
