"""What is learned in a run, and one step of it: weights, optimiser, average, and the place in the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size

from maskfree import checkpoint
from maskfree.data.loader import Loaded, Position, seed_of
from maskfree.method import Method
from maskfree.optim import check_prefixes, cosine, has_prefix, parameter_groups, polynomial
from maskfree.types import Batch

SCHEDULES = {"cosine": cosine, "polynomial": polynomial}
Report = dict[str, dict[str, Tensor]]  # losses and health, each by name


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained, whatever it is."""

    steps: int = 1000
    """Updates of the weights."""
    batch_size: int = 64
    """Photos per step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a step's batch goes through in; each part is contrasted within itself only."""
    learning_rate: float = 5e-4
    """AdamW's rate after the warm-up."""
    weight_decay: float = 0.04
    """AdamW's decay of parameters with two axes or more; others do not decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging of gradients and of their squares."""
    warm_up_steps: int = 100
    """Steps over which the rate rises."""
    schedule: Literal["cosine", "polynomial"] = "cosine"
    """How the rate falls afterwards, until the last step."""
    final_rate: float = 0.0
    """Share of the rate that is left at the last step."""
    rates: tuple[tuple[str, float], ...] = ()
    """Prefixes of parameters' names with a factor on the learning rate; the longest prefix wins."""
    frozen: tuple[str, ...] = ()
    """Prefixes of parameters that stay as they are for the first `frozen_steps` steps."""
    frozen_steps: int = 0
    """Steps for which `frozen` holds."""
    clip_norm: float = 1.0
    """Longest gradient, over all parameters; 0: any."""
    average_decay: float = 0.0
    """The shipped weights are an exponential moving average with this decay; 0: the last ones."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Numbers that the network computes with."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: str = "auto"
    """Processes per machine; under torchrun, its own number counts."""
    num_nodes: int = 1
    """Machines; under torchrun, its own number counts."""
    unused_parameters: bool = False
    """Allow parameters that a loss does not reach when there are several processes (slower)."""
    seed: int = 0
    """All randomness follows from it."""
    log_every: int = 20
    """Steps between reports."""
    save_every: int = 500
    """Steps between saved states."""
    storage: checkpoint.Storage = "float32"
    """Numbers that the finished model is stored as."""

    def check(self) -> None:
        """Make sure that the values make sense.

        Raises:
            ValueError: one of them does not.
        """
        for name in ("steps", "batch_size", "accumulate", "num_nodes", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}, must be at least 1")
        if not 0 <= self.final_rate <= 1:
            raise ValueError(f"train.final_rate is {self.final_rate}, must be in [0, 1]")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"train.average_decay is {self.average_decay}, must be in [0, 1)")
        if self.devices != "auto" and not self.devices.isdecimal():
            raise ValueError(f"train.devices is {self.devices!r}, must be a number or auto")


class Learner:
    """What changes while a run goes on, and what a saved state holds; and one step of it."""

    def __init__(self, fabric: Fabric, method: Method, config: TrainConfig, num_streams: int, step: int = 0):
        self.step = step
        self.rate = 0.0
        self.method = method.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.positions = [Position()] * num_streams
        self._fabric, self._config = fabric, config
        if fabric.world_size > 1:
            method.gather = _Gather.apply  # pyright: ignore[reportAttributeAccessIssue]
        groups = parameter_groups(method.named_parameters(), config.weight_decay, dict(config.rates))
        self._trained = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
        check_prefixes(self._trained, config.frozen)
        self._freeze()
        self.module = fabric.setup_module(_Forward(method))
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
        wrapped = fabric.setup_optimizers(self.optimizer)
        assert not isinstance(wrapped, tuple)
        self._fabric_optimizer = wrapped
        decayed = self._trained.items() if config.average_decay else ()
        self._average = {name: weight.detach().clone() for name, weight in decayed}

    def _freeze(self) -> None:
        frozen = self._config.frozen if self.step < self._config.frozen_steps else ()
        for name, weight in self._trained.items():
            weight.requires_grad_(not any(has_prefix(name, prefix) for prefix in frozen))

    def learn(self, batches: Iterator[Loaded]) -> Report:
        """Take one step; return the loss with its terms, and the method's health, both means over the step's parts."""
        config, parts = self._config, self._config.accumulate
        if config.frozen_steps and self.step == config.frozen_steps:
            self._freeze()  # that is, thaw; and tell the processes' wrapper, which lists what takes gradients once
            self.module = self._fabric.setup_module(_Forward(self.method))
        schedule = SCHEDULES[config.schedule]
        self.rate = config.learning_rate * schedule(self.step, config.steps, config.warm_up_steps, config.final_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["rate"]
        reports = []
        for part in range(parts):
            loaded = next(batches)
            self.positions[loaded.stream] = loaded.position
            # Dropout and the like follow from the step alone, so that no generator has a state to save.
            torch.manual_seed(seed_of(config.seed, "step", self.step, part, self._fabric.global_rank))
            with self._fabric.no_backward_sync(self.module, enabled=part < parts - 1):
                report = self.module(_Sealed(loaded.batch.to(self._fabric.device)))
                self._fabric.backward(report["loss"]["total"] / parts)
            reports.append({kind: {k: v.detach() for k, v in values.items()} for kind, values in report.items()})
        if config.clip_norm:
            norm = self._fabric.clip_gradients(
                self.module, self._fabric_optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
            )
            assert norm is not None
            if not norm.isfinite():
                raise ValueError(f"the gradient is {norm} in step {self.step + 1}: try a smaller train.learning_rate")
        self._fabric_optimizer.step()
        self._fabric_optimizer.zero_grad()
        self.method.after_step(self.step, config.steps)
        if self._average:
            decay = min(config.average_decay, (1 + self.step) / (10 + self.step))  # or the random start stays in it
            with torch.no_grad():
                for name, average in self._average.items():
                    average.lerp_(self._trained[name], 1 - decay)
        self.step += 1
        return {
            kind: {name: torch.stack([report[kind][name] for report in reports]).mean() for name in values}
            for kind, values in reports[0].items()
        }

    def take_average(self) -> None:
        """Put the average, if one is kept, in the place of the weights: the end of training."""
        with torch.no_grad():
            for name, average in self._average.items():
                self._trained[name].copy_(average)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `restore` needs. Every process must ask, the answer is the same for all."""
        tensors = {f"model/{name}": tensor for name, tensor in self.method.state_dict().items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self._average.items()}
        for name, weight in self._trained.items():
            moments = self.optimizer.state.get(weight, {})
            tensors |= {f"optimiser/{name}/{key}": moment for key, moment in moments.items()}
        here = torch.tensor([[p.turn, p.taken, p.broken] for p in self.positions], device=self._fabric.device)
        return tensors | {"positions": self.method.gather(here[None])}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to where `tensors` was called, after as many steps as this learner was made with.

        Raises:
            ValueError: it was by another number of processes.
        """
        positions = tensors["positions"]
        if len(positions) != self._fabric.world_size:
            raise ValueError(f"the run had {len(positions)} processes, not {self._fabric.world_size}")
        self.positions = [Position(*row) for row in positions[self._fabric.global_rank].tolist()]
        prefix = "model/"
        self.method.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for name, average in self._average.items():
            average.copy_(tensors[f"average/{name}"])
        for name, weight in self._trained.items():
            prefix = f"optimiser/{name}/"
            moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            self.optimizer.state[weight] = {
                key: torch.empty_like(weight).copy_(v) if v.shape == weight.shape else v for key, v in moments.items()
            }


class _Gather(torch.autograd.Function):
    """Concatenate the tensors of all processes, of one shape, along the first axis; gradients go back and add up.

    The wrapper averages the processes' gradients, so the gradient of a loss over the gathered batch is exact.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        everyone = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(get_world_size())]
        all_gather(everyone, tensor.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total.chunk(get_world_size())[get_rank()]


class _Sealed:
    """Carries a batch through Fabric, which would take dataclasses apart and refuses frozen ones."""

    def __init__(self, batch: Batch):
        self.batch = batch


class _Forward(nn.Module):
    """A method as the processes' wrapper sees it: its losses as plain dicts."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, sealed: _Sealed) -> Report:
        losses = self.method(sealed.batch)
        return {"loss": {"total": losses.total, **losses.terms}, "health": dict(losses.health)}
