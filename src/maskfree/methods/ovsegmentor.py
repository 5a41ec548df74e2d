"""OVSegmentor: patches bound to group tokens, learned from captions and their entities (Xu et al., CVPR 2023).

Source: arXiv:2301.09121 and its published code. Differs: see the method's page in the docs; each difference is a field
of the config.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.data.transforms import ViewConfig
from maskfree.method import Method, MethodConfig
from maskfree.methods.ovsegmentor_config import EntityConfig, MaskConfig
from maskfree.methods.ovsegmentor_terms import Asked, EntityTerm, MaskTerm
from maskfree.methods.ovsegmentor_views import OVSegmentorTransform
from maskfree.nn.embedders import TextEmbedder
from maskfree.nn.grouping_encoder import Grouped, GroupingEncoder, GroupingEncoderConfig
from maskfree.nn.projection import ProjectionConfig
from maskfree.nn.text_encoders import TextEncoderConfig
from maskfree.terms import CrossConfig, CrossTerm
from maskfree.text.entities import EntitySet
from maskfree.text.prompts import TEMPLATES
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Groups, Losses, Tokens


class OVSegmentor(Method):
    """The whole of OVSegmentor; a term that is None is left out."""

    def __init__(
        self,
        *,
        image: GroupingEncoder,
        image_projection: nn.Module,
        text: TextEmbedder,
        cross: CrossTerm,
        entity: EntityTerm | None = None,
        masks: MaskTerm | None = None,
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

    def forward(self, batch: Batch) -> Losses:
        """Return the terms `cross`, `entity` and, in the last part of the training, `masks`. Source: eq. 13.

        Raises:
            ValueError: the photos have no captions.
        """
        if batch.captions is None:
            raise ValueError("OVSegmentor learns from captions, and the photos have none")
        masks = self.masks if self.masks is not None and self.masks.begun else None
        grouped = self.image(batch.images)
        overall = F.normalize(self.image_projection(grouped.groups.mean(1)), dim=-1)
        groups = self.image_projection(grouped.groups) if masks or self._observing else None
        parts = [self.cross(overall, self._text(batch.captions), self.gather)]
        if self.entity is not None:
            assert batch.entities is not None, "L_entity needs the captions' entities"
            texts = batch.entities
            if self._observing:
                with torch.no_grad():
                    self._text(texts.questions)
            asked = Asked(grouped.groups, overall, texts, self.text, self._text, self.cross.factor, self.gather)
            parts.append(self.entity(asked))
        if masks:
            assert batch.partners is not None and groups is not None, "L_mask needs partners"
            with torch.no_grad():
                shared = self._text(batch.partners.entities)
            seen, scale = (grouped, groups), self.cross.factor
            parts.append(masks(self.image, batch.images, seen, self._project, batch.partners, shared, scale))
        terms = {name: term for part in parts for name, term in part.terms.items()}
        return Losses(terms, {name: value for part in parts for name, value in part.health.items()})

    @property
    def _observing(self) -> bool:
        return self._observe_tokens and self.training

    def _project(self, grouped: Grouped) -> Float[Tensor, "b g d"]:
        """Project groups; running statistics of the projection may see their mean first."""
        if self._observing:
            with torch.no_grad():
                self.image_projection(grouped.groups.mean(1))
        return self.image_projection(grouped.groups)

    def _text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts; running statistics of the projection may see their tokens, too."""
        if not self._observing:
            return self.text(tokens)
        hidden = self.text.encoder.each(tokens)
        embedded = F.normalize(self.text.projection(self.text.encoder.pool(hidden, tokens)), dim=-1)
        with torch.no_grad():
            self.text.projection(hidden)
        return embedded

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts; unit norm."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Bind patches softly to the group tokens. Source: eq. 1."""
        grouped = self.image(images)
        return Groups(
            F.normalize(self.image_projection(grouped.groups), dim=-1),
            grouped.assignment.soft.unflatten(2, grouped.patches),
            F.normalize(self.image_projection(grouped.groups.mean(1)), dim=-1),
            grouped.patches,
        )

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature of the caption contrast."""
        return self.cross.scale

    @property
    def stride_px(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.stride_px

    def begin(self) -> None:
        """Let the target encoder be the trained one's copy, and a new training start without L_mask."""
        if self.masks is not None:
            self.masks.begin(self.image)

    def after_step(self, step: int, steps: int) -> None:
        """Move the target encoder; keep the temperature in its bounds."""
        self.cross.after_step()
        if self.masks is not None:
            self.masks.after_step(self.image, (step + 1) / steps)


@dataclass(frozen=True)
class OVSegmentorConfig(MethodConfig):
    """Everything that describes an OVSegmentor; the defaults are the paper's where it says something."""

    image: GroupingEncoderConfig = field(default_factory=GroupingEncoderConfig)
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(family="bert", pooling="last"))
    tokenizer: str | None = "bert-base-uncased"  # folder or Hugging Face name; None is the text weights'
    embed_dim: int = 256
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    cross: CrossConfig = field(default_factory=CrossConfig)
    entities: str = "ovsegmentor"  # the entity set: a shipped list, or a file with a `word: entity` a line
    entity: EntityConfig | None = field(default_factory=EntityConfig)
    masks: MaskConfig | None = field(default_factory=MaskConfig)
    views: ViewConfig = field(default_factory=lambda: ViewConfig(scale=(0.08, 1.0)))
    observe_tokens: bool = False  # the projections' running statistics see all tokens, too: the released code's

    def build(self) -> OVSegmentor:
        """Make the method; pretrained weights are read if the config names them.

        Raises:
            ValueError: a view does not divide into patches.
        """
        image, text_encoder = self.image.build(), self.text.build()
        if self.views.side_px % image.stride_px:
            raise ValueError(f"a view of {self.views.side_px} px does not divide into patches of {image.stride_px} px")
        text = TextEmbedder(text_encoder, self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim))
        entity = None
        if self.entity is not None:
            num_entities = len(EntitySet.read(self.entities).entities)
            entity = self.entity.build(image.channels, text_encoder.channels, self.embed_dim, num_entities)
        return OVSegmentor(
            image=image,
            image_projection=self.image_projection.build_for_vectors(image.channels, self.embed_dim),
            text=text,
            cross=self.cross.build(),
            entity=entity,
            masks=self.masks.build(image) if self.masks else None,
            observe_tokens=self.observe_tokens,
        )

    def build_transform(self, tokenizer: Tokenizer | None) -> OVSegmentorTransform:
        """Make the views and texts that the terms which are on need.

        Raises:
            ValueError: there is no TOKENIZER, or it gives longer texts or more different tokens than the text encoder
                takes.
        """
        if tokenizer is None:
            raise ValueError("OVSegmentor learns from captions, and the photos have none")
        self.text.check(tokenizer.vocabulary_size, tokenizer.max_length)
        entity = self.entity or EntityConfig()
        return OVSegmentorTransform(
            tokenizer=tokenizer,
            entity_set=EntitySet.read(self.entities),
            side_px=self.views.side_px,
            scale=self.views.scale,
            mirror=self.views.mirror,
            jitter=self.views.jitter,
            masking=entity.masking,
            templates=TEMPLATES[entity.templates],
            label_count=entity.num_labels if self.entity and self.entity.objective == "labels" else 0,
            with_questions=self.entity is not None,
            with_partner=self.masks is not None,
        )

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        source = self.tokenizer or self.text.weights
        if source is None:
            raise ValueError("no tokenizer: set tokenizer, or weights of the text encoder that come with one")
        return source

    def without_pretrained(self) -> OVSegmentorConfig:
        """The same architecture with every value spelled out and no outside weights."""
        image, text = self.image.without_pretrained(), self.text.without_pretrained()
        return replace(self, image=image, text=text, tokenizer=None)

    def for_inference(self) -> OVSegmentorConfig:
        """`without_pretrained`, without the terms that only training has."""
        return replace(self.without_pretrained(), entity=None, masks=None)
