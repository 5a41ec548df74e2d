"""GroupViT: a transformer that merges patches into groups in two stages (Xu et al., CVPR 2022).

The network and its published weights are those of transformers; preprocessing and the scores of
groups follow the authors' code (`Inference(score="product")`).

Source: arXiv:2202.11094.

Differs: the projections see only pooled embeddings in training, and a caption with fewer nouns than
`num_labels` has fewer labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.contrastive import info_nce, retrieval_accuracy
from maskfree.losses.entities import multi_label_contrast
from maskfree.method import Method
from maskfree.methods.groupvit.batch import GroupViTBatch
from maskfree.types import Groups, Losses, Tokens

# ImageNet's mean and standard deviation, as in the authors' code.
_MEAN, _DEVIATION = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)
# Upper bound of the learned inverse temperature, in log space.
_MAX_LOG_SCALE = math.log(100)


class GroupViT(Method):
    """GroupViT method around a `transformers.GroupViTModel`, which holds both encoders."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower: Any = tower
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, batch: GroupViTBatch) -> Losses:
        """Compute the contrastive losses of a batch: with captions, and with prompted nouns.

        In training mode, patches choose groups by a Gumbel arg-max.

        Args:
            batch: Images with captions.

        Returns:
            The term `cross`, and `labels` where the batch has them, with inverse temperature and
            retrieval accuracy as metrics.

        Raises:
            ValueError: The photos have no captions.

        Source: arXiv:2202.11094, section 3.2.
        """
        if batch.captions is None:
            raise ValueError("GroupViT learns from captions, and the photos have none")

        # Negatives come from all processes, in float32 for the softmax.
        tokens, _ = self._tokens(batch.images)
        image = self.gather(self._embed_pooled(tokens)).float()
        text = self.gather(self.encode_text(batch.captions)).float()

        scale = self.tower.logit_scale.clamp_max(_MAX_LOG_SCALE).exp()
        metrics = {
            "logit_scale": scale.detach(),
            "retrieval_accuracy": retrieval_accuracy(image, text).detach(),
        }

        losses = {"cross": info_nce(image, text, scale)}
        if batch.labels is not None and batch.labeled is not None:
            # One row of labels per photo.
            labels = self.encode_text(batch.labels).unflatten(0, batch.labeled.shape)
            losses["labels"] = multi_label_contrast(
                image, self.gather(labels).float(), self.gather(batch.labeled), scale
            )

        return Losses(losses, metrics)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts by their end token.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        hidden = self.tower.text_model(
            input_ids=tokens.ids, attention_mask=tokens.mask.long()
        ).last_hidden_state

        # The pooled output of transformers searches for an end-token id that some published
        # configurations have wrong.
        ends = hidden[torch.arange(len(hidden), device=hidden.device), tokens.mask.sum(1) - 1]

        return F.normalize(self.tower.text_projection(ends), dim=-1)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Assign patches softly to the final groups, through the groups of the first stage.

        Args:
            images: RGB images in [0, 1].

        Returns:
            Final groups with unit-norm embeddings and the assignment of patches to them.

        Raises:
            ValueError: A side is no multiple of `patch_size`.
        """
        tokens, stages = self._tokens(images)

        # Chain the stages: patch to first group, first group to final group.
        assignment = stages[0]

        for stage in stages[1:]:
            assignment = stage @ assignment  # b g n

        # Project every group token, not only their mean.
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
        """Learned inverse temperature of the contrastive loss, at most 100.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return self.tower.logit_scale.detach().clamp_max(_MAX_LOG_SCALE).exp().item()

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels.
        """
        return self.tower.config.vision_config.patch_size

    def after_step(self, step: int, steps: int) -> None:
        """Clamp the inverse temperature, since beyond the bound it has no gradient.

        Args:
            step: Number of the finished step, from 0.
            steps: Total number of training steps.
        """
        with torch.no_grad():
            self.tower.logit_scale.clamp_(max=_MAX_LOG_SCALE)

    def _tokens(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Final group tokens (b g d) and the soft assignment of each stage (b groups members).

        The parts are called one by one, because the forward pass of transformers takes images of
        one size only.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide "
                f"into patches of {self.patch_size} px"
            )

        vision = self.tower.vision_model
        # Positions are interpolated to the size of the images.
        patches = vision.embeddings(
            (images - self.mean) / self.deviation, interpolate_pos_encoding=True
        )
        encoded = vision.encoder(patches, output_attentions=True, return_dict=True)

        return vision.layernorm(encoded.last_hidden_state), encoded.attentions

    def _embed_pooled(self, tokens: Tensor) -> Tensor:
        """Unit-norm embedding of the mean group token."""
        return F.normalize(self.tower.visual_projection(tokens.mean(1)), dim=-1)
