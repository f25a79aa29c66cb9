"""The search of a command, of which nothing is known but whole steps, on simulated commands whose truth is known."""

from math import exp
from random import Random
from statistics import mean, median

import pytest

from autotune.config import load_config
from autotune.events import Silent
from autotune.predict.predict import candidates_for
from autotune.records.job.workload import WorkloadFacts
from autotune.records.outcome import Measurement
from autotune.search.goal import STEPS, Limits
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.study import Study
from autotune.tuning.findings import goal_of
from autotune.tuning.learner import Learner

BATCH, START_S, LEAST_TIMED, SEEDS = 64, 8.0, 3, 4


class Command:
    """Steps of a pipeline of ``ranks`` that the formula fits more or less, by ``seed``; ``now_s`` is its clock."""

    def __init__(self, ranks, seed):
        self.random, self.now_s, self.spent_s = Random(seed), 0.0, 0.0
        counts = [m for m in range(1, BATCH + 1) if BATCH % m == 0]
        self.candidates = candidates_for(counts, ("1F1B",), (1,), ranks, ranks, BATCH)[0]
        granular, bubble, each = (self.drawn(*of) for of in ((0.3, 0.9), (1.3, 0.6), (0.001, 1.0)))
        own = self.random.choice((0.005, 0.015, 0.05))
        self.noise = self.random.choice((0.005, 0.01, 0.03))
        self.truth = {}
        for one in self.candidates:
            size, count = one.micro_batch_size, one.micro_batches
            moving = (count + bubble * (ranks - 1)) * 0.01 * (size + granular)
            self.truth[one] = (moving + each * count) * self.drawn(1.0, own)
        constant = self.drawn(0.05, 0.8) * min(self.truth.values())
        self.truth = {one: step + constant for one, step in self.truth.items()}

    def drawn(self, middle, spread):
        return middle * exp(self.random.gauss(0.0, spread))

    def __call__(self, candidate, expected_step_s, steps, keep_going):
        begun, usual, times = self.now_s, self.truth[candidate] * self.drawn(1.0, self.noise), []
        self.now_s += START_S + 2 * usual  # two steps until they are steady
        for number in range(steps):
            times.append(usual * self.drawn(1.0, 0.01))
            self.now_s += times[-1]
            if not keep_going(number, times[-1]) and number + 1 >= LEAST_TIMED:
                break
        self.spent_s += self.now_s - begun
        return Measurement.of(tuple(times), candidate.sequences, None)

    @property
    def exhaustive_s(self):
        return sum(START_S + (2 + STEPS) * step for step in self.truth.values())


def tuned(folder, ranks, seed):
    """What the pick loses, and the share of the device time of measuring every candidate."""
    command = Command(ranks, seed)
    learner = Learner(WorkloadFacts(stages=ranks, batch=BATCH), command.candidates, None)
    goal = goal_of(load_config(None, {"command": "train {micro_batches}"}))
    search = Runner(
        SearchState(dict(learner.nominal().pairs), goal=goal),
        Study(folder / f"{ranks}-{seed}", "simulated", command.candidates, True, None),
        command,
        Limits(),
        Silent(),
        lambda search: None,
        first=learner.first,
        learn=learner.believed,
        clock=lambda: command.now_s,
    )
    search.run()
    return command.truth[search.pick()] / min(command.truth.values()) - 1, command.spent_s / command.exhaustive_s


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_picks_lose_little_and_cost_less_than_measuring_everything(tmp_path, ranks):
    losses, shares = zip(*(tuned(tmp_path, ranks, seed) for seed in range(SEEDS)), strict=True)
    assert max(losses) <= 0.03
    assert mean(losses) <= 0.01
    assert median(shares) <= 0.6
