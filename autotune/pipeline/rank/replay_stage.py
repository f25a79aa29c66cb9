"""Stages that wait as long as others computed, as a Workload: what ranks run in a replay and in calibration."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autotune.pipeline.control.commands import ReplayStage
from autotune.pipeline.device.device import Device
from autotune.records.job.workload import WorkloadFacts
from autotune.workload.protocol import Batch, Loss


class WaitForInput(torch.autograd.Function):
    """Takes a message to a number; waits while the forward would compute, and while the backward would for the input.

    ``gradient`` is the message that goes back: always the same one, so that only waiting takes time.
    """

    @staticmethod
    def forward(ctx: Any, message: Tensor, gradient: Tensor, device: Device, t_f: float, t_b: float) -> Tensor:
        ctx.gradient, ctx.device, ctx.t_b = gradient, device, t_b
        device.wait(t_f)
        return message.flatten()[0].clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        ctx.device.wait(ctx.t_b)
        return ctx.gradient.data, None, None, None, None


class WaitForWeight(torch.autograd.Function):
    """A weight on its way into the graph; its backward waits while the weight gradient would be computed."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, device: Device, t_w: float) -> Tensor:
        ctx.device, ctx.t_w = device, t_w
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.device.wait(ctx.t_w)
        return gradients[0], None, None


class AsMessage(torch.autograd.Function):
    """Takes a number to a ``message``, always the same one."""

    @staticmethod
    def forward(ctx: Any, number: Tensor, message: Tensor) -> Tensor:
        return message.data  # a tensor of its own without memory of its own; a view could not be detached

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0].flatten()[0], None


class WaitingStage(nn.Module):
    """Waits as long as the stage of a recorded profile computed, and sends messages of the recorded size.

    Autograd sees the graph of a real stage, one way to the input and one to the weight, so that torch can split the
    backward. The first stage has no input to compute a gradient for, and does t_b + t_w on the way to its weight ::

        input --(t_f, t_b)--+
                            +--> output
        weight ----(t_w)----+
    """

    def __init__(self, stages: tuple[ReplayStage, ...], index: int, device: Device) -> None:
        super().__init__()
        self.times, self.device = stages[index], device
        self.is_first, self.is_last = index == 0, index == len(stages) - 1
        self.weight = nn.Parameter(torch.zeros((), device=device.torch_device))
        self.back, self.out = (
            torch.rand(message_shape(stages[max(0, at)]), device=device.torch_device) for at in (index - 1, index)
        )

    def forward(self, x: Tensor) -> Tensor:
        own = self.times.t_w + (self.times.t_b if self.is_first else 0.0)
        number = WaitForWeight.apply(self.weight, self.device, own)  # type: ignore[no-untyped-call]
        if self.is_first:
            self.device.wait(self.times.t_f)
        else:
            waits = (self.times.t_f, self.times.t_b)
            number = number + WaitForInput.apply(x, self.back, self.device, *waits)  # type: ignore[no-untyped-call]
        out: Tensor = torch.stack([number]) if self.is_last else AsMessage.apply(number, self.out)  # type: ignore[no-untyped-call]
        return out


def message_shape(stage: ReplayStage) -> tuple[int]:
    """Return the shape of what a stage sends: as many floats as the recorded message had bytes, at least one."""
    return (max(1, stage.message_bytes // 4),)


class LossItself:
    """The loss of a pipeline of waiting stages: what the last one gives."""

    scale = 1.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.sum()  # of one number; no view of it, which torch's runtime could not detach


@dataclass(frozen=True)
class WaitingWorkload:
    """A row of waiting stages as a Workload: a layer each, of which every stage is one."""

    stages: tuple[ReplayStage, ...]
    device: Device

    @property
    def facts(self) -> WorkloadFacts:
        """The number of stages; nothing else is known."""
        return WorkloadFacts(layers=len(self.stages))

    def build_stage(self, layers: range, device: torch.device) -> WaitingStage:
        """Build the stage of one layer."""
        return WaitingStage(self.stages, layers.start, self.device)

    def layers_in(self, stage: nn.Module) -> tuple[nn.Module, ...]:
        """Return nothing: a waiting stage takes as long as it is told."""
        return ()

    def reset_stage(self, stage: nn.Module, layers: range) -> None:
        """Do nothing: the weight of a waiting stage is never updated."""

    def batch(self, sequences: int, padding: int, device: torch.device, replica: int = 0) -> Batch:
        """Return a number for each sequence, for torch to cut into micro-batches."""
        return Batch(
            (torch.zeros(sequences + padding, 1, device=device),), torch.zeros(sequences + padding, device=device)
        )

    def boundary(self, layer: int, micro_batch_size: int) -> tuple[Tensor, ...]:
        """Return a number for each sequence, a message, or the number that is the loss."""
        if layer == 0:
            return (torch.empty(micro_batch_size, 1, device="meta"),)
        shape = (1,) if layer == len(self.stages) else message_shape(self.stages[layer - 1])
        return (torch.empty(shape, device="meta", requires_grad=True),)

    def loss(self, sequences: int) -> Loss:
        """Return what takes the last stage's number as it is."""
        return LossItself()

    def optimizer(self, held: Iterable[int]) -> "WaitingOptimizer":
        """Return what waits as long as the optimizers of the ``held`` stages of one rank took."""
        return WaitingOptimizer(self.device, sum(self.stages[index].optimizer_s for index in held))


@dataclass(frozen=True)
class WaitingOptimizer:
    """Waits instead of updating."""

    device: Device
    seconds: float

    def step(self) -> None:
        """Wait."""
        self.device.wait(self.seconds)
