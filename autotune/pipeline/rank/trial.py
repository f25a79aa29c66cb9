"""Steps of one candidate on one rank: torch's PipelineStage and schedule class around the rank's stages."""

from inspect import signature
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, get_schedule_class

from autotune.pipeline.control.activity import ActivityWriter
from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.device.device import Device
from autotune.pipeline.rank.messages import keep_all_messages
from autotune.pipeline.rank.process_group import Team
from autotune.pipeline.rank.reduction import reduce_after
from autotune.workload.partition import layers_of_stage
from autotune.workload.protocol import Workload

CAN_DROP_OUTPUTS = "return_outputs" in signature(PipelineScheduleMulti.step).parameters
"""Whether the last stage can let go of its outputs; torch before 2.10 keeps them all, to merge them when the step
ends."""
DROPPED = {"return_outputs": False} if CAN_DROP_OUTPUTS else {}
# The loss is a share of the whole batch's, so torch must not divide the gradients by m; before 2.7 it never did.
UNSCALED = {"scale_grads": False} if "scale_grads" in signature(PipelineScheduleMulti).parameters else {}
Held = dict[int, nn.Module]
"""The stages of one rank, by their index in the model."""

keep_all_messages()


class Optimizer(Protocol):
    """Updates a rank's weights from the gradients of a whole batch."""

    def step(self) -> None: ...


class WatchedStage(PipelineStage):
    """torch's own stage; ``activity`` is told of each action that it is asked for, and of its end."""

    activity: ActivityWriter

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        self.activity.begin("forward", self.stage_index, fwd_chunk_id)
        output = super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)
        self.activity.end()
        return output

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: Any = False
    ) -> None:
        self.activity.begin("backward" if full_backward else "input_gradient", self.stage_index, bwd_chunk_id)
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)
        self.activity.end()

    def _get_init_p2p_neighbors_ops(self) -> list[dist.P2POp]:
        """Return messages of 4 bytes between ranks: torch 2.9 sends 8 where it awaits 4, and to itself where two of its
        stages are neighbours, both of which gloo refuses."""
        messages = [one for one in super()._get_init_p2p_neighbors_ops() if one.peer != dist.get_rank()]
        for message in messages:
            message.tensor = message.tensor.float()
        return messages

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> None:
        self.activity.begin("weight_gradient", self.stage_index, bwd_chunk_id)
        super().backward_weight_one_chunk(bwd_chunk_id, *args, **kwargs)
        self.activity.end()


class Trial:
    """A candidate made ready on this rank: stages, schedule, batch. ``step`` may be called any number of times."""

    def __init__(
        self,
        held: Held,
        optimizer: Optimizer | None,
        workload: Workload,
        team: Team,
        plan: Prepare,
        device: Device,
        activity: ActivityWriter,
    ) -> None:
        self.held, self.optimizer, self.device, self.activity = held, optimizer, device, activity
        self.team = team
        self.loss = workload.loss(plan.sequences)
        stages = team.ranks * plan.virtual_stages
        self.is_first, self.is_last = 0 in held, stages - 1 in held
        padding = plan.micro_batches * plan.micro_batch_size - plan.sequences
        self.batch = workload.batch(plan.sequences, padding, device.torch_device, team.replica)
        pipeline_stages = []
        for index, stage in held.items():
            layers = layers_of_stage(workload.facts.layers or 0, stages, index, plan.split)
            # Told what a stage takes and gives, torch need not try a micro-batch to learn it.
            inputs, outputs = (workload.boundary(at, plan.micro_batch_size) for at in (layers.start, layers.stop))
            pipeline_stages.append(
                WatchedStage(
                    stage,
                    index,
                    stages,
                    device.torch_device,
                    input_args=inputs,
                    output_args=outputs,
                    group=team.pipeline,
                )
            )
            pipeline_stages[-1].activity = activity
        several = issubclass(get_schedule_class(plan.schedule), PipelineScheduleMulti)
        self.schedule = get_schedule_class(plan.schedule)(
            pipeline_stages if several else pipeline_stages[0],
            n_microbatches=plan.micro_batches,
            loss_fn=self.loss,
            **UNSCALED,
        )

    def step(self) -> float | None:
        """Run one training step: forward and backward of every micro-batch, then the optimizer. Returns the last
        stage's loss, averaged over real tokens; gradients stay in place until the next step zeroes them."""
        for stage in self.held.values():
            stage.zero_grad(set_to_none=False)
        losses: list[Tensor] = []
        inputs = self.batch.args if self.is_first else ()
        target = self.batch.targets if self.is_last else None
        self.schedule.step(*inputs, target=target, losses=losses, **DROPPED, **self.batch.kwargs)
        if self.team.replicas > 1:
            self.activity.begin("reduction")
            reduce_after(self.held.values(), self.team)
        for stage in self.held.values():
            unscale_gradients(stage, self.loss.scale)
        self.activity.begin("optimizer")
        if self.optimizer is not None:
            self.optimizer.step()
        self.device.synchronize()
        self.activity.end()
        return torch.stack(losses).sum().item() / self.loss.scale if losses else None


def unscale_gradients(stage: nn.Module, scale: float) -> None:
    """Divide the gradients by the loss scale of fp16."""
    if scale != 1.0:
        torch._foreach_mul_([p.grad for p in stage.parameters() if p.grad is not None], 1.0 / scale)
