"""Every setting of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maskfree.config.rules import Count, CountOrZero, Fraction, Momentum, Storage, Weight, check
from maskfree.data.config import DataConfig
from maskfree.inference.config import Inference
from maskfree.method_config import MethodConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained, whatever it is."""

    steps: Count = 1000
    """Updates of the weights."""
    batch_size: Count = 64
    """Photos per step, over all processes and accumulated parts."""
    accumulate: Count = 1
    """Parts that a step's batch goes through in; each part is contrasted within itself only."""
    learning_rate: Weight = 5e-4
    """AdamW's rate after the warm-up."""
    weight_decay: Weight = 0.04
    """AdamW's decay of parameters with two axes or more; others do not decay."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """AdamW's averaging of gradients and of their squares."""
    warm_up_steps: CountOrZero = 100
    """Steps over which the rate rises."""
    schedule: Literal["cosine", "polynomial"] = "cosine"
    """How the rate falls afterwards, until the last step."""
    final_rate: Fraction = 0.0
    """Share of the rate that is left at the last step."""
    lr_multipliers: tuple[tuple[str, Weight], ...] = ()
    """Prefixes of parameters' names with a factor on the learning rate; the longest prefix wins."""
    frozen: tuple[str, ...] = ()
    """Prefixes of parameters that stay as they are for the first `frozen_steps` steps."""
    frozen_steps: CountOrZero = 0
    """Steps for which `frozen` holds."""
    clip_norm: Weight = 1.0
    """Longest gradient, over all parameters; 0: any."""
    average_decay: Momentum = 0.0
    """The shipped weights are an exponential moving average with this decay; 0: the last ones."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Numbers that the network computes with."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: str = "auto"
    """Processes per machine; under torchrun, its own number counts."""
    num_nodes: Count = 1
    """Machines; under torchrun, its own number counts."""
    unused_parameters: bool = False
    """Allow parameters that a loss does not reach when there are several processes (slower)."""
    seed: int = 0
    """All randomness follows from it."""
    log_every: Count = 20
    """Steps between reports."""
    save_every: Count = 500
    """Steps between saved states."""
    storage: Storage = "float32"
    """Numbers that the finished model is stored as."""

    def check(self) -> None:
        """Make sure that the values make sense.

        Raises:
            ValueError: one of them does not.
        """
        check(self, "train")
        if self.devices != "auto" and not self.devices.isdecimal():
            raise ValueError(f"train.devices is {self.devices!r}, must be a number or auto")


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run."""

    name: str
    """What the trained model calls itself."""
    method: MethodConfig
    """What is trained."""
    data: DataConfig
    """What it learns from."""
    train: TrainConfig
    """How."""
    templates: tuple[str, ...] = ("a photo of a {}",)
    """Prompts that the trained model puts class names into."""
    inference: Inference = field(default_factory=Inference)
    """How the trained model sees photos where nothing else is asked."""
    init: str | None = None
    """A model by name, a checkpoint's folder, or a finished run's with all that only training has: the run starts from
    its weights and tokenizer."""
    init_names: tuple[tuple[str, str], ...] = ()
    """Prefixes of the names of those weights, each with what it is here."""
    init_without: tuple[str, ...] = ()
    """Prefixes of the names of those weights that are not taken."""

    def __post_init__(self) -> None:
        check(self)

    def extras(self) -> tuple[str, ...]:
        """Return the names of the package's extras that the run needs beside `train`."""
        index = ("entities",) if self.data.index else ()
        return tuple(dict.fromkeys((*self.method.extras(), *index)))
