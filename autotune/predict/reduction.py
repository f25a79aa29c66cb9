"""The reduction of gradients among replicas, in the last backward of a stage: what that hides, and what it does not.

::

    last backward    |=== gradients of the last layers ===|=== of the first ===|
    buckets                                               1                    2
    reduction                                              [ 1 ]                [   2   ]
                                                                                 exposed

DDP begins with a bucket as soon as its gradients are there, and the backward ends with the last bucket; the input
gradient goes to the stage before after that (torch.distributed.pipelining, stage.py, ``backward_one_chunk``).
"""

from autotune.records.profile import Profile, Reduction


def reduction_seconds(profile: Profile, micro_batch_size: int) -> list[float] | None:
    """Return by how long the last backward of each stage is prolonged; None where there is nothing to reduce.

    A GPU carries messages beside its work. Where the CPU does both nothing is hidden: what gloo adds up takes from the
    cores that the backward needs.
    """
    how = profile.reduction
    if how is None or not any(stage.bucket_bytes for stage in profile.stages):
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
