"""Settings of CLIP's and SigLIP's image towers read densely, and the published ways to read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from maskfree.config.rules import OutsideName, Positive, check
from maskfree.nn.encoder_config import Value

if TYPE_CHECKING:
    from maskfree.nn.clip_resnet import DenseClipResNet
    from maskfree.nn.dense_clip import DenseClip


Attention = Literal["value", "qk", "qq", "kk", "vv", "qq+kk", "qq+kk+vv", "window"]


@dataclass(frozen=True)
class LastBlock:
    """What the last block does.

    A token reads from others where the named pairs of queries, keys and values agree: "qk" is the trained attention,
    "value" reads from the token itself only, and sums such as "qq+kk" add the softmaxes of both. "window" looks at
    distance alone.
    """

    attention: Attention = "value"
    residual: bool = (
        True  # add the attention to the token, as trained; False: it takes the token's place
    )
    feed_forward: bool = True  # the block's second half
    neighbours: Positive | None = (
        None  # standard deviation in patches of a Gaussian window that is added to the logits
    )

    def __post_init__(self) -> None:
        check(self)
        if self.attention == "window" and self.neighbours is None:
            raise ValueError("attention 'window' needs the width of its window: set neighbours")
        if self.attention == "value" and self.neighbours is not None:
            raise ValueError(
                "attention 'value' reads from the patch itself: neighbours has no effect, leave it out"
            )


TRAINED = LastBlock("qk")
"""The block as it was trained."""
MASKCLIP = LastBlock("value")
"""Source: arXiv:2112.01071, section 3.2, as published: residual and feed-forward are kept."""
VALUE_ONLY = LastBlock("value", residual=False, feed_forward=False)
"""MaskCLIP as later work compares with it: nothing but value and output projection."""
CLIP_SURGERY = LastBlock("vv", residual=False, feed_forward=False)
"""Value-value attention in the last block only. Source: arXiv:2304.05653, section 3.3, which has it in more blocks."""
SCLIP = LastBlock("qq+kk")
"""Correlative self-attention. Source: arXiv:2312.01597, eq. 4."""
CLEARCLIP = LastBlock("qq", residual=False, feed_forward=False)
"""Source: arXiv:2407.12442, eq. 8."""
NACLIP = LastBlock("kk", residual=False, feed_forward=False, neighbours=5.0)
"""Key-key attention with a Gaussian window. Source: arXiv:2404.08181, section 3.2."""
PRESETS = {
    "trained": TRAINED,
    "maskclip": MASKCLIP,
    "value_only": VALUE_ONLY,
    "clip_surgery": CLIP_SURGERY,
    "sclip": SCLIP,
    "clearclip": CLEARCLIP,
    "naclip": NACLIP,
}


@dataclass(frozen=True)
class DenseClipConfig:
    """Which image tower, and how it is read.

    `architecture` overrides fields of transformers' CLIPVisionConfig or SiglipVisionConfig; for a CLIP's ResNet, which
    has no `last_block` to choose, it holds the arguments of open_clip's ModifiedResNet. The published MaskCLIP has
    `hidden_act` "gelu", `layer_norm_eps` 1e-6 and `statistics` "imagenet", which are not CLIP's.
    """

    family: Literal["clip", "siglip", "clip_resnet"] = "clip"
    architecture: dict[str, Value] = field(default_factory=dict)
    weights: OutsideName | None = None  # folder or Hugging Face name; None is random
    last_block: LastBlock = MASKCLIP
    positions: Literal["size", "factor"] = (
        "size"  # how positions are resized: "factor" is (n + 0.1) / side, as SCLIP
    )
    statistics: Literal["imagenet", "half", "clip"] | None = (
        None  # color normalization; None is the family's usual
    )

    def build(self) -> DenseClip | DenseClipResNet:
        """Make the tower; weights are read if named."""
        from maskfree.nn.clip_resnet import DenseClipResNet, make_resnet
        from maskfree.nn.dense_clip import DenseClip
        from maskfree.nn.pretrained import make_tower

        if self.family == "clip_resnet":
            return DenseClipResNet(
                tower=make_resnet(self.architecture), statistics=self.statistics or "clip"
            )
        siglip = self.family == "siglip"
        name = "SiglipVisionModel" if siglip else "CLIPVisionModelWithProjection"
        return DenseClip(
            tower=make_tower(name, self._configuration(), self.weights),
            last_block=self.last_block,
            positions=self.positions,
            statistics=self.statistics or ("half" if siglip else "clip"),
            siglip=siglip,
        )

    def without_pretrained(self) -> DenseClipConfig:
        """The same network with every value spelled out and no outside weights."""
        from maskfree.nn.pretrained import plain_fields

        if self.family == "clip_resnet":
            return self
        return replace(self, architecture=plain_fields(self._configuration()), weights=None)

    def _configuration(self) -> Any:
        from maskfree.nn.pretrained import read_configuration

        name = "SiglipVisionConfig" if self.family == "siglip" else "CLIPVisionConfig"
        return read_configuration(name, self.weights, self.architecture)
