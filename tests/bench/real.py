"""Prediction against measurement on this machine: two and four ranks, three schedules, every divisor of 64.

Profiles and measurements alternate: each round visits every candidate once, in random order, and measures a fresh
profile before every few. Machines drift, so a candidate's error is the median of its rounds.
"""

import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import log2
from pathlib import Path
from statistics import linear_regression, median, quantiles

from autotune.backend.protocol import ProfileNeeds
from autotune.config import load_config
from autotune.events import Silent
from autotune.predict.predict import predict
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate
from autotune.search.belief.belief import Belief
from autotune.search.timing import Timing
from autotune.tuning.findings import profile_of
from autotune.tuning.job import Job, prepare_job

ROUNDS, STEPS = 6, 2
DRAWS = 500
GROUP = 5  # candidates visited with one profile
SCHEDULES = "GPipe,1F1B,Interleaved1F1B"
Key = tuple[int, str]


@dataclass(frozen=True)
class Pair:
    """One candidate in one round, seconds of a step; whether the first prediction's interval holds the measurement, and
    that of the last, which knows those visited before of its group; peak memory error of each rank."""

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


def one_round(stages: int, folder: Path, shuffle: random.Random) -> Iterator[Pair]:
    """A visit to every candidate of the default workload on ``stages`` ranks, in random order within each number of
    stages per rank; each group of a few has a profile measured just before."""
    flags = {"stages": stages, "schedule": SCHEDULES, "fresh": True, "device": "cpu", "state_dir": folder}
    job = prepare_job(load_config(None, flags), Silent())
    try:
        for needs in job.needs:
            of_cut = [one for one in job.candidates if one.virtual_stages == needs.virtual_stages]
            order = shuffle.sample(of_cut, len(of_cut))
            for start in range(0, len(order), GROUP):
                yield from visits(job, needs, order[start : start + GROUP])
    finally:
        job.backend.close()


def visits(job: Job, needs: ProfileNeeds, group: list[Candidate]) -> Iterator[Pair]:
    """A fresh profile, then a visit to each candidate of the group."""
    profile = profile_of(job, needs).profile
    predictions = [predict(profile, candidate, None) for candidate in group]
    belief = Belief(dict(zip(group, predictions, strict=True)))
    for number, (candidate, first) in enumerate(zip(group, predictions, strict=True)):
        last = belief.revisions()[candidate]
        real = job.backend.measure(candidate, first.step_time_s, STEPS, lambda *_: True)
        assert isinstance(real, Measurement), real
        assert first.peak_memory_bytes is not None
        assert real.peak_memory_bytes is not None
        belief.add(Timing(number, candidate, real.step_times_s, time.time()))
        peaks = zip(first.peak_memory_bytes, real.peak_memory_bytes, strict=True)
        yield Pair(
            key=(candidate.micro_batches, candidate.schedule),
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


def trend_interval(pairs: list[Pair]) -> tuple[float, float]:
    """Where the trend lies in 90 % of cases when the rounds are drawn again, with replacement (bootstrap)."""
    rounds: dict[Key, list[float]] = {}
    for one in pairs:
        rounds.setdefault(one.key, []).append(one.error)
    draw, slopes = random.Random(0), []
    for _ in range(DRAWS):
        numbers = draw.choices(range(ROUNDS), k=ROUNDS)
        slopes.append(trend((key[0], median(errors[n] for n in numbers)) for key, errors in rounds.items()))
    twentieths = quantiles(slopes, n=20)
    return twentieths[0], twentieths[-1]


def print_summary(pairs: list[Pair], errors: dict[Key, float]) -> None:
    """The figures with their goals."""
    sizes = [abs(error) for error in errors.values()]
    slope, (low, high) = trend((m, error) for (m, _), error in errors.items()), trend_interval(pairs)
    memory = [error for one in pairs for error in one.memory_errors]
    print(f"step time: median |error| {median(sizes):.1%} (goal 5 %), worst {max(sizes):.1%} (goal 15 %)")
    print(
        f"trend: {slope:+.2%} per doubling of m (goal within 1 %); resampling the rounds, 90 % lie between {low:+.2%}"
        f" and {high:+.2%}"
    )
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
    shuffle = random.Random(0)
    for _ in range(ROUNDS):
        for stages, pairs in found.items():
            with tempfile.TemporaryDirectory() as folder:
                pairs.extend(one_round(stages, Path(folder), shuffle))
    for stages, pairs in found.items():
        print(f"\nreal: {stages} ranks, {ROUNDS} rounds, predicted/measured")
        print_summary(pairs, print_pairs(pairs))


if __name__ == "__main__":
    main()
