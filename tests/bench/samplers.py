"""The same study driven by our sampler and by Optuna's: real steps until the pick is within 2 % of the best.

Real ranks measured every candidate (``tests.bench.truth``); the samplers draw their steps from these recorded ones, so
that five seeds of each take a minute. What is compared are steps, untimed first ones included, not seconds.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import mean

from autotune.config import SamplerName
from autotune.outcome import Measurement
from autotune.predict.record import Candidate, Prediction
from autotune.search.search import Limits, Search
from autotune.search.study import Study
from tests.bench.truth import Truth

SAMPLERS: tuple[SamplerName, ...] = ("cost-model", "tpe", "gp", "random")
SEEDS, NEAR = 5, 0.02


class Found(Exception):
    """The pick is near enough."""


class UntilFound(Search):
    """Goes on while candidates are left: when to stop is not what is compared."""

    def goes_on(self) -> bool:
        return bool(self.untried)


def steps_needed(truth: Truth, sampler: SamplerName, seed: int, folder: Path) -> int:
    """Real steps until a trial ends with a pick that is near the best; all of them if none does."""
    draw = random.Random(seed)

    def measure(
        candidate: Candidate, prediction: Prediction, steps: int, keep_going: Callable[[int, float], bool]
    ) -> Measurement:
        seen = list(chain.from_iterable(truth.visits[truth.candidates.index(candidate)]))
        times: list[float] = []
        for number in range(steps):
            times.append(draw.choice(seen))
            if not keep_going(number, times[-1]):
                break
        return Measurement.of(tuple(times), candidate.sequences, None, peak_memory_bytes=prediction.peak_memory_bytes)

    def on_outcome(search: Search) -> None:
        winner = search.pick()
        if winner is not None and truth.regret(winner) <= NEAR:
            raise Found

    search = UntilFound(
        candidates=truth.candidates,
        predictions=[row.prediction for row in truth.report.candidates],
        allowed=list(truth.visits),
        study=Study(folder / f"{sampler}-{seed}", "recorded", truth.candidates, True),
        measure=measure,
        limits=Limits(),
        on_progress=lambda text: None,
        on_outcome=on_outcome,
        on_warning=lambda text: None,
        sampler=sampler,
        seed=seed,
    )
    with suppress(Found):
        search.run()
    return search.real_steps


def compare(truth: Truth, folder: Path) -> dict[str, float]:
    """Prints what each sampler needs on one workload, and returns how many times the steps of the cost model."""
    needed = {
        sampler: mean(steps_needed(truth, sampler, seed, folder) for seed in range(SEEDS)) for sampler in SAMPLERS
    }
    shown = "  ".join(f"{sampler} {steps:5.1f}" for sampler, steps in needed.items())
    print(f"{'':18} steps to within 2 %: {shown}", flush=True)
    return {sampler: steps / needed["cost-model"] for sampler, steps in needed.items()}
