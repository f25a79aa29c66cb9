"""Published sweeps over the micro-batch size: what a profile of one or two of its sizes says of the others.

A run gives a stage's time at one size: step / (m + p - 1), all stages alike and messages free. So profile and truth
share whatever else the step holds, and only the extrapolation over the size is tested.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from autotune.predict.predict import predict
from autotune.records.prediction import Basis, Candidate
from autotune.records.profile import Profile

FOLDER = Path(__file__).parent
FORWARD = 0.25  # of forward and backward with recomputation, which all but a few of these runs have


class Run(NamedTuple):
    """One run of a sweep."""

    m: int
    b: int
    step_s: float


class Sweep(NamedTuple):
    """Runs that differ in the micro-batch size alone, ascending in it. ``replicas``: data-parallel ones."""

    name: str
    stages: int
    replicas: int
    runs: tuple[Run, ...]


class Extrapolation(NamedTuple):
    """A run against what was predicted from others. ``known``: the sizes that were."""

    sweep: str
    known: tuple[int, ...]
    b: int
    step_s: float
    predicted_s: float
    low_s: float
    high_s: float
    basis: Basis

    @property
    def is_covered(self) -> bool:
        return self.low_s <= self.step_s <= self.high_s

    @property
    def error(self) -> float:
        return self.predicted_s / self.step_s - 1


def read(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def sweeps() -> tuple[Sweep, ...]:
    """Every group of ``runs/``; where a size was run twice, the mean."""
    found = []
    for group in read("runs/index.csv"):
        steps: dict[tuple[int, int], list[float]] = {}
        for row in read(f"runs/{group['file']}"):
            steps.setdefault((int(row["micro_batches"]), int(row["micro_batch_size"])), []).append(
                float(row["step_time_s"])
            )
        runs = sorted((Run(m, b, sum(all_) / len(all_)) for (m, b), all_ in steps.items()), key=lambda run: run.b)
        found.append(
            Sweep(group["file"].removesuffix(".csv"), int(group["stages"]), int(group["data_parallel"]), tuple(runs))
        )
    return tuple(found)


def profile_of(sweep: Sweep, known: tuple[Run, ...]) -> Profile:
    """A profile of the stage times that the known runs give."""
    rows = []
    for run in known:
        whole = run.step_s / (run.m + sweep.stages - 1)
        rows.append({"micro_batch_size": run.b, "t_f": FORWARD * whole, "t_bw": (1 - FORWARD) * whole})
    return Profile.model_validate({"stages": [{"time_s": rows}] * sweep.stages})


def predicted(sweep: Sweep, known: tuple[Run, ...], run: Run) -> Extrapolation:
    """One run from the known ones."""
    candidate = Candidate(
        micro_batches=run.m, micro_batch_size=run.b, sequences=run.m * run.b, schedule="1F1B", virtual_stages=1
    )
    one = predict(profile_of(sweep, known), candidate, None)
    return Extrapolation(
        sweep.name,
        tuple(other.b for other in known),
        run.b,
        run.step_s,
        one.step_time_s,
        one.step_time_low_s,
        one.step_time_high_s,
        one.basis,
    )


@cache
def extrapolations() -> tuple[Extrapolation, ...]:
    """Of every sweep, from each size and from each two neighbours, all sizes outside of them."""
    found = []
    for sweep in sweeps():
        runs = sweep.runs
        for count in (1, 2):
            for at in range(len(runs) - count + 1):
                known = runs[at : at + count]
                others = runs[:at] + runs[at + count :]
                found += [predicted(sweep, known, run) for run in others]
    return tuple(one for one in found if one.basis is Basis.EXTRAPOLATED)


def coverage(found: tuple[Extrapolation, ...]) -> float:
    """Share of the runs that lie within their intervals."""
    return sum(one.is_covered for one in found) / len(found)
