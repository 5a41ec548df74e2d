"""Pre-norm transformer layers: self-attention among tokens, and cross-attention from queries to other tokens."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Two linear maps of the last axis with a GELU between."""

    def __init__(self, *, dim: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out is None else out)

    def forward(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b out"]:
        """Return the mapped features."""
        return self.fc2(F.gelu(self.fc1(features)))


class SelfAttention(nn.Module):
    """Tokens look at each other; query, key and value are one map, in this order. Source: arXiv:1706.03762, eq. 1."""

    def __init__(self, *, dim: int, num_heads: int):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "b t d"], seen: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return what each token found among those that are SEEN: all of them by default."""
        queries, keys, values = (
            self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mask = None if seen is None else seen[:, None, None]
        found = F.scaled_dot_product_attention(queries, keys, values, mask)
        return self.proj(found.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Queries look at other tokens. Source: arXiv:1706.03762, section 3.2.3."""

    def __init__(self, *, dim: int, num_heads: int):
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
        """Return what each query found among the tokens."""
        found = F.scaled_dot_product_attention(
            self._heads(self.q_proj(queries)),
            self._heads(self.k_proj(tokens)),
            self._heads(self.v_proj(tokens)),
        )
        return self.proj(found.transpose(1, 2).flatten(2))

    def _heads(self, features: Float[Tensor, "b t d"]) -> Float[Tensor, "b heads t c"]:
        return features.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class DropPath(nn.Module):
    """Leave a residual branch out for a share of the samples in training, and scale the rest up for it.

    Source: arXiv:1603.09382.
    """

    def __init__(self, share: float):
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"drop_path {share}: the share of dropped branches lies in [0, 1)")
        self.share = share

    def forward(self, branch: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return the branch, or zeros for samples drawn at random."""
        if not self.training or self.share == 0:
            return branch
        kept = 1 - self.share
        return branch * branch.new_empty(len(branch), 1, 1).bernoulli_(kept).div_(kept)


class Block(nn.Module):
    """One pre-norm layer: self-attention, then an MLP of four times the width, each added to its input."""

    def __init__(self, *, dim: int, num_heads: int, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim=dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden=4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: Float[Tensor, "b t d"], seen: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return the updated tokens; they look at those that are SEEN, by default at all."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), seen))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class CrossBlock(nn.Module):
    """One layer from queries to other tokens: cross-attention and an MLP, each added, then a normalization.

    Queries and tokens come in normalized, or as they should be compared: only the MLP has a normalization before it.
    """

    def __init__(self, *, dim: int, num_heads: int, drop_path: float = 0.0):
        super().__init__()
        self.attn = CrossAttention(dim=dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden=4 * dim)
        self.norm_post = nn.LayerNorm(dim)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b q d"]:
        """Return the updated queries."""
        queries = queries + self.drop_path(self.attn(queries, tokens))
        return self.norm_post(queries + self.drop_path(self.mlp(self.norm2(queries))))


def initialize(module: nn.Module) -> None:
    """Draw a linear map's weights anew, small and without bias, as vision transformers do; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse a number of heads that does not divide the width.

    Raises:
        ValueError: it does not.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads {num_heads} does not divide the {dim} dimensions")
