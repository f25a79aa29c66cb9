"""The same study driven by our sampler and by Optuna's: real steps until the pick is within 2 % of the best.

Real ranks measured every candidate (``tests.bench.truth``); the samplers draw their steps from these recorded ones, so
that five seeds of each take a minute. What is compared are steps, untimed first ones included, not seconds.
"""

import random
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import mean

from autotune.config import SamplerName
from autotune.events import Silent
from autotune.records.exclusion import Exclusion, ExclusionReason
from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.prediction import Candidate
from autotune.records.verdict import Stop
from autotune.search.choose import most_promising
from autotune.search.goal import Limits
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.study import Study
from tests.bench.truth import Truth

SAMPLERS: tuple[SamplerName, ...] = ("cost-model", "tpe", "gp", "random")
SEEDS, NEAR = 5, 0.02


class Found(Exception):
    """The pick is near enough."""


class UntilFound(Runner):
    """Goes on while candidates are left: when to stop is not what is compared."""

    def next(self) -> Candidate | Stop:
        found = super().next()
        untried = self.state.untried
        return most_promising(self.belief, untried) if isinstance(found, Stop) and untried else found


def steps_needed(truth: Truth, sampler: SamplerName, seed: int, folder: Path) -> int:
    """Real steps until a trial ends with a pick that is near the best; all of them if none does."""
    draw = random.Random(seed)

    def measure(candidate: Candidate, expected_step_s: float, steps: int, keep_going: KeepGoing) -> Measurement:
        seen = list(chain.from_iterable(truth.visits[truth.candidates.index(candidate)]))
        times: list[float] = []
        for number in range(steps):
            times.append(draw.choice(seen))
            if not keep_going(number, times[-1]):
                break
        peaks = truth.report.candidates[truth.candidates.index(candidate)].prediction.peak_memory_bytes
        return Measurement.of(tuple(times), candidate.sequences, None, peak_memory_bytes=peaks)

    def on_outcome(search: Runner) -> None:
        winner = search.pick()
        if winner is not None and truth.regret(truth.candidates.index(winner)) <= NEAR:
            raise Found

    search = UntilFound(
        state=SearchState(
            predictions={
                candidate: row.prediction
                for candidate, row in zip(truth.candidates, truth.report.candidates, strict=True)
            },
            excluded={
                one: Exclusion(reason=ExclusionReason.MEMORY)
                for index, one in enumerate(truth.candidates)
                if index not in truth.visits
            },
        ),
        study=Study(folder / f"{sampler}-{seed}", "recorded", truth.candidates, True),
        measure=measure,
        limits=Limits(),
        events=Silent(),
        on_outcome=on_outcome,
        sampler=sampler,
        seed=seed,
    )
    with suppress(Found):
        search.run()
    return search.state.real_steps


def compare(truth: Truth, folder: Path) -> dict[str, float]:
    """Prints what each sampler needs on one workload, and returns how many times the steps of the cost model."""
    needed = {
        sampler: mean(steps_needed(truth, sampler, seed, folder) for seed in range(SEEDS)) for sampler in SAMPLERS
    }
    shown = "  ".join(f"{sampler} {steps:5.1f}" for sampler, steps in needed.items())
    print(f"{'':18} steps to within 2 %: {shown}", flush=True)
    return {sampler: steps / needed["cost-model"] for sampler, steps in needed.items()}
