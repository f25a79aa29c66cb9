"""Replicas of a stage add up their gradients: in its last backward, by torch's DDP around it, or after that.

::

    micro-batch      0     1    ...   m - 1
    backward       [ B ] [ B ]      [ B        |+]     under no_sync, but for the last: a bucket of gradients is reduced
    reduction                          [1][ 2  ]       as soon as it is complete, and the backward ends with the last

``backward_maybe_with_nosync`` (torch.distributed.pipelining, stage.py) runs every backward but the last in ``no_sync``,
and prepares DDP's reducer for the last. So what the last backward does not hide keeps its input gradient from the stage
before as well. It does so for whole backwards alone: the halves of a split one call none of DDP's hooks. And DDP
reduces in the type of the weights, where gradients of lower precision are summed in fp32. In both cases the gradients
of a rank are reduced after its last action, as Megatron-LM does without ``--overlap-grad-reduce``.
"""

import time
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autotune.pipeline.control.commands import Reduce
from autotune.pipeline.device.device import Device
from autotune.pipeline.rank.probe import Passes
from autotune.pipeline.rank.process_group import Team
from autotune.workload.optimizer import trained

Reduced = dict[int, nn.Module]
"""The stages of one rank by their index, each in its DDP where that can reduce its gradients."""


def reduced(held: Reduced, team: Team) -> Reduced:
    """Return the stages as whole backwards train them: wrapped by DDP where there are several replicas and all weights
    are in fp32, as they are elsewhere.

    The gradients that weights hold become views of what is reduced, so that nothing is held twice. All replicas begin
    with the same weights, which are not sent. Buffers are each replica's own: in ``no_sync`` torch broadcasts them
    once, before the first forward, and never again.
    """
    if team.replicas == 1:
        return held
    return {index: in_ddp(stage, team) if can_reduce(stage) else side_by_side(stage) for index, stage in held.items()}


def can_reduce(stage: nn.Module) -> bool:
    """Return whether DDP can reduce the gradients of a stage: it has some, and their weights are in fp32."""
    return bool(trained(stage)) and all(weight.dtype == torch.float32 for weight in trained(stage))


def in_ddp(stage: nn.Module, team: Team) -> nn.Module:
    """Return a stage in its DDP, of whose buckets its gradients become views."""
    return DistributedDataParallel(
        stage, process_group=team.peers, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def side_by_side(stage: nn.Module) -> nn.Module:
    """Return a stage whose gradients lie in one piece, as those in DDP's buckets do."""
    weights = trained(stage)
    for weight in weights:
        weight.grad = None  # so that nothing is held twice
    if weights:
        sizes = [weight.numel() for weight in weights]
        whole = torch.zeros(sum(sizes), dtype=torch.float32, device=weights[0].device)
        for weight, part in zip(weights, torch.split(whole, sizes), strict=True):
            weight.grad = part.view_as(weight)
    return stage


def reduce_after(stages: Iterable[nn.Module], team: Team) -> None:
    """Reduce the gradients of those stages whose last backward did not."""
    for stage in stages:
        if not isinstance(stage, DistributedDataParallel):
            for gradients in buffers(stage):
                dist.all_reduce(gradients.div_(team.replicas), group=team.peers)


def buffers(stage: nn.Module) -> list[torch.Tensor]:
    """Return the memory that the gradients of a stage lie in, side by side, each piece as one row of numbers."""
    held = {
        weight.grad.untyped_storage().data_ptr(): weight.grad for weight in trained(stage) if weight.grad is not None
    }
    return [gradient.new_empty(0).set_(gradient.untyped_storage()) for gradient in held.values()]


def reduce_in(stage: nn.Module, run: Passes) -> None:
    """Run a backward that reduces the gradients of a stage, as torch's pipelining runs the last one."""
    if isinstance(stage, DistributedDataParallel):
        stage.reducer.prepare_for_backward([])
    run.backward()


def settle_buckets(stage: nn.Module, run: Passes) -> None:
    """Have DDP lay its buckets in the order in which gradients come, which it does once, and would else do while
    candidates are measured; all replicas at once. Nothing where there is one."""
    if isinstance(stage, DistributedDataParallel):
        run.forward()
        reduce_in(stage, run)
        stage.reducer._rebuild_buckets()


def bucket_bytes(stage: nn.Module, team: Team) -> tuple[int, ...]:
    """Return bytes that are reduced together, in their order: of DDP's buckets, or of all that is reduced after the
    last backward; nothing where there is one replica."""
    if not isinstance(stage, DistributedDataParallel):
        return tuple(gradients.nbytes for gradients in buffers(stage)) if team.replicas > 1 else ()
    told = stage._get_ddp_logging_data()  # type: ignore[no-untyped-call]
    sizes = str(told.get("rebuilt_bucket_sizes") or told.get("bucket_sizes") or "")
    return tuple(int(size) for size in sizes.split(", ") if size)


def reductions(command: Reduce, team: Team, device: Device) -> list[float]:
    """Return seconds of each reduction among the replicas' ranks at a place, as DDP has it: in fp32, begun and then
    waited for; an empty list elsewhere."""
    if command.place != team.place:
        return []
    gradients = torch.ones(max(1, command.message_bytes // 4), device=device.torch_device)
    samples = []
    for _ in range(command.repeats + 1):
        dist.barrier(team.peers)
        device.synchronize()
        start = time.perf_counter()
        dist.all_reduce(gradients.div_(team.replicas), group=team.peers, async_op=True).wait()
        device.synchronize()
        samples.append(time.perf_counter() - start)
    return samples[1:]  # the first is a priming pass
