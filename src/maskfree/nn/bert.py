"""BERT without transformers: the text encoder of the bundled model starts in less time.

Names and values are those of transformers' BertModel without its pooler, whose weights it takes.

Source: arXiv:1810.04805, section 3; the layers are those of arXiv:1706.03762.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from maskfree.nn.encoder_config import Value

DEFAULTS: dict[str, Value] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    # These change nothing in an encoder.
    "use_cache": True,
    "tie_word_embeddings": True,
}
"""Settings by their names in transformers' BertConfig."""
FIXED: dict[str, Value] = {
    "hidden_act": "gelu",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""Settings whose other values are left to transformers."""


class TokenFeatures(NamedTuple):
    """What a text network returns, by the name that transformers gives it."""

    last_hidden_state: Float[Tensor, "b l c"]
    """Features of the tokens."""


class Bert(nn.Module):
    """BERT's encoder."""

    def __init__(self, settings: SimpleNamespace):
        """Create the layers.

        Args:
            settings: All values of `DEFAULTS` and `FIXED`.

        Raises:
            ValueError: The width is no multiple of the number of heads.
        """
        super().__init__()
        width = settings.hidden_size
        if width % settings.num_attention_heads:
            raise ValueError(
                f"the hidden size {width} is not a multiple of the number of attention heads "
                f"{settings.num_attention_heads}"
            )

        tables = {
            "word_embeddings": nn.Embedding(settings.vocab_size, width, settings.pad_token_id),
            "position_embeddings": nn.Embedding(settings.max_position_embeddings, width),
            "token_type_embeddings": nn.Embedding(settings.type_vocab_size, width),
        }
        self.embeddings = nn.ModuleDict(
            {**tables, "LayerNorm": nn.LayerNorm(width, settings.layer_norm_eps)}
        )
        layers = [BertLayer(settings) for _ in range(settings.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self._dropout = nn.Dropout(settings.hidden_dropout_prob)
        self._initialize(settings.initializer_range)

    def forward(
        self,
        input_ids: Int[Tensor, "b l"],
        attention_mask: Int[Tensor, "b l"] | None = None,
    ) -> TokenFeatures:
        """Compute features of tokens.

        Args:
            input_ids: Token ids.
            attention_mask: 1 at tokens, 0 at padding, which no token attends to; None: no padding.

        Returns:
            The features.
        """
        parts = self.embeddings
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        features = parts["word_embeddings"](input_ids)
        features = features + parts["token_type_embeddings"](torch.zeros_like(input_ids))
        features = features + parts["position_embeddings"](positions)[None]
        features = self._dropout(parts["LayerNorm"](features))

        # Without padding, no mask: it is faster.
        attended = None
        if attention_mask is not None and not attention_mask.all():
            attended = attention_mask.bool()[:, None, None]

        for layer in self.encoder["layer"]:  # pyright: ignore[reportGeneralTypeIssues]
            features = layer(features, attended)
        return TokenFeatures(features)

    def _initialize(self, deviation: float) -> None:
        """Fill in random weights as transformers does."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=deviation)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
            if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                nn.init.zeros_(layer.weight[layer.padding_idx])


class BertLayer(nn.Module):
    """Post-norm transformer layer: self-attention and two linear maps, each with a residual."""

    def __init__(self, settings: SimpleNamespace):
        super().__init__()
        width, hidden = settings.hidden_size, settings.intermediate_size
        maps = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"self": nn.ModuleDict(maps), "output": _residual(settings, width)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = _residual(settings, hidden)
        self.checkpointed = False
        self._num_heads = settings.num_attention_heads
        self.dropout_prob = settings.attention_probs_dropout_prob
        self._dropout = nn.Dropout(settings.hidden_dropout_prob)

    def forward(
        self, tokens: Float[Tensor, "b l c"], attended: Bool[Tensor, "b 1 1 l"] | None
    ) -> Float[Tensor, "b l c"]:
        """Transform token features.

        Args:
            tokens: Features of the tokens.
            attended: True for tokens that may be attended to; None: all of them.

        Returns:
            New features.
        """
        if self.checkpointed and self.training:
            return checkpoint(self._transform, tokens, attended, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return self._transform(tokens, attended)

    def _transform(self, tokens: Tensor, attended: Tensor | None) -> Tensor:
        """Attend, then map each token."""
        tokens = self._joined(self.attention["output"], self._attend(tokens, attended), tokens)
        return self._joined(self.output, F.gelu(self.intermediate["dense"](tokens)), tokens)

    def _attend(self, tokens: Tensor, attended: Tensor | None) -> Tensor:
        """Attend from each token to the others."""
        maps = self.attention["self"]
        queries, keys, values = (
            maps[name](tokens).unflatten(-1, (self._num_heads, -1)).transpose(1, 2)  # pyright: ignore[reportIndexIssue]
            for name in ("query", "key", "value")
        )
        dropout = self.dropout_prob if self.training else 0.0
        found = F.scaled_dot_product_attention(queries, keys, values, attended, dropout)
        return found.transpose(1, 2).flatten(2)

    def _joined(self, parts: nn.Module, branch: Tensor, tokens: Tensor) -> Tensor:
        """Map a branch to the width of the tokens, add it and normalize."""
        mapped = self._dropout(parts["dense"](branch))  # pyright: ignore[reportIndexIssue]
        return parts["LayerNorm"](mapped + tokens)  # pyright: ignore[reportIndexIssue]


def _residual(settings: SimpleNamespace, channels: int) -> nn.ModuleDict:
    """The last map of a branch and the normalization after its residual."""
    width = settings.hidden_size
    return nn.ModuleDict(
        {
            "dense": nn.Linear(channels, width),
            "LayerNorm": nn.LayerNorm(width, settings.layer_norm_eps),
        }
    )
