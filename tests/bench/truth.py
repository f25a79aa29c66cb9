"""The truth about a workload: every candidate measured in turns, in random order, round by round.

These machines drift by more than candidates differ. What drifts from round to round cancels, because every round's
times are taken relative to its own pace, the geometric mean over all candidates; against the rest only more rounds
help.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import geometric_mean, mean, median

from autotune.config import load_config
from autotune.events import Silent
from autotune.pipeline.control.commands import Prepare
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate
from autotune.records.report import Report
from autotune.tune import tune
from autotune.tuning.job import Job, prepare_job
from tests.bench.workloads import flags_of, is_replayed

COMPUTING_ROUNDS, REPLAY_ROUNDS, STEPS = 8, 4, 2


@dataclass(frozen=True)
class Truth:
    """``visits[index][round]``: the timed steps of each candidate that may be tried, by round; ``report``: of a
    search that was made just before."""

    report: Report
    candidates: list[Candidate]
    visits: dict[int, list[tuple[float, ...]]]

    @cached_property
    def times(self) -> dict[int, list[float]]:
        """Seconds of a step of each candidate by round, at the mean pace of all rounds."""
        seen = {index: [median(steps) for steps in visits] for index, visits in self.visits.items()}
        paces = [geometric_mean(times) for times in zip(*seen.values(), strict=True)]
        usual = geometric_mean(paces)
        return {
            index: [time * usual / pace for time, pace in zip(times, paces, strict=True)]
            for index, times in seen.items()
        }

    def rate(self, index: int, rounds: Collection[int] | None = None) -> float:
        """Sequences per second, by the median of the rounds."""
        return self.candidates[index].sequences / median(
            time for number, time in enumerate(self.times[index]) if rounds is None or number in rounds
        )

    def best(self, rounds: Collection[int] | None = None) -> int:
        """The fastest."""
        return max(self.visits, key=lambda index: self.rate(index, rounds))

    def regret(self, index: int, rounds: Collection[int] | None = None) -> float:
        """Share of the best throughput that a pick loses."""
        return 1 - self.rate(index, rounds) / self.rate(self.best(rounds), rounds)

    @property
    def own_regret(self) -> float:
        """What the exhaustive measurement itself loses: the mean regret of each round's best, by the other rounds."""
        rounds = range(len(next(iter(self.visits.values()))))
        return mean(self.regret(self.best([one]), [other for other in rounds if other != one]) for one in rounds)

    @property
    def exhaustive_steps(self) -> int:
        """What ``--exhaustive`` takes without its final: one untimed and five timed steps of every candidate."""
        return 6 * len(self.visits)

    @property
    def exhaustive_s(self) -> float:
        """The seconds of these steps."""
        return sum(6 * self.candidates[index].sequences / self.rate(index) for index in self.visits)


def find_truth(name: str, folder: Path) -> Truth:
    """A search as a user would make it, then every candidate that it was allowed to try, in turns."""
    config = load_config(None, flags_of(name, folder))
    report = tune(config, Silent())
    job = prepare_job(config, Silent())
    allowed = [index for index, row in enumerate(report.candidates) if row.excluded is None]
    visits: dict[int, list[tuple[float, ...]]] = {index: [] for index in allowed}
    shuffle, rounds = random.Random(0), REPLAY_ROUNDS if is_replayed(name) else COMPUTING_ROUNDS
    try:
        for _ in range(rounds):
            # By placement, because the model must be built anew when it changes; within that in random order.
            order = sorted(shuffle.sample(allowed, len(allowed)), key=lambda index: cut_of(job.candidates[index]))
            for index in order:
                visits[index].append(visit(job, report, index))
    finally:
        job.backend.close()
    return Truth(report, job.candidates, visits)


def cut_of(candidate: Candidate) -> str:
    """What decides how the model must lie on the ranks."""
    return str(Prepare(**candidate.model_dump()).placement)


def visit(job: Job, report: Report, index: int) -> tuple[float, ...]:
    """The timed steps of one visit."""
    candidate, expected = job.candidates[index], report.candidates[index].prediction.step_time_s
    outcome = job.backend.measure(candidate, expected, STEPS, lambda *_: True)
    assert isinstance(outcome, Measurement), outcome
    return outcome.step_times_s
