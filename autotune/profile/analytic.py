"""A profile on paper, for a forecast before anything was measured: what stages would cost by their arithmetic."""

from autotune.records.job.environment import Environment
from autotune.records.job.recompute import Recompute, modes_of
from autotune.records.job.split import Split
from autotune.records.job.workload import AnyWorkload
from autotune.records.profile import Profile, SharedCores, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.workload.partition import layers_per_stage

REACHED = 0.5  # of the speed of one large matrix product, that whole layers come to
OPERATIONS, LAUNCH_S = 30, 8e-6  # of a layer's forward; seconds that torch needs to start each, however small it is


def assumed_profile(
    workload: AnyWorkload,
    virtual_stages: int,
    sizes: tuple[int, ...],
    rate: float,
    environment: Environment,
    split: Split | None = None,
    recompute: Recompute = Recompute.NONE,
) -> Profile:
    """Return stage times at each micro-batch size, from the ``rate`` (operations per second) of a matrix product on one
    rank's device; a backward costs twice a forward, and what is computed again. Nothing is said of memory and links."""
    backward = 3 if recompute is Recompute.FULL else 2  # what selective recomputation computes costs next to nothing
    layers = list(workload.operations_by_layer)
    counts = split or layers_per_stage(workload.layers, workload.stages * virtual_stages)

    def row(index: int, size: int) -> StageTime:
        first = sum(counts[:index])
        work = sum(layers[first : first + counts[index]])
        forward = size * work / (REACHED * rate) + counts[index] * OPERATIONS * LAUNCH_S
        return StageTime(micro_batch_size=size, t_f=forward, t_bw=backward * forward)

    return Profile(
        environment=environment,
        workload=workload.facts,
        virtual_stages=virtual_stages,
        recompute=modes_of(recompute, len(counts)),
        stages=tuple(
            StageProfile(layers=count, time_s=tuple(row(index, size) for size in sizes))
            for index, count in enumerate(counts)
        ),
        shared=SharedCores.on(environment, workload.stages * workload.replicas),
    )
