"""A search rehearsed on paper: how many trials and steps it is likely to take, by the model's own uncertainty."""

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from autotune.config import SamplerName
from autotune.outcome import Measurement
from autotune.predict.record import Candidate, Prediction
from autotune.search.noise import PRIOR_NOISE
from autotune.search.prospects import Goal
from autotune.search.search import Limits, Search
from autotune.search.study import Study
from autotune.search.visits import STEPS

REHEARSALS = 3


class Cost(NamedTuple):
    """What a search takes: trials, real steps with the untimed first ones, seconds in these steps."""

    trials: float
    steps: float
    seconds: float


class PaperMachine:
    """Runs a candidate in its predicted time but for errors drawn from the prediction's uncertainty; takes no time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.common, self.overhead = self.random.gauss(0, 1), self.random.gauss(0, 1)
        self.placements: dict[tuple[int, bool], float] = {}
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
        times: list[float] = []
        for number in range(steps):
            times.append(truth * moment * self.random.lognormvariate(0.0, PRIOR_NOISE))
            if not keep_going(number, times[-1]):
                break
        self.seconds += truth + sum(times)
        return Measurement.of(tuple(times), candidate.sequences, None)


def rehearse(
    candidates: Sequence[Candidate],
    predictions: Sequence[Prediction],
    allowed: Sequence[int],
    limits: Limits,
    goal: Goal,
    sampler: SamplerName,
) -> Cost:
    """The mean cost of a few rehearsed searches, each in a study of its own that is thrown away."""
    costs = []
    for seed in range(REHEARSALS):
        machine = PaperMachine(seed)
        with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
            search = Search(
                candidates=list(candidates),
                predictions=list(predictions),
                allowed=list(allowed),
                study=Study(Path(folder), "rehearsal", list(candidates), fresh=True),
                measure=machine,
                limits=Limits(None, limits.trials, limits.exhaustive),  # no time passes on paper
                on_progress=lambda text: None,
                on_outcome=lambda search: None,
                on_warning=lambda text: None,
                goal=goal,
                sampler=sampler,
                seed=seed,
            )
            search.run()
        costs.append(Cost(search.trials, search.real_steps, machine.seconds))
    return Cost(*(mean(part) for part in zip(*costs, strict=True)))


def exhaustive_seconds(step_times_s: Sequence[float]) -> float:
    """Seconds to confirm every candidate: an untimed step and as many timed ones as a trial has at most."""
    return (1 + STEPS) * sum(step_times_s)
