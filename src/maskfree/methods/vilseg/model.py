"""ViL-Seg: image-text contrast, local-to-global consistency, online clustering (Liu et al. 2022).

Source: arXiv:2207.08455 (ECCV 2022).

Differs: see the method's page in the docs; each difference is a field of the config.
"""

from __future__ import annotations

from copy import copy
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.config.rules import Grouping
from maskfree.method import Method
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.objectives import ClusterObjective, VisionObjective
from maskfree.methods.vilseg.tag_scores import TagScores
from maskfree.methods.vilseg.words import WordsObjective
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.contrastive_objective import ContrastiveObjective
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.nn.encoded_view import EncodedView
from maskfree.nn.pixel_groups import check_grouping, group_pixels
from maskfree.types import Groups, Losses, Tokens


class ViLSeg(Method):
    """The ViL-Seg model with its training objectives; an objective that is None is off."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        cross: ContrastiveObjective,
        vision: VisionObjective | None = None,
        cluster: ClusterObjective | None = None,
        words: WordsObjective | None = None,
        tag_scores: TagScores | None = None,
        grouping: Grouping = "pixels",
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.cross = cross
        self.vision = vision
        self.cluster = cluster
        self.words = words
        self.tag_scores = tag_scores
        # Of inference; training has no regions.
        self._grouping: Grouping = grouping

    def forward(self, batch: ViLSegBatch) -> Losses:
        """Compute the training losses of a batch.

        Args:
            batch: Images, with captions, local views and augmented views as far as the
                objectives need them.

        Returns:
            The terms `cross` (if the batch has captions), `vision`, `cluster` and those of words
            and tag scores, with metrics.

        Raises:
            ValueError: No objective applies to this batch.

        Source: eq. 1.
        """
        # Objectives whose encoders are copies of a frozen one take its features.
        view = EncodedView(batch.images, self.image.encoder)
        pixels = self.image.projection(view.features)
        overall = pixels.mean((2, 3))

        parts = []

        # Image-text contrast of the whole photo and its caption.
        if batch.captions is not None:
            parts.append(
                self.cross(
                    F.normalize(overall, dim=-1),
                    self.encode_text(batch.captions),
                    self.gather,
                    batch.described,
                )
            )

        # Local-to-global consistency; all local views pass the encoder as one batch.
        if self.vision is not None:
            assert batch.local_views is not None, "L_vision needs local views"
            local = self.image(batch.local_views.flatten(0, 1)).mean((2, 3))
            local = local.unflatten(0, batch.local_views.shape[:2])
            parts.append(self.vision(view, overall, local, self.gather))

        # Online clustering; its gradient stops at the embeddings, so no graph is needed.
        if self.cluster is not None:
            assert batch.augmented_view is not None, "L_cluster needs augmented_view"
            with torch.no_grad():
                augmented_view = self.image(batch.augmented_view)
            parts.append(self.cluster(pixels, augmented_view, batch.augmented_flipped, self.gather))

        # Objectives over the nouns of captions; the tag scores do not train the text projection.
        if self.words is not None and batch.words is not None and batch.word_weights is not None:
            parts.append(self.words(view, pixels, self.text, batch.words, batch.word_weights))

        if (
            self.tag_scores is not None
            and batch.words is not None
            and batch.word_weights is not None
        ):
            parts.append(
                self.tag_scores(batch.images, self.text(batch.words).detach(), batch.word_weights)
            )

        losses = Losses.merged(parts)
        if not losses.terms:
            raise ValueError(
                "nothing to learn: the photos have no captions, and L_vision and L_cluster are off"
            )

        return losses

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Group patches into regions and average their embeddings.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Regions with unit-norm embeddings and the assignment of patches to them.

        Source: section 3.3.
        """
        return self.groups_of((self.image(images),))

    def grouped(self, grouping: Grouping) -> Self:
        """Return the method with other regions at inference.

        Args:
            grouping: What groups the patches; "own" is what the method was built with.

        Returns:
            A method that shares all weights with this one.

        Raises:
            ValueError: Clusters are asked for, and there is no clustering head.
        """
        if grouping == "own":
            return self
        check_grouping(grouping, self._head)

        other = copy(self)
        other._grouping = grouping
        return other

    @property
    def _head(self) -> ClusterHead | None:
        """Online clustering head, if there is one."""
        return self.cluster.head if self.cluster else None

    def read_words(self, classes: Float[Tensor, "k d"]) -> tuple[Tensor, ...]:
        """Compute what depends on the words alone.

        Args:
            classes: Unit-norm text embeddings of the classes.

        Returns:
            The embeddings, and the cosines of concepts and of tags to them if the tag scores are
            on.
        """
        if self.tag_scores is None:
            return (classes,)
        return (classes, *self.tag_scores.cosines(classes))

    def score(
        self, images: Float[Tensor, "b 3 h w"], words: tuple[Tensor, ...]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.
            words: Result of `read_words`.

        Returns:
            Cosine of the patch's region and the class, plus the tag scores if they are on.
        """
        height, width = images.shape[2:]
        return self.compare(self.look(images), words, (height, width))

    def look(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """Compute what depends on the photos alone.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Patch embeddings, and the logits of concepts and of tags if the tag scores are on.
        """
        pixels = self.image(images)
        if self.tag_scores is None:
            return (pixels,)
        return (pixels, *self.tag_scores.logits(images))

    def compare(
        self, seen: tuple[Tensor, ...], words: tuple[Tensor, ...], size: tuple[int, int]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class by what `look` and `read_words` have found.

        Args:
            seen: Result of `look`.
            words: Result of `read_words`.
            size: Height and width of the images in pixels.

        Returns:
            Cosine of the patch's region and the class, plus the tag scores if they are on.
        """
        groups = self.groups_of(seen)
        cosines = groups.spread(groups.embeddings @ words[0].T)
        if self.tag_scores is None:
            return cosines

        (_, concepts, tags), (_, of_concepts, of_tags) = seen, words
        return cosines + self.tag_scores.scores(
            concepts, tags, of_concepts, of_tags, size, self.patch_size
        )

    def groups_of(self, seen: tuple[Tensor, ...]) -> Groups:
        """Group patches into regions by what `look` has found.

        Args:
            seen: Result of `look`, or its first tensor alone.

        Returns:
            Regions as of `group`.
        """
        return group_pixels(seen[0], self._grouping, self._head)

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
        return self.image.encoder.patch_size

    def on_train_start(self) -> None:
        """Initialize the teachers of L_vision and of the tag scores from the current weights."""
        if self.vision is not None:
            self.vision.on_train_start(self.image)
        if self.tag_scores is not None:
            self.tag_scores.on_train_start()

    def after_step(self, step: int, steps: int) -> None:
        """Update the teacher and its center, and clamp the temperature.

        Args:
            step: Number of the finished step, from 0.
            steps: Total number of training steps.
        """
        self.cross.after_step()
        if self.vision is not None:
            self.vision.after_step(self.image, step / steps)
