"""The best of what was predicted, and how sure that is before anything ran.

What was extrapolated is never picked, because its figure alone is no reason. How sure the pick is holds among those
whose micro-batch size was timed; ``next_to_time`` says which other one is worth timing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.records.prediction import Basis, Candidate, Prediction
from autotune.records.verdict import Stop, StopReason, Verdict

Pairs = Sequence[tuple[Candidate, Prediction]]
Draws = NDArray[np.float64]

TIE = 0.01  # of throughput; candidates this close count as equal
DRAWS = 4096
HOPE = 0.05  # probability of being the best from which on a candidate is named beside an undecided pick
SURE = 0.8


def choose(pairs: Pairs) -> Verdict:
    """Return the pick: of those within TIE of the quickest that fits the one that needs least memory. None of them
    where every candidate is extrapolated, or does not fit."""
    may_win = [at for at, pair in enumerate(pairs) if is_eligible(pair[1])]
    return choose_among(pairs, may_win, drawn_rates(pairs) if len(may_win) > 1 else np.empty((0, len(pairs))))


def choose_among(pairs: Pairs, may_win: Sequence[int], rates: Draws) -> Verdict:
    """Return the pick among those that ``may_win``. ``rates``: float64[draws, C], sequences per second of every
    candidate as they may turn out; of no account where only one may win."""
    stop = Stop(reason=StopReason.NOTHING_LEFT if pairs else StopReason.INFEASIBLE)
    if not may_win:
        return Verdict(pick=None, tolerance=TIE, stop=stop)
    quickest = max(pairs[at][1].throughput_seq_s for at in may_win)
    tied = [at for at in may_win if pairs[at][1].throughput_seq_s >= quickest * (1 - TIE)]
    pick = min(tied, key=lambda at: (fullest(pairs[at][1]), -pairs[at][1].throughput_seq_s))
    if len(may_win) == 1:
        return Verdict(pick=pick, tolerance=TIE, stop=stop)
    best = rates[:, may_win].max(axis=1)
    certainty = float(np.mean(rates[:, pick] >= best * (1 - TIE)))
    shares = {at: float(np.mean(rates[:, at] >= best)) for at in may_win if at != pick}
    others = sorted((at for at in shares if shares[at] >= HOPE), key=lambda at: -shares[at])
    return Verdict(
        pick=pick,
        certainty=certainty,
        undecided_with=tuple(others) if certainty < SURE else (),
        tolerance=TIE,
        stop=stop,
    )


def is_eligible(prediction: Prediction) -> bool:
    """Return whether a prediction may be recommended as it is."""
    return prediction.fits is not False and prediction.basis is not Basis.EXTRAPOLATED


def fullest(prediction: Prediction) -> int:
    """Return bytes of the fullest rank; 0 where they are not known, of all candidates alike."""
    return max(prediction.device_memory_bytes or (0,))


def drawn_rates(pairs: Pairs) -> Draws:
    """Return float64[DRAWS, C]: sequences per second of every candidate as they may turn out, errors shared as
    ``Uncertainty`` says; what is common to all of them is left out, because it decides nothing."""
    random = np.random.default_rng(0)
    placements = list(dict.fromkeys(candidate.placement for candidate, _ in pairs))
    overhead, laid = random.standard_normal(DRAWS), random.standard_normal((DRAWS, len(placements)))
    found = np.empty((DRAWS, len(pairs)))
    for at, (candidate, prediction) in enumerate(pairs):
        unsure = prediction.uncertainty
        shared = unsure.overhead * overhead + unsure.placement * laid[:, placements.index(candidate.placement)]
        error = shared + unsure.own * random.standard_normal(DRAWS)
        found[:, at] = candidate.sequences / prediction.step_time_s * np.exp(-error)
    return found


def next_to_time(pairs: Pairs, pick: int | None, least_timed: int) -> int | None:
    """Return the extrapolated candidate that could be better than the pick by most, of those beside the sizes that were
    timed; None where none could by more than TIE."""
    open_ = {
        at: candidate.micro_batch_size
        for at, (candidate, one) in enumerate(pairs)
        if one.basis is Basis.EXTRAPOLATED and one.fits is not False
    }
    if not open_:
        return None
    smaller = [size for size in open_.values() if size < least_timed]
    larger = [size for size in open_.values() if size > least_timed]
    beside = {max(smaller, default=0), min(larger, default=0)}
    at = max((at for at, size in open_.items() if size in beside), key=lambda index: hoped_rate(pairs[index]))
    if pick is not None and hoped_rate(pairs[at]) <= pairs[pick][1].throughput_seq_s * (1 + TIE):
        return None
    return at


def hoped_rate(pair: tuple[Candidate, Prediction]) -> float:
    """Return sequences per second at the short end of the interval."""
    candidate, prediction = pair
    return candidate.sequences / prediction.step_time_low_s
