"""The sweet spot in a report: which rule decided, the knee, the ties in words, the Pareto front, the drift."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Literal

from autotune.outcome import Measurement
from autotune.report.record import Drift, KneeReport, Neighbour, ParetoPoint, SweetSpot
from autotune.report.units import show_bytes, show_seconds
from autotune.search.choose import eligible, fastest, find_knee, pareto_front
from autotune.search.prospects import Standing
from autotune.search.search import LEAST_STEPS, Search
from autotune.search.space import show


def source(search: Search, index: int) -> Literal["measured", "predicted"]:
    """Where the candidate's standing comes from."""
    return "measured" if index in search.measured else "predicted"


def all_standings(search: Search) -> dict[int, Standing]:
    """Of what ran and of what might have."""
    return search.predicted_standings() | search.standings()


def sweet_spot(search: Search, winner: int, memory_limit: int | None) -> SweetSpot:
    """The recommendation."""
    candidate, best = search.candidates[winner], search.measured[winner]
    standings = search.standings()
    naive = [search.rate(index) for index in standings if search.candidates[index].micro_batches == 1]
    peaks = best.device_memory_bytes or best.peak_memory_bytes
    return SweetSpot(
        candidate=winner,
        micro_batches=candidate.micro_batches,
        micro_batch_size=candidate.micro_batch_size,
        schedule=candidate.schedule,
        virtual_stages=candidate.virtual_stages,
        throughput_seq_s=best.throughput_seq_s,
        speedup_over_naive=search.rate(winner) / max(naive) if naive else None,
        memory_headroom_bytes=tuple(memory_limit - peak for peak in peaks) if peaks and memory_limit else None,
        reason=reason(search, winner, standings),
        confirmed=True,
        knee=knee(search, winner),
        ties=ties(search, winner, standings),
    )


def reason(search: Search, winner: int, standings: Mapping[int, Standing]) -> str:
    """One sentence: which rule decided."""
    if len(standings) == 1:
        return "it is the only candidate that was measured"
    others = [index for index in eligible(standings, search.goal) if index != winner]
    names = ", ".join(show(search.candidates[index]) for index in others)
    top = fastest(standings)
    assert top is not None
    if search.goal.objective == "memory":
        lag = 1 - standings[winner].rate / standings[top].rate
        behind = f"only {lag:.1%} slower than {show(search.candidates[top])}" if lag else "the fastest as well"
        return f"it needs the least memory of those within {search.goal.tolerance:.0%} of the best, and is {behind}"
    if not others:
        next_best = max((index for index in standings if index != winner), key=search.rate)
        mine, next_rate = search.rate(winner), search.rate(next_best)
        if mine >= next_rate:
            return f"highest measured throughput, {mine / next_rate - 1:.1%} above the next"
        return (
            f"highest throughput by its steps and the model together: those of {show(search.candidates[next_best])}"
            f" were {next_rate / mine - 1:.1%} faster, but too few, on so noisy a machine, to outweigh the model"
        )
    saved = spared(standings[winner], *(standings[index] for index in others))
    if not saved or saved <= 0:
        return f"tied with {names} within the noise, and none of these needs less memory"
    return f"tied with {names} within the noise, and needs {show_bytes(saved)} less memory than the next"


def spared(mine: Standing, *others: Standing) -> int | None:
    """Bytes between the candidate and the leanest of the others; None where memory is not known."""
    peaks = [one.peak for one in others if one.peak is not None]
    return min(peaks) - mine.peak if peaks and mine.peak is not None else None


def ties(search: Search, winner: int, standings: Mapping[int, Standing]) -> tuple[str, ...]:
    """``m = 16 and m = 32 are within the noise; 16 needs 1.2 GiB less.``, one for each that is tied with the winner."""
    if search.goal.objective == "memory":
        return ()
    words = []
    for index in eligible(standings, search.goal):
        if index == winner:
            continue
        one, other = search.candidates[winner], search.candidates[index]
        is_alike = (one.schedule, one.virtual_stages) == (other.schedule, other.virtual_stages)
        names = [f"m = {c.micro_batches}" if is_alike else show(c) for c in (one, other)]
        saved = spared(standings[winner], standings[index])
        first = str(one.micro_batches) if is_alike else names[0]
        rest = f"; {first} needs {show_bytes(saved)} less" if saved else ""
        words.append(f"{names[0]} and {names[1]} are within the noise{rest}.")
    return tuple(words)


def knee(search: Search, winner: int) -> KneeReport:
    """The knee and what one step to either side would lose, measured or predicted."""
    standings = all_standings(search)
    found = find_knee(winner, search.candidates, standings)

    def neighbour(index: int) -> Neighbour:
        return Neighbour(
            candidate=index,
            micro_batches=search.candidates[index].micro_batches,
            loss=1 - standings[index].rate / found.best,
            source=source(search, index),
        )

    return KneeReport(
        at=neighbour(found.index),
        fewer=neighbour(found.fewer) if found.fewer is not None else None,
        more=neighbour(found.more) if found.more is not None else None,
    )


def pareto_points(search: Search) -> tuple[ParetoPoint, ...]:
    """The front of throughput and memory over everything that ran or might have."""
    alone = {index: replace(one, rate=search.rate(index)) for index, one in search.standings().items()}
    standings = search.predicted_standings() | alone
    return tuple(
        ParetoPoint(
            candidate=index,
            throughput_seq_s=standings[index].rate,
            peak_memory_bytes=standings[index].peak or 0,
            source=source(search, index),
        )
        for index in pareto_front(standings)
    )


def so_far(search: Search) -> str:
    """What is known while the search goes on: the pick, how sure it is, and how long it may still take."""
    pick, outlook, limits = search.pick(), search.outlook(), search.limits
    words = ["nothing has run yet"]
    if pick is not None:
        rate, name = search.rate(pick), show(search.candidates[pick])
        sure = f"within {search.goal.tolerance:.0%} of the best with {search.confidence():.0%}"
        words = [f"best so far {name}: {rate:.1f} sequences/s, {sure}"]
    waiting = [index for index in outlook.open if limits.exhaustive or not search.measured or outlook.could_win(index)]
    seconds = sum((1 + LEAST_STEPS) * search.revisions[index].step_time_s for index in waiting)
    count = f"{len(waiting)} more {'to run' if limits.exhaustive else 'could win'}"
    words.append(f"{count}, about {show_seconds(seconds)} of steps" if waiting else "no other could win")
    if limits.budget_s is not None:
        words.append(f"{search.elapsed_s:.0f} of {limits.budget_s:g} s used")
    if limits.trials is not None:
        words.append(f"{search.trials} of {limits.trials} trials used")
    return "; ".join(words)


def drift(search: Search) -> Drift | None:
    """How steady the machine was; None where nothing ran."""
    estimates = search.visits.estimates()
    ratios = [one.step_time_s / search.predictions[index].step_time_s for index, one in estimates.items()]
    if not ratios:
        return None
    paces = search.visits.paces
    return Drift(checks=search.checks, ratio=max(paces) / min(paces), profile_ratio=median(ratios))


def pace(search: Search, index: int, measurement: Measurement | None) -> float | None:
    """How many times longer than usual steps took while the candidate was measured."""
    if measurement is None or not search.visits.of(index):
        return None
    return search.visits.at_one_pace(index)[1] / search.visits.usual_pace
