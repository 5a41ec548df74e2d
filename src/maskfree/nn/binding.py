"""Binding: image patches are shared out among group tokens, and each group becomes the mean of its patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.transformer import CrossBlock, Mlp


@dataclass(frozen=True)
class Assignment:
    """Which patch belongs to which group, and the vectors that decide it."""

    hard: Float[Tensor, "b g n"]
    """The map that the groups were made with: one-hot over groups, with a softmax's gradient; if binding is not hard,
    the soft map."""
    soft: Float[Tensor, "b g n"]
    """Softmax over groups, without noise. Source: eq. 4."""
    queries: Float[Tensor, "b g d"]
    """Projected group tokens; the softmax is that of `queries @ keys.mT * d**-0.5`."""
    keys: Float[Tensor, "b n d"]
    """Projected patches."""


class Binding(nn.Module):
    """Slot attention from patches to groups: a softmax over groups, then a mean over the patches of each.

    Hard binding gives each patch to one group alone: in training to one drawn by Gumbel noise on the logits, else to
    the likeliest; the gradient is the softmax's. The rest follows the released code where its settings are on:
    `num_tokens` other than `num_groups` are mixed to that number by an MLP, with `cross_attention` the groups look at
    the patches first, `channel_mlp` is added last, and `extra_mass` to the mass that divides each sum.

    Source: arXiv:2301.09121, eq. 3 to 6; hard binding is arXiv:2202.11094, eq. 4 and 5. Differs, as in the released
    code: tokens and patches are normalized first, also for the sum of eq. 6, and logits are divided by the root of d.
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
        hard: bool,
    ):
        super().__init__()
        if extra_mass < 0:
            raise ValueError(
                f"extra_mass {extra_mass}: what is added to a number of patches is at least 0"
            )
        self.dim, self.num_groups, self.num_tokens = dim, num_groups, num_tokens
        self.extra_mass = extra_mass
        self.hard = hard
        # No divisor is smaller: with hard binding the mass of a group is a number of patches, and an empty one, whose
        # sum is zero, gets the gradient of a group of one patch.
        self._least_mass = 1.0 if hard else 1e-6
        self.norm_tokens = nn.LayerNorm(dim)
        self.norm_patches = nn.LayerNorm(dim)
        mixed = num_tokens != num_groups
        self.mixer = (
            TokenMixer(dim=dim, num_tokens=num_tokens, num_groups=num_groups) if mixed else None
        )
        self.cross = CrossBlock(dim=dim, num_heads=num_heads) if cross_attention else None
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim) if channel_mlp else None
        self.mlp = Mlp(dim=dim, hidden=4 * dim) if channel_mlp else None

    def forward(
        self, tokens: Float[Tensor, "b t d"], patches: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b g d"], Assignment]:
        """Return the groups, and which patches they are made of; to a group without any, patches add a zero mean."""
        tokens, patches = self.norm_tokens(tokens), self.norm_patches(patches)
        if self.mixer is not None:
            tokens = self.mixer(tokens)
        if self.cross is not None:
            tokens = self.cross(tokens, patches)
        assignment = self._assign(self.q_proj(tokens), self.k_proj(patches))
        groups = tokens + self.proj(self._means(assignment.hard, self.v_proj(patches)))
        if self.mlp is not None and self.norm_mlp is not None:
            groups = groups + self.mlp(self.norm_mlp(groups))
        return groups, assignment

    def start_by_likeness(self) -> None:
        """Let patches go to the group tokens that they are like, and let groups be little but what is bound to them.

        Every map leaves its input as it is but for a factor, which makes the choice clear and the patches outweigh the
        token.
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
        logits = queries @ keys.mT * queries.shape[-1] ** -0.5
        soft = logits.softmax(1)
        if not self.hard:
            return Assignment(soft, soft, queries, keys)
        drawn = (logits + gumbel_noise(logits)).softmax(1) if self.training else soft
        return Assignment(one_hot_of(drawn), soft, queries, keys)

    def _means(
        self, weights: Float[Tensor, "b g n"], values: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b g d"]:
        mass = (weights.sum(2, keepdim=True) + self.extra_mass).clamp(min=self._least_mass)
        return weights @ values / mass


class TokenMixer(nn.Module):
    """An MLP across tokens, the same in every dimension, that makes fewer of them, and a normalization."""

    def __init__(self, *, dim: int, num_tokens: int, num_groups: int):
        super().__init__()
        self.mlp = Mlp(dim=num_tokens, hidden=dim // 2, out=num_groups)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b g d"]:
        """Return the mixed tokens."""
        return self.norm(self.mlp(tokens.mT).mT)


def one_hot_of(soft: Float[Tensor, "b g n"]) -> Float[Tensor, "b g n"]:
    """Return one at the largest entry along the groups and zero elsewhere, with the gradient of SOFT.

    Source: arXiv:2202.11094, eq. 5.
    """
    chosen = torch.zeros_like(soft).scatter_(1, soft.detach().argmax(1, keepdim=True), 1.0)
    return chosen + (soft - soft.detach())  # the bracket is exactly zero


def gumbel_noise(like: Tensor) -> Tensor:
    """Draw from the Gumbel distribution, one number per entry of LIKE."""
    waiting = torch.empty_like(
        like, dtype=torch.float32
    ).exponential_()  # half precision would round some to zero
    return -waiting.clamp_(min=torch.finfo(torch.float32).tiny).log_()
