"""A search on a simulated machine: how many trials and steps it is likely to take, by the model's own uncertainty."""

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from autotune.config import SamplerName
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate, Placement, Prediction
from autotune.search.belief.prior import STEP_NOISE
from autotune.search.goal import STEPS, Goal, Limits
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.study import MemoryStudy

SEARCHES = 3


class Cost(NamedTuple):
    """What a search takes: trials, real steps with the untimed first ones, seconds in these steps."""

    trials: float
    steps: float
    seconds: float


class SimulatedMachine:
    """Runs a candidate in its predicted time but for errors drawn from the prediction's uncertainty; ``seconds`` is its
    clock."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.common, self.overhead = self.random.gauss(0, 1), self.random.gauss(0, 1)
        self.placements: dict[Placement, float] = {}
        self.truths: dict[Candidate, float] = {}
        self.seconds = 0.0

    def __call__(
        self, candidate: Candidate, prediction: Prediction, steps: int, keep_going: Callable[[int, float], bool]
    ) -> Measurement:
        unsure = prediction.uncertainty
        shared = unsure.placement * self.placements.setdefault(candidate.placement, self.random.gauss(0, 1))
        shared += unsure.common * self.common + unsure.overhead * self.overhead
        error = shared + unsure.own * self.random.gauss(0, 1)
        moment = self.random.lognormvariate(0.0, unsure.moment)
        truth = self.truths.setdefault(candidate, prediction.step_time_s * max(0.5, 1 + error))
        self.seconds += truth
        times: list[float] = []
        for number in range(steps):
            times.append(truth * moment * self.random.lognormvariate(0.0, STEP_NOISE))
            self.seconds += times[-1]
            if not keep_going(number, times[-1]):
                break
        return Measurement.of(tuple(times), candidate.sequences, None)


def expected_cost(
    predictions: Mapping[Candidate, Prediction],
    excluded: Mapping[Candidate, str],
    limits: Limits,
    goal: Goal,
    sampler: SamplerName,
) -> Cost:
    """Return the mean cost of a few searches on simulated machines, each in a study that is kept in memory alone."""
    costs = []
    for seed in range(SEARCHES):
        machine = SimulatedMachine(seed)
        runner = Runner(
            state=SearchState(dict(predictions), dict(excluded), goal),
            study=MemoryStudy(list(predictions)),
            measure=machine,
            limits=Limits(None, limits.trials, limits.exhaustive),
            on_progress=lambda text: None,
            on_outcome=lambda runner: None,
            on_warning=lambda text: None,
            sampler=sampler,
            seed=seed,
            clock=lambda machine=machine: machine.seconds,  # type: ignore[misc]
        )
        runner.run()
        costs.append(Cost(runner.state.trials, runner.state.real_steps, machine.seconds))
    return Cost(*(mean(part) for part in zip(*costs, strict=True)))


def exhaustive_seconds(step_times_s: Sequence[float]) -> float:
    """Return seconds to confirm every candidate: an untimed step and as many timed ones as a visit has at most."""
    return (1 + STEPS) * sum(step_times_s)
