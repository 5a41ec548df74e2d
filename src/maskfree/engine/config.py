"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from maskfree.config.rules import Count, CountOrZero, Fraction, Momentum, Storage, Weight, check
from maskfree.data.config import DataConfig
from maskfree.inference.config import Inference
from maskfree.method_config import MethodConfig


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the optimizer and the training loop, the same for every method."""

    steps: CountOrZero = 1000
    """Number of optimizer steps; 0 takes the epochs instead."""
    epochs: tuple[Weight, Weight] = (0, 0)
    """Passes over the pairs of the index: those of the warm-up, and all.

    Where steps is 0, they set warm_up_steps and steps.
    """
    batch_size: Count = 64
    """Photos per optimizer step, summed over all processes and accumulated parts."""
    accumulate: Count = 1
    """Gradient accumulation: number of parts a step's batch is split into.

    Contrastive losses compare photos within a part only.
    """
    learning_rate: Weight = 5e-4
    """Peak learning rate of AdamW, reached after the warm-up."""
    weight_decay: Weight = 0.04
    """Weight decay of the AdamW optimizer; parameters with fewer than two axes do not decay."""
    warm_up_steps: CountOrZero = 100
    """Steps over which the learning rate rises linearly to its peak."""
    schedule: Literal["cosine", "polynomial"] = "cosine"
    """Learning rate schedule after the warm-up, down to the last step."""
    final_rate: Fraction = 0.0
    """Fraction of the peak learning rate that is left at the last step."""
    lr_multipliers: tuple[tuple[str, Weight], ...] = ()
    """Learning rate multipliers by parameter-name prefix, as pairs of prefix and factor.

    The longest matching prefix wins.
    """
    frozen: tuple[str, ...] = ()
    """Name prefixes of parameters that are not updated for the first `frozen_steps` steps."""
    frozen_steps: CountOrZero = 0
    """Number of steps for which the parameters in `frozen` are not updated."""
    clip_norm: Weight = 1.0
    """Largest L2 norm of the gradient over all parameters; 0 turns clipping off."""
    average_decay: Momentum = 0.0
    """Decay of the exponential moving average of the weights.

    The finished model has the averaged weights; 0 turns averaging off.
    """
    checkpointing: bool = False
    """Activation checkpointing: compute transformer layers again in the backward pass, which takes
    less memory and about a third more time."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Floating point precision of training: float32, or mixed with bfloat16 or float16.

    float16 scales the loss, for GPUs without bfloat16 such as V100.
    """
    compile: bool = False
    """Compile the method with torch.compile: slower to start, faster steps on a GPU."""
    pin_memory: bool = True
    """Load batches into page-locked memory, from which a GPU copies while it computes."""
    accelerator: str = "auto"
    """Device type to train on: auto, cpu, cuda or mps."""
    devices: str = "auto"
    """Number of processes (devices) per machine, or auto; torchrun overrides it."""
    seed: int = 0
    """Random seed of the run: initial weights, data order, augmentations and dropout."""
    log_every: Count = 20
    """Steps between log rows."""
    save_every: Count = 500
    """Steps between saved training states, from which a run can resume."""
    milestones: tuple[Count, ...] = ()
    """Steps whose models are kept, in `milestones`."""
    storage: Storage = "float32"
    """Number format of the weights in the finished checkpoint."""

    def check(self) -> None:
        """Check that the values are valid.

        Raises:
            ValueError: A value is out of range, or `devices` is neither a number nor auto.
        """
        check(self, "train")
        if not self.steps:
            raise ValueError(
                "train.steps is 0, must be at least 1, "
                "unless there are train.epochs and the data.index that they are counted by"
            )
        if self.devices != "auto" and not self.devices.isdecimal():
            raise ValueError(f"train.devices is {self.devices!r}, must be a number or auto")


@dataclass(frozen=True)
class ValidationConfig:
    """Benchmark that the best model of a run is selected on."""

    benchmark: tuple[str, str] | None = None
    """Name of a benchmark and folder with its files; the best model on it is kept in `best`."""
    every: Count = 1000
    """Steps between evaluations; the last step is evaluated too."""
    photos: CountOrZero = 0
    """Number of photos of the benchmark to evaluate on, from the first one; 0: all."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run."""

    name: str
    """Name of the trained model."""
    method: MethodConfig
    """Method to train, with its settings."""
    data: DataConfig
    """Training data."""
    train: TrainConfig
    """Optimizer and training loop settings."""
    templates: tuple[str, ...] = ("a photo of a {}",)
    """Prompt templates of the trained model; {} stands for the class name."""
    inference: Inference = field(default_factory=Inference)
    """Default inference settings of the trained model."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Evaluation during training."""
    init: str | None = None
    """Model whose weights and tokenizer the run starts from.

    A model name, a checkpoint folder, or the folder of a finished run (which also has the parts
    that only training uses).
    """
    init_names: tuple[tuple[str, str], ...] = ()
    """Name prefixes of the initial weights, each with the prefix that replaces it here."""
    init_without: tuple[str, ...] = ()
    """Name prefixes of the initial weights that are not loaded."""

    def __post_init__(self) -> None:
        """Check that the values are valid."""
        check(self)

    def with_steps(self) -> Recipe:
        """Settings in which epochs are counted in steps, by the number of pairs of the index.

        Returns:
            The same settings if they have steps, or no epochs or no index.

        Raises:
            OSError: There is no such index.
            ValueError: It is damaged, or an epoch has no step.
        """
        train, index = self.train, self.data.index
        warm_up, epochs = train.epochs
        if train.steps or not epochs or not index:
            return self

        from maskfree.data.entities.index import count_pairs

        pairs = count_pairs(Path(index).expanduser())
        steps = int(epochs * pairs / train.batch_size)
        if not steps:
            raise ValueError(
                f"{epochs:g} epochs of the {pairs} pairs of {index!r} are no step: "
                f"train.batch_size is {train.batch_size}"
            )

        warm_up_steps = int(warm_up * pairs / train.batch_size)
        return replace(self, train=replace(train, steps=steps, warm_up_steps=warm_up_steps))

    def extras(self) -> tuple[str, ...]:
        """Package extras that the run needs in addition to `train`.

        Returns:
            Names of the extras, each once.
        """
        index = ("entities",) if self.data.index else ()
        return tuple(dict.fromkeys((*self.method.extras(), *index)))
