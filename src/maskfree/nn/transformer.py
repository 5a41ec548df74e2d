"""Pre-norm transformer layers with self-attention and cross-attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Mlp(nn.Module):
    """Two linear maps of the last axis with a GELU between."""

    def __init__(self, *, dim: int, hidden: int, out: int | None = None):
        """Create the layers.

        Args:
            dim: Number of input channels.
            hidden: Number of hidden channels.
            out: Number of output channels; None: the same as `dim`.
        """
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out is None else out)

    def forward(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b out"]:
        """Map features.

        Args:
            features: Features with any batch axes.

        Returns:
            Mapped features.
        """
        return self.fc2(F.gelu(self.fc1(features)))


class SelfAttention(nn.Module):
    """Multi-head self-attention; one linear map computes query, key and value, in this order.

    Source: arXiv:1706.03762, eq. 1.
    """

    def __init__(self, *, dim: int, num_heads: int):
        """Create the layers.

        Args:
            dim: Number of channels of the tokens.
            num_heads: Number of attention heads; divides `dim`.

        Raises:
            ValueError: `num_heads` does not divide `dim`.
        """
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        attended: Bool[Tensor, "b t"] | None = None,
        num_read: int | None = None,
    ) -> Float[Tensor, "b r d"]:
        """Attend from each token to the others.

        Args:
            tokens: Token features.
            attended: True for tokens that may be attended to; None: all of them.
            num_read: Number of tokens at the end that attend; None: all of them.

        Returns:
            Attention output of the tokens that attend, without the residual.
        """
        # Split into query, key and value, each of shape (b, heads, t, c).
        queries, keys, values = (
            self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )

        if num_read is not None:
            queries = queries[:, :, -num_read:]

        # The mask of keys is the same for all heads and queries.
        mask = None
        if attended is not None:
            mask = attended[:, None, None]

        found = F.scaled_dot_product_attention(queries, keys, values, mask)
        return self.proj(found.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head cross-attention from queries to tokens.

    Source: arXiv:1706.03762, section 3.2.3.
    """

    def __init__(self, *, dim: int, num_heads: int):
        """Create the layers.

        Args:
            dim: Number of channels of queries and tokens.
            num_heads: Number of attention heads; divides `dim`.

        Raises:
            ValueError: `num_heads` does not divide `dim`.
        """
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b q d"]:
        """Attend from queries to tokens.

        Args:
            queries: Features of the queries.
            tokens: Features of the tokens, for keys and values.

        Returns:
            Attention output per query, without the residual.
        """
        found = F.scaled_dot_product_attention(
            self._heads(self.q_proj(queries)),
            self._heads(self.k_proj(tokens)),
            self._heads(self.v_proj(tokens)),
        )

        # Join the heads again.
        return self.proj(found.transpose(1, 2).flatten(2))

    def _heads(self, features: Float[Tensor, "b t d"]) -> Float[Tensor, "b heads t c"]:
        """Split the channels into attention heads."""
        return features.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch for random samples in training.

    The branches that are kept are scaled up, so that the expected value stays the same.

    Source: arXiv:1603.09382.
    """

    def __init__(self, share: float):
        """Create the layer.

        Args:
            share: Probability that the branch of a sample is dropped, in [0, 1).

        Raises:
            ValueError: The probability is outside [0, 1).
        """
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"drop_path {share}: the share of dropped branches lies in [0, 1)")
        self.share = share

    def forward(
        self,
        features: Float[Tensor, "b t d"],
        branch: Callable[..., Tensor],
        *inputs: Tensor | None,
    ) -> Float[Tensor, "b t d"]:
        """Add a branch to features, but for random samples.

        Args:
            features: Features that the branch is added to.
            branch: Function of `inputs` that returns what is added; it treats samples alone.
            *inputs: Tensors with one entry per sample, or None.

        Returns:
            The sum, which is `features` for the dropped samples.
        """
        if not self.training or self.share == 0:
            return features + branch(*inputs)

        # One draw per sample; what is kept is divided by the probability of that.
        kept = 1 - self.share
        drawn = features.new_empty(len(features), 1, 1).bernoulli_(kept)

        # A GPU would wait for the indices of the samples longer than dropped branches take.
        if features.device.type != "cpu" or torch.compiler.is_compiling():
            return features + branch(*inputs) * drawn.div_(kept)

        rows = drawn.flatten().nonzero().flatten()
        if len(rows) == len(features):
            return torch.add(features, branch(*inputs), alpha=1 / kept)

        chosen = [None if each is None else each[rows] for each in inputs]
        return features.index_add(0, rows, branch(*chosen), alpha=1 / kept)


class Block(nn.Module):
    """Pre-norm transformer layer: self-attention, then an MLP of four times the width."""

    def __init__(self, *, dim: int, num_heads: int, drop_path: float = 0.0):
        """Create the layers.

        Args:
            dim: Number of channels of the tokens.
            num_heads: Number of attention heads; divides `dim`.
            drop_path: Probability that a residual branch of a sample is dropped in training.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim=dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden=4 * dim)
        self.drop_path = DropPath(drop_path)
        # Set by `checkpoint_activations`.
        self.checkpointed = False

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        attended: Bool[Tensor, "b t"] | None = None,
        num_read: int | None = None,
    ) -> Float[Tensor, "b r d"]:
        """Update tokens.

        Args:
            tokens: Token features.
            attended: True for tokens that may be attended to; None: all of them.
            num_read: Number of tokens at the end that are updated; None: all of them. The others
                are only attended to, which is cheaper in a last layer of which they are not read.

        Returns:
            Features of the updated tokens.
        """
        if self.checkpointed and torch.is_grad_enabled():
            return checkpoint(self._update, tokens, attended, num_read, use_reentrant=False)
        return self._update(tokens, attended, num_read)

    def _update(self, tokens: Tensor, attended: Tensor | None, num_read: int | None) -> Tensor:
        """Update tokens."""

        def attend(tokens: Tensor, attended: Tensor | None) -> Tensor:
            return self.attn(self.norm1(tokens), attended, num_read)

        read = tokens if num_read is None else tokens[:, -num_read:]
        read = self.drop_path(read, attend, tokens, attended)
        return self.drop_path(read, lambda tokens: self.mlp(self.norm2(tokens)), read)


class CrossBlock(nn.Module):
    """Cross-attention and an MLP, each with a residual connection, then a normalization.

    Queries and tokens should be normalized already: only the MLP has a normalization before it.
    """

    def __init__(self, *, dim: int, num_heads: int):
        """Create the layers.

        Args:
            dim: Number of channels of queries and tokens.
            num_heads: Number of attention heads; divides `dim`.
        """
        super().__init__()
        self.attn = CrossAttention(dim=dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden=4 * dim)
        self.norm_post = nn.LayerNorm(dim)

    def forward(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b q d"]:
        """Update queries by attending to tokens.

        Args:
            queries: Features of the queries.
            tokens: Features of the tokens.

        Returns:
            Updated, normalized queries.
        """
        queries = queries + self.attn(queries, tokens)
        return self.norm_post(queries + self.mlp(self.norm2(queries)))


def initialize(module: nn.Module) -> None:
    """Initialize a linear layer as vision transformers do; for use with `nn.Module.apply`.

    Args:
        module: Module that is changed in place if it is a linear layer.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def check_heads(dim: int, num_heads: int) -> None:
    """Check that the number of attention heads divides the number of channels.

    Args:
        dim: Number of channels.
        num_heads: Number of attention heads.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads {num_heads} does not divide the {dim} dimensions")
