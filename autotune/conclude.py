"""What a search concludes, as the records that a report is made of: its estimates, its verdict, how steady it was."""

from statistics import median

import numpy as np

from autotune.outcome import Measurement
from autotune.predict.revise import interval
from autotune.report.record import Drift
from autotune.report.units import show_certainty, show_rate, show_seconds
from autotune.search.prospects import DRAWS
from autotune.search.search import LEAST_STEPS, Search
from autotune.search.space import show
from autotune.verdict import Estimate, Stop, StopReason, Verdict

RIVAL = 0.1  # chance of being the fastest from which on a candidate is named beside an undecided pick


def estimates(search: Search) -> dict[int, Estimate]:
    """Return what is believed of every candidate's step."""
    found = {}
    for index, known in enumerate(search.revised(search.visits.estimates())):
        low, high = interval(known.step_time_s, known.sigma)
        found[index] = Estimate(
            step_time_s=known.step_time_s,
            step_time_low_s=low,
            step_time_high_s=high,
            throughput_seq_s=search.candidates[index].sequences / known.step_time_s,
        )
    return found


def verdict(search: Search, stop: Stop | None = None) -> Verdict:
    """Return the pick and how sure it is; ``stop``: what ended the search, where that was not the search itself."""
    pick = search.pick()
    return Verdict(
        pick=pick,
        certainty=search.confidence() if pick is not None else None,
        undecided_with=rivals(search, pick) if pick is not None else (),
        objective=search.goal.objective,
        tolerance=search.goal.tolerance,
        stop=stop or stop_of(search),
    )


def rivals(search: Search, pick: int) -> tuple[int, ...]:
    """Return who else might be the fastest, the likeliest first, at least one if there is any other."""
    standings = search.predicted_standings() | search.standings()
    order = list(standings)
    centre = np.log([standings[index].rate for index in order])
    spread = np.array([standings[index].sigma for index in order])
    draws = centre + spread * np.random.default_rng(0).standard_normal((DRAWS, len(order)))
    chances = np.bincount(draws.argmax(axis=1), minlength=len(order)) / DRAWS
    others = sorted((at for at in range(len(order)) if order[at] != pick), key=lambda at: -chances[at])
    return tuple(order[at] for place, at in enumerate(others) if chances[at] >= RIVAL or place == 0)


def stop_of(search: Search) -> Stop:
    """Return why the search ended."""
    limits = search.limits
    if not search.stopped_because:
        return Stop(reason=StopReason.RUNNING)
    if all(index in search.measured for index in search.allowed):
        return Stop(reason=StopReason.ALL_MEASURED)
    if search.is_out_of_trials:
        return Stop(reason=StopReason.TRIALS, limit=limits.trials)
    if search.is_out_of_time:
        return Stop(reason=StopReason.BUDGET, limit=limits.budget_s)
    if not search.untried:
        return Stop(reason=StopReason.NOTHING_LEFT)
    reason = StopReason.DECIDED if search.measured else StopReason.SAME_FAILURE
    return Stop(reason=reason, message=search.stopped_because)


def so_far(search: Search) -> str:
    """What is known while the search goes on: the pick, how sure it is, and how long it may still take."""
    pick, outlook, limits = search.pick(), search.outlook(), search.limits
    words = ["nothing has run yet"]
    if pick is not None:
        rate, name = search.standings()[pick].rate, show(search.candidates[pick])
        sure = f"within {search.goal.tolerance:.0%} of the best with {show_certainty(search.confidence())}"
        words = [f"best so far {name}: {show_rate(rate)} sequences/s, {sure}"]
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
    known = search.visits.estimates()
    ratios = [one.step_time_s / search.predictions[index].step_time_s for index, one in known.items()]
    if not ratios:
        return None
    paces = search.visits.paces
    return Drift(checks=search.checks, ratio=max(paces) / min(paces), profile_ratio=median(ratios))


def pace(search: Search, index: int, measurement: Measurement | None) -> float | None:
    """How many times longer than usual steps took while the candidate was measured."""
    if measurement is None or not search.visits.of(index):
        return None
    return search.visits.at_one_pace(index)[1] / search.visits.usual_pace
