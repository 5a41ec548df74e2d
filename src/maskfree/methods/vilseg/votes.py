"""Votes beside ViL-Seg's cosines: what an image classifier and a head for the nouns of captions find at each patch.

Not in the paper. An embedding that is trained on few captions forgets much of what a classifier knows; here its
evidence stays beside the cosines, and a head learns from captions what is no class of it, such as sky or grass.
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

_SAME_WORD = (
    0.8  # cosine from which a noun of a caption is a concept's name, in the space of the texts
)
_TAGS_SMOOTHED = 3  # patches of the classifier, which are coarse


class Texts(nn.Module):
    """Embedded names of a vocabulary's entries, and which entry each belongs to."""

    def __init__(self, num_texts: int, dim: int, num_entries: int):
        super().__init__()
        self.texts: Tensor
        self.owners: Tensor
        self.register_buffer("texts", F.normalize(torch.randn(num_texts, dim), dim=-1))
        self.register_buffer("owners", torch.arange(num_texts) % num_entries)
        self._num_entries = num_entries

    def forward(self, words: Float[Tensor, "p d"]) -> Float[Tensor, "v p"]:
        """Return the highest cosine of each entry's names to each of WORDS."""
        return best_cosines(self.texts, self.owners, words, self._num_entries)


class Votes(nn.Module):
    """A classifier read at every patch, and a head that learns the nouns of captions from its maps.

    The classifier stays as it is, or learns with the head and is held to what it said at first.
    """

    def __init__(
        self, config: VotesConfig, *, encoder: ImageEncoder, tower: EfficientNetLite, dim: int
    ):
        super().__init__()
        learns = config.keep > 0
        self.encoder = encoder.requires_grad_(learns)
        self.classifier = nn.Conv2d(encoder.channels, config.num_tags, 1).requires_grad_(learns)
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
        self.tag_names = Texts(config.num_tag_names, dim, config.num_tags)
        self.tag_kinds = Texts(config.num_tag_kinds, dim, config.num_tags)
        self.concept_names = Texts(config.num_concept_names, dim, config.num_concepts)
        self._config, self._tower = config, [tower]  # in a list: it is part of the encoder already

    def on_train_start(self) -> None:
        """Let the teacher be what the classifier is at first."""
        if self.teacher is not None:
            self.teacher.load_state_dict(nn.Sequential(self.encoder, self.classifier).state_dict())

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        words: Float[Tensor, "k d"],
        word_weights: Float[Tensor, "b k"],
    ) -> Losses:
        """Compare the head with the nouns of captions.

        A photo's pixels should show what its captions name, or something that they may have left out, which counts
        less; and what they name should show on a part of the photo.

        Args:
            images: Photos.
            words: Embeddings of the batch's nouns; unit norm.
            word_weights: Which of them each photo's captions have.
        """
        config = self._config
        concepts, tags = self._logits(images)
        logs = concepts.float().log_softmax(1)
        same = (self.concept_names(words) > _SAME_WORD).float()  # v k
        named = ((word_weights > 0).float() @ same.T > 0).float()  # b v
        other = torch.full_like(named[:, :1], config.other)
        bag = torch.cat([named.clamp_min(config.unnamed), other], dim=1).log()
        allowed = torch.logsumexp(logs + bag[:, :, None, None], dim=1)
        found = logs[:, :-1].exp().flatten(2)
        clearest = found.topk(max(1, round(config.share * found.shape[2])), dim=2).values.mean(2)
        shown = (named * -(clearest + 1e-4).log()).sum(1)
        metrics = {"named_concepts": named.sum(1).mean()}
        terms = {"votes": config.weight * (shown.mean() - allowed.mean())}
        if self.teacher is not None:
            terms["kept"] = config.keep * self._forgotten(self.teacher, images, tags)
        return Losses(terms, metrics)

    def scores(
        self, images: Float[Tensor, "b 3 h w"], words: Float[Tensor, "p d"], patch_size: int
    ) -> Float[Tensor, "b p hp wp"]:
        """Return what is added to the cosines of patches of STRIDE_PX."""
        config, size = self._config, (images.shape[2] // patch_size, images.shape[3] // patch_size)
        concepts, tags = self._logits(images)

        cosines = with_kinds(self.tag_names(words), self.tag_kinds(words))
        seen = smooth(
            _cast(settled(tags.float().softmax(1)), cosines, config.tag_votes), _TAGS_SMOOTHED
        )
        from_tags = _weighed(seen, cosines, config.tag_votes)
        enlarged = F.interpolate(
            from_tags, scale_factor=COARSE / patch_size, mode="bilinear", align_corners=False
        )

        cosines = self.concept_names(words)
        likely = _pooled(concepts.float().softmax(1)[:, :-1], patch_size // FINE)
        from_concepts = _weighed(
            _cast(likely, cosines, config.concept_votes), cosines, config.concept_votes
        )
        rows, columns = size
        return (
            config.offset + enlarged[:, :, :rows, :columns] + from_concepts[:, :, :rows, :columns]
        )

    def _logits(
        self, images: Tensor
    ) -> tuple[Float[Tensor, "b v hf wf"], Float[Tensor, "b t hc wc"]]:
        """Logits of the concepts, the last of which is "other", and of the tags; sides are padded to whole patches."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % COARSE, 0, -height % COARSE), mode="replicate")
        maps, features = self._tower[0].maps(self.encoder.normalized(padded))
        tags = self.classifier(features)
        return self.concepts(maps[FINE], maps[MIDDLE], maps[COARSE]), tags

    @staticmethod
    def _forgotten(teacher: nn.Module, images: Tensor, tags: Tensor) -> Float[Tensor, ""]:
        """The divergence of what the classifier says from what it said at first, also of what is less likely."""
        padded = F.pad(
            images, (0, -images.shape[3] % COARSE, 0, -images.shape[2] % COARSE), mode="replicate"
        )
        with torch.no_grad():
            before = teacher(padded).float()
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
    return F.avg_pool2d(likely, times) if times > 1 else likely


def _cast(likely: Tensor, cosines: Tensor, config: BallotConfig) -> Float[Tensor, "b p h w"]:
    """The votes of each patch for each word."""
    table = ballots(cosines, config.temperature, config.least, config.reach)
    return torch.einsum("bvhw,vp->bphw", likely, table)


def _weighed(votes: Tensor, cosines: Tensor, config: BallotConfig) -> Float[Tensor, "b p h w"]:
    """Log votes times their weight; a word that no entry means gets what says nothing, instead of none."""
    logs = log_votes(votes, config.floor, config.whole)
    if config.neutral:
        covered = ((cosines.amax(0) - config.covered) / config.reach).clamp(0, 1)[:, None, None]
        nothing = torch.full_like(covered, config.neutral).log() * (1 + config.whole)
        logs = covered * logs + (1 - covered) * nothing
    return config.weight * logs
