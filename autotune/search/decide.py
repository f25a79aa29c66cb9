"""What to time next, from the belief: by expected gain per second of device time, against a price.

::

    stay    one more step of the visit that is going on
    visit   another candidate, or the same again later
    pair    the leader and a rival side by side
    stop    nothing is worth its time
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from autotune.records.prediction import Candidate
from autotune.search.belief.belief import Belief, Draws
from autotune.search.belief.prior import Array, Mask
from autotune.search.gain import Outlook
from autotune.search.goal import LEAST_STEPS, STEPS, Goal
from autotune.search.lean import DRAWS, gains_per_s, utility


class Kind(Enum):
    """The next step of the search."""

    STAY = auto()
    VISIT = auto()
    PAIR = auto()
    STOP = auto()


@dataclass(frozen=True)
class Action:
    """``candidate``: where to stay or go; None where nothing is worth its time. ``gain_per_s``: of log throughput, or
    of the share of memory that is saved."""

    kind: Kind
    candidate: Candidate | None = None
    gain_per_s: float = 0.0


@dataclass(frozen=True)
class Situation:
    """All that a decision depends on beside the belief.

    ``may_win``: the candidates that may be picked. ``may_visit``: those that may be timed now. ``ready_s``: seconds
    that making a candidate ready takes beside its untimed step. ``is_there``: the last visit of the belief has not
    ended, so that one may stay. ``peaks``: bytes of the fullest rank, where memory is the objective.
    """

    may_win: Collection[Candidate]
    may_visit: Collection[Candidate]
    ready_s: Callable[[Candidate], float]
    now_s: float
    is_there: bool = False
    peaks: Mapping[Candidate, int | None] = field(default_factory=dict)


def decide(belief: Belief, goal: Goal, situation: Situation) -> Action:
    """Return the best next action."""
    may_win, may_visit = (mask(belief, group) for group in (situation.may_win, situation.may_visit))
    log_step = belief.expected_log_step()
    ready_s = np.array([situation.ready_s(candidate) for candidate in belief.candidates])
    steps_s, cost_s = np.exp(log_step), ready_s + 2 * np.exp(log_step)
    lead = leader(belief, belief.log_work - log_step, may_win)
    if lead is None:
        return first(belief, belief.log_work - log_step, may_visit)
    outlook = Outlook(belief, lead, may_win, may_visit, cost_s, situation.now_s)
    at_least = price_per_s(belief, goal, ready_s)
    if goal.objective == "memory":
        return weigh_memory(outlook, goal, situation, at_least)
    return weigh(outlook, steps_s, at_least, situation.is_there)


def mask(belief: Belief, group: Collection[Candidate]) -> Mask:
    """Return True for each candidate of ``group``, [n]."""
    members = frozenset(group)
    return np.array([candidate in members for candidate in belief.candidates])


def leader(belief: Belief, rate: Array, may_win: Mask) -> int | None:
    """Return the row of the candidate with the highest ``rate`` of those that ran and may be picked."""
    rows = [row for row in np.unique(belief.visits.row) if may_win[row]]
    return int(max(rows, key=lambda row: rate[row])) if rows else None


def first(belief: Belief, rate: Array, may_visit: Mask) -> Action:
    """Return a visit to the candidate with the highest ``rate``, while nothing has run that may be picked."""
    if not may_visit.any():
        return Action(Kind.STOP)
    return Action(Kind.VISIT, belief.candidates[int(np.argmax(np.where(may_visit, rate, -np.inf)))], np.inf)


def price_per_s(belief: Belief, goal: Goal, ready_s: Array) -> float:
    """Return the gain per second below which nothing is worth its time: the price by half a visit to the candidate that
    was predicted to be the best."""
    best = int(np.argmax(belief.log_work - belief.prior.log_step))
    return float(2 * goal.price * goal.gain / (ready_s[best] + 2 * np.exp(belief.prior.log_step[best])))


def weigh(outlook: Outlook, steps_s: Array, at_least: float, is_there: bool) -> Action:
    """Return the action that gains most per second; a stop where that is less than ``at_least``."""
    belief = outlook.belief
    per_s = np.where(outlook.may_visit, outlook.of_visits() / outlook.cost_s, 0)
    pairs, kind = outlook.of_pairs_per_s(), Kind.VISIT
    last = int(belief.visits.row[-1])
    row, beside = int(np.argmax(per_s)), int(np.argmax(pairs))
    if pairs[beside] > per_s[row]:
        kind, gain = Kind.PAIR, pairs[beside]
        row = outlook.leader if last == beside and outlook.may_visit[outlook.leader] else beside
    else:
        gain = per_s[row]
    stay = 0.0
    if is_there and len(belief.visits.steps[-1]) < STEPS:
        stay = outlook.of_staying() / steps_s[last]
    best = max(stay, float(gain))
    if best < at_least:
        order = np.argsort(-per_s)
        promising = order[(order != outlook.leader) & outlook.may_visit[order] & outlook.may_win[order]]
        best = max(best, outlook.of_rounds_per_s(promising))
    if best < at_least:
        return Action(Kind.STOP, gain_per_s=best)
    is_back_at_once = row == last and len(belief.visits.steps[-1]) < LEAST_STEPS
    if is_there and (stay >= gain or is_back_at_once):
        return Action(Kind.STAY, belief.candidates[last], best)
    if not outlook.may_visit[row]:
        return Action(Kind.STOP, gain_per_s=best)
    return Action(kind, belief.candidates[row], best)


def weigh_memory(outlook: Outlook, goal: Goal, situation: Situation, at_least: float) -> Action:
    """Return the visit that gains most per second where memory is the objective; a stop where that is too little."""
    belief = outlook.belief
    draws = belief.draws(DRAWS)
    may_win = outlook.may_win[draws.rows]
    draws = Draws(draws.rows[may_win], draws.log_rate[:, may_win])
    value = utility(draws, belief.candidates, dict(situation.peaks), goal)
    seen, may_visit = outlook.is_seen[draws.rows], outlook.may_visit[draws.rows]
    variance = 2 * outlook.visit_variance / outlook.is_clean
    gains = gains_per_s(draws, value, seen, may_visit, outlook.cost_s[draws.rows], variance)
    best = int(np.argmax(gains))
    if gains[best] < at_least:
        return Action(Kind.STOP, gain_per_s=float(gains[best]))
    return Action(Kind.VISIT, belief.candidates[draws.rows[best]], float(gains[best]))
