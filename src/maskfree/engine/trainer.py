"""Trainer: weights, optimizer, weight average and data position, and one training step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.amp import GradScaler

from maskfree.data.loader import Loaded, Position
from maskfree.data.order import Share, seed_of
from maskfree.engine.batch_norm import sync_batch_norms
from maskfree.engine.config import TrainConfig
from maskfree.engine.forward import Forward, Report, Sealed
from maskfree.engine.gather import Gather
from maskfree.engine.optimizers import check_prefixes, cosine, parameter_groups, polynomial
from maskfree.engine.positions import positions_from, tensors_of
from maskfree.engine.skipping import SkippedSteps, scale_of, set_scale
from maskfree.hub.checkpoint import has_prefix
from maskfree.method import Method
from maskfree.nn.linear import use_onednn

SCHEDULES = {"cosine": cosine, "polynomial": polynomial}


class Trainer:
    """Holds everything that changes during training and takes one step at a time."""

    def __init__(
        self, fabric: Fabric, method: Method, config: TrainConfig, num_streams: int, step: int = 0
    ):
        """Set up the method, optimizer and weight average in this process.

        Args:
            fabric: Lightning Fabric, launched.
            method: Method to train; moved to the device.
            config: Settings of the training.
            num_streams: Number of data streams of this process, each with its own position.
            step: Number of steps completed before this start.

        Raises:
            ValueError: A prefix in `lr_multipliers` or `frozen` matches no trainable parameter.
        """
        self.step = step
        self.rate = 0.0
        self.skipped = SkippedSteps()
        # Convolutions are faster in channels-last order.
        self.method = method.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        use_onednn(self.method)
        self.positions = [Position()] * num_streams
        self._fabric, self.config = fabric, config

        # Contrastive losses and batch statistics see the batches of all processes.
        if fabric.world_size > 1:
            sync_batch_norms(method)
            method.gather = Gather.apply  # pyright: ignore[reportAttributeAccessIssue]

        groups = parameter_groups(
            method.named_parameters(), config.weight_decay, dict(config.lr_multipliers)
        )

        self._trained = {
            name: weight for name, weight in method.named_parameters() if weight.requires_grad
        }
        check_prefixes(self._trained, config.frozen)
        # Freezing comes before the wrapper, which lists the parameters with gradients once.
        self._freeze()

        self.module = self._wrapped()
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        wrapped = fabric.setup_optimizers(self.optimizer)
        assert not isinstance(wrapped, tuple)
        self._fabric_optimizer = wrapped

        # Of float16 only.
        self._scaler: GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)

        self._average: dict[str, Tensor] = {}
        if config.average_decay:
            for name, weight in self._trained.items():
                self._average[name] = weight.detach().clone()

    def _freeze(self) -> None:
        """Set which parameters take gradients at the current step."""
        still_frozen = self.step < self.config.frozen_steps
        for name, weight in self._trained.items():
            named = any(has_prefix(name, prefix) for prefix in self.config.frozen)
            weight.requires_grad_(not (still_frozen and named))

    def _wrapped(self) -> _FabricModule:
        """The method in the wrapper that averages gradients over the processes."""
        module: nn.Module = Forward(self.method)
        if self.config.compile:
            module = torch.compile(module)  # pyright: ignore[reportAssignmentType]
        return self._fabric.setup_module(module)

    def train_step(self, batches: Iterator[Loaded]) -> Report:
        """Take one optimizer step over all accumulated parts.

        A step whose gradient is not finite changes no trained weight, average or buffer.

        Args:
            batches: Batches of this process; `accumulate` of them are used.

        Returns:
            Total loss with its terms, and metrics, averaged over the parts.

        Raises:
            ValueError: The gradient was not finite in too many steps in a row.
        """
        config = self.config
        if config.frozen_steps and self.step == config.frozen_steps:
            # Unfreeze, and wrap anew: the wrapper lists the parameters with gradients only once.
            self._freeze()
            self.module = self._wrapped()

        self._set_rate()
        self.skipped.remember(self.method)
        reports = [self._accumulate(next(batches), part) for part in range(config.accumulate)]
        norm = self._clip_gradients()

        # Gradients are summed over the processes, so all of them decide alike.
        if norm.isfinite():
            self._fabric_optimizer.step()
            self.method.after_step(self.step, config.steps)
            self._update_average()
            self.skipped.in_a_row = 0
        else:
            # The scale of float16 falls.
            if self._scaler is not None:
                self._scaler.update()
            # A method forgets what it kept of the batch; then its buffers go back.
            self.method.after_step(self.step, config.steps)
            self.skipped.skip(self.method, norm, self.step + 1)

        self._fabric_optimizer.zero_grad()
        self.step += 1
        return _mean(reports)

    def _set_rate(self) -> None:
        """Set the learning rate of the current step."""
        config = self.config
        schedule = SCHEDULES[config.schedule]
        factor = schedule(self.step, config.steps, config.warm_up_steps, config.final_rate)

        self.rate = config.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["rate"]

    def _accumulate(self, loaded: Loaded, part: int) -> Report:
        """Add the gradients of one part of the step; return its losses and metrics."""
        parts = self.config.accumulate
        self.positions[loaded.stream] = loaded.position

        # Dropout and the like follow from the step alone: no generator state needs saving.
        rank = self._fabric.global_rank
        torch.manual_seed(seed_of(self.config.seed, "step", self.step, part, rank))

        # Gradients are averaged over the processes in the last part only.
        with self._fabric.no_backward_sync(self.module, enabled=part < parts - 1):
            batch = loaded.batch.to(self._fabric.device)
            report = self.module(Sealed(batch))
            self._fabric.backward(report["loss"]["total"] / parts)

        return {kind: _detached(values) for kind, values in report.items()}

    def _clip_gradients(self) -> Tensor:
        """Scale the gradients down to the largest norm; return the norm that they had."""
        norm = self._fabric.clip_gradients(
            self.module,
            self._fabric_optimizer,
            # Without a bound the gradients stay as they are.
            max_norm=self.config.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        assert norm is not None
        return norm

    def _update_average(self) -> None:
        """Move the average towards the weights, if there is one."""
        # A smaller decay in early steps, so that the random initial weights do not stay in it.
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, average in self._average.items():
                average.lerp_(self._trained[name], 1 - decay)

    def final_weights(self) -> dict[str, Tensor]:
        """Return the tensors of a finished model: averages where there are any.

        Returns:
            All tensors of the method by name.
        """
        # Tied weights have one average and several names.
        averages: dict[int, Tensor] = {}
        for name, average in self._average.items():
            averages[self._trained[name].data_ptr()] = average

        state: dict[str, Tensor] = self.method.state_dict()
        return {name: averages.get(tensor.data_ptr(), tensor) for name, tensor in state.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that `restore` needs; collective over processes.

        Returns:
            Weights, averages, optimizer moments and data positions by name, the same in all
            processes.
        """
        tensors = {f"model/{name}": tensor for name, tensor in self.method.state_dict().items()}

        tensors |= {f"average/{name}": tensor for name, tensor in self._average.items()}

        for name, weight in self._trained.items():
            moments = self.optimizer.state.get(weight, {})
            tensors |= {f"optimizer/{name}/{key}": moment for key, moment in moments.items()}

        places, reasons = tensors_of(self.positions, self._fabric.device)
        tensors["positions"] = self.method.gather(places[None])
        tensors["left_out"] = self.method.gather(reasons[None])
        if self._scaler is not None:
            tensors["loss_scale"] = scale_of(self._scaler)
        return tensors | {"skipped": self.skipped.tensor()}

    def broken(self) -> tuple[int, tuple[int, ...]]:
        """Number of samples that could not be used; collective over processes.

        Returns:
            Total number of samples, and the number for each reason.
        """
        places, reasons = tensors_of(self.positions, self._fabric.device)
        by_reason = self.method.gather(reasons[None]).sum(dim=(0, 1))
        return int(self.method.gather(places[None, :, 2]).sum()), tuple(by_reason.tolist())

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to a saved state, after as many steps as this trainer was created with.

        Args:
            tensors: What `tensors` returned.

        Raises:
            ValueError: The run had another number of data streams.
        """
        process = Share(self._fabric.global_rank, self._fabric.world_size)
        self.positions = positions_from(tensors, process, len(self.positions))

        # States of older versions have no count of skipped steps.
        if "skipped" in tensors:
            self.skipped.restore(tensors["skipped"].tolist())
        if self._scaler is not None and "loss_scale" in tensors:
            set_scale(self._scaler, tensors["loss_scale"])

        # Names carry their kind as a prefix, as `tensors` writes them.
        self.method.load_state_dict(_with_prefix(tensors, "model/"))
        for name, average in self._average.items():
            average.copy_(tensors[f"average/{name}"])

        for name, weight in self._trained.items():
            moments = _with_prefix(tensors, f"optimizer/{name}/")
            for key, moment in moments.items():
                # Moments take the memory format of their weight.
                if moment.shape == weight.shape:
                    moments[key] = torch.empty_like(weight).copy_(moment)
            self.optimizer.state[weight] = moments


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values without their graph."""
    return {name: value.detach() for name, value in values.items()}


def _mean(reports: list[Report]) -> Report:
    """Mean of each value over the parts of a step."""
    means: Report = {}
    for kind, values in reports[0].items():
        means[kind] = {}
        for name in values:
            each = [report[kind][name] for report in reports]
            means[kind][name] = torch.stack(each).mean()
    return means
