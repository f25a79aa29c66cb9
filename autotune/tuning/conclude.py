"""What a search concludes, as the records that a report is made of: its estimates, its verdict, how steady it was."""

from collections.abc import Mapping
from statistics import median

import numpy as np

from autotune.records.prediction import Candidate
from autotune.records.verdict import Drift, Estimate, Stop, Verdict
from autotune.report.units import show_certainty, show_rate, show_seconds
from autotune.search.belief.belief import Belief
from autotune.search.choose import certainty
from autotune.search.goal import LEAST_STEPS
from autotune.search.runner import Runner
from autotune.search.state import SearchState

HOPE = 0.01  # probability of being the winner from which on a candidate is counted as one that could still win


def estimates(search: Runner) -> dict[Candidate, Estimate]:
    """Return what is believed of every candidate's step."""
    return search.belief.estimates()


def verdict(search: Runner, stop: Stop | None = None) -> Verdict:
    """Return the pick and how sure it is; ``stop``: what ended the search, where that was not the search itself."""
    index = {candidate: number for number, candidate in enumerate(search.state.predictions)}
    return verdict_of(search.belief, search.state, search.pick(), index, stop or search.state.stop)


def verdict_of(
    belief: Belief, state: SearchState, winner: Candidate | None, index: Mapping[Candidate, int], stop: Stop
) -> Verdict:
    """Return how sure ``winner`` is; ``index``: where each candidate stands in the report."""
    sure = certainty(belief, winner, state) if winner is not None else None
    return Verdict(
        pick=index[winner] if winner is not None else None,
        certainty=sure.probability if sure else None,
        undecided_with=tuple(index[other] for other in sure.others) if sure else (),
        objective=state.goal.objective,
        tolerance=state.goal.tolerance,
        stop=stop,
    )


def so_far(search: Runner) -> str:
    """Return what is known while the search goes on: the pick, how sure it is, and how long it may still take."""
    state, limits, winner = search.state, search.limits, search.pick()
    known, parts, waiting = search.belief.estimates(), ["nothing has run yet"], state.untried
    if winner is not None:
        sure = certainty(search.belief, winner, state)
        chance = f"within {state.goal.tolerance:.0%} of the best with {show_certainty(sure.probability)}"
        parts = [f"best so far {winner.label}: {show_rate(known[winner].throughput_seq_s)} sequences/s, {chance}"]
        if not limits.exhaustive:
            waiting = [candidate for candidate in waiting if sure.shares.get(candidate, 0.0) >= HOPE]
    seconds = sum((1 + LEAST_STEPS) * known[candidate].step_time_s for candidate in waiting)
    count = f"{len(waiting)} more {'to run' if limits.exhaustive else 'could win'}"
    parts.append(f"{count}, about {show_seconds(seconds)} of steps" if waiting else "no other could win")
    if limits.budget_s is not None:
        parts.append(f"{search.elapsed_s:.0f} of {limits.budget_s:g} s used")
    if limits.trials is not None:
        parts.append(f"{state.trials} of {limits.trials} trials used")
    return "; ".join(parts)


def drift(search: Runner) -> Drift | None:
    """Return how steady the machine was; None where nothing ran."""
    state, ours = search.state, search.belief.visits.machine == 0
    if not state.measured:
        return None
    known = search.belief.estimates()
    ratios = [known[candidate].step_time_s / state.predictions[candidate].step_time_s for candidate in state.measured]
    speeds = search.belief.speed_factors()[ours]
    again = int(ours.sum()) - len(set(search.belief.visits.row[ours].tolist()))
    ratio = float(np.max(speeds) / np.min(speeds)) if len(speeds) else 1.0
    return Drift(checks=again, ratio=ratio, profile_ratio=median(ratios))


def pace(search: Runner, candidate: Candidate) -> float | None:
    """Return how many times longer than usual steps took on our machine while the candidate was timed; None where it
    was not."""
    visits = search.belief.visits
    mine = (visits.machine == 0) & (visits.row == search.belief.row[candidate])
    if not mine.any():
        return None
    seconds = np.array([sum(np.exp(steps)) for steps in visits.steps])[mine]
    return float(np.exp(np.average(np.log(search.belief.speed_factors()[mine]), weights=seconds)))
