"""Prediction against measurement on this machine: two and four ranks, three schedules, every divisor of 64.

Profile and measurements alternate: each round is one `autotune run --exhaustive --fresh`, as a user would make it, with
profiles of its own. Machines drift, so a candidate's error is the median of its rounds.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from math import log2
from pathlib import Path
from statistics import linear_regression, median

from autotune.report.record import CandidateReport, Report, read_report

ROUNDS = 3
SCHEDULES = "GPipe,1F1B,Interleaved1F1B"
Key = tuple[int, str]


@dataclass(frozen=True)
class Pair:
    """One candidate in one round, seconds of a step; peak memory error of each rank."""

    key: Key
    predicted: float
    measured: float
    is_covered: bool
    is_covered_again: bool
    memory_errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """(prediction - measurement) / measurement."""
        return self.predicted / self.measured - 1


def one_round(stages: int, folder: Path) -> Report:
    """Runs the default workload on ``stages`` ranks, confirming every candidate."""
    flags = ["--stages", str(stages), "--schedule", SCHEDULES, "--exhaustive", "--fresh", "--quiet"]
    subprocess.run([sys.executable, "-m", "autotune", "run", *flags], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return read_report(folder / "report.json")


def pair(row: CandidateReport) -> Pair:
    """Takes from the report's row what is compared."""
    first, last, real = row.prediction, row.last_prediction, row.measurement
    assert real is not None
    assert last is not None
    assert first.peak_memory_bytes is not None
    assert real.peak_memory_bytes is not None
    peaks = zip(first.peak_memory_bytes, real.peak_memory_bytes, strict=True)
    return Pair(
        key=(row.micro_batches, row.schedule),
        predicted=first.step_time_s,
        measured=real.step_time_s,
        is_covered=first.step_time_low_s <= real.step_time_s <= first.step_time_high_s,
        is_covered_again=last.step_time_low_s <= real.step_time_s <= last.step_time_high_s,
        memory_errors=tuple(mine / theirs - 1 for mine, theirs in peaks),
    )


def print_pairs(pairs: list[Pair]) -> dict[Key, float]:
    """One line per candidate, its rounds side by side; returns each candidate's median error."""
    errors = {}
    for key in sorted({one.key for one in pairs}, key=lambda key: (key[1], key[0])):
        mine = [one for one in pairs if one.key == key]
        errors[key] = median(one.error for one in mine)
        rounds = "  ".join(f"{one.predicted:6.3f}/{one.measured:6.3f} s {one.error:+6.1%}" for one in mine)
        memory = max((error for one in mine for error in one.memory_errors), key=abs)
        print(f"{key[1]:16} m = {key[0]:2}   {rounds}   median {errors[key]:+6.1%}   memory {memory:+.2%}")
    return errors


def trend(errors: Iterable[tuple[int, float]]) -> float:
    """How much the error grows with every doubling of m."""
    pairs = [(log2(m), error) for m, error in errors]
    return linear_regression(*zip(*pairs, strict=True)).slope


def print_summary(pairs: list[Pair], errors: dict[Key, float]) -> None:
    """The figures with their goals."""
    sizes = [abs(error) for error in errors.values()]
    slope = trend((m, error) for (m, _), error in errors.items())
    memory = [error for one in pairs for error in one.memory_errors]
    print(f"step time: median |error| {median(sizes):.1%} (goal 5 %), worst {max(sizes):.1%} (goal 15 %)")
    print(f"trend: {slope:+.2%} per doubling of m (goal within 1 %)")
    for what, hits in (
        ("first", [one.is_covered for one in pairs]),
        ("last", [one.is_covered_again for one in pairs]),
    ):
        print(
            f"90 % interval of the {what} prediction holds {sum(hits) / len(hits):.0%} of {len(hits)} (goal 80 to 97 %)"
        )
    print(
        f"peak memory: median |error| {median(map(abs, memory)):.2%} (goal 2 %), worst {max(memory, key=abs):+.2%}"
        f" (goal 5 %), lowest {min(memory):+.2%} (goal -2 %)"
    )


def main() -> None:
    """Runs the rounds of two and of four ranks in turn."""
    found: dict[int, list[Pair]] = {2: [], 4: []}
    for _ in range(ROUNDS):
        for stages, pairs in found.items():
            with tempfile.TemporaryDirectory() as folder:
                report = one_round(stages, Path(folder))
                pairs.extend(pair(row) for row in report.candidates)
    for stages, pairs in found.items():
        print(f"\nreal: {stages} ranks on {report.environment.cores} cores, {ROUNDS} rounds, predicted/measured")
        print_summary(pairs, print_pairs(pairs))


if __name__ == "__main__":
    main()
