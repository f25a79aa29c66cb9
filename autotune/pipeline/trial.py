"""Steps of one candidate on one rank: torch's PipelineStage and schedule class around the rank's stages."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, get_schedule_class

from autotune.config import Workload
from autotune.pipeline.commands import Prepare
from autotune.pipeline.device import Device
from autotune.pipeline.watch import Watch
from autotune.workload.gpt import Loss, boundary_type, random_batch
from autotune.workload.optimizer import MasterWeights

Held = dict[int, nn.Module]
"""The stages of one rank, by their index in the model."""


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

    def __init__(self, plan: Prepare, index: int, device: Device) -> None:
        super().__init__()
        self.waits, self.device = plan.waits[index], device
        self.is_first, self.is_last = index == 0, index == len(plan.waits) - 1
        self.weight = nn.Parameter(torch.zeros((), device=device.torch_device))
        self.back, self.out = (
            torch.rand(message_shape(plan, max(0, at)), device=device.torch_device) for at in (index - 1, index)
        )

    def forward(self, x: Tensor) -> Tensor:
        own = self.waits.t_w + (self.waits.t_b if self.is_first else 0.0)
        number = WaitForWeight.apply(self.weight, self.device, own)  # type: ignore[no-untyped-call]
        if self.is_first:
            self.device.wait(self.waits.t_f)
        else:
            waits = (self.waits.t_f, self.waits.t_b)
            number = number + WaitForInput.apply(x, self.back, self.device, *waits)  # type: ignore[no-untyped-call]
        out: Tensor = number if self.is_last else AsMessage.apply(number, self.out)  # type: ignore[no-untyped-call]
        return out


class WatchedStage(PipelineStage):
    """torch's own stage; ``watch`` is told of each action that it is asked for, and of its end."""

    watch: Watch

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        self.watch.begin("forward", self.stage_index, fwd_chunk_id)
        output = super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)
        self.watch.end()
        return output

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: Any = False
    ) -> None:
        self.watch.begin("backward" if full_backward else "input_gradient", self.stage_index, bwd_chunk_id)
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)
        self.watch.end()

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> None:
        self.watch.begin("weight_gradient", self.stage_index, bwd_chunk_id)
        super().backward_weight_one_chunk(bwd_chunk_id, *args, **kwargs)
        self.watch.end()


def message_shape(plan: Prepare, index: int) -> tuple[int]:
    """The shape of what stage ``index`` sends: as many floats as the recorded message had bytes, at least one."""
    return (max(1, plan.waits[index].message_bytes // 4),)


class LossItself:
    """The loss of a pipeline of waiting stages: what the last one gives."""

    scale = 1.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits


class Trial:
    """A candidate made ready on this rank: stages, schedule, batch. ``step`` may be called any number of times."""

    def __init__(
        self,
        held: Held,
        optimizer: MasterWeights | None,
        loss: Loss,
        workload: Workload,
        plan: Prepare,
        device: Device,
        watch: Watch,
    ) -> None:
        self.held, self.optimizer, self.loss, self.device, self.watch = held, optimizer, loss, device, watch
        self.waiting_s = sum(plan.waits[index].optimizer_s for index in held) if plan.waits else 0.0
        stages = workload.stages * plan.virtual_stages
        self.is_first, self.is_last = 0 in held, stages - 1 in held
        padding = plan.micro_batches * plan.micro_batch_size - plan.sequences
        self.ids, self.targets = random_batch(workload, plan.sequences, padding, device.torch_device)
        pipeline_stages = []
        for index, stage in held.items():
            inputs, outputs = boundary_shapes(workload, plan, index)
            pipeline_stages.append(
                WatchedStage(stage, index, stages, device.torch_device, input_args=inputs, output_args=outputs)
            )
            pipeline_stages[-1].watch = watch
        several = issubclass(get_schedule_class(plan.schedule), PipelineScheduleMulti)
        # The loss is a share of the whole batch's, so torch must not divide the gradients by m.
        self.schedule = get_schedule_class(plan.schedule)(
            pipeline_stages if several else pipeline_stages[0],
            n_microbatches=plan.micro_batches,
            loss_fn=loss,
            scale_grads=False,
        )

    def step(self) -> float | None:
        """One training step: forward and backward of every micro-batch, then the optimizer. Returns the last stage's
        loss, averaged over real tokens; gradients stay in place until the next step zeroes them."""
        for stage in self.held.values():
            stage.zero_grad(set_to_none=False)
        losses: list[Tensor] = []
        inputs = (self.ids,) if self.is_first else ()
        target = self.targets if self.is_last else None
        self.schedule.step(*inputs, target=target, losses=losses, return_outputs=False)
        for stage in self.held.values():
            unscale_gradients(stage, self.loss.scale)
        self.watch.begin("optimizer")
        if self.optimizer is not None:
            self.optimizer.step()
        self.device.wait(self.waiting_s)
        self.device.synchronize()
        self.watch.end()
        return torch.stack(losses).sum().item() / self.loss.scale if losses else None


def unscale_gradients(stage: nn.Module, scale: float) -> None:
    """Divides the gradients by the loss scale of fp16."""
    if scale != 1.0:
        torch._foreach_mul_([p.grad for p in stage.parameters() if p.grad is not None], 1.0 / scale)


def boundary_shapes(workload: Workload, plan: Prepare, index: int) -> tuple[Tensor, Tensor]:
    """What stage ``index`` takes and gives, as tensors without memory: torch need not try a micro-batch to learn it."""
    size, is_last = plan.micro_batch_size, index == workload.stages * plan.virtual_stages - 1
    tokens = (size, workload.seq_len)
    element_type = boundary_type(workload)  # of the logits too

    def boundary(at: int) -> Tensor:
        if plan.waits:
            return torch.empty(message_shape(plan, at), device="meta", requires_grad=True)
        return torch.empty(*tokens, workload.hidden, dtype=element_type, device="meta", requires_grad=True)

    inputs = boundary(index - 1) if index else torch.empty(tokens, dtype=torch.int64, device="meta")
    if not is_last:
        return inputs, boundary(index)
    if plan.waits:
        return inputs, torch.empty((), device="meta", requires_grad=True)
    return inputs, torch.empty(*tokens, workload.vocab, dtype=element_type, device="meta", requires_grad=True)
