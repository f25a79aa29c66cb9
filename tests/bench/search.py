"""The search against the truth: what its pick loses, and what it cost, on workloads that really differ."""

import tempfile
from pathlib import Path
from statistics import mean, median

from tests.bench.samplers import SAMPLERS, SEEDS, compare
from tests.bench.truth import Truth, find_truth
from tests.bench.workloads import ALL_SCHEDULES, REAL, REPLAYED


def line(name: str, truth: Truth) -> tuple[float, float, float]:
    """Prints one workload; returns the regret, the share of real steps, the share of device time."""
    report = truth.report
    spot = report.sweet_spot
    assert spot is not None
    regret, own = truth.regret(spot.candidate), truth.own_regret
    steps = report.search.real_steps / truth.exhaustive_steps
    seconds = (report.search.profiling_s + report.search.steps_s) / truth.exhaustive_s
    best, pick = truth.candidates[truth.best()], truth.candidates[spot.candidate]
    print(
        f"{name:23}{len(truth.visits):3} candidates  best {best.schedule:15} m = {best.micro_batches:2}"
        f"  pick {pick.schedule:15} m = {pick.micro_batches:2}  regret {regret:6.2%} (own {own:5.2%})"
        f"  sure {report.search.confidence or 0:4.0%}  steps {report.search.real_steps:3} = {steps:4.0%}"
        f"  device {report.search.profiling_s:5.1f} + {report.search.steps_s:5.1f} s = {seconds:4.0%}",
        flush=True,
    )
    return max(0.0, regret - own), steps, seconds


def summary(title: str, rows: list[tuple[float, float, float]], steps_goal: float, time_goal: float) -> None:
    """The figures with their goals."""
    regrets, steps, seconds = ([row[column] for row in rows] for column in range(3))
    print(
        f"{title}: regret beyond the measurement's own: median {median(regrets):.2%} (goal 0.5 %), worst"
        f" {max(regrets):.2%} (goal 2 %);\n  steps {mean(steps):.0%} of the exhaustive ones, worst {max(steps):.0%}"
        f" (goal {steps_goal:.0%}); device time with profiling {mean(seconds):.0%}, worst {max(seconds):.0%}"
        f" (goal {time_goal:.0%})"
    )


def main() -> None:
    """Every workload in turn."""
    print("exhaustive: one untimed and five timed steps of every candidate, as autotune run --exhaustive makes them")
    groups = {"one schedule": [*REAL, *REPLAYED], "all schedules": [*ALL_SCHEDULES]}
    rows: dict[str, list[tuple[float, float, float]]] = {title: [] for title in groups}
    ratios = []
    for title, names in groups.items():
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                truth = find_truth(name, Path(folder))
                rows[title].append(line(name, truth))
                ratios.append(compare(name, truth, Path(folder)))
    summary("one schedule", rows["one schedule"], 0.35, 0.60)
    summary("all schedules", rows["all schedules"], 0.15, 0.25)
    print(f"steps to come within 2 % of the best, drawn from the recorded ones, mean of {SEEDS} seeds:")
    for sampler in SAMPLERS[1:]:
        print(f"  {sampler} takes {mean(one[sampler] for one in ratios):.1f} times those of the cost model (goal 3)")


if __name__ == "__main__":
    main()
