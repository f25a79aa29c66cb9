"""The reduction of gradients among replicas: in the last backward of a stage, which hides part of it, or after a
rank's last action.

::

    last backward    |=== gradients of the last layers ===|=== of the first ===|
    buckets                                               1                    2
    reduction                                              [ 1 ]                [   2   ]
                                                                                 exposed

DDP begins with a bucket as soon as its gradients are there, and the backward ends with the last bucket; the input
gradient goes to the stage before after that (torch.distributed.pipelining, stage.py, ``backward_one_chunk``). It does
so in whole backwards of weights in fp32. What is reduced after the last action hides nothing, and no rank waits for it.
"""

from autotune.predict.schedules import Schedule
from autotune.records.profile import Profile, Reduction
from autotune.schedule_spec import SCHEDULES


def is_in_backward(profile: Profile, schedule: Schedule) -> bool:
    """Return whether the last backward of a stage reduces its gradients."""
    is_whole = schedule.name not in SCHEDULES or SCHEDULES[schedule.name].backward == "fused"
    return is_whole and (profile.reduction is None or profile.reduction.in_backward)


def seconds_after(profile: Profile, schedule: Schedule) -> list[float]:
    """Return how long each rank reduces gradients after its last action, alone; 0 where backwards do that."""
    how = profile.reduction
    if how is None or is_in_backward(profile, schedule):
        return [0.0] * schedule.ranks
    return list(map(float, schedule.by_rank([sum(map(how.seconds, stage.bucket_bytes)) for stage in profile.stages])))


def seconds_in_backward(profile: Profile, micro_batch_size: int, schedule: Schedule) -> list[float] | None:
    """Return by how long the last backward of each stage is prolonged; None where it reduces nothing.

    A GPU carries messages beside its work. Where the CPU does both nothing is hidden: what gloo adds up takes from the
    cores that the backward needs.
    """
    how, in_backward = profile.reduction, is_in_backward(profile, schedule)
    if how is None or not in_backward or not any(stage.bucket_bytes for stage in profile.stages):
        return None
    hides = profile.environment.device != "cpu"
    return [
        exposed_seconds(
            how, stage.bucket_bytes, stage.seconds(micro_batch_size, lambda row: row.backward) if hides else 0.0
        )
        for stage in profile.stages
    ]


def exposed_seconds(how: Reduction, bucket_bytes: tuple[int, ...], backward_s: float) -> float:
    """Return seconds from the end of a backward to that of the last bucket's reduction. Gradients come evenly over
    the backward, and buckets are reduced one after the other."""
    whole, come, end = sum(bucket_bytes), 0, 0.0
    for size in bucket_bytes:
        come += size
        end = max(end, backward_s * come / whole) + how.seconds(size)
    return max(0.0, end - backward_s)
