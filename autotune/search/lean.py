"""The expected gain of one more visit where memory is the objective, from draws of the belief.

Whether a candidate is fast enough is a matter of yes or no, so that nothing here is normal. What a visit to candidate j
would show is drawn, and every draw of the belief weighs by how well it agrees with that::

    utility   =  share of memory saved  -  PENALTY · how much too slow
    gain[j]   =  E max over candidates of E(utility | visit to j)  -  max over candidates of E utility
"""

import numpy as np

from autotune.records.prediction import Candidate
from autotune.search.belief.belief import Draws
from autotune.search.belief.prior import Array, Mask
from autotune.search.goal import Goal

PENALTY = 20.0  # being 1 % too slow costs as much as 20 % more memory
DRAWS, OUTCOMES, TIMES = 512, 24, (1, 2, 4)  # draws of the belief, outcomes of a visit, visits in a row
PLAUSIBLE = 0.002  # share of draws in which a candidate must be fast enough, or lean enough, to be worth a look


def utility(draws: Draws, candidates: list[Candidate], peaks: dict[Candidate, int | None], goal: Goal) -> Array:
    """Return the utility of picking each candidate in each draw, [draws, rows]; what is not known to be lean is not."""
    known = [peaks[candidates[row]] for row in draws.rows]
    most = max((peak for peak in known if peak is not None), default=0) or 1
    saved = np.array([0.0 if peak is None else 1 - peak / most for peak in known])
    enough = draws.log_rate.max(1, keepdims=True) + np.log1p(-goal.tolerance)
    return np.asarray(saved - PENALTY * np.maximum(0, enough - draws.log_rate))


def gains_per_s(draws: Draws, value: Array, may_pick: Mask, may_visit: Mask, cost_s: Array, variance: float) -> Array:
    """Return the gain per second of visiting each candidate, [rows]: of the best number of visits in a row.

    ``value`` [draws, rows] is the utility, ``may_pick`` [rows] the candidates that ran, ``variance`` that of one visit.
    """
    now = float(value[:, may_pick].mean(0).max()) if may_pick.any() else float(value.mean(0).min())
    hopes = (value > now).mean(0) >= PLAUSIBLE
    found = np.zeros(len(draws.rows))
    rng = np.random.default_rng(2)
    noise, unrelated = rng.standard_normal(OUTCOMES), rng.permutation(len(value))
    chosen = np.linspace(0, len(value) - 1, OUTCOMES).astype(int)
    ran = may_pick if may_pick.any() else ~may_pick
    level = draws.log_rate[:, ran].mean(
        1
    )  # the machine's own speed decides nothing, and one more visit hardly tells it
    for column in np.flatnonzero(may_visit & (hopes | may_pick)):
        options = value[:, may_pick | (np.arange(len(may_pick)) == column)]
        log_rate = draws.log_rate[:, column] - level
        for times in TIMES:
            after = expected_best(log_rate, options, variance / times, chosen, noise)
            # so few draws find a gain even in what has nothing to do with the options
            floor = expected_best(log_rate[unrelated], options, variance / times, chosen, noise) - options.mean(0).max()
            found[column] = max(found[column], (after - floor - now) / (times * cost_s[column]))
    return found


def expected_best(log_rate: Array, options: Array, variance: float, chosen: Array, noise: Array) -> float:
    """Return the expected utility of the best option after ``log_rate`` [draws] of one candidate was seen with this
    ``variance``; ``chosen`` are the draws that are taken for the truth in turn."""
    seen = log_rate[chosen] + variance**0.5 * noise
    misfit = (seen[:, None] - log_rate) ** 2 / (2 * variance)
    weight = np.exp(-(misfit - misfit.min(1, keepdims=True)))
    weight /= weight.sum(1, keepdims=True)
    # what is drawn averages to what is known now only in the long run: the difference is taken out
    after = weight @ options
    return float((after - after.mean(0) + options.mean(0)).max(1).mean())
