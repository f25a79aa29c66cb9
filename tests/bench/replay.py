"""Prediction against real ranks that only wait: every schedule, equal and unequal stages, no noise of computing.

Stage times are made up, like those published for A100s: 12 to 36 ms for a forward, half as long where a rank has two
stages. Ranks, torch's schedules and messages are real. A figure is the median of rounds with a calibration of their
own, because the machine's own pace drifts.
"""

from collections.abc import Iterator
from itertools import product
from statistics import median
from typing import get_args

from autotune.backend.replay import replay_stages, replay_workload, replayed_profile
from autotune.config import ScheduleName
from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.calibrate import calibrated
from autotune.predict.predict import predict
from autotune.records.job.environment import Environment
from autotune.records.job.placement import Placement
from autotune.records.job.workload import WorkloadConfig
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate
from autotune.records.profile import MessageSize, Profile, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.schedule_spec import SCHEDULES, why_illegal

STEPS, ROUNDS = 1, 3
MESSAGE_BYTES = 256 * 1024


Key = tuple[int, str, str, int]
"""Ranks, shape, schedule, micro-batches."""


def recorded(ranks: int, virtual_stages: int, shape: str) -> Profile:
    """A profile of equal stages, or of stages that differ by up to three times, with a split backward."""
    stages = ranks * virtual_stages
    factors = [1.0 if shape == "equal" else (0.75, 1.5, 1.0, 0.5)[stage % 4] for stage in range(stages)]
    unit = 0.024 / virtual_stages
    return Profile(
        virtual_stages=virtual_stages,
        stages=tuple(
            StageProfile(
                time_s=(StageTime(micro_batch_size=1, t_f=unit * f, t_b=unit * f, t_w=unit * f * 0.75),),
                optimizer_s=0.002,
            )
            for f in factors
        ),
        message_bytes=(MessageSize(micro_batch_size=1, bytes=MESSAGE_BYTES),),
    )


def candidates(ranks: int, virtual_stages: int) -> Iterator[Candidate]:
    """Every schedule of so many stages per rank, m in p, 2p, 4p, 8p, where torch runs it."""
    for name in get_args(ScheduleName):
        if SCHEDULES[name].has_one_stage != (virtual_stages == 1):
            continue
        for m in (ranks, 2 * ranks, 4 * ranks, 8 * ranks):
            if why_illegal(name, ranks, virtual_stages, m) is None:
                yield Candidate(
                    micro_batches=m, micro_batch_size=1, sequences=m, schedule=name, virtual_stages=virtual_stages
                )


def made_ready(ranks: int, virtual_stages: int, shape: str, live: Ranks) -> tuple[WorkloadConfig, Profile]:
    """Builds the waiting stages; what the ranks were told to build, and the profile with this machine's links and
    overheads."""
    profile = recorded(ranks, virtual_stages, shape)
    workload = replay_workload(profile, batch=ranks)
    build(live, workload, Placement(virtual_stages=virtual_stages))
    return workload, calibrated(replayed_profile(profile, live, Environment(device="replay"), (1,), print))


def one_round(
    ranks: int, virtual_stages: int, shape: str, live: Ranks
) -> Iterator[tuple[Key, float, tuple[float, ...]]]:
    """Measures links and the runtime's cost, then every candidate; gives its predicted step and its measured ones."""
    workload, profile = made_ready(ranks, virtual_stages, shape, live)
    for candidate in candidates(ranks, virtual_stages):
        prediction = predict(profile, candidate, None)
        plan = Prepare(**candidate.model_dump(), replay=replay_stages(profile, 1))
        outcome = measure_candidate(live, workload, plan, prediction.step_time_s, STEPS, lambda *_: True)
        assert isinstance(outcome, Measurement), outcome
        key = (ranks, shape, candidate.schedule, candidate.micro_batches)
        yield key, prediction.step_time_s, outcome.step_times_s


def main(counts: tuple[int, ...] = (2, 4, 8)) -> None:
    """Prints one line per candidate, then the median and the worst error."""
    predicted: dict[Key, list[float]] = {}
    measured: dict[Key, list[float]] = {}
    for ranks, shape, virtual_stages, _ in product(counts, ("equal", "unequal"), (1, 2), range(ROUNDS)):
        with Ranks(ranks, "cpu") as live:
            for key, prediction, steps in one_round(ranks, virtual_stages, shape, live):
                predicted.setdefault(key, []).append(prediction)
                measured.setdefault(key, []).extend(steps)
    errors = []
    for key in predicted:
        mine, real = median(predicted[key]), median(measured[key])
        errors.append(mine / real - 1)
        print(f"p = {key[0]} {key[1]:7} {key[2]:21} m = {key[3]:3} {mine:8.4f} s {real:8.4f} s {errors[-1]:+6.2%}")
    sizes = sorted(map(abs, errors))
    print(f"{len(sizes)} candidates, {ROUNDS} rounds of {STEPS} steps: median |error| {median(sizes):.2%} (goal 2 %),")
    print(f"worst {sizes[-1]:.2%} (goal 5 %)")


if __name__ == "__main__":
    main()
