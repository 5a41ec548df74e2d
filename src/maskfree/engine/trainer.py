"""What is learned in a run, and one step of it: weights, optimizer, average, and the place in the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Int
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size

from maskfree.data.loader import Loaded, Position, seed_of
from maskfree.engine.config import TrainConfig
from maskfree.engine.optimizers import check_prefixes, cosine, parameter_groups, polynomial
from maskfree.hub.checkpoint import has_prefix
from maskfree.method import Method
from maskfree.types import Batch

SCHEDULES = {"cosine": cosine, "polynomial": polynomial}
Report = dict[str, dict[str, Tensor]]  # losses and metrics, each by name


class Trainer:
    """What changes while a run goes on, and what a saved state holds; and one step of it."""

    def __init__(
        self, fabric: Fabric, method: Method, config: TrainConfig, num_streams: int, step: int = 0
    ):
        self.step = step
        self.rate = 0.0
        self.method = method.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.positions = [Position()] * num_streams
        self._fabric, self._config = fabric, config
        if fabric.world_size > 1:
            method.gather = _Gather.apply  # pyright: ignore[reportAttributeAccessIssue]
        groups = parameter_groups(
            method.named_parameters(), config.weight_decay, dict(config.lr_multipliers)
        )
        self._trained = {
            name: weight for name, weight in method.named_parameters() if weight.requires_grad
        }
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

    def train_step(self, batches: Iterator[Loaded]) -> Report:
        """Take one step; return the loss with its terms, and the method's metrics, both means over the step's parts."""
        config, parts = self._config, self._config.accumulate
        if config.frozen_steps and self.step == config.frozen_steps:
            self._freeze()  # that is, thaw; and tell the processes' wrapper, which lists what takes gradients once
            self.module = self._fabric.setup_module(_Forward(self.method))
        schedule = SCHEDULES[config.schedule]
        self.rate = config.learning_rate * schedule(
            self.step, config.steps, config.warm_up_steps, config.final_rate
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["rate"]
        reports = []
        for part in range(parts):
            loaded = next(batches)
            self.positions[loaded.stream] = loaded.position
            # Dropout and the like follow from the step alone, so that no generator has a state to save.
            torch.manual_seed(
                seed_of(config.seed, "step", self.step, part, self._fabric.global_rank)
            )
            with self._fabric.no_backward_sync(self.module, enabled=part < parts - 1):
                report = self.module(_Sealed(loaded.batch.to(self._fabric.device)))
                self._fabric.backward(report["loss"]["total"] / parts)
            reports.append(
                {
                    kind: {k: v.detach() for k, v in values.items()}
                    for kind, values in report.items()
                }
            )
        if config.clip_norm:
            norm = self._fabric.clip_gradients(
                self.module,
                self._fabric_optimizer,
                max_norm=config.clip_norm,
                error_if_nonfinite=False,
            )
            assert norm is not None
            if not norm.isfinite():
                raise ValueError(
                    f"the gradient is {norm} in step {self.step + 1}: try a smaller train.learning_rate"
                )
        self._fabric_optimizer.step()
        self._fabric_optimizer.zero_grad()
        self.method.after_step(self.step, config.steps)
        if self._average:
            decay = min(
                config.average_decay, (1 + self.step) / (10 + self.step)
            )  # or the random start stays in it
            with torch.no_grad():
                for name, average in self._average.items():
                    average.lerp_(self._trained[name], 1 - decay)
        self.step += 1
        return {
            kind: {
                name: torch.stack([report[kind][name] for report in reports]).mean()
                for name in values
            }
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
            tensors |= {f"optimizer/{name}/{key}": moment for key, moment in moments.items()}
        here = torch.tensor(
            [[p.epoch, p.taken, p.broken] for p in self.positions], device=self._fabric.device
        )
        return tensors | {"positions": self.method.gather(here[None]), "left_out": self._left_out()}

    def broken(self) -> tuple[int, tuple[int, ...]]:
        """Return how many samples could not be used, and how many for each reason. Every process must ask."""
        here = torch.tensor(
            [sum(position.broken for position in self.positions)], device=self._fabric.device
        )
        return int(self.method.gather(here).sum()), tuple(self._left_out().sum(dim=(0, 1)).tolist())

    def _left_out(self) -> Int[Tensor, "processes streams reasons"]:
        here = torch.tensor(
            [position.by_reason for position in self.positions], device=self._fabric.device
        )
        return self.method.gather(here[None])

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to where `tensors` was called, after as many steps as this trainer was made with.

        Raises:
            ValueError: it was by another number of processes.
        """
        positions = tensors["positions"]
        if len(positions) != self._fabric.world_size:
            raise ValueError(
                f"the run had {len(positions)} processes, not {self._fabric.world_size}"
            )
        self.positions = [Position(*row) for row in positions[self._fabric.global_rank].tolist()]
        if "left_out" in tensors:
            rows = tensors["left_out"][self._fabric.global_rank].tolist()
            pairs = zip(self.positions, rows, strict=True)
            self.positions = [replace(position, by_reason=tuple(row)) for position, row in pairs]
        prefix = "model/"
        self.method.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        for name, average in self._average.items():
            average.copy_(tensors[f"average/{name}"])
        for name, weight in self._trained.items():
            prefix = f"optimizer/{name}/"
            moments = {
                k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
            }
            self.optimizer.state[weight] = {
                key: torch.empty_like(weight).copy_(v) if v.shape == weight.shape else v
                for key, v in moments.items()
            }


class _Gather(torch.autograd.Function):
    """Concatenate the tensors of all processes, of one shape, along the first axis; gradients go back and add up.

    The wrapper averages the processes' gradients, so the gradient of a loss over the gathered batch is exact.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        everyone = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format)
            for _ in range(get_world_size())
        ]
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
        return {"loss": {"total": losses.total, **losses.terms}, "metrics": dict(losses.metrics)}
