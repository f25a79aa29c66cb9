"""The truth about a workload: every candidate measured in turns, in random order, round by round."""

import random
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from autotune.config import load_config
from autotune.job import Events, Job, prepare_job
from autotune.pipeline.commands import Prepare
from autotune.pipeline.measure import measure_candidate
from autotune.pipeline.outcome import Measurement
from autotune.predict.record import Candidate
from autotune.profile.replay import waits_for
from autotune.report.record import Report
from autotune.tune import tune
from tests.bench.workloads import flags_of

ROUNDS, STEPS = 4, 2


@dataclass(frozen=True)
class Truth:
    """``visits[index][round]``: the timed steps of each candidate that may be tried, by round; ``report``: of a
    search that was made just before. ``steps``: what measuring all of them took, untimed first steps included."""

    report: Report
    candidates: list[Candidate]
    visits: dict[int, list[tuple[float, ...]]]
    steps: int

    def rate(self, index: int, rounds: slice = slice(None)) -> float:
        """Sequences per second: by the median of the rounds, each the median of its steps."""
        return self.candidates[index].sequences / median(median(steps) for steps in self.visits[index][rounds])

    def best(self, rounds: slice = slice(None)) -> int:
        """The fastest."""
        return max(self.visits, key=lambda index: self.rate(index, rounds))

    def regret(self, index: int, rounds: slice = slice(None)) -> float:
        """Share of the best throughput that a pick loses."""
        return 1 - self.rate(index, rounds) / self.rate(self.best(rounds), rounds)

    @property
    def own_regret(self) -> float:
        """What the exhaustive measurement itself loses: the mean regret of each round's best, by the other rounds."""
        rounds = range(len(next(iter(self.visits.values()))))
        others = [[other for other in rounds if other != one] for one in rounds]
        losses = []
        for one, rest in zip(rounds, others, strict=True):
            pick = self.best(slice(one, one + 1))
            rates = {
                index: self.candidates[index].sequences / median(median(steps[other]) for other in rest)
                for index, steps in self.visits.items()
            }
            losses.append(1 - rates[pick] / max(rates.values()))
        return sum(losses) / len(losses)

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
    report = tune(config, Events())
    job = prepare_job(config, Events())
    allowed = [index for index, row in enumerate(report.candidates) if row.excluded is None]
    visits: dict[int, list[tuple[float, ...]]] = {index: [] for index in allowed}
    shuffle = random.Random(0)
    try:
        for _ in range(ROUNDS):
            # By cut, for the model must be built anew when it changes; within that in random order.
            order = sorted(shuffle.sample(allowed, len(allowed)), key=lambda index: cut_of(job.candidates[index]))
            for index in order:
                visits[index].append(visit(job, report, index))
    finally:
        job.ranks.stop()
    steps = len(allowed) * ROUNDS * (1 + STEPS)
    return Truth(report, job.candidates, visits, steps)


def cut_of(candidate: Candidate) -> str:
    """What decides how the model must lie on the ranks."""
    return str(Prepare(**candidate.model_dump()).cut)


def visit(job: Job, report: Report, index: int) -> tuple[float, ...]:
    """The timed steps of one visit."""
    candidate, expected = job.candidates[index], report.candidates[index].prediction.step_time_s
    waits = waits_for(report.profile, candidate.micro_batch_size) if job.recorded else ()
    plan = Prepare(**candidate.model_dump(), waits=waits)
    outcome = measure_candidate(job.ranks, job.workload, plan, expected, STEPS, lambda *_: True)
    assert isinstance(outcome, Measurement), outcome
    return outcome.step_times_s
