"""Votes of an image classifier and of a noun head, added to ViL-Seg's cosines.

Not in the paper. An embedding trained on few captions loses much of what a classifier knows. The
votes keep the classifier's evidence beside the cosines, and the head learns from captions the nouns
that are no class of the classifier, such as sky or grass.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.methods.vilseg.votes_config import BallotConfig, VotesConfig
from maskfree.nn.concept_head import COARSE, FINE, MIDDLE, ConceptHead
from maskfree.nn.efficientnet_lite import EfficientNetLite
from maskfree.nn.encoders import ImageEncoder
from maskfree.ops.class_prior import smooth
from maskfree.ops.votes import ballots, best_cosines, log_votes, settled, with_kinds
from maskfree.types import Losses

# Text cosine above which a noun of a caption counts as a concept's name.
_SAME_WORD = 0.8
# Side of the smoothing window over the classifier's votes, in its coarse patches.
_TAGS_SMOOTHED = 3


class VocabularyTexts(nn.Module):
    """Text embeddings of a vocabulary's names, with the entry that each name belongs to."""

    def __init__(self, num_texts: int, dim: int, num_entries: int):
        super().__init__()
        self.texts: Tensor
        self.owners: Tensor
        self.register_buffer("texts", F.normalize(torch.randn(num_texts, dim), dim=-1))
        self.register_buffer("owners", torch.arange(num_texts) % num_entries)
        self._num_entries = num_entries

    def forward(self, words: Float[Tensor, "p d"]) -> Float[Tensor, "v p"]:
        """Compare entries with words.

        Args:
            words: Unit-norm text embeddings.

        Returns:
            Highest cosine of each entry's names to each word.
        """
        return best_cosines(self.texts, self.owners, words, self._num_entries)


class Votes(nn.Module):
    """A patch-wise image classifier and a head that learns caption nouns from its feature maps.

    The classifier is frozen, or it learns with the head while a distillation loss keeps it near its
    initial outputs.
    """

    def __init__(
        self, config: VotesConfig, *, encoder: ImageEncoder, tower: EfficientNetLite, dim: int
    ):
        super().__init__()
        learns = config.keep > 0
        self.encoder = encoder.requires_grad_(learns)
        self.classifier = nn.Conv2d(encoder.channels, config.num_tags, 1).requires_grad_(learns)

        # A copy of the initial classifier is the distillation target.
        self.teacher = (
            deepcopy(nn.Sequential(encoder, self.classifier)).requires_grad_(False)
            if learns
            else None
        )

        channels = (tower.channels_at[FINE], tower.channels_at[MIDDLE], tower.channels_at[COARSE])
        self.concepts = ConceptHead(
            channels=channels,
            num_concepts=config.num_concepts,
            width=config.head_width,
            num_blocks=config.head_blocks,
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
            The terms `votes` and, if the classifier learns, `kept`, with the number of named
            concepts as a metric.
        """
        config = self._config
        concepts, tags = self._logits(images)
        logs = concepts.float().log_softmax(1)

        # Which concepts each photo's captions name.
        same = (self.concept_names(words) > _SAME_WORD).float()  # v k
        named = ((word_weights > 0).float() @ same.T > 0).float()  # b v

        # Log-likelihood of each patch, with unnamed concepts and "other" down-weighted.
        other = torch.full_like(named[:, :1], config.other)
        bag = torch.cat([named.clamp_min(config.unnamed), other], dim=1).log()
        allowed = torch.logsumexp(logs + bag[:, :, None, None], dim=1)

        # Multiple-instance loss: each named concept on its most likely patches.
        found = logs[:, :-1].exp().flatten(2)
        clearest = found.topk(max(1, round(config.share * found.shape[2])), dim=2).values.mean(2)
        # 1e-4 bounds the loss of a concept that the head does not find.
        shown = (named * -(clearest + 1e-4).log()).sum(1)

        metrics = {"named_concepts": named.sum(1).mean()}
        terms = {"votes": config.weight * (shown.mean() - allowed.mean())}
        if self.teacher is not None:
            terms["kept"] = config.keep * self._forgotten(self.teacher, images, tags)

        return Losses(terms, metrics)

    def scores(
        self, images: Float[Tensor, "b 3 h w"], words: Float[Tensor, "p d"], patch_size: int
    ) -> Float[Tensor, "b p hp wp"]:
        """Score patches for words.

        Args:
            images: RGB images in [0, 1].
            words: Unit-norm text embeddings.
            patch_size: Side of the patches to score, in pixels.

        Returns:
            Scores to add to the cosines of the patches.
        """
        config, size = self._config, (images.shape[2] // patch_size, images.shape[3] // patch_size)
        concepts, tags = self._logits(images)

        # Votes of the classifier, on its coarse grid, enlarged to the patches.
        cosines = with_kinds(self.tag_names(words), self.tag_kinds(words))
        seen = smooth(
            _cast(settled(tags.float().softmax(1)), cosines, config.tag_votes), _TAGS_SMOOTHED
        )
        from_tags = _weighed(seen, cosines, config.tag_votes)

        enlarged = F.interpolate(
            from_tags, scale_factor=COARSE / patch_size, mode="bilinear", align_corners=False
        )

        # Votes of the noun head, on its fine grid, pooled to the patches.
        cosines = self.concept_names(words)
        likely = _pooled(concepts.float().softmax(1)[:, :-1], patch_size // FINE)
        from_concepts = _weighed(
            _cast(likely, cosines, config.concept_votes), cosines, config.concept_votes
        )

        # Cut off what was padded to whole patches.
        rows, columns = size

        return (
            config.offset + enlarged[:, :, :rows, :columns] + from_concepts[:, :, :rows, :columns]
        )

    def _logits(
        self, images: Tensor
    ) -> tuple[Float[Tensor, "b v hf wf"], Float[Tensor, "b t hc wc"]]:
        """Logits of concepts (the last is "other") and of tags, on padded images."""
        height, width = images.shape[2:]
        # Pad to whole patches of the tower by replicating the border.
        padded = F.pad(images, (0, -width % COARSE, 0, -height % COARSE), mode="replicate")
        maps, features = self._tower[0].maps(self.encoder.normalized(padded))
        tags = self.classifier(features)
        return self.concepts(maps[FINE], maps[MIDDLE], maps[COARSE]), tags

    @staticmethod
    def _forgotten(teacher: nn.Module, images: Tensor, tags: Tensor) -> Float[Tensor, ""]:
        """KL divergence of the classifier from its initial outputs, at temperatures 1 and 2."""
        padded = F.pad(
            images, (0, -images.shape[3] % COARSE, 0, -images.shape[2] % COARSE), mode="replicate"
        )

        with torch.no_grad():
            before = teacher(padded).float()

        # Temperature 2 also compares the less likely tags.
        sharp, soft = (
            F.kl_div(
                (tags.float() / heat).log_softmax(1),
                (before / heat).log_softmax(1),
                log_target=True,
                reduction="sum",
            )
            for heat in (1, 2)
        )

        return (sharp + 2 * soft) / tags[:, 0].numel()


def _pooled(likely: Tensor, times: int) -> Tensor:
    """Average-pool probabilities by a whole factor."""
    return F.avg_pool2d(likely, times) if times > 1 else likely


def _cast(likely: Tensor, cosines: Tensor, config: BallotConfig) -> Float[Tensor, "b p h w"]:
    """Votes of each patch for each word."""
    table = ballots(cosines, config.temperature, config.least, config.reach)
    return torch.einsum("bvhw,vp->bphw", likely, table)


def _weighed(votes: Tensor, cosines: Tensor, config: BallotConfig) -> Float[Tensor, "b p h w"]:
    """Weighted log-votes; a word that no entry covers gets a neutral value."""
    logs = log_votes(votes, config.floor, config.whole)
    if config.neutral:
        covered = ((cosines.amax(0) - config.covered) / config.reach).clamp(0, 1)[:, None, None]
        # log_votes adds the photo's log-votes with weight `whole`, hence the factor.
        nothing = torch.full_like(covered, config.neutral).log() * (1 + config.whole)
        logs = covered * logs + (1 - covered) * nothing
    return config.weight * logs
