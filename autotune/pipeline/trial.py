"""Steps of one candidate on one rank: torch's PipelineStage and schedule class around the rank's stage."""

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import get_schedule_class
from torch.optim import Optimizer

from autotune.config import Workload
from autotune.pipeline.commands import Prepare
from autotune.pipeline.device import Device
from autotune.workload.gpt import SequenceLoss, boundary_type, random_batch


class EmptyStage(nn.Module):
    """Passes its input on through one multiplication by a weight, so that gradients flow and almost nothing is done."""

    def __init__(self, is_first: bool, hidden: int, element_type: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.is_first, self.hidden, self.element_type = is_first, hidden, element_type
        self.weight = nn.Parameter(torch.ones((), dtype=element_type, device=device))

    def forward(self, x: Tensor) -> Tensor:
        if self.is_first:
            x = torch.zeros(*x.shape, self.hidden, dtype=self.element_type, device=x.device)
        return x * self.weight


def mean_of_output(output: Tensor, _: Tensor) -> Tensor:
    """The loss of an empty pipeline."""
    return output.float().mean()


class Trial:
    """A candidate made ready on this rank: stage, schedule, batch. ``step`` may be called any number of times."""

    def __init__(
        self,
        stage: nn.Module,
        optimizer: Optimizer | None,
        workload: Workload,
        plan: Prepare,
        rank: int,
        device: Device,
    ) -> None:
        self.stage, self.optimizer, self.device = stage, optimizer, device
        self.is_first, self.is_last = rank == 0, rank == workload.stages - 1
        padding = plan.micro_batches * plan.micro_batch_size - plan.sequences
        self.ids, self.targets = random_batch(workload, plan.sequences, padding, device.torch_device)
        self.loss = SequenceLoss(workload, plan.sequences)
        inputs, outputs = boundary_shapes(workload, plan, rank)
        pipeline_stage = PipelineStage(
            stage, rank, workload.stages, device.torch_device, input_args=inputs, output_args=outputs
        )
        # The loss is already summed over the whole batch, so torch must not divide the gradients by m.
        self.schedule = get_schedule_class(plan.schedule)(
            pipeline_stage,
            n_microbatches=plan.micro_batches,
            loss_fn=mean_of_output if plan.empty else self.loss,
            scale_grads=False,
        )

    def step(self) -> float | None:
        """One training step: forward and backward of every micro-batch, then the optimizer. Returns the last stage's
        loss, averaged over real tokens; gradients stay in place until the next step zeroes them."""
        self.stage.zero_grad(set_to_none=False)
        losses: list[Tensor] = []
        inputs = (self.ids,) if self.is_first else ()
        target = self.targets if self.is_last else None
        self.schedule.step(*inputs, target=target, losses=losses, return_outputs=False)
        unscale_gradients(self.stage, self.loss.scale)
        if self.optimizer is not None:
            self.optimizer.step()
        self.device.synchronize()
        return torch.stack(losses).sum().item() / self.loss.scale if losses else None


def unscale_gradients(stage: nn.Module, scale: float) -> None:
    """Divides the gradients by the loss scale of fp16."""
    if scale != 1.0:
        torch._foreach_mul_([p.grad for p in stage.parameters() if p.grad is not None], 1.0 / scale)


def boundary_shapes(workload: Workload, plan: Prepare, rank: int) -> tuple[Tensor, Tensor]:
    """What the stage takes and gives, as tensors without memory: torch need not try a micro-batch to learn it."""
    tokens = (plan.micro_batch_size, workload.seq_len)
    element_type = boundary_type(workload)

    def boundary() -> Tensor:
        return torch.empty(*tokens, workload.hidden, dtype=element_type, device="meta", requires_grad=True)

    inputs = torch.empty(tokens, dtype=torch.int64, device="meta") if rank == 0 else boundary()
    if rank < workload.stages - 1 or plan.empty:
        return inputs, boundary()
    logit_type = torch.float32 if workload.precision == "fp32" else element_type
    return inputs, torch.empty(*tokens, workload.vocab, dtype=logit_type, device="meta", requires_grad=True)
