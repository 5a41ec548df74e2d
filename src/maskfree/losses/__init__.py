"""Loss functions: pure functions of tensors, one file per family.

They can be used in any training loop, without the rest of this package.

Example:
    >>> import torch
    >>> from maskfree.losses import info_nce
    >>> embeddings = torch.eye(2, 4)
    >>> info_nce(embeddings, embeddings, scale=torch.tensor(1.0))
    tensor(0.3133)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfree.losses.consistency import embedding_consistency as embedding_consistency
    from maskfree.losses.consistency import prototype_loss as prototype_loss
    from maskfree.losses.consistency import semantic_consistency as semantic_consistency
    from maskfree.losses.contrastive import image_to_text as image_to_text
    from maskfree.losses.contrastive import info_nce as info_nce
    from maskfree.losses.contrastive import retrieval_accuracy as retrieval_accuracy
    from maskfree.losses.distillation import global_to_local as global_to_local
    from maskfree.losses.distillation import self_distillation as self_distillation
    from maskfree.losses.distillation import update_center as update_center
    from maskfree.losses.entities import group_contrast as group_contrast
    from maskfree.losses.entities import masked_language as masked_language
    from maskfree.losses.entities import multi_label_contrast as multi_label_contrast
    from maskfree.losses.mask_consistency import mask_logits as mask_logits
    from maskfree.losses.mask_consistency import matched_dice as matched_dice
    from maskfree.losses.mutual_information import co_occurrence as co_occurrence
    from maskfree.losses.mutual_information import (
        negative_mutual_information as negative_mutual_information,
    )
    from maskfree.losses.pixel_segment import pixel_segment_contrast as pixel_segment_contrast
    from maskfree.losses.pseudo_labels import pixel_cross_entropy as pixel_cross_entropy
    from maskfree.losses.words import bag_of_words as bag_of_words
    from maskfree.losses.words import pixel_words as pixel_words
    from maskfree.losses.words import word_log_probabilities as word_log_probabilities

__all__ = [
    "bag_of_words",
    "co_occurrence",
    "embedding_consistency",
    "global_to_local",
    "group_contrast",
    "image_to_text",
    "info_nce",
    "mask_logits",
    "masked_language",
    "matched_dice",
    "multi_label_contrast",
    "negative_mutual_information",
    "pixel_cross_entropy",
    "pixel_segment_contrast",
    "pixel_words",
    "prototype_loss",
    "retrieval_accuracy",
    "self_distillation",
    "semantic_consistency",
    "update_center",
    "word_log_probabilities",
]

# Module of each public loss.
_HOMES = {
    "bag_of_words": "words",
    "co_occurrence": "mutual_information",
    "embedding_consistency": "consistency",
    "global_to_local": "distillation",
    "group_contrast": "entities",
    "image_to_text": "contrastive",
    "info_nce": "contrastive",
    "mask_logits": "mask_consistency",
    "masked_language": "entities",
    "matched_dice": "mask_consistency",
    "multi_label_contrast": "entities",
    "negative_mutual_information": "mutual_information",
    "pixel_cross_entropy": "pseudo_labels",
    "pixel_segment_contrast": "pixel_segment",
    "pixel_words": "words",
    "prototype_loss": "consistency",
    "retrieval_accuracy": "contrastive",
    "self_distillation": "distillation",
    "semantic_consistency": "consistency",
    "update_center": "distillation",
    "word_log_probabilities": "words",
}


def __getattr__(name: str) -> Any:
    """Import losses lazily, so that settings of losses can be imported without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'maskfree.losses' has no attribute {name!r}")
    return getattr(import_module(f"maskfree.losses.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Public losses, whether imported yet or not."""
    return sorted(__all__)
