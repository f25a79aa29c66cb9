"""The search against the truth: what its pick loses, and what it cost, on workloads that really differ."""

import tempfile
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from autotune.records.prediction import Candidate
from tests.bench.samplers import SAMPLERS, SEEDS, compare
from tests.bench.truth import Truth, find_truth
from tests.bench.workloads import A100, ALL_SCHEDULES, MEASURED, REAL, is_replayed


class Row(NamedTuple):
    """One workload: regret beyond the measurement's own; shares of the exhaustive search's real steps, and of its
    device time with profiling counted (None in a replay, whose stages were profiled elsewhere)."""

    regret: float
    steps: float
    seconds: float | None


def show(candidate: Candidate) -> str:
    """The schedule and m."""
    return f"{candidate.schedule:15} m = {candidate.micro_batches:2}"


def line(name: str, truth: Truth) -> Row:
    """Prints one workload."""
    search, spot = truth.report.search, truth.report.sweet_spot
    assert spot is not None
    regret, own = truth.regret(spot.candidate), truth.own_regret
    steps = search.real_steps / truth.exhaustive_steps
    seconds = None if is_replayed(name) else (search.profiling_s + search.steps_s) / truth.exhaustive_s
    time = f"  device {search.profiling_s:.1f} + {search.steps_s:.1f} s = {seconds:.0%}" if seconds else ""
    print(
        f"{name:19}{'replay' if is_replayed(name) else 'real':7}{len(truth.visits):3} candidates"
        f"  best {show(truth.candidates[truth.best()])}  pick {show(truth.candidates[spot.candidate])}"
        f"  regret {regret:6.2%} (own {own:5.2%})  sure {spot.certainty or 0:4.0%}"
        f"  steps {search.real_steps:3} = {steps:4.0%}{time}",
        flush=True,
    )
    return Row(regret - own, steps, seconds)


def summary(title: str, rows: list[Row], steps_goal: float, time_goal: float) -> None:
    """The figures with their goals."""
    regrets, steps = [row.regret for row in rows], [row.steps for row in rows]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    print(
        f"{title}: regret beyond the measurement's own: median {median(regrets):.2%} (goal 0.5 %), worst"
        f" {max(regrets):.2%} (goal 2 %);\n  steps {mean(steps):.0%} of the exhaustive ones, worst {max(steps):.0%}"
        f" (goal {steps_goal:.0%}); device time with profiling, where ranks compute: {mean(seconds):.0%}, worst"
        f" {max(seconds):.0%} (goal {time_goal:.0%})"
    )


def main() -> None:
    """Every workload in turn."""
    print("exhaustive: one untimed and five timed steps of every candidate, as autotune run --exhaustive makes them")
    groups = {"one schedule": [*REAL, *MEASURED, *A100], "all schedules": [*ALL_SCHEDULES]}
    rows: dict[str, list[Row]] = {title: [] for title in groups}
    ratios = []
    for title, names in groups.items():
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                truth = find_truth(name, Path(folder))
                rows[title].append(line(name, truth))
                ratios.append(compare(truth, Path(folder)))
    summary("one schedule", rows["one schedule"], 0.35, 0.60)
    summary("all schedules", rows["all schedules"], 0.15, 0.25)
    print(f"steps to come within 2 % of the best, drawn from the recorded ones, mean of {SEEDS} seeds:")
    for sampler in SAMPLERS[1:]:
        print(f"  {sampler} takes {mean(one[sampler] for one in ratios):.1f} times those of the cost model (goal 3)")


if __name__ == "__main__":
    main()
