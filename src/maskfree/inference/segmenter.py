"""Open-vocabulary segmentation of photos: resizing, sliding windows and background rule."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt, UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.photo import PhotoLike, photo_name, pixels_of, read_photo
from maskfree.inference.config import Inference
from maskfree.inference.refinement import refine
from maskfree.method import Method
from maskfree.ops.class_prior import apply_class_prior, smooth
from maskfree.ops.group_scores import product_scores
from maskfree.ops.label_map import label_map, softmax_map
from maskfree.results.notebook import shortened
from maskfree.results.segmentation import BACKGROUND, Segmentation
from maskfree.text.background import Background
from maskfree.text.known_words import check_distinct, check_known
from maskfree.text.prompts import fill, mean_over_templates
from maskfree.text.templates import TEMPLATES
from maskfree.text.vocabulary import Vocabulary
from maskfree.types import Tokens

if TYPE_CHECKING:
    from maskfree.inference.features import PatchEmbeddings
    from maskfree.inference.search import Hit

# Texts per batch of the text encoder.
_TEXTS_AT_ONCE = 64
# Batches of photos decoded ahead, so that photos of equal size share a batch
_AHEAD_PHOTOS = 4
# Pixels decoded ahead: no further photo once these are reached
_AHEAD_PIXELS = 40_000_000


@dataclass(frozen=True)
class PhotoError:
    """A photo that could not be read, and why, in one line."""

    photo: str
    reason: str


class _Photo(NamedTuple):
    """A photo at its own size and as the network sees it."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    shown: UInt8[np.ndarray, "hs ws 3"]
    """Resized, and padded to whole patches."""


class _Window(NamedTuple):
    """A rectangle of a photo's patches."""

    photo: int
    top: int
    left: int
    height: int
    width: int

    def place(self, unit: int = 1) -> tuple[slice, slice]:
        """Return the slices of rows and columns that the window covers.

        Args:
            unit: Cells per patch; with the patch size in pixels, the slices are in pixels.

        Returns:
            Slices of rows and of columns.
        """
        bottom, right = self.top + self.height, self.left + self.width
        return slice(self.top * unit, bottom * unit), slice(self.left * unit, right * unit)


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
    templates: tuple[str, ...] = TEMPLATES["photo"]
    """Prompts that each phrase is put into; their embeddings are averaged."""
    background: Background = field(default_factory=Background)
    """Rule by which pixels become background."""
    inference: Inference = field(default_factory=Inference)
    """Settings of resizing, windows and scores."""
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
                present one.
            templates: Name of a prompt set, or prompts that contain `{}`; None keeps the present
                ones.

        Returns:
            A new Segmenter with vocabulary and embeddings.

        Raises:
            ValueError: Words, background or templates break their rules, or the model does not know
                a word or cannot tell two apart.
        """
        vocabulary = Vocabulary.parse(words)
        rule = self.background if background is None else background
        rule = Background.parse(rule) if isinstance(rule, str) else rule

        # Background words are embedded together with the classes.
        together = Vocabulary.parse(
            ["/".join(synonyms) for synonyms in (*vocabulary.classes, *rule.words)]
        )
        if rule and BACKGROUND in map(str.casefold, vocabulary.flatten()[0]):
            raise ValueError(f"the word {BACKGROUND!r} is taken by the background rule {rule}")

        # Average the embeddings of each phrase over the prompt templates.
        chosen = _templates(self.templates if templates is None else templates)
        phrases, class_of = together.flatten()
        check_known(self.tokenizer, phrases, self.name)

        of_texts, tokens = self._embed(fill(chosen, phrases))
        embeddings = mean_over_templates(of_texts, len(chosen))
        check_distinct(phrases, class_of, tokens[:: len(chosen)], embeddings, self.name)

        return replace(
            self, vocabulary=vocabulary, background=rule, templates=chosen, embeddings=embeddings
        )

    def with_inference(self, inference: Inference) -> Segmenter:
        """Return the same Segmenter with other inference settings.

        Args:
            inference: The new settings.

        Returns:
            A new Segmenter.
        """
        return replace(self, inference=inference)

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
            background: Background rule as for `with_words`; None keeps the present one.
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
            if words is None:
                words = ["/".join(synonyms) for synonyms in self._words.classes]
            return self.with_words(words, background, templates)(photo)

        if isinstance(photo, list | tuple):
            return list(self._segment_all((read_photo(each), photo_name(each)) for each in photo))
        return next(self._segment_all((read_photo(each), photo_name(each)) for each in [photo]))

    def __repr__(self) -> str:
        """Return a single line without weights and settings."""
        words = "None" if self.vocabulary is None else shortened(self.vocabulary.names)
        return (
            f"Segmenter({self.name!r}, words={words}, background={str(self.background)!r}, "
            f"device={str(self.device)!r})"
        )

    def segment_many(self, photos: Iterable[PhotoLike]) -> Iterator[Segmentation | PhotoError]:
        """Segment photos in order and in batches.

        Photos are read a few batches ahead, so memory is bounded however many there are.

        Args:
            photos: Photos to segment.

        Returns:
            Iterator over one result per photo; a PhotoError in place of each that cannot be read.
        """
        return self._segment_all(map(_open, photos))

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

        of_texts, _ = self._embed(fill(self.templates, words))
        return mean_over_templates(of_texts, len(self.templates))

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
        every: int = 0,
    ) -> Iterator[Segmentation]:
        """Segment the first frame of a video by words and propagate its labels.

        Args:
            video: A video file, an animated image, or a folder whose photos are the frames.
            words: Class names as for `with_words`; None keeps the present ones.
            background: Background rule as for `with_words`; None keeps the present one.
            every: Segment again every so many frames; 0 segments the first frame only.

        Returns:
            Iterator over one Segmentation per frame, computed as it is asked for.

        Raises:
            ValueError: No words were chosen, or the file is no video.
            OSError: The video does not exist.
        """
        from maskfree.data.video import open_clip
        from maskfree.inference.tracking import TrackConfig, follow_words

        if every < 0:
            raise ValueError(f"every {every} must not be negative")
        if words is None:
            words = ["/".join(synonyms) for synonyms in self._words.classes]

        frames = open_clip(Path(video)).frames()
        return follow_words(self.with_words(words, background), frames, TrackConfig(), every)

    def search(self, photos: str | Path | Sequence[str | Path], query: str) -> list[Hit]:
        """Find the segments of photos that are most similar to a phrase.

        Photos that cannot be read are left out; `maskfree.inference.search.retrieve` names them.

        Args:
            photos: Photo files and folders of photos, or one of them.
            query: Phrase to look for; "/" separates synonyms.

        Returns:
            At most 16 segments, at most one per photo, the most similar first.

        Raises:
            ValueError: The query is empty, or no photo can be read.
            FileNotFoundError: A file or folder does not exist.
        """
        from maskfree.inference.search import RetrievalConfig, photos_of, retrieve

        places = [photos] if isinstance(photos, str | Path) else photos
        found = photos_of([Path(place) for place in places])
        return list(retrieve(self, query, found, RetrievalConfig()).hits)

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
        return self._score([self._show(read_photo(photo), "")])[0]

    def labels_of(
        self,
        scores: Float[Tensor, "k hp wp"],
        size: tuple[int, int],
        shown: UInt8[np.ndarray, "hs ws 3"] | None = None,
    ) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
        """Turn a score map into class ids and winning scores by the background rule.

        Args:
            scores: Score map as `score_map` returns it.
            size: Height and width of the photo in pixels.
            shown: The photo as the network saw it, needed by refinement; without it scores are
                enlarged bilinearly.

        Returns:
            Class id and winning score of each pixel.
        """
        inference, background_id = self.inference, len(self._words.classes)
        # With "product" the background is a channel of the scores.
        threshold = self.background.threshold if inference.score != "product" else None

        # The part of the score map that is not padding.
        height, width = inference.resized(*size)
        extent = (height / self._cell_px, width / self._cell_px)
        if inference.refine != "none" and shown is not None:
            # As one more class: a CRF returns probabilities, to which a cosine
            # threshold does not apply.
            if threshold is not None:
                scores = torch.cat([scores, torch.full_like(scores[:1], threshold)])
                threshold = None
            scores = refine(inference.refine, shown[:height, :width], scores, extent)
            extent = (float(scores.shape[1]), float(scores.shape[2]))

        # Enlarge to pixels and take the best class.
        if inference.score == "softmax":
            class_of = [i for i, count in enumerate(self._synonyms) for _ in range(count)]
            labels, best = softmax_map(
                scores, class_of, logit_scale=self.logit_scale, size=size, extent=extent
            )
        else:
            labels, best = label_map(scores, size=size, extent=extent)

        if threshold is not None:
            labels = labels if background_id < 256 else labels.astype(np.uint16)
            labels[best < threshold] = background_id

        return labels, best

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters.

        Returns:
            The device; the CPU for a method without parameters.
        """
        return next(
            (parameter.device for parameter in self.method.parameters()), torch.device("cpu")
        )

    @property
    def logit_scale(self) -> float:
        """Factor on the cosines before a softmax.

        Returns:
            The value of the inference settings, or the method's own if that is 0.
        """
        return self.inference.logit_scale or self.method.logit_scale

    def autocast(self) -> torch.autocast:
        """Return the autocast context for the precision of the inference settings.

        Returns:
            Context manager; it changes nothing for float32.
        """
        low = self.inference.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def _cell_px(self) -> int:
        """Pixels of the resized photo per cell of the score map."""
        return 1 if self.inference.score == "product" else self.method.patch_size

    @property
    def _synonyms(self) -> list[int]:
        """Number of phrases per class; the background, if scored, is one class."""
        own = [len(synonyms) for synonyms in self._words.classes]
        if self.background.words:
            return [*own, sum(map(len, self.background.words))]
        return [*own, 1] if self.background and self.inference.score == "product" else own

    @property
    def _words(self) -> Vocabulary:
        """The vocabulary, which must have been set."""
        if self.vocabulary is None:
            raise ValueError("no words were chosen: call with_words([...]) first")
        return self.vocabulary

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> tuple[Float[Tensor, "n d"], list[tuple[int, ...]]]:
        """Embed texts in batches; also return their token ids."""
        embeddings, ids = [], []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self.tokenizer(texts[start : start + _TEXTS_AT_ONCE])
            embeddings.append(self.method.encode_text(tokens.to(self.device)))
            ids += [
                tuple(row[known].tolist())
                for row, known in zip(tokens.ids, tokens.mask, strict=True)
            ]

        return torch.cat(embeddings), ids

    def _segment_all(self, opened: Iterable[tuple[Image.Image, str] | PhotoError]) -> Iterator[Any]:
        """Segment opened photos chunk by chunk, passing errors through."""
        opened = iter(opened)
        while chunk := self._take(opened):
            scores = iter(self._score([photo for photo in chunk if isinstance(photo, _Photo)]))
            while chunk:
                photo = chunk.popleft()
                yield photo if isinstance(photo, PhotoError) else self._result(photo, next(scores))
                # Free each photo before the next result is made.
                del photo

    def _take(
        self, opened: Iterator[tuple[Image.Image, str] | PhotoError]
    ) -> deque[_Photo | PhotoError]:
        """Take the next chunk of photos, bounded in number and pixels."""
        chunk: deque[_Photo | PhotoError] = deque()
        pixels = 0
        for item in opened:
            if isinstance(item, PhotoError):
                chunk.append(item)
            else:
                chunk.append(self._show(*item))
                pixels += item[0].width * item[0].height
                # Release the decoded photo, so that a large one is not held twice.
                del item

            if len(chunk) >= _AHEAD_PHOTOS * self.inference.batch_size or pixels >= _AHEAD_PIXELS:
                break

        return chunk

    def _show(self, photo: Image.Image, name: str) -> _Photo:
        """Resize a photo for the network and pad it to whole patches."""
        height, width = self.inference.resized(photo.height, photo.width)

        small = photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
        unit = self.method.patch_size
        padding = ((0, -height % unit), (0, -width % unit), (0, 0))
        return _Photo(name, pixels_of(photo), np.pad(np.asarray(small), padding, mode="edge"))

    @torch.inference_mode()
    def _score(self, photos: Sequence[_Photo]) -> list[Float[Tensor, "k hp wp"]]:
        """Score all windows in batches of equal size and average where they overlap."""
        unit, cell = self.method.patch_size, self.method.patch_size // self._cell_px
        sums, visits = [], []
        by_size: dict[tuple[int, int], list[_Window]] = defaultdict(list)

        # Collect the windows of all photos by size.
        for index, photo in enumerate(photos):
            patches = photo.shown.shape[0] // unit, photo.shown.shape[1] // unit
            sums.append(torch.zeros(sum(self._synonyms), patches[0] * cell, patches[1] * cell))
            visits.append(torch.zeros(sums[-1].shape[1:]))
            for window in self._windows(index, *patches):
                by_size[window.height, window.width].append(window)

        # Run windows of equal size in batches and add up their scores.
        for windows in by_size.values():
            for start in range(0, len(windows), self.inference.batch_size):
                batch = windows[start : start + self.inference.batch_size]
                for window, scores in zip(batch, self._run(photos, batch), strict=True):
                    down, across = window.place(cell)
                    sums[window.photo][:, down, across] += scores
                    visits[window.photo][down, across] += 1

        return [self._settled(total / count) for total, count in zip(sums, visits, strict=True)]

    def _settled(self, scores: Float[Tensor, "p hp wp"]) -> Float[Tensor, "k hp wp"]:
        """Take the maximum over synonyms, smooth spatially and add an image-level class prior."""
        inference = self.inference
        if inference.score != "softmax" and max(self._synonyms) > 1:
            scores = torch.cat(
                [part.amax(0, keepdim=True) for part in scores.split(self._synonyms)]
            )

        # The prior is computed from smoothed scores, which are less noisy.
        steady = smooth(scores[None], inference.smooth)
        if inference.class_prior:
            shown = apply_class_prior(
                steady, inference.class_prior_share, inference.class_prior_max
            )
            steady = steady + inference.class_prior * shown

        return steady[0]

    def _windows(self, photo: int, height: int, width: int) -> list[_Window]:
        """Sliding windows over a photo's patches, or the whole photo if it is small enough."""
        unit = self.method.patch_size
        longest = max(1, self.inference.max_whole_px // unit)
        if height <= longest and width <= longest:
            return [_Window(photo, 0, 0, height, width)]

        # Window and stride in whole patches.
        window, step = (
            max(1, round(px / unit)) for px in (self.inference.window_px, self.inference.stride_px)
        )

        return [
            _Window(photo, top, left, min(window, height), min(window, width))
            for top in _starts(height, window, step)
            for left in _starts(width, window, step)
        ]

    def _run(
        self, photos: Sequence[_Photo], windows: Sequence[_Window]
    ) -> Float[Tensor, "b p hp wp"]:
        """Score a batch of windows of equal size."""
        crops = [
            photos[window.photo].shown[window.place(self.method.patch_size)] for window in windows
        ]
        # Permuting h w 3 gives channels-last memory format, which convolutions run fastest on.
        images = (
            torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        )
        # The embeddings are set together with the vocabulary.
        assert self.embeddings is not None

        with self.autocast():
            if self.inference.score == "product":
                scores = product_scores(
                    self.method.group(images),
                    self.embeddings,
                    logit_scale=self.logit_scale,
                    top_classes=self.inference.top_classes,
                    threshold=self.background.threshold,
                    size=(images.shape[2], images.shape[3]),
                )
            else:
                scores = self.method.segment(images, self.embeddings)

        scores = scores.float().cpu()
        if not scores.isfinite().all():
            raise ValueError(
                f"the model {self.name} gave scores that are not numbers: its weights are unusable"
            )

        return scores

    def _result(self, photo: _Photo, scores: Float[Tensor, "k hp wp"]) -> Segmentation:
        """Turn a photo's scores into a Segmentation with its record."""
        height, width = photo.image.shape[:2]
        labels, best = self.labels_of(scores, (height, width), photo.shown)
        rule = (
            {"rule": str(self.background), "id": len(self._words.classes)}
            if self.background
            else None
        )

        # Everything needed to reproduce the result.
        record = {
            "photo": {"name": photo.name, "width": width, "height": height},
            "words": [list(synonyms) for synonyms in self._words.classes],
            "background": rule,
            "templates": list(self.templates),
            "resized": dict(
                zip(("height", "width"), self.inference.resized(height, width), strict=True)
            ),
            "inference": asdict(self.inference) | {"patch_px": self.method.patch_size},
            "model": {"name": self.name, "weights_sha256": self.weights_hash},
            "versions": dict(_versions()),
        }

        return Segmentation(
            labels=labels, words=self._words.names, scores=best, image=photo.image, record=record
        )


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Versions of the packages that results depend on."""
    return tuple((package, version(package)) for package in ("maskfree", "torch", "transformers"))


def _open(photo: PhotoLike | object) -> tuple[Image.Image, str] | PhotoError:
    """Read a photo, or return why it cannot be read."""
    try:
        return read_photo(photo), photo_name(photo)
    except (ValueError, OSError) as error:
        return PhotoError(
            str(photo) if isinstance(photo, str | Path) else photo_name(photo), str(error)
        )


def _templates(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Prompts of a named set, or the given prompts."""
    if not isinstance(chosen, str):
        return tuple(chosen)
    if chosen in TEMPLATES:
        return TEMPLATES[chosen]
    if "{}" in chosen:
        return (chosen,)

    raise ValueError(
        f"the prompt set {chosen!r} is unknown: {', '.join(TEMPLATES)}, or a prompt that holds {{}}"
    )


def _starts(length: int, window: int, step: int) -> list[int]:
    """Starts of windows that cover a length, the last one shifted back to the border."""
    return [*range(0, length - window, step), max(0, length - window)]
