"""Replicas of a stage add up their gradients: torch's DDP around each stage, as torch's pipelining knows it.

::

    micro-batch      0     1    ...   m - 1
    backward       [ B ] [ B ]      [ B        |+]     under no_sync, but for the last: a bucket of gradients is reduced
    reduction                          [1][ 2  ]       as soon as it is complete, and the backward ends with the last

``backward_maybe_with_nosync`` (torch.distributed.pipelining, stage.py) runs every backward but the last in ``no_sync``,
and prepares DDP's reducer for the last. So what the last backward does not hide keeps its input gradient from the stage
before as well. It does so for whole backwards alone: the halves of a split one call none of DDP's hooks.
"""

import time

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
"""The stages of one rank by their index, each in its DDP where there are several replicas and it is trained."""


def reduced(held: Reduced, team: Team) -> Reduced:
    """Return the stages as their replicas train them: wrapped by DDP, or as they are where there is one replica.

    The gradients that weights hold become views of DDP's buckets, so that nothing is held twice. All replicas begin
    with the same weights, which are not sent. Buffers are each replica's own: in ``no_sync`` torch broadcasts them
    once, before the first forward, and never again.
    """
    if team.replicas == 1:
        return held
    return {
        index: DistributedDataParallel(
            stage, process_group=team.peers, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        if trained(stage)
        else stage
        for index, stage in held.items()
    }


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


def bucket_bytes(stage: nn.Module) -> tuple[int, ...]:
    """Return bytes of DDP's buckets, in the order in which they are reduced; nothing where nothing is."""
    if not isinstance(stage, DistributedDataParallel):
        return ()
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
