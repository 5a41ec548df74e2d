"""The contract between a method's settings and whatever builds, saves and reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfree.data.sample import Transform
    from maskfree.method import Method


@dataclass(frozen=True)
class MethodConfig(ABC):
    """Plain values that describe a method; only `build` and `build_transform` read them."""

    @abstractmethod
    def build(self) -> Method:
        """Make the method; pretrained weights are read if the config names them.

        Raises:
            ValueError: A value has not the type or the range of its field, as `setting_rules.check` sees, or does not
                fit.
        """

    @abstractmethod
    def build_transform(self, tokenizer: Any) -> Transform:
        """Make the per-sample transform; TOKENIZER is a `maskfree.text.tokenize.Tokenizer`."""

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:  # noqa: B027 - by default nothing
        """See that the text encoder takes a tokenizer's output; by default it takes any.

        Args:
            vocabulary_size: One more than the largest id.
            max_length: Tokens at which texts are cut.

        Raises:
            ValueError: It knows fewer tokens, or takes shorter texts only.
        """

    @abstractmethod
    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""

    def extras(self) -> tuple[str, ...]:
        """Names of the package's extras that training needs beside `train`; by default none."""
        return ()

    @abstractmethod
    def without_pretrained(self) -> MethodConfig:
        """The same architecture with every value spelled out and no outside weights, as a checkpoint stores it."""

    @abstractmethod
    def for_inference(self) -> MethodConfig:
        """`without_pretrained`, without the parts that only training uses; its tensors are a subset of the method's."""
