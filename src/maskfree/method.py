"""Abstract base class of segmentation methods, as used by training, evaluation and inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from maskfree.config.rules import Grouping
from maskfree.types import Groups, Losses, Tokens


def _identity(tensor: Tensor) -> Tensor:
    """Collective of a single process."""
    return tensor


class Method(nn.Module, ABC):
    """Base class of segmentation methods: encoders, one grouping head and losses.

    `gather` concatenates a tensor of all processes along its first axis, with gradients. The
    training loop replaces the identity by the real collective, so a method sees the global batch
    without communicating itself.
    """

    gather: Callable[[Tensor], Tensor] = staticmethod(_identity)

    @abstractmethod
    def forward(self, batch: Any) -> Losses:
        """Compute the training losses of a batch.

        Args:
            batch: Training batch of this process, as the method's own transform collates it.

        Returns:
            Weighted terms whose sum is minimized.
        """

    def rehearse(self, batch: Any) -> Losses | None:
        """Compute losses that take as much memory as the costliest step still to come.

        Training does so once at its start, so that a run that will not fit fails in its first
        minute. The values of the losses do not matter.

        Args:
            batch: Training batch of this process.

        Returns:
            The losses; by default None: no later step takes more memory than the first one.
        """
        return None

    @abstractmethod
    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts.

        Args:
            tokens: Tokenized texts.

        Returns:
            Unit-norm text embeddings.
        """

    @abstractmethod
    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Group the patches of images.

        Args:
            images: RGB in [0, 1], with sides that are multiples of `patch_size`.

        Returns:
            Groups with their embeddings and the assignment of the patches.
        """

    def grouped(self, grouping: Grouping) -> Self:
        """Return the method with other groups at inference; by default there is no choice.

        Args:
            grouping: What groups the patches; "own" is what the method was built with.

        Returns:
            A method that shares all weights with this one.

        Raises:
            ValueError: The method cannot group patches so.
        """
        if grouping != "own":
            raise ValueError(
                f"the method {type(self).__name__} has groups of its own: "
                f"it cannot be read by {grouping}"
            )
        return self

    def read_words(self, classes: Float[Tensor, "k d"]) -> tuple[Tensor, ...]:
        """Compute what depends on the words alone; by default it is the embeddings themselves.

        Args:
            classes: Unit-norm text embeddings of the classes.

        Returns:
            Tensors for `score` and `compare`; the first one is the embeddings.
        """
        return (classes,)

    def score(
        self, images: Float[Tensor, "b 3 h w"], words: tuple[Tensor, ...]
    ) -> Float[Tensor, "b k hp wp"]:
        """Compute the cosine of each patch, through its groups, and each class.

        Args:
            images: RGB in [0, 1], with sides that are multiples of `patch_size`.
            words: Result of `read_words`.

        Returns:
            Cosines in [-1, 1].
        """
        groups = self.group(images)
        return groups.spread(groups.embeddings @ words[0].T)

    def segment(
        self, images: Float[Tensor, "b 3 h w"], classes: Float[Tensor, "k d"]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class, by `read_words` and `score`.

        Args:
            images: RGB in [0, 1], with sides that are multiples of `patch_size`.
            classes: Unit-norm text embeddings of the classes.

        Returns:
            Scores as of `score`.
        """
        return self.score(images, self.read_words(classes))

    def look(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """Compute what depends on the photos alone, as a network that other runtimes can run.

        A method that has this also has `compare` and `groups_of`: `score` and `group` are the one
        after the other.

        Args:
            images: RGB in [0, 1], with sides that are multiples of `patch_size`.

        Returns:
            Tensors for `compare`; the first one is enough for `groups_of`.

        Raises:
            ValueError: The method cannot be divided so; by default.
        """
        raise self._undivided()

    def compare(
        self, seen: tuple[Tensor, ...], words: tuple[Tensor, ...], size: tuple[int, int]
    ) -> Float[Tensor, "b k hp wp"]:
        """Compute the result of `score` from those of `look` and `read_words`.

        Args:
            seen: Result of `look`.
            words: Result of `read_words`.
            size: Height and width of the images in pixels.

        Returns:
            Scores as of `score`.

        Raises:
            ValueError: The method cannot be divided so; by default.
        """
        raise self._undivided()

    def groups_of(self, seen: tuple[Tensor, ...]) -> Groups:
        """Compute the result of `group` from that of `look`.

        Args:
            seen: Result of `look`, or its first tensor alone.

        Returns:
            Groups as of `group`.

        Raises:
            ValueError: The method cannot be divided so; by default.
        """
        raise self._undivided()

    def _undivided(self) -> ValueError:
        """Error of a method that has no image side."""
        return ValueError(
            f"the method {type(self).__name__} has no image side of its own: only torch runs it"
        )

    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embed whole images in the space of the text embeddings; by default `Groups.overall`.

        Args:
            images: RGB in [0, 1], with sides that are multiples of `patch_size`.

        Returns:
            Unit-norm image embeddings.
        """
        return self.group(images).overall

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """Inverse temperature that training applies to cosines before a softmax over texts.

        Returns:
            Positive factor.
        """

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a patch.

        Returns:
            Side in pixels.
        """

    def on_train_start(self) -> None:
        """Initialize state that depends on the initial weights; by default nothing.

        Called once before the first step of a run, for example for a moving-average teacher.
        """

    def concerns(self, metrics: Mapping[str, float]) -> list[str]:
        """Say what is wrong by the metrics of a logged step; by default nothing.

        Args:
            metrics: Metrics of the step's losses, averaged over the processes.

        Returns:
            Sentences that the training loop logs as warnings.
        """
        return []

    def after_step(self, step: int, steps: int) -> None:
        """Update state that gradients do not reach after an optimizer step; by default nothing.

        For example a moving-average teacher, a center or a memory bank.

        Args:
            step: Number of the step, from 0 on.
            steps: Number of steps of the whole run.
        """
