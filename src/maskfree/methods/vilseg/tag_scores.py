"""Scores of an image classifier and of a concept head, added to ViL-Seg's cosines.

Not in the paper. An embedding trained on few captions loses much of what a classifier knows. The
tag scores keep the classifier's evidence beside the cosines, and the head learns from captions the
nouns that are no class of the classifier, such as sky or grass.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.methods.vilseg.tag_scores_config import TagScoresConfig
from maskfree.nn.concept_head import COARSE, FINE, MIDDLE, ConceptHead
from maskfree.nn.efficientnet_lite import EfficientNetLite
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.ops.class_prior import smooth
from maskfree.ops.tag_scores import (
    TagWeighting,
    best_cosines,
    reweighted_by_photo,
    weighted_log_scores,
    with_kinds,
    word_scores,
)
from maskfree.types import Losses

# Text cosine above which a noun of a caption counts as a concept's name.
_SAME_WORD = 0.8
# Side of the smoothing window over the classifier's scores, in its coarse patches.
_SMOOTHING = 3

# Chosen on coco-mini, neutral_score on CamVid too. Most words are close to some of 1,000 tags, and
# what no tag means is left to the other evidence.
TAG_WEIGHTING = TagWeighting(
    weight=0.08,
    temperature=0.08,
    min_cosine=0.3,
    cosine_range=0.4,
    min_score=0.01,
    photo_weight=0.5,
    neutral_score=0.6,
    max_uncovered_cosine=0.4,
)
# Concepts are few and plain words, so that they are matched more strictly; the head is less sure.
CONCEPT_WEIGHTING = TagWeighting(
    weight=0.08,
    temperature=0.06,
    min_cosine=0.2,
    cosine_range=0.3,
    min_score=0.1,
    photo_weight=0.5,
    neutral_score=0.0,
    max_uncovered_cosine=0.4,
)
# Added to every score, so that thresholds chosen for cosines fit; it changes no argmax.
_OFFSET = 0.4

# Channels of the concept head's fine map, and its inverted bottlenecks.
_HEAD_WIDTH, _HEAD_BLOCKS = 96, 3
# Weight of a concept that no caption of the photo names, since captions are incomplete.
_UNNAMED_WEIGHT = 0.03
# Weight of the output "other", which is no concept.
_OTHER_WEIGHT = 0.3
# Share of the photo's patches on which a named concept should appear.
_NAMED_SHARE = 0.1


class VocabularyTexts(nn.Module):
    """Text embeddings of a vocabulary's names, with the tag that each name belongs to."""

    def __init__(self, num_texts: int, dim: int, num_tags: int):
        super().__init__()
        self.texts: Tensor
        self.owners: Tensor
        texts = nn.init.normal_(torch.empty(num_texts, dim))
        # On the meta device, where sizes are checked, arithmetic would load torch's compiler.
        if not texts.is_meta:
            texts = F.normalize(texts, dim=-1)
        owners = [number % num_tags for number in range(num_texts)]

        self.register_buffer("texts", texts)
        self.register_buffer("owners", torch.tensor(owners))
        self._num_tags = num_tags

    def forward(self, words: Float[Tensor, "p d"]) -> Float[Tensor, "v p"]:
        """Compare tags with words.

        Args:
            words: Unit-norm text embeddings.

        Returns:
            Highest cosine of each tag's names to each word.
        """
        return best_cosines(self.texts, self.owners, words, self._num_tags)


class TagScores(nn.Module):
    """A patch-wise image classifier and a head that learns caption nouns from its feature maps.

    The classifier is frozen, or it learns with the head while a distillation loss keeps it near its
    initial outputs.
    """

    def __init__(
        self, config: TagScoresConfig, *, encoder: ImageEncoder, tower: EfficientNetLite, dim: int
    ):
        super().__init__()
        learns = config.distillation_weight > 0
        self.encoder = encoder.requires_grad_(learns)
        self.classifier = nn.Conv2d(encoder.channels, config.num_tags, 1).requires_grad_(learns)

        # A copy of the initial classifier is the distillation target.
        self.teacher = None
        if learns:
            initial = deepcopy(nn.Sequential(encoder, self.classifier))
            self.teacher = initial.requires_grad_(False)

        channels = (tower.channels_at[FINE], tower.channels_at[MIDDLE], tower.channels_at[COARSE])
        self.concepts = ConceptHead(
            channels=channels,
            num_concepts=config.num_concepts,
            width=_HEAD_WIDTH,
            num_blocks=_HEAD_BLOCKS,
        )

        self.tag_names = VocabularyTexts(config.num_tag_names, dim, config.num_tags)
        self.tag_kinds = VocabularyTexts(config.num_tag_kinds, dim, config.num_tags)
        self.concept_names = VocabularyTexts(config.num_concept_names, dim, config.num_concepts)
        # The list hides the tower from nn.Module: it is registered as part of the encoder.
        self._config, self._tower = config, [tower]

    def on_train_start(self) -> None:
        """Copy the current classifier into the teacher."""
        if self.teacher is not None:
            self.teacher.load_state_dict(nn.Sequential(self.encoder, self.classifier).state_dict())

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        words: Float[Tensor, "k d"],
        word_weights: Float[Tensor, "b k"],
    ) -> Losses:
        """Compare the head's predictions with the nouns of captions.

        Patches should show concepts that the captions name, or with less weight others that the
        captions may omit. A named concept should have high probability on part of the photo.

        Args:
            images: RGB images in [0, 1].
            words: Unit-norm embeddings of the batch's nouns.
            word_weights: Weight of each noun in each photo's captions; 0 if absent.

        Returns:
            The terms `concepts` and, if the classifier learns, `tag_distillation`, with the number
            of named concepts as a metric.
        """
        concepts, tags = self.logits(images)
        logs = concepts.float().log_softmax(1)

        # Which concepts each photo's captions name.
        same = (self.concept_names(words) > _SAME_WORD).float()  # v k
        named = ((word_weights > 0).float() @ same.T > 0).float()  # b v

        # Log-likelihood of each patch, with unnamed concepts and "other" down-weighted.
        other = torch.full_like(named[:, :1], _OTHER_WEIGHT)
        bag = torch.cat([named.clamp_min(_UNNAMED_WEIGHT), other], dim=1).log()
        allowed = torch.logsumexp(logs + bag[:, :, None, None], dim=1)

        # Multiple-instance loss: each named concept on its most likely patches.
        found = logs[:, :-1].exp().flatten(2)
        num_patches = max(1, round(_NAMED_SHARE * found.shape[2]))
        clearest = found.topk(num_patches, dim=2).values.mean(2)
        # 1e-4 bounds the loss of a concept that the head does not find.
        shown = (named * -(clearest + 1e-4).log()).sum(1)

        metrics = {"named_concepts": named.sum(1).mean()}
        terms = {"concepts": self._config.weight * (shown.mean() - allowed.mean())}
        if self.teacher is not None:
            divergence = self._divergence(self.teacher, images, tags)
            terms["tag_distillation"] = self._config.distillation_weight * divergence

        return Losses(terms, metrics)

    def cosines(
        self, words: Float[Tensor, "p d"]
    ) -> tuple[Float[Tensor, "v p"], Float[Tensor, "t p"]]:
        """Compare the names of concepts and of tags with words.

        Args:
            words: Unit-norm text embeddings.

        Returns:
            Cosine of each concept and of each tag to each word.
        """
        of_tags = with_kinds(self.tag_names(words), self.tag_kinds(words))
        return self.concept_names(words), of_tags

    def scores(
        self,
        concepts: Float[Tensor, "b v1 hf wf"],
        tags: Float[Tensor, "b t hc wc"],
        of_concepts: Float[Tensor, "v p"],
        of_tags: Float[Tensor, "t p"],
        size: tuple[int, int],
        patch_size: int,
    ) -> Float[Tensor, "b p hp wp"]:
        """Score patches for words.

        Args:
            concepts: Logits of concepts, as `logits` gives them.
            tags: Logits of tags.
            of_concepts: Cosines of concepts to the words, as `cosines` gives them.
            of_tags: Cosines of tags to the words.
            size: Height and width of the images in pixels.
            patch_size: Side of the patches to score, in pixels.

        Returns:
            Scores to add to the cosines of the patches.
        """
        rows, columns = size[0] // patch_size, size[1] // patch_size

        # Scores of the classifier, on its coarse grid, enlarged to the patches.
        likely = reweighted_by_photo(tags.float().softmax(1))
        scores = smooth(word_scores(likely, of_tags, TAG_WEIGHTING), _SMOOTHING)
        from_tags = weighted_log_scores(scores, of_tags, TAG_WEIGHTING)
        enlarged = F.interpolate(
            from_tags, scale_factor=COARSE / patch_size, mode="bilinear", align_corners=False
        )

        # Scores of the concept head, on its fine grid, pooled to the patches.
        likely = _pooled(concepts.float().softmax(1)[:, :-1], patch_size // FINE)
        scores = word_scores(likely, of_concepts, CONCEPT_WEIGHTING)
        from_concepts = weighted_log_scores(scores, of_concepts, CONCEPT_WEIGHTING)

        # Cut off what was padded to whole patches.
        return _OFFSET + enlarged[:, :, :rows, :columns] + from_concepts[:, :, :rows, :columns]

    def logits(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b v hf wf"], Float[Tensor, "b t hc wc"]]:
        """Compute the logits of concepts and tags on images padded to whole patches.

        Args:
            images: RGB images in [0, 1].

        Returns:
            Logits of concepts, the last of which is "other", and of tags.
        """
        maps, features = self._tower[0].maps(self.encoder.normalized(_padded(images)))
        tags = self.classifier(features)
        return self.concepts(maps[FINE], maps[MIDDLE], maps[COARSE]), tags

    @staticmethod
    def _divergence(teacher: nn.Module, images: Tensor, tags: Tensor) -> Float[Tensor, ""]:
        """KL divergence of the classifier from its initial outputs, at temperatures 1 and 2."""
        with torch.no_grad():
            before = teacher(_padded(images)).float()

        # Temperature 2 also compares the less likely tags.
        sharp = _summed_divergence(tags.float(), before)
        soft = _summed_divergence(tags.float() / 2, before / 2)
        return (sharp + 2 * soft) / tags[:, 0].numel()


def _summed_divergence(logits: Tensor, before: Tensor) -> Float[Tensor, ""]:
    """KL divergence of tag distributions, summed over patches."""
    return F.kl_div(logits.log_softmax(1), before.log_softmax(1), log_target=True, reduction="sum")


def _padded(images: Tensor) -> Tensor:
    """Pad images to whole patches of the tower by replicating the border."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % COARSE, 0, -height % COARSE), mode="replicate")


def _pooled(likely: Tensor, times: int) -> Tensor:
    """Average-pool probabilities by a whole factor."""
    return F.avg_pool2d(likely, times) if times > 1 else likely
