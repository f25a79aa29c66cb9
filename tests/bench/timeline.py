"""Recorded steps of waiting ranks against their predicted timelines: when does each action begin?

The ranks, schedules and messages of the ``replay`` part, one calibration for each number of ranks and stages.
"""

from statistics import median

from autotune.backend.replay import replay_stages
from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import record_steps
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.predict import stage_costs
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import simulate
from autotune.tuning.recorded import recorded_step
from tests.bench.replay import candidates, made_ready

RANKS, STEPS = (2, 4, 8), 1


def main() -> None:
    """One line for each candidate, then the median of all."""
    medians, worst = [], []
    for ranks in RANKS:
        for virtual_stages in (1, 2):
            with Ranks(ranks, "cpu") as live:
                workload, profile = made_ready(ranks, virtual_stages, "unequal", live)
                for candidate in candidates(ranks, virtual_stages):
                    schedule = build_schedule(candidate.schedule, ranks, candidate.micro_batches, virtual_stages)
                    timeline = simulate(schedule, stage_costs(profile, 1, schedule))
                    plan = Prepare(**candidate.model_dump(), replay=replay_stages(profile, 1))
                    steps = record_steps(live, workload, plan, timeline.makespan, STEPS)
                    starts = [start for row in recorded_step(0, schedule, steps).starts_s for start in row]
                    off = [
                        abs(real - mine) / timeline.makespan
                        for real, mine in zip(starts, timeline.starts.tolist(), strict=True)
                    ]
                    medians.append(median(off))
                    worst.append(max(off))
                    print(
                        f"p = {ranks} {candidate.schedule:21} m = {candidate.micro_batches:3}  {len(off):5} actions:"
                        f" median {medians[-1]:6.2%} of the step, most {worst[-1]:6.2%}",
                        flush=True,
                    )
    print(f"{len(medians)} candidates: actions begin {median(medians):.2%} of the step from where they were predicted")
    print(f"to, in the median; the worst candidate's median is {max(medians):.2%}, the worst action {max(worst):.2%}")


if __name__ == "__main__":
    main()
