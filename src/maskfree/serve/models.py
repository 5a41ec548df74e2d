"""Models of a server, and their text embeddings for the words that were asked lately."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from maskfree.config.extras import EXTRAS, need
from maskfree.inference.segmenter import Segmenter
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary

# Word lists whose embeddings are kept; each is a few kilobytes.
_MAX_KEPT = 256


@dataclass(frozen=True)
class Wanted:
    """What a request asks of a model. Equal ones get the same Segmenter."""

    model: str
    """Name of the model."""
    words: tuple[str, ...]
    """Class names; "/" separates synonyms."""
    background: str = ""
    """Background rule; empty: `scene` for fewer than three words, otherwise none."""
    templates: str = ""
    """Name of a prompt set; empty: the model's own."""
    refine: str = "none"
    """Refinement of the scores."""
    levels: bool = True
    """Whether each class's level is taken off its scores, where the model asks for it."""


class Models:
    """Loaded models by name.

    Args:
        loaded: Models by the name under which they are asked for; the first is the default.
        max_words: Most words of a request, synonyms included.
    """

    def __init__(self, loaded: Mapping[str, Segmenter], max_words: int) -> None:
        self._loaded = dict(loaded)
        self._max_words = max_words
        self._kept: OrderedDict[Wanted, Segmenter] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def loaded(self) -> Mapping[str, Segmenter]:
        """The models.

        Returns:
            Models by name, the default first.
        """
        return self._loaded

    @property
    def default(self) -> str:
        """Name of the model that answers a request without one.

        Returns:
            Name of the first model.
        """
        return next(iter(self._loaded))

    def segmenter(self, wanted: Wanted) -> Segmenter:
        """Return a model for the words of a request.

        Args:
            wanted: What the request asks for.

        Returns:
            The Segmenter; the very same for equal requests.

        Raises:
            ValueError: There is no such model, or words or rules cannot be used.
        """
        with self._lock:
            if wanted in self._kept:
                self._kept.move_to_end(wanted)
                return self._kept[wanted]

        made = self._make(wanted)
        with self._lock:
            # Of two that were made at the same time, the first one is for all.
            made = self._kept.setdefault(wanted, made)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return made

    def _make(self, wanted: Wanted) -> Segmenter:
        """Embed the words of a request."""
        if wanted.model not in self._loaded:
            raise ValueError(
                f"the model {wanted.model!r} is not loaded here: {', '.join(self._loaded)}"
            )
        phrases = Vocabulary.parse(wanted.words).flatten()[0]
        others = Background.parse(wanted.background or "none").words
        if len(phrases) + sum(map(len, others)) > self._max_words:
            raise ValueError(f"{len(phrases)} words were given: {self._max_words} are the most")
        if wanted.refine == "regions":
            need("refine=regions", "regions", modules=EXTRAS["regions"])

        model = self._loaded[wanted.model]
        inference = model.inference.changed(refine=wanted.refine)
        if not wanted.levels:
            inference = inference.changed(class_level=0.0)
        return model.with_inference(inference).with_words(
            wanted.words, wanted.background or None, wanted.templates or None
        )
