"""Abstract base class of method configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfree.data.sample import Transform
    from maskfree.method import Method


@dataclass(frozen=True)
class MethodConfig(ABC):
    """Configuration of a method; only `build` and `build_transform` read the values."""

    @abstractmethod
    def build(self) -> Method:
        """Build the method, reading pretrained weights if the config names them.

        Returns:
            The method with its initial or pretrained weights.

        Raises:
            ValueError: A value has the wrong type or range, or values do not fit each other; see
                `maskfree.config.rules.check`.
        """

    @abstractmethod
    def build_transform(self, tokenizer: Any) -> Transform:
        """Build the transform that turns a sample into training inputs.

        Args:
            tokenizer: A `maskfree.text.tokenize.Tokenizer`.

        Returns:
            Transform of one sample.
        """

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:  # noqa: B027
        """Check that the text encoder accepts a tokenizer's output; by default it accepts any.

        Args:
            vocabulary_size: One more than the largest token id.
            max_length: Number of tokens at which texts are truncated.

        Raises:
            ValueError: The text encoder has fewer tokens, or accepts only shorter texts.
        """

    @abstractmethod
    def tokenizer_source(self) -> str:
        """Return where the tokenizer is read from when training starts.

        Returns:
            Folder or Hugging Face name.
        """

    def extras(self) -> tuple[str, ...]:
        """Return the package extras that training needs beside `train`; by default none.

        Returns:
            Names of the extras.
        """
        return ()

    @abstractmethod
    def without_pretrained(self) -> MethodConfig:
        """Return the same architecture without external weights, as stored in a checkpoint.

        Returns:
            Configuration with every value explicit.
        """

    @abstractmethod
    def for_inference(self) -> MethodConfig:
        """Return `without_pretrained` without the parts that only training uses.

        Returns:
            Configuration of a method whose tensors are a subset of this method's.
        """
