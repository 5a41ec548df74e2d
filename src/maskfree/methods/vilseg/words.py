"""Training losses over words for ViL-Seg: caption nouns and tags of an image classifier.

Not in the paper, whose section 4.3 reports weak results for classes that captions call by many
names, such as person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.words import bag_of_words, pixel_words, word_log_probabilities
from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.encoded_view import EncodedView
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.projection import NearIdentity
from maskfree.nn.text_encoders import TextEncoder
from maskfree.text.tags import Tag
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Losses, Tokens

# Initial inverse temperature of the softmax over words: cosines of texts differ little.
_INITIAL_SCALE = 20.0
# Share of the words' log-frequency that is added to the logits in training. Logit adjustment takes
# all of it (arXiv:2007.07314, eq. 10); half is enough for the frequencies of a single batch.
_PRIOR_SHARE = 0.5
# Patches sampled from each photo per step, which bounds the memory of the softmax.
_PATCHES_PER_PHOTO = 64


class Tagger(nn.Module):
    """Frozen image classifier applied to every patch."""

    def __init__(self, encoder: ImageEncoder, classifier: nn.Conv2d):
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k hp wp"]:
        """Predict tags for each patch.

        Args:
            images: RGB images in [0, 1].

        Returns:
            Probability of each tag; sums to 1 over tags.
        """
        return self.classifier(self.encoder(images)).float().softmax(1)

    @torch.no_grad()
    def tags_of(self, view: EncodedView) -> Float[Tensor, "b k hp wp"]:
        """Predict tags for each patch, as `forward` does.

        Args:
            view: Images with their features.

        Returns:
            Probability of each tag; sums to 1 over tags.
        """
        return self.classifier(view.features_by(self.encoder)).float().softmax(1)


class WordsObjective(nn.Module):
    """Classify patches among all words of the batch.

    The nouns of a photo's captions are trained with a multiple-instance loss; the tagger's tags and
    their superclasses are targets of each patch. Only the nouns of this process's photos compete.
    """

    def __init__(
        self,
        *,
        tagger: Tagger,
        tag_features: Float[Tensor, "t c"],
        kinds: Float[Tensor, "t k"],
        weights: tuple[float, float, float],
    ):
        super().__init__()
        self.tagger = tagger
        # Learned as a logarithm, so that the scale stays positive.
        self.log_scale = nn.Parameter(torch.tensor(math.log(_INITIAL_SCALE)))

        self.tag_features: Tensor
        self.kinds: Tensor
        self.register_buffer("tag_features", tag_features)
        self.register_buffer("kinds", kinds)

        self._weights = weights

    def forward(
        self,
        view: EncodedView,
        pixels: Float[Tensor, "b d hp wp"],
        text: TextProjector,
        words: Tokens,
        word_weights: Float[Tensor, "b k"],
    ) -> Losses:
        """Compare patches with tags and words.

        Args:
            view: Images with their features.
            pixels: Patch embeddings of the images.
            text: Text encoder with its projection.
            words: Words of the batch; the first ones are the superclasses of the tags.
            word_weights: Share of each word among a photo's words.

        Returns:
            The terms `nouns`, `kinds` and `tags`, with the inverse temperature as a metric.
        """
        # The same random patches of all photos, to save time and memory.
        num_patches = pixels[0, 0].numel()
        chosen = torch.randint(num_patches, (_PATCHES_PER_PHOTO,), device=pixels.device)
        # Pseudo-label distribution of each patch.
        tags = self.tagger.tags_of(view).flatten(2)[:, :, chosen].mT
        unit = F.normalize(pixels.flatten(2)[:, :, chosen].mT.float(), dim=-1)

        # One softmax over tags, superclasses and nouns, in this order.
        embeddings = torch.cat(
            [F.normalize(text.projection(self.tag_features).float(), dim=-1), text(words).float()]
        )
        num_tags, num_kinds = self.kinds.shape
        # A tag's probability is divided equally among its superclasses.
        kinds = tags @ self.kinds

        # Word frequencies of this batch, for the logit adjustment.
        frequencies = torch.cat([tags.mean((0, 1)), word_weights.mean(0)])
        # Superclasses occur both in captions and as the tagger's predictions.
        frequencies[num_tags : num_tags + num_kinds] += kinds.mean((0, 1))

        logs = word_log_probabilities(
            unit, embeddings, self.log_scale.exp(), frequencies, _PRIOR_SHARE
        )

        for_nouns, for_kinds, for_tags = self._weights
        terms = {
            "nouns": for_nouns * bag_of_words(logs[:, :, num_tags:], word_weights),
            "kinds": for_kinds * pixel_words(logs[:, :, num_tags : num_tags + num_kinds], kinds),
            "tags": for_tags * pixel_words(logs[:, :, :num_tags], tags),
        }

        return Losses(terms, {"word_scale": self.log_scale.detach().exp()})


def as_convolution(classifier: nn.Linear) -> nn.Conv2d:
    """Convert a linear layer to a 1x1 convolution.

    Args:
        classifier: Linear layer with a bias.

    Returns:
        A convolution with a copy of its weights.
    """
    convolution = nn.Conv2d(classifier.in_features, classifier.out_features, 1)
    with torch.no_grad():
        convolution.weight.copy_(classifier.weight[:, :, None, None])
        assert convolution.bias is not None
        convolution.bias.copy_(classifier.bias)
    return convolution


@torch.no_grad()
def embed_tags(
    tags: Sequence[Tag], text: TextEncoder, tokenizer: Tokenizer
) -> tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]:
    """Embed the tags' names and superclasses.

    Args:
        tags: Tags of the classifier.
        text: Text encoder.
        tokenizer: Tokenizer of the text encoder.

    Returns:
        Two unit-norm text features per tag: the mean of its names, and that mean plus the mean of
        its superclasses.
    """
    phrases = sorted({phrase for tag in tags for phrase in (*tag.names, *tag.kinds)})
    # 64 phrases at a time bound the memory.
    parts = [phrases[start : start + 64] for start in range(0, len(phrases), 64)]
    features = torch.cat([F.normalize(text(tokenizer(part)), dim=-1) for part in parts])

    feature_of = dict(zip(phrases, features, strict=True))
    names, kinds = [], []
    for tag in tags:
        names.append(torch.stack([feature_of[name] for name in tag.names]).mean(0))
        # A tag without superclasses adds nothing.
        kind = torch.zeros_like(names[-1])
        if tag.kinds:
            kind = torch.stack([feature_of[name] for name in tag.kinds]).mean(0)
        kinds.append(kind)

    named = F.normalize(torch.stack(names), dim=-1)
    return named, F.normalize(named + torch.stack(kinds), dim=-1)


@torch.no_grad()
def start_from_tags(
    projection: ClassifierMixture,
    text_projection: NearIdentity,
    classifier: nn.Linear,
    features: Float[Tensor, "t d"],
) -> None:
    """Initialize the image projection with the classifier and its tags as visual words.

    The mean tag feature is subtracted from the visual words here and from all texts by the text
    projection's bias.

    Args:
        projection: Image projection to initialize.
        text_projection: Text projection whose bias is set.
        classifier: Linear classifier over the tags.
        features: Unit-norm text features of the tags.
    """
    projection.classifier.load_state_dict(as_convolution(classifier).state_dict())

    center = features.mean(0)
    projection.words.weight.copy_((features - center).T[:, :, None, None])
    text_projection.linear.bias.copy_(-center)
