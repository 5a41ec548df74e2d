"""Configuration of the losses over words that ViL-Seg can be trained with."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskfree.config.rules import Weight

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from maskfree.methods.vilseg.words import WordsObjective
    from maskfree.nn.image_encoder import ImageEncoder
    from maskfree.text.tags import Tag


@dataclass(frozen=True)
class WordsConfig:
    """Multiple-instance and distillation losses over words (nouns of captions, classifier tags).

    Not in the paper. Needs a frozen text encoder and image weights that include a classifier.
    """

    tags: str = "imagenet"
    """Class names of the classifier: "imagenet" for the 1,000 names shipped with the package, or a
    file in the same format."""
    nouns_weight: Weight = 0.5
    """Weight of the multiple-instance loss over caption nouns."""
    kinds_weight: Weight = 0.25
    """Weight of the loss over the superclasses of the tags."""
    tags_weight: Weight = 0.25
    """Weight of the loss over the classifier tags themselves."""

    def read(self) -> tuple[Tag, ...]:
        """Read the classifier tags.

        Returns:
            The tags with their names and superclasses, in the order of the classifier's outputs.
        """
        from maskfree.text.tags import IMAGENET_TAGS, read_tags

        return read_tags(IMAGENET_TAGS if self.tags == "imagenet" else Path(self.tags))

    def build(
        self,
        encoder: ImageEncoder,
        classifier: nn.Linear,
        tags: Sequence[Tag],
        tag_features: Float[Tensor, "t c"],
    ) -> WordsObjective:
        """Build the word objective; its tagger is a copy of the encoder with the classifier.

        Args:
            encoder: Image encoder that the classifier was trained on.
            classifier: Linear layer from encoder channels to tags.
            tags: Tags in the order of the classifier's outputs.
            tag_features: Unit-norm text features of the tags.

        Returns:
            The objective.
        """
        import torch

        from maskfree.methods.vilseg.words import Tagger, WordsObjective, as_convolution
        from maskfree.text.tags import kinds_of

        # Rows average over a tag's superclasses; a tag without any has a zero row.
        kinds = kinds_of(tags)
        belongs = torch.tensor([[kind in tag.kinds for kind in kinds] for tag in tags]).float()

        return WordsObjective(
            tagger=Tagger(deepcopy(encoder), as_convolution(classifier)),
            tag_features=tag_features,
            kinds=belongs / belongs.sum(1, keepdim=True).clamp_min(1),
            weights=(self.nouns_weight, self.kinds_weight, self.tags_weight),
        )
