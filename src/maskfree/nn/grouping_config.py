"""Settings of OVSegmentor's image encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import Momentum, OutsideName, Side, Width, check
from maskfree.nn.encoder_config import ImageEncoderConfig

if TYPE_CHECKING:
    from maskfree.nn.grouping_encoder import GroupingEncoder


@dataclass(frozen=True)
class GroupingEncoderConfig:
    """Settings of a grouping image encoder; the defaults are the paper's ViT-B/16 with 8 groups."""

    stem: ImageEncoderConfig | None = None
    """Image encoder of the bundled model, whose features replace the patch embedding (not in the
    paper). They are projected to `dim` channels as there and normalized, and patches are assigned
    to the most similar group tokens from the first step on. None: a linear patch embedding."""
    form: Literal["paper", "light", "released"] = "paper"
    """Layers around the binding. "paper": patches stay beside the groups in the second stage
    (eq. 2); "light": they do not; "released", as in the authors' code: they do not, and
    cross-attention precedes and an MLP follows the binding, whose mean counts a patch too many."""
    patch_px: Side = 16
    """Side of a patch in pixels, without a stem."""
    side_px: Side = 224
    """Side in pixels of the square images that the position embedding is made for; it is resized
    for others."""
    dim: Width = 768
    """Number of channels of the transformer."""
    num_heads: Width = 12
    """Number of attention heads of the transformer and of the cross-attention in binding; the
    released models have 8."""
    depths: tuple[Width, Width] = (6, 6)
    """Number of transformer layers before and after binding."""
    num_groups: Width = 8
    """Number of groups that an image is divided into."""
    num_tokens: Width = 8
    """Number of learned group tokens of the first stage; if it differs from `num_groups`, an MLP
    maps them to that number."""
    drop_path: Momentum = 0.1
    """Stochastic depth rate of the last layer; it grows linearly from 0 at the first."""
    weights: OutsideName | None = None
    """Pretrained ViT, such as DINO's, for all but group tokens and binding: a local folder or a
    Hugging Face name. None: random initialization."""

    def build(self) -> GroupingEncoder:
        """Build the encoder and load its pretrained weights, if any.

        Returns:
            The encoder.

        Raises:
            FileNotFoundError: There are no such weights.
            ValueError: Settings contradict each other, or the weights do not fit.
        """
        from maskfree.nn.grouping_encoder import build_grouping_encoder

        check(self)
        return build_grouping_encoder(self)

    def without_pretrained(self) -> GroupingEncoderConfig:
        """Copy the settings with the stem's full architecture and without pretrained weights.

        Returns:
            Settings that build the same network without access to the pretrained weights.
        """
        stem = self.stem
        if stem is not None:
            stem = stem.without_pretrained()

        return replace(self, weights=None, stem=stem)
