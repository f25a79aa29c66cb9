"""Which candidate wins, and how sure that is: DESIGN section 6, on estimates and on draws of the belief."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from autotune.records.prediction import Candidate
from autotune.search.belief.belief import Belief
from autotune.search.belief.prior import Array
from autotune.search.goal import Goal
from autotune.search.state import SearchState

SURE = 0.8  # a pick that is less certain is called undecided


def pick(rates: Mapping[Candidate, float], peaks: Mapping[Candidate, int | None], goal: Goal) -> Candidate | None:
    """Return the winner: of those whose throughput is within the tolerance of the highest the one whose fullest rank
    needs the least memory, and of equal ones the faster; what is not known counts as most."""
    if not rates:
        return None
    enough = max(rates.values()) * (1 - goal.tolerance)
    close = [candidate for candidate, rate in rates.items() if rate >= enough]
    return min(close, key=lambda one: (inf if (peak := peaks[one]) is None else peak, -rates[one]))


def most_promising(belief: Belief, candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate that is expected to be the fastest."""
    expected = belief.estimates()
    return max(candidates, key=lambda one: expected[one].throughput_seq_s)


@dataclass(frozen=True)
class Certainty:
    """``probability`` that the pick is right: that its throughput is within the tolerance of the best, or, with memory
    as the objective, that it is the winner by both. ``others``: the fewest that together with the pick reach SURE of
    the probability of being the winner; none where the pick is sure. ``shares``: that probability of each."""

    probability: float
    others: tuple[Candidate, ...]
    shares: Mapping[Candidate, float]


def certainty(belief: Belief, winner: Candidate, state: SearchState) -> Certainty:
    """Return how sure ``winner`` is among all that may win, those that have not run included."""
    draws, may_win, goal = belief.draws(), set(state.may_win), state.goal
    columns = [at for at, row in enumerate(draws.rows) if belief.candidates[row] in may_win]
    names = [belief.candidates[draws.rows[at]] for at in columns]
    winners = winner_of_each(draws.log_rate[:, columns], [state.peak(name) for name in names], goal)
    share = np.bincount(winners, minlength=len(names)) / len(winners)
    mine = names.index(winner)
    if goal.objective == "memory":
        probability = float(share[mine])
    else:
        rate = draws.log_rate[:, columns]
        probability = float((rate[:, mine] >= rate.max(1) + np.log1p(-goal.tolerance)).mean())
    others: list[Candidate] = []
    reached = float(share[mine])
    for at in np.argsort(-share):
        if probability >= SURE or reached >= SURE:
            break
        if at != mine:
            others.append(names[at])
            reached += float(share[at])
    return Certainty(probability, tuple(others), dict(zip(names, share.tolist(), strict=True)))


def winner_of_each(log_rate: Array, peaks: Sequence[int | None], goal: Goal) -> Array:
    """Return the winner (a column) in each draw of throughputs, [draws]: the rule of ``pick``."""
    order = {peak: rank for rank, peak in enumerate(sorted({peak for peak in peaks if peak is not None}))}
    rank = np.array([len(order) if peak is None else order[peak] for peak in peaks], float)
    best = log_rate.max(1, keepdims=True)
    behind = best - log_rate  # far less than 1000: of equal memory the faster wins
    return np.asarray(np.where(behind <= -np.log1p(-goal.tolerance), 1000 * rank + behind, inf).argmin(1))
