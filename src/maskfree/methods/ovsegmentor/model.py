"""OVSegmentor: patches bound to group tokens, trained on captions and entities (Xu et al. 2023).

Source: arXiv:2301.09121 (CVPR 2023) and its released code.

Differs: see the method's page in the docs; each difference is a field of the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.methods.ovsegmentor.batch import OVSegmentorBatch, Partners
from maskfree.methods.ovsegmentor.entity_objectives import EntityInputs, EntityObjective
from maskfree.methods.ovsegmentor.mask_objective import MaskConsistencyObjective
from maskfree.nn.contrastive_objective import ContrastiveObjective
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.grouping_encoder import Grouped, GroupingEncoder
from maskfree.types import Groups, Losses, Tokens

# Share of empty target masks over which L_mask teaches so little that the log says so.
_MANY_EMPTY = 0.5


class OVSegmentor(Method):
    """The OVSegmentor model with its training objectives; an objective that is None is off."""

    def __init__(
        self,
        *,
        image: GroupingEncoder,
        image_projection: nn.Module,
        text: TextProjector,
        cross: ContrastiveObjective,
        entity: EntityObjective | None = None,
        masks: MaskConsistencyObjective | None = None,
        observe_tokens: bool = False,
    ):
        super().__init__()
        self.image = image
        self.image_projection = image_projection
        self.text = text
        self.cross = cross
        self.entity = entity
        self.masks = masks
        self._observe_tokens = observe_tokens

    def forward(self, batch: OVSegmentorBatch) -> Losses:
        """Compute the training losses of a batch.

        Args:
            batch: Images with captions, and with entity texts and partners as far as the
                objectives need them.

        Returns:
            The terms `cross`, `entity` and, in the last part of the training, `masks`, with
            metrics.

        Raises:
            ValueError: The photos have no captions.

        Source: eq. 13.
        """
        # L_mask is used in the last part of the training only.
        if self.masks is not None and not self.masks.begun:
            return self._losses(batch, None)
        return self._losses(batch, self.masks)

    def rehearse(self, batch: OVSegmentorBatch) -> Losses | None:
        """Compute the losses of a step with L_mask, before it begins.

        Args:
            batch: Images with captions.

        Returns:
            The losses, with each image as its own partner; None if L_mask is off or has begun.
        """
        if self.masks is None or self.masks.begun or batch.captions is None:
            return None
        partners = _own_partners(batch, present=True)
        return self._losses(replace(batch, partners=partners), self.masks)

    def _losses(self, batch: OVSegmentorBatch, masks: MaskConsistencyObjective | None) -> Losses:
        """Losses of a batch, with L_mask or without it."""
        if batch.captions is None:
            raise ValueError("OVSegmentor learns from captions, and the photos have none")

        # Image-text contrast of the mean group and the caption.
        grouped = self.image(batch.images, with_features=masks is not None)
        overall = F.normalize(self.image_projection(grouped.groups.mean(1)), dim=-1)
        # Projected also while observing, since it moves the running statistics.
        groups = None
        if masks or self._observing:
            groups = self.image_projection(grouped.groups)
        parts = [self.cross(overall, self._text(batch.captions), self.gather)]

        # Masked entity completion.
        if self.entity is not None:
            assert batch.entities is not None, "L_entity needs the captions' entities"
            texts = batch.entities
            # The released code projects the questions too, which moves the running statistics.
            if self._observing:
                with torch.no_grad():
                    self._text(texts.questions)

            inputs = EntityInputs(
                grouped.groups,
                overall,
                texts,
                self.text,
                self._text,
                self.cross.factor,
                self.gather,
            )
            parts.append(self.entity(inputs))

        # Cross-image mask consistency; no gradient reaches the text encoder.
        if masks is not None:
            assert groups is not None, "L_mask reads the projected groups"
            # Other processes may have partners where this one has none.
            partners = batch.partners or _own_partners(batch, present=False)
            with torch.no_grad():
                shared = self._text(partners.entities)

            losses = masks(
                self.image,
                batch.images,
                (grouped, groups),
                self._project,
                partners,
                shared,
                self.cross.factor,
                self.gather,
            )
            parts.append(losses)

        return Losses.merged(parts)

    @property
    def _observing(self) -> bool:
        """Whether the projections' running statistics also see all tokens."""
        return self._observe_tokens and self.training

    def _project(self, grouped: Grouped) -> Float[Tensor, "b g d"]:
        """Project groups; with `observe_tokens`, running statistics see their mean first."""
        if self._observing:
            with torch.no_grad():
                self.image_projection(grouped.groups.mean(1))
        return self.image_projection(grouped.groups)

    def _text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts; with `observe_tokens`, running statistics also see their tokens."""
        if not self._observing:
            return self.text(tokens)

        # Embed by hand, to keep the features of all tokens.
        hidden = self.text.encoder.each(tokens)
        embedded = F.normalize(self.text.projection(self.text.encoder.pool(hidden, tokens)), dim=-1)

        with torch.no_grad():
            self.text.projection(hidden)

        return embedded

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Bind patches softly to the group tokens.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Groups with unit-norm embeddings and the assignment of patches to them.

        Source: eq. 1.
        """
        grouped = self.image(images, with_features=False)
        return Groups(
            F.normalize(self.image_projection(grouped.groups), dim=-1),
            grouped.assignment.soft.unflatten(2, grouped.patches),
            F.normalize(self.image_projection(grouped.groups.mean(1)), dim=-1),
            grouped.patches,
        )

    @property
    def logit_scale(self) -> float:
        """Learned inverse temperature of the image-text contrastive loss.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return self.cross.scale

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels.
        """
        return self.image.patch_size

    def on_train_start(self) -> None:
        """Initialize the momentum encoder from the image encoder and reset the start of L_mask."""
        if self.masks is not None:
            self.masks.on_train_start(self.image)

    def concerns(self, metrics: Mapping[str, float]) -> list[str]:
        """Say when most target masks of L_mask are empty.

        Args:
            metrics: Metrics of the step's losses, averaged over the processes.

        Returns:
            The warning, if it is due.
        """
        empty = metrics.get("empty_targets", 0.0)
        if empty <= _MANY_EMPTY:
            return []
        return [
            f"{empty:.0%} of the target masks of L_mask have no patch: they teach nothing "
            "(see method.masks.matching and start)"
        ]

    def after_step(self, step: int, steps: int) -> None:
        """Update the momentum encoder and clamp the temperature.

        Args:
            step: Number of the finished step, from 0.
            steps: Total number of training steps.
        """
        self.cross.after_step()
        if self.masks is not None:
            self.masks.after_step(self.image, (step + 1) / steps)


def _own_partners(batch: OVSegmentorBatch, *, present: bool) -> Partners:
    """Each image as its own partner, which counts or not."""
    assert batch.captions is not None
    everyone = torch.full((len(batch.images),), present, device=batch.images.device)
    return Partners(batch.images, batch.captions, everyone)
