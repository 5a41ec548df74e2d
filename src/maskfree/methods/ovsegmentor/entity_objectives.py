"""L_entity of OVSegmentor and its variants, each with its own parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.contrastive import info_nce, retrieval_accuracy
from maskfree.losses.entities import masked_language, multi_label_contrast
from maskfree.methods.ovsegmentor.batch import EntityTexts
from maskfree.nn.contrastive_objective import Gather
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.entity_decoder import EntityDecoder
from maskfree.types import Losses, Tokens

# Tokens to unit-norm text embeddings.
Embed = Callable[[Tokens], Tensor]


@dataclass(frozen=True)
class EntityInputs:
    """Inputs of an entity objective."""

    groups: Float[Tensor, "b g c"]
    """Group features of the images, not projected."""
    overall: Float[Tensor, "b d"]
    """Unit-norm image embeddings."""
    texts: EntityTexts
    """Masked captions, answers and labels."""
    text: TextProjector
    """Text encoder with its projection."""
    embed: Embed
    """Function that embeds tokenized texts with unit norm."""
    scale: Float[Tensor, ""]
    """Inverse temperature."""
    gather: Gather
    """Concatenates a tensor over all processes."""


class EntityObjective(nn.Module, ABC):
    """Base class of losses on the entities of captions."""

    @abstractmethod
    def forward(self, inputs: EntityInputs) -> Losses:
        """Compare images with entity texts.

        Args:
            inputs: Images, texts and encoders of this batch.

        Returns:
            The term `entity`, with metrics.
        """


class CompletionObjective(EntityObjective):
    """Masked entity completion: contrast completed captions with the masked entities.

    A masked caption attends to the image groups; its embedding must match a sentence that names the
    masked entities. Captions in which nothing was masked are excluded.

    Source: eq. 8 and 9.

    Differs: the released code includes them, and its decoder attends to padding; `released` does
    so too.
    """

    def __init__(
        self,
        *,
        weight: float,
        decoder: EntityDecoder,
        bridge: nn.Module,
        released: bool,
    ):
        super().__init__()
        self.decoder = decoder
        self.bridge = bridge
        self._weight, self._released = weight, released

    def forward(self, inputs: EntityInputs) -> Losses:
        """Contrast completed captions with answers over the global batch.

        Args:
            inputs: Images, texts and encoders of this batch.

        Returns:
            The term `entity`, with the accuracy of matching as a metric.
        """
        texts, encoder = inputs.texts, inputs.text.encoder
        # No mask lets the decoder attend to padding.
        mask = None if self._released else texts.questions.mask
        completed = self.decoder(encoder.each(texts.questions), inputs.groups, mask)
        # The completed caption is pooled like a text, then projected to the joint space.
        sentences = self.bridge(encoder.pool(completed, texts.questions))

        # Captions without masked entities do not count.
        counted = inputs.gather(texts.masked | self._released)
        questions = inputs.gather(F.normalize(sentences, dim=-1))[counted].float()
        answers = inputs.gather(inputs.embed(texts.answers))[counted].float()

        # Zero with a graph, so that every process takes part in the backward pass.
        if not len(questions):
            return Losses({"entity": sentences.sum() * 0}, {})

        metrics = {"completion_accuracy": retrieval_accuracy(questions, answers).detach()}

        return Losses(
            {"entity": self._weight * info_nce(questions, answers, inputs.scale)}, metrics
        )


class MultiLabelObjective(EntityObjective):
    """Multi-label contrast of GroupViT between a photo and the prompts of its entities.

    Source: Table 4.
    """

    def __init__(self, *, weight: float):
        super().__init__()
        self._weight = weight

    def forward(self, inputs: EntityInputs) -> Losses:
        """Contrast images with labels over the global batch.

        Args:
            inputs: Images, texts and encoders of this batch.

        Returns:
            The term `entity`.
        """
        texts = inputs.texts
        assert texts.labels is not None and texts.labeled is not None, (
            "the multi-label contrast needs labels"
        )

        # One row of labels per image.
        labels = inputs.gather(inputs.embed(texts.labels).unflatten(0, texts.labeled.shape)).float()
        photos = inputs.gather(inputs.overall).float()
        loss = multi_label_contrast(photos, labels, inputs.gather(texts.labeled), inputs.scale)

        return Losses({"entity": self._weight * loss}, {})


class MaskedWordsObjective(EntityObjective):
    """Masked language modeling among the entities: each masked word is classified by itself.

    Source: Table 4.
    """

    def __init__(self, *, weight: float, decoder: EntityDecoder | None, classifier: nn.Linear):
        super().__init__()
        # None classifies from the text alone.
        self.decoder = decoder
        self.classifier = classifier
        self._weight = weight

    def forward(self, inputs: EntityInputs) -> Losses:
        """Classify the masked words of this process's captions.

        Args:
            inputs: Images, texts and encoders of this batch.

        Returns:
            The term `entity`.
        """
        questions = inputs.texts.questions
        hidden = inputs.text.encoder.each(questions)
        if self.decoder is not None:
            hidden = self.decoder(hidden, inputs.groups, questions.mask)

        # Processes may hide different numbers of words: all divide by the mean number.
        hidden_words = (inputs.texts.targets >= 0).sum()[None]
        everywhere = inputs.gather(hidden_words).float()
        share = hidden_words[0] / everywhere.mean().clamp_min(1 / len(everywhere))

        loss = masked_language(self.classifier(hidden), inputs.texts.targets)
        return Losses({"entity": self._weight * share * loss}, {})
