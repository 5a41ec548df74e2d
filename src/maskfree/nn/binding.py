"""Binding of patches to group tokens by hard assignment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.transformer import CrossBlock, Mlp


@dataclass(frozen=True)
class Assignment:
    """Assignment of patches to groups, with the features that it is computed from."""

    hard: Float[Tensor, "b g n"]
    """Map that the groups are made with: one-hot over groups, with the gradient of a softmax."""
    soft: Float[Tensor, "b g n"]
    """Softmax over groups, without noise. Source: eq. 4."""
    queries: Float[Tensor, "b g d"]
    """Projected group tokens; the softmax is that of `queries @ keys.mT * d**-0.5`."""
    keys: Float[Tensor, "b n d"]
    """Projected patches."""


class Binding(nn.Module):
    """Slot attention from patches to groups: a softmax over groups, then a mean over patches.

    Each patch is assigned to one group: in training to one sampled with Gumbel noise on
    the logits, otherwise to the most probable; the gradient is that of the softmax. The options
    follow the released code.

    Source: arXiv:2301.09121, eq. 3 to 6; hard binding is arXiv:2202.11094, eq. 4 and 5.

    Differs: as in the released code, tokens and patches are normalized first, also for the sum of
    eq. 6, and logits are divided by the square root of d.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_groups: int,
        num_tokens: int,
        num_heads: int,
        cross_attention: bool,
        channel_mlp: bool,
        extra_mass: float,
    ):
        """Create the layers.

        Args:
            dim: Number of channels of tokens and patches.
            num_groups: Number of groups.
            num_tokens: Number of group tokens; if it differs from `num_groups`, an MLP maps them to
                that number.
            num_heads: Number of heads of the cross-attention.
            cross_attention: Let group tokens attend to the patches before binding.
            channel_mlp: Add an MLP after binding.
            extra_mass: Constant added to the number of patches of a group when their mean is
                computed; at least 0.
        """
        super().__init__()
        self.dim, self.num_groups, self.num_tokens = dim, num_groups, num_tokens
        self.extra_mass = extra_mass

        self.norm_tokens = nn.LayerNorm(dim)
        self.norm_patches = nn.LayerNorm(dim)

        # Tokens are mixed only if their number differs from that of the groups.
        self.mixer: TokenMixer | None = None
        if num_tokens != num_groups:
            self.mixer = TokenMixer(dim=dim, num_tokens=num_tokens, num_groups=num_groups)

        self.cross: CrossBlock | None = None
        if cross_attention:
            self.cross = CrossBlock(dim=dim, num_heads=num_heads)

        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

        self.norm_mlp: nn.LayerNorm | None = None
        self.mlp: Mlp | None = None
        if channel_mlp:
            self.norm_mlp = nn.LayerNorm(dim)
            self.mlp = Mlp(dim=dim, hidden=4 * dim)

    def forward(
        self, tokens: Float[Tensor, "b t d"], patches: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b g d"], Assignment]:
        """Bind patches to group tokens.

        Args:
            tokens: Group tokens.
            patches: Patch features.

        Returns:
            Groups, and the assignment of patches to them; the mean of a group without patches is
            zero.
        """
        tokens, patches = self.norm_tokens(tokens), self.norm_patches(patches)

        if self.mixer is not None:
            tokens = self.mixer(tokens)

        # Group tokens attend to all patches before the assignment.
        if self.cross is not None:
            tokens = self.cross(tokens, patches)

        assignment = self._assign(self.q_proj(tokens), self.k_proj(patches))

        # Add the projected mean of the assigned patches to each token.
        groups = tokens + self.proj(self._means(assignment.hard, self.v_proj(patches)))
        if self.mlp is not None and self.norm_mlp is not None:
            groups = groups + self.mlp(self.norm_mlp(groups))

        return groups, assignment

    def start_by_similarity(self) -> None:
        """Initialize the binding so that patches are assigned to the most similar group tokens.

        Every linear map starts as a multiple of the identity. The factors make the assignment
        distinct, and the patches outweigh the token in each group.
        """
        for layer, factor in (
            (self.q_proj, 4.0),
            (self.k_proj, 1.0),
            (self.v_proj, 1.0),
            (self.proj, 8.0),
        ):
            with torch.no_grad():
                nn.init.eye_(layer.weight).mul_(factor)

            nn.init.zeros_(layer.bias)

    def _assign(self, queries: Float[Tensor, "b g d"], keys: Float[Tensor, "b n d"]) -> Assignment:
        """Assign patches to groups by the similarity of keys and queries."""
        logits = queries @ keys.mT * queries.shape[-1] ** -0.5
        soft = drawn = logits.softmax(1)

        # Training draws groups at random, by the probabilities.
        if self.training:
            drawn = (logits + gumbel_noise(logits)).softmax(1)

        return Assignment(one_hot_of(drawn), soft, queries, keys)

    def _means(
        self, weights: Float[Tensor, "b g n"], values: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b g d"]:
        """Return the weighted mean of the values of each group."""
        # An empty group, whose sum is zero, gets the gradient of a group of one patch.
        mass = (weights.sum(2, keepdim=True) + self.extra_mass).clamp(min=1.0)
        return weights @ values / mass


class TokenMixer(nn.Module):
    """MLP across tokens, shared by all channels, that changes their number, and a layer norm."""

    def __init__(self, *, dim: int, num_tokens: int, num_groups: int):
        """Create the layers.

        Args:
            dim: Number of channels of the tokens.
            num_tokens: Number of input tokens.
            num_groups: Number of output tokens.
        """
        super().__init__()
        self.mlp = Mlp(dim=num_tokens, hidden=dim // 2, out=num_groups)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b g d"]:
        """Mix tokens.

        Args:
            tokens: Group tokens.

        Returns:
            Mixed tokens, one per group.
        """
        return self.norm(self.mlp(tokens.mT).mT)


def one_hot_of(soft: Float[Tensor, "b g n"]) -> Float[Tensor, "b g n"]:
    """Return a one-hot assignment of the largest probability, with the gradient of the softmax.

    Args:
        soft: Probabilities over groups for each patch.

    Returns:
        One at the largest entry along the groups and zero elsewhere.

    Source: arXiv:2202.11094, eq. 5.
    """
    chosen = torch.zeros_like(soft).scatter_(1, soft.detach().argmax(1, keepdim=True), 1.0)
    return chosen + (soft - soft.detach())  # the bracket is exactly zero


def gumbel_noise(like: Tensor) -> Tensor:
    """Sample standard Gumbel noise.

    Args:
        like: Tensor that gives the shape and the device.

    Returns:
        Float32 noise, one number per entry of `like`.
    """
    # Half precision would round some samples to zero.
    waiting = torch.empty_like(like, dtype=torch.float32).exponential_()

    # Clamp, since the logarithm of zero is infinite.
    return -waiting.clamp_(min=torch.finfo(torch.float32).tiny).log_()
