"""Replaying a recorded profile: real ranks and messages here, each stage's compute replaced by waiting as long."""

from datetime import UTC, datetime

from autotune.pipeline.control.commands import ReplayStage
from autotune.pipeline.control.ranks import Ranks
from autotune.profile.measure import Measurer, Warn, waiting
from autotune.records.environment import Environment
from autotune.records.prediction import Placement
from autotune.records.profile import ROUNDS, Calibration, Profile, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.records.workload import WorkloadConfig


def replayed_device(recorded: Environment) -> str:
    """Return ``replay of cuda (NVIDIA A100)``: what stands wherever a reader could take the figures for the device's
    own."""
    names = sorted(set(recorded.devices))
    return f"replay of {recorded.device or 'a hand-written profile'}" + (f" ({', '.join(names)})" if names else "")


def replay_workload(profile: Profile, batch: int) -> WorkloadConfig:
    """Return what the ranks are told to build: a model of no size, for the stages only wait."""
    return WorkloadConfig(
        layers=len(profile.stages),
        stages=profile.ranks,
        hidden=1,
        heads=1,
        seq_len=1,
        vocab=2,
        batch=batch,
        precision="fp32",
        optimizer="none",
    )


def as_waited(stage: StageProfile) -> StageProfile:
    """Return the stage as one that waits instead of computing: its fused backward is the sum of the halves where both
    are known, and it starts no kernels."""

    def row(times: StageTime) -> StageTime:
        return times.model_copy(update={"host_s": None} | ({"t_bw": None} if times.t_b is not None else {}))

    return stage.model_copy(update={"time_s": tuple(map(row, stage.time_s))})


def replayed_profile(
    recorded: Profile, ranks: Ranks, environment: Environment, sizes: tuple[int, ...], warn: Warn
) -> Profile:
    """Return the recorded stage times, with the links and the runtime's cost as they are here, where the ranks really
    run."""
    placement = Placement(virtual_stages=recorded.virtual_stages)
    measurer = Measurer(ranks, replay_workload(recorded, recorded.ranks), placement, sizes, False, warn, output_bytes=0)
    messages = [recorded.message_size(size) for size in sizes]
    links = measurer.retry_once(lambda: measurer.links(messages))
    wait = waiting(messages[0])
    runs = [
        measurer.retry_once(lambda: measurer.calibration(sizes[0], 2 * recorded.ranks, wait)) for _ in range(ROUNDS)
    ]
    return recorded.model_copy(
        update={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment,
            "stages": tuple(as_waited(stage) for stage in recorded.stages),
            "links": tuple(links),
            "shared": None,
            "drift": 0.0,
            "calibrations": (Calibration.merged(runs),),
            "step_overhead_s": 0.0,
            "host_action_s": measurer.retry_once(measurer.host_action),
        }
    )


def replay_stages(profile: Profile, micro_batch_size: int) -> tuple[ReplayStage, ...]:
    """Return how long each stage waits for a micro-batch of this size, and what it sends."""

    def row(stage: StageProfile) -> ReplayStage:
        def seconds(name: str) -> float:
            return stage.seconds(micro_batch_size, lambda times: float(getattr(times, name)))

        return ReplayStage(
            t_f=seconds("t_f"),
            t_b=seconds("input_gradient"),
            t_w=seconds("weight_gradient"),
            optimizer_s=stage.optimizer_s,
            message_bytes=profile.message_size(micro_batch_size),
        )

    return tuple(row(stage) for stage in profile.stages)
