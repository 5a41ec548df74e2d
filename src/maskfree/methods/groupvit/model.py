"""GroupViT: a transformer that merges patches into groups in two steps, taught by captions (Xu et al., CVPR 2022).

The network and its published weights are transformers'; how it is shown a photo and how groups become scores is the
authors' (`Inference(score="product")`). Source: arXiv:2202.11094. Differs: only the caption contrast trains it, without
the nouns of section 3.3, and the projections see pooled embeddings alone while training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.data.config import ViewConfig
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import color_jitter, crop, random_box
from maskfree.losses.contrastive import info_nce, retrieval_accuracy
from maskfree.method import Method
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Groups, Losses, Tokens

_MEAN, _DEVIATION = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # ImageNet's, as the authors' code has them
_MAX_LOG_SCALE = math.log(100)


class GroupViT(Method):
    """TOWER is a `transformers.GroupViTModel`: both encoders, both projections and the temperature."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower: Any = tower
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, batch: Batch) -> Losses:
        """Return the term `cross`, the contrast of photos and captions; patches choose groups by a noisy arg-max.

        Raises:
            ValueError: the photos have no captions.
        """
        if batch.captions is None:
            raise ValueError("GroupViT learns from captions, and the photos have none")
        tokens, _ = self._tokens(batch.images)
        image = self.gather(self._embed_pooled(tokens)).float()
        text = self.gather(self.encode_text(batch.captions)).float()
        scale = self.tower.logit_scale.clamp_max(_MAX_LOG_SCALE).exp()
        metrics = {
            "logit_scale": scale.detach(),
            "retrieval_accuracy": retrieval_accuracy(image, text).detach(),
        }
        return Losses({"cross": info_nce(image, text, scale)}, metrics)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts by their end token; unit norm."""
        hidden = self.tower.text_model(
            input_ids=tokens.ids, attention_mask=tokens.mask.long()
        ).last_hidden_state
        # Not transformers' pooled output, which looks for an id that not every published configuration has right.
        ends = hidden[torch.arange(len(hidden), device=hidden.device), tokens.mask.sum(1) - 1]
        return F.normalize(self.tower.text_projection(ends), dim=-1)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Group patches softly: a patch belongs to a final group through all groups of the first stage.

        Raises:
            ValueError: a side is no multiple of `patch_size`.
        """
        tokens, stages = self._tokens(images)
        assignment = stages[0]
        for stage in stages[1:]:
            assignment = stage @ assignment  # b g n
        patches = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        projected = self.tower.visual_projection(tokens.flatten(0, 1)).unflatten(
            0, tokens.shape[:2]
        )
        return Groups(
            embeddings=F.normalize(projected, dim=-1),
            assignment=assignment.unflatten(2, patches),
            overall=self._embed_pooled(tokens),
            patches=patches,
        )

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature, at most 100."""
        return self.tower.logit_scale.detach().clamp_max(_MAX_LOG_SCALE).exp().item()

    @property
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""
        return self.tower.config.vision_config.patch_size

    def after_step(self, step: int, steps: int) -> None:
        """Keep the temperature where its gradient still lives."""
        with torch.no_grad():
            self.tower.logit_scale.clamp_(max=_MAX_LOG_SCALE)

    def _tokens(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The final group tokens (b g d) and the soft assignment of each stage (b groups members).

        transformers' own forward takes photos of one size only, but its parts take any.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide into patches of {self.patch_size} px"
            )
        vision = self.tower.vision_model
        patches = vision.embeddings(
            (images - self.mean) / self.deviation, interpolate_pos_encoding=True
        )
        encoded = vision.encoder(patches, output_attentions=True, return_dict=True)
        return vision.layernorm(encoded.last_hidden_state), encoded.attentions

    def _embed_pooled(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower.visual_projection(tokens.mean(1)), dim=-1)


class GroupViTSample(NamedTuple):
    """One photo's view and one of its captions, if it has any."""

    key: str
    caption: str | None
    image: Tensor
    box: Tensor
    flipped: bool


@dataclass(frozen=True)
class GroupViTTransform(Transform):
    """Crop, mirror and recolor one photo; draw one of its captions."""

    tokenizer: Tokenizer | None  # None if no photo has a caption
    views: ViewConfig

    def sample(self, source: Source, seed: int) -> GroupViTSample:
        """Augment one photo; all randomness comes from SEED."""
        rng = np.random.default_rng(seed)
        captions, views = source.captions, self.views
        caption = captions[int(rng.integers(len(captions)))] if captions else None
        box = random_box(rng, source.photo.size, views.scale)
        flipped = bool(rng.random() < views.mirror)
        image = color_jitter(crop(source.photo, box, views.side_px, flipped), rng, *views.jitter)
        return GroupViTSample(source.key, caption, image, torch.tensor(box), flipped)

    def collate(self, samples: Sequence[GroupViTSample]) -> Batch:
        """Stack samples into a batch; captions are tokenized if the samples have any."""
        captions = [sample.caption for sample in samples if sample.caption is not None]
        assert len(captions) in (0, len(samples)), "a batch is either captioned or not"
        assert self.tokenizer is not None or not captions, "captions need a tokenizer"
        return Batch(
            images=torch.stack([sample.image for sample in samples]),
            boxes=torch.stack([sample.box for sample in samples]),
            flipped=torch.tensor([sample.flipped for sample in samples]),
            captions=self.tokenizer(captions) if self.tokenizer and captions else None,
            keys=tuple(sample.key for sample in samples),
        )
