"""Open-vocabulary segmentation of photos by words: a model with its vocabulary and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt, UInt8
from torch import Tensor

from maskfree.data.photo import PhotoLike, photo_name, read_photo
from maskfree.inference.calibration import Calibration
from maskfree.inference.class_embeddings import embed_phrases
from maskfree.inference.config import Inference
from maskfree.inference.photos import PhotoError, open_photo, prepare_photo
from maskfree.inference.pipeline import (
    chosen_words,
    postprocessing,
    score_photos,
    segment_ahead,
    segment_photos,
)
from maskfree.inference.runtimes.eight_bits import InputRanges
from maskfree.inference.runtimes.sessions import Session
from maskfree.inference.scoring import autocast, device_of
from maskfree.inference.text_cache import TextCache
from maskfree.inference.tracking_config import EVERY, TrackConfig
from maskfree.inference.wording import worded
from maskfree.method import Method
from maskfree.results.notebook import shortened
from maskfree.results.segmentation import Segmentation
from maskfree.text.background import Background
from maskfree.text.templates import TEMPLATES
from maskfree.text.vocabulary import Vocabulary
from maskfree.types import Tokens

if TYPE_CHECKING:
    from maskfree.inference.features import PatchEmbeddings
    from maskfree.inference.runtimes.names import RuntimeName
    from maskfree.inference.search import Hit


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A method with its tokenizer and vocabulary. Immutable: `with_words` returns a new one."""

    method: Method
    """Segmentation model."""
    tokenizer: Callable[[Sequence[str]], Tokens]
    """Turns texts into a padded batch of token ids."""
    name: str = "unnamed"
    """Name of the model, for messages and records."""
    weights_hash: str = ""
    """SHA-256 of the model's weights, for records."""
    text_hash: str = ""
    """SHA-256 of all that text embeddings depend on beside the texts; without it they are not kept
    on disk."""
    session: Session | None = None
    """Exported image side, which runs in place of torch's; None: torch."""
    input_ranges: InputRanges = field(default_factory=dict)
    """Ranges of the inputs of layers, by which the image side runs in 8 bits; without them it does
    not."""
    templates: tuple[str, ...] = TEMPLATES["photo"]
    """Prompts that each phrase is put into; their embeddings are averaged."""
    background: Background = field(default_factory=lambda: Background(chosen=False))
    """Rule by which pixels become background."""
    inference: Inference = field(default_factory=Inference)
    """Settings of resizing, windows and scores."""
    calibration: Calibration = field(default_factory=Calibration)
    """How scores become confidences."""
    vocabulary: Vocabulary | None = None
    """Classes to segment, each with its synonyms."""
    embeddings: Float[Tensor, "p d"] | None = None
    """Text embeddings of all phrases: words and synonyms, then background words."""

    def with_words(
        self,
        words: Sequence[str],
        background: str | Background | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> Segmenter:
        """Return a Segmenter for other words, whose text embeddings are computed here.

        Args:
            words: Class names; "sofa/couch" gives synonyms of one class.
            background: Background rule, or its text as `Background.parse` reads it; None keeps the
                one that was given before. If none ever was, fewer than three words compete with
                words for the scene ("scene"), so that one word does not cover the whole photo.
            templates: Name of a prompt set, or prompts that contain `{}`; None keeps the present
                ones.

        Returns:
            A new Segmenter with vocabulary and embeddings.

        Raises:
            ValueError: Words, background or templates break their rules, or the model does not know
                a word or cannot tell two apart.
        """
        return worded(self, words, background, templates)

    def with_inference(self, inference: Inference) -> Segmenter:
        """Return the same Segmenter with other inference settings.

        Args:
            inference: The new settings.

        Returns:
            A new Segmenter.

        Raises:
            ValueError: The method cannot group patches as the settings say.
        """
        try:
            self.method.grouped(inference.grouping)
        except ValueError as error:
            raise ValueError(f"the model {self.name!r}: {error}") from error
        return replace(self, inference=inference)

    def with_runtime(self, name: RuntimeName) -> Segmenter:
        """Return the same Segmenter with another runtime of the image side.

        The first time that a model gets a runtime other than torch, its network is exported, which
        takes a minute; the file is kept in the user's cache. Labels are those of torch on more than
        99.99 % of the pixels, but for "openvino-bf16" and "openvino-int8".

        Args:
            name: "torch", "onnx" (onnxruntime), "openvino", or "auto": the fastest one of these
                that is installed if the network has been exported before, else torch.
                "openvino-bf16" and "openvino-int8" compute with fewer bits.

        Returns:
            A new Segmenter.

        Raises:
            ValueError: The runtime is not installed, or cannot run the method.
            OSError: The exported network cannot be written.
        """
        from maskfree.inference.runtimes.choice import choose

        session = choose(name, self.method, self.text_hash, self.device, self.input_ranges)
        return replace(self, session=session)

    @overload
    def __call__(
        self,
        photo: PhotoLike,
        words: Sequence[str] | None = None,
        background: str | Background | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> Segmentation: ...
    @overload
    def __call__(
        self,
        photo: list[PhotoLike] | tuple[PhotoLike, ...],
        words: Sequence[str] | None = None,
        background: str | Background | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> list[Segmentation]: ...
    def __call__(self, photo, words=None, background=None, templates=None):
        """Segment a photo, or each photo of a list.

        Words given here are embedded anew in every call; for many calls choose them once by
        `with_words`.

        Args:
            photo: A photo, or a list or tuple of photos.
            words: Class names as for `with_words`; None keeps the present ones.
            background: Background rule as for `with_words`; None does what `maskfree segment` does
                without `--background`, unless a rule was given before.
            templates: Prompts as for `with_words`; None keeps the present ones.

        Returns:
            One Segmentation, or a list of them in the order of the photos.

        Raises:
            ValueError: No words were chosen, they break a rule, or a photo is damaged.
            OSError: A photo cannot be read.

        Example:
            model = maskfree.load()
            result = model("photo.jpg", words=["sky", "tree"])
        """
        if words is not None or background is not None or templates is not None:
            return self._for_call(words, background, templates)(photo)

        if isinstance(photo, list | tuple):
            opened = ((read_photo(each), photo_name(each)) for each in photo)
            return list(segment_photos(self, opened))
        return next(segment_photos(self, [(read_photo(photo), photo_name(photo))]))

    def __repr__(self) -> str:
        """Return a single line without weights and settings."""
        words = "None"
        if self.vocabulary is not None:
            words = shortened(self.vocabulary.names)

        return (
            f"Segmenter({self.name!r}, words={words}, background={str(self.background)!r}, "
            f"device={str(self.device)!r})"
        )

    def segment_many(self, photos: Iterable[PhotoLike]) -> Iterator[Segmentation | PhotoError]:
        """Segment photos in order and in batches.

        Threads read photos and run the network a few batches ahead; memory is bounded however many
        photos there are.

        Args:
            photos: Photos to segment; iterated in a thread.

        Returns:
            Iterator over one result per photo; a PhotoError in place of each that cannot be read.
        """
        return segment_ahead(self, map(open_photo, photos))

    def embed_text(self, words: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embed phrases, averaged over the prompt templates.

        Args:
            words: Phrases; unlike in `with_words`, a slash does not separate synonyms.

        Returns:
            Unit-norm embedding of each phrase.

        Raises:
            ValueError: There is no phrase, or a string instead of a list.
        """
        if isinstance(words, str) or not words:
            raise ValueError(f"words {words!r}: give a list of at least one phrase")

        embeddings, _ = embed_phrases(
            self.method, self.tokenizer, self.templates, words, self.text_cache
        )
        return embeddings

    def embed_image(self, photo: PhotoLike) -> PatchEmbeddings:
        """Embed the patches of a photo in the space of the text embeddings.

        Args:
            photo: Photo to embed.

        Returns:
            `values`, unit-norm embeddings (d hp wp), and the `extent` of the photo in patches.
        """
        from maskfree.inference.features import embed

        return embed(self, read_photo(photo))

    def track(
        self,
        video: str | Path,
        words: Sequence[str] | None = None,
        background: str | Background | None = None,
        every: int = EVERY,
    ) -> Iterator[Segmentation]:
        """Segment frames of a video by words and propagate their labels.

        Args:
            video: A video file, an animated image, or a folder whose photos are the frames.
            words: Class names as for `with_words`; None keeps the present ones.
            background: Background rule as for `with_words`; None keeps the present one.
            every: Label every so many frames by the words; 0 labels the first frame only.

        Returns:
            Iterator over one Segmentation per frame, computed as it is asked for.

        Raises:
            ValueError: No words were chosen, or the file is no video.
            OSError: The video does not exist.
        """
        from maskfree.data.video import open_clip
        from maskfree.inference.tracking import follow_words

        if every < 0:
            raise ValueError(f"every {every} must not be negative")

        if background is None and not self.background.chosen:
            # Few words get no background here, as in `maskfree track`.
            background = "none"
        segmenter = self._for_call(words, background, None)
        frames = open_clip(Path(video)).frames()
        return follow_words(segmenter, frames, TrackConfig(), every)

    def search(
        self, photos: str | Path | Sequence[str | Path], query: str, index: bool = True
    ) -> list[Hit]:
        """Find the segments of photos that are most similar to a phrase.

        Photos that cannot be read are left out; `maskfree.inference.search.retrieve` names them.

        Args:
            photos: Photo files and folders of photos, or one of them.
            query: Phrase to look for; "/" separates synonyms.
            index: Whether the segments of photos are kept in the user's cache folder, so that the
                next search of them is quick.

        Returns:
            At most 16 segments, at most one per photo, the most similar first.

        Raises:
            ValueError: The query is empty, or no photo can be read.
            FileNotFoundError: A file or folder does not exist.
        """
        from maskfree.inference.search import photos_of, retrieve
        from maskfree.inference.search_config import RetrievalConfig

        if isinstance(photos, str | Path):
            photos = [photos]

        found = photos_of([Path(place) for place in photos])
        return list(retrieve(self, query, found, RetrievalConfig(index=index)).hits)

    def score_map(self, photo: PhotoLike) -> Float[Tensor, "k hp wp"]:
        """Return the score of each patch for each class, the maximum over its synonyms.

        `labels_of` turns scores into labels.

        Args:
            photo: The photo to score.

        Returns:
            Score map. With a `words:` background rule the last class is the background. With score
            "softmax" these are the cosines of phrases; with "product" there is one cell per pixel
            that the network saw.
        """
        prepared = prepare_photo(read_photo(photo), "", self.inference, self.method.patch_size)
        return score_photos(self, [prepared])[0]

    def labels_of(
        self,
        scores: Float[Tensor, "k hp wp"],
        size: tuple[int, int],
        padded: UInt8[np.ndarray, "hs ws 3"] | None = None,
    ) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
        """Turn a score map into class ids and winning scores by the background rule.

        Args:
            scores: Score map as `score_map` returns it.
            size: Height and width of the photo in pixels.
            padded: The photo as the network saw it, needed by refinement; without it scores are
                enlarged bilinearly.

        Returns:
            Class id and winning score of each pixel.
        """
        return postprocessing(self).labels(scores, size, padded)

    @property
    def grouped_method(self) -> Method:
        """The method with the groups that the inference settings ask for.

        Returns:
            The method itself, or one that shares its weights.
        """
        return self.method.grouped(self.inference.grouping)

    @cached_property
    def read_words(self) -> tuple[Tensor, ...]:
        """What the method computes of the words alone, once for all photos.

        Returns:
            Result of `Method.read_words` for the embeddings, which must have been set.
        """
        # They are set together with the vocabulary.
        assert self.embeddings is not None
        with torch.inference_mode(), autocast(self.device, self.inference):
            return self.method.read_words(self.embeddings)

    @property
    def float_session(self) -> Session | None:
        """The exported image side, where the settings ask for the numbers that it computes with.

        Returns:
            The session; None: torch runs the image side.
        """
        if self.inference.precision == "float32":
            return self.session
        return None

    @property
    def runtime(self) -> str:
        """Name of what runs the image side.

        Returns:
            A name as for `with_runtime`, but "auto".
        """
        session = self.float_session
        return "torch" if session is None else session.name

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters.

        Returns:
            The device; the CPU for a method without parameters.
        """
        return device_of(self.method)

    @property
    def logit_scale(self) -> float:
        """Factor on the cosines before a softmax.

        Returns:
            The value of the inference settings, or the method's own if that is 0.
        """
        return self.inference.logit_scale or self.method.logit_scale

    @property
    def text_cache(self) -> TextCache | None:
        """Text embeddings kept on disk.

        Returns:
            The cache; None if it is not known what the embeddings depend on.
        """
        if not self.text_hash:
            return None
        return TextCache(self.text_hash, self.device)

    def _for_call(
        self,
        words: Sequence[str] | None,
        background: str | Background | None,
        templates: str | Sequence[str] | None,
    ) -> Segmenter:
        """The Segmenter for the words of a call; None keeps the present ones."""
        if words is None:
            words = ["/".join(synonyms) for synonyms in chosen_words(self).classes]
        return self.with_words(words, background, templates)
