"""The belief against closed forms, and what it makes of machines that slow down, jump, or differ."""

from dataclasses import replace

import numpy as np
import pytest

from autotune.records.prediction import Uncertainty
from autotune.search.belief import belief as module
from autotune.search.belief.belief import Belief
from autotune.search.belief.hypotheses import Hypotheses, Split, grown
from autotune.search.belief.prior import OUR_SD, Grid, Prior, prior_of
from autotune.search.belief.visits import Kernel, Visits
from autotune.search.timing import Timing
from tests.search.machine import CANDIDATES, PREDICTIONS

APART_S = 1000.0


def predictions(common=0.04, overhead=0.0, own=0.03, moment=0.0):
    """The predictions, equally unsure but for the overhead, which weighs more the larger m is."""
    return {
        candidate: one.model_copy(
            update={"uncertainty": Uncertainty(common=common, overhead=overhead * at / 6, own=own, moment=moment)}
        )
        for at, (candidate, one) in enumerate(zip(CANDIDATES, PREDICTIONS, strict=True))
    }


def steps(belief):
    return np.array([one.step_time_s for one in belief.estimates().values()])


def predicted(known):
    return np.array([one.step_time_s for one in known.values()])


def after(known, factors, steps_of_each=3, **options):
    """The belief after a visit to each candidate that took ``factors`` (by row) times as long as predicted."""
    belief = Belief(known)
    for number, (row, factor) in enumerate(factors):
        times = (known[CANDIDATES[row]].step_time_s * factor,) * steps_of_each
        belief.add(Timing(number, CANDIDATES[row], times, number * APART_S, **options))
    return belief


# -- closed forms -----------------------------------------------------------------------------------------------------


def trivial(monkeypatch):
    """A belief of one hypothesis: no drift to speak of, nothing is slowed, nothing jumps, the model misses nothing."""
    known = predictions()
    for name in ("SLOWED", "SLOWED_FIRST", "STAYS_SLOWED", "JUMP", "JUMP_SINCE_PROFILE"):
        monkeypatch.setattr(module, name, 1e-300)
    one = np.array([1.0])
    monkeypatch.setattr(module, "grid_of", lambda prior: Grid(0.01 * one, 0.02 * one, 1e9 * one, one, np.zeros(1)))
    monkeypatch.setattr(module, "prior_of", lambda known: replace(prior_of(known), missed=1e-300))
    return known, Belief(known)


def test_where_hypotheses_are_trivial_it_is_a_plain_gaussian_update(monkeypatch):
    """Rasmussen and Williams, equations 2.23 and 2.24, with everything written out."""
    known, belief = trivial(monkeypatch)
    seen = [(0, 1.02), (3, 0.97), (0, 1.05), (5, 1.01)]
    for number, (row, factor) in enumerate(seen):
        belief.add(Timing(number, CANDIDATES[row], (known[CANDIDATES[row]].step_time_s * factor,) * 2, float(number)))
    rows = [row for row, _ in seen]
    prior = 0.04**2 + np.diag([0.03**2] * len(known))
    machine = 0.02**2 + OUR_SD**2  # the drift lasts so long that it is one number for all
    noise = 0.01**2 + belief.noise**2 / 2
    covariance = prior[np.ix_(rows, rows)] + machine + noise * np.eye(4)
    residual = np.log([factor for _, factor in seen])
    gain = prior[:, rows] @ np.linalg.inv(covariance)
    assert belief.means(belief.now)[0] == pytest.approx(np.log(predicted(known)) + gain @ residual, abs=1e-7)
    # the usual speed is the machine's, which all visits have in common
    with_machine = prior[:, rows] + machine
    variance = (
        np.diag(prior) + machine - np.einsum("nk,kl,nl->n", with_machine, np.linalg.inv(covariance), with_machine)
    )
    mean, sd = belief.log_steps()
    expected = np.log(predicted(known)) + with_machine @ np.linalg.inv(covariance) @ residual
    assert mean == pytest.approx(expected, abs=1e-7)
    assert sd == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_draws_have_the_mean_and_the_spread_of_the_posterior(monkeypatch):
    known, belief = trivial(monkeypatch)
    belief.add(Timing(0, CANDIDATES[3], (known[CANDIDATES[3]].step_time_s * 1.1,) * 3, 0.0))
    draws = belief.draws(count=40_000)
    mean = belief.log_work - belief.means(belief.now)[0]
    assert draws.log_rate.mean(0) == pytest.approx(mean[draws.rows], abs=2e-3)
    h = belief.now
    common = belief.covariance_with_visits(h)[0]
    covariance = belief.prior.covariance - common @ h.precision[0] @ common.T
    assert np.cov(draws.log_rate.T) == pytest.approx(covariance[np.ix_(draws.rows, draws.rows)], abs=1e-4)


def some_hypotheses(count=5, visits=4):
    """A kernel and hypotheses that differ in all that they may."""
    draw = np.random.default_rng(3)
    n = 6
    spread = draw.standard_normal((n, 2)) * 0.05
    prior = Prior(np.zeros(n), spread @ spread.T + 0.03**2 * np.eye(n), 0.0, 100.0)
    grid = Grid(
        *(draw.uniform(low, high, count) for low, high in ((0.003, 0.05), (0, 0.05), (50, 500), (1, 4), (-1, 0)))
    )
    seen = Visits()
    for k in range(visits + 1):
        seen.begin(int(draw.integers(n)), k % 2, 0)
        seen.steps[-1] = [0.0] * (1 + k)
        seen.at_s[-1] = 100.0 * k
    kernel = Kernel(prior, grid, seen, 0.01)
    slowed = draw.integers(0, 2, (count, visits + 1)).astype(float)
    jumps = np.cumsum(draw.integers(0, 2, (count, visits + 1)), axis=1).astype(float)
    missed = draw.integers(0, 2, (count, n)).astype(float)[:, seen.row]
    residual = 0.05 * draw.standard_normal((count, visits + 1))
    whole = Hypotheses(
        np.arange(count), slowed, missed, jumps, residual, np.zeros((count, visits + 1, visits + 1)), grid.log_weight
    )
    return kernel, whole


def test_growing_by_a_visit_is_conditioning_on_it():
    """The precision is the inverse of the whole covariance, and the weights are those of the whole density."""
    kernel, whole = some_hypotheses()
    last = whole.residual.shape[1] - 1
    before = Hypotheses(
        whole.at,
        *(part[:, :last] for part in (whole.slowed, whole.missed, whole.jumps, whole.residual)),
        np.zeros((len(whole), last, last)),
        whole.log_weight,
    )
    covariance = kernel.all_visits(whole)
    assert covariance == pytest.approx(covariance.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(covariance).min() > 0
    before = Hypotheses(
        before.at,
        before.slowed,
        before.missed,
        before.jumps,
        before.residual,
        np.linalg.inv(covariance[:, :last, :last]),
        before.log_weight,
    )
    split = Split(
        np.arange(len(whole)), whole.slowed[:, last], whole.missed[:, last], whole.jumps[:, last], np.zeros(len(whole))
    )
    between, own = kernel.visit(before, last, split.slowed, split.missed, split.jumps)
    found = grown(before, split, between, own, whole.residual[:, last])
    order = np.argsort(found.at)
    assert found.precision[order] == pytest.approx(np.linalg.inv(covariance), rel=1e-6)
    densities = [
        -np.linalg.slogdet(c)[1] / 2 - r @ np.linalg.solve(c, r) / 2
        for c, r in zip(covariance, whole.residual, strict=True)
    ]
    earlier = [
        -np.linalg.slogdet(c[:last, :last])[1] / 2 - r[:last] @ np.linalg.solve(c[:last, :last], r[:last]) / 2
        for c, r in zip(covariance, whole.residual, strict=True)
    ]
    gained = found.log_weight[order] - whole.log_weight
    assert gained == pytest.approx(np.array(densities) - np.array(earlier), abs=1e-8)


def test_another_noise_weighs_hypotheses_as_if_it_had_been_known_from_the_start():
    kernel, whole = some_hypotheses()
    noisier = Kernel(kernel.prior, kernel.grid, kernel.visits, 0.05)
    covariances = [one.all_visits(whole) for one in (kernel, noisier)]
    at_first, from_the_start = (
        Hypotheses(
            whole.at, whole.slowed, whole.missed, whole.jumps, whole.residual, np.linalg.inv(c), whole.log_weight
        )
        for c in covariances
    )
    weighed = Hypotheses(
        at_first.at,
        at_first.slowed,
        at_first.missed,
        at_first.jumps,
        at_first.residual,
        at_first.precision,
        at_first.log_weight + at_first.log_evidence(),
    )
    again = weighed.with_covariance(covariances[1])
    assert again.log_weight == pytest.approx(whole.log_weight + from_the_start.log_evidence())


# -- what it makes of measurements ------------------------------------------------------------------------------------


def test_nothing_measured_changes_nothing():
    known = predictions()
    belief = Belief(known)
    assert steps(belief) == pytest.approx(predicted(known))
    for candidate, one in belief.revisions().items():
        assert one.throughput_seq_s == pytest.approx(known[candidate].throughput_seq_s)
        assert one.step_time_low_s < known[candidate].step_time_low_s + 1e-9  # it may be wronger than it says


def test_a_slower_machine_slows_all_and_narrows_the_interval():
    known = predictions(common=0.2, own=0.02)
    before, belief = Belief(known).log_steps()[1], after(known, [(0, 1.2), (1, 1.2), (3, 1.2)])
    assert steps(belief) == pytest.approx(1.2 * predicted(known), rel=0.02)
    assert (belief.log_steps()[1] < before / 2).all()


def test_a_costlier_runtime_is_told_from_a_slower_machine():
    """An error that grows with the overhead's share leaves candidates without overhead alone."""
    known = predictions(common=0.1, overhead=0.6, own=0.01)
    belief = after(known, [(row, 1 + 0.3 * row / 6) for row in (1, 3, 5)], steps_of_each=5)
    assert steps(belief)[0] == pytest.approx(predicted(known)[0], rel=0.04)
    assert steps(belief)[6] == pytest.approx(1.3 * predicted(known)[6], rel=0.04)


def test_a_model_that_misleads_is_trusted_less():
    """Candidates that are off by ten times what the model says are known by their own steps."""
    known = predictions(own=0.01)
    factors = [0.7, 1.3, 0.8, 1.25, 0.75, 1.2, 0.7]
    belief = after(known, list(enumerate(factors)) * 2)
    assert steps(belief) / predicted(known) == pytest.approx(factors, rel=0.02)


def test_more_steps_narrow_an_estimate_down_to_what_visits_differ_by():
    known = predictions(own=0.1)
    few, many = (after(known, [(0, 1.0), (0, 1.003)], steps_of_each=count) for count in (1, 40))
    assert many.log_steps()[1][0] < few.log_steps()[1][0]
    assert many.log_steps()[1][0] > 0.001


def test_a_visit_that_was_slowed_hardly_counts():
    known = predictions()
    belief = after(known, [(3, 1.0), (4, 1.0), (3, 1.4), (4, 1.0), (3, 1.0)])
    assert steps(belief)[3] == pytest.approx(known[CANDIDATES[3]].step_time_s, rel=0.005)
    assert belief.now.weight @ belief.now.slowed[:, 2] > 0.95
    assert belief.speed_factors() == pytest.approx([1.0, 1.0, 1.4, 1.0, 1.0], rel=0.01)
    assert belief.chance_disturbed(CANDIDATES[3]) < 0.01


def test_a_candidate_known_from_disturbed_visits_alone_is_said_to_be():
    belief = after(predictions(), [(4, 1.0), (3, 1.4), (4, 1.0)])
    assert belief.chance_disturbed(CANDIDATES[3]) > 0.5
    assert belief.chance_disturbed(CANDIDATES[4]) < 0.05
    assert belief.chance_disturbed(CANDIDATES[0]) == 0.0


def test_a_speed_that_changes_for_good_changes_no_comparison():
    known = predictions()
    calm = [(3, 1.0), (4, 1.0), (5, 1.0)]
    slow = [(row, 1.5) for row in (3, 4, 5, 3, 4, 6)]
    belief = after(known, calm + slow)
    ratio = steps(belief) / predicted(known)
    assert ratio[[3, 4, 5, 6]] / ratio[3] == pytest.approx(np.ones(4), rel=0.02)
    speeds = belief.speed_factors()
    assert speeds[3:].mean() / speeds[:3].mean() == pytest.approx(1.5, rel=0.02)


def test_another_session_may_begin_at_another_speed():
    known = predictions()
    belief = after(known, [(3, 1.0), (4, 1.0)])
    for number, row in enumerate((3, 6)):
        times = (known[CANDIDATES[row]].step_time_s * 1.4,) * 2
        belief.add(Timing(9 + number, CANDIDATES[row], times, 1e6 + number * APART_S, session=1))
    ratio = steps(belief) / predicted(known)
    assert ratio[6] / ratio[4] == pytest.approx(1.0, rel=0.04)


def test_another_machine_tells_how_candidates_compare_and_not_how_fast_ours_is():
    known = predictions()
    belief = after(known, [(3, 1.0)])
    for number, (row, factor) in enumerate([(3, 2.0), (4, 2.2), (5, 2.0)]):
        times = (known[CANDIDATES[row]].step_time_s * factor,) * 3
        belief.add(Timing(number, CANDIDATES[row], times, number * APART_S, machine="other"))
    ratio = steps(belief) / predicted(known)
    assert ratio[3] == pytest.approx(1.0, rel=0.01)
    assert ratio[4] / ratio[3] == pytest.approx(1.1, rel=0.03)  # one visit does not outweigh the model quite


def test_a_visit_that_is_abandoned_leaves_no_trace():
    known = predictions()
    belief, other = after(known, [(3, 1.0)]), after(known, [(3, 1.0)])
    belief.begin(CANDIDATES[4])
    belief.see(50.0, 5.0)
    belief.abandon()
    assert steps(belief) == pytest.approx(steps(other))
    assert belief.seen == other.seen == {CANDIDATES[3]}


def test_steps_given_one_by_one_are_a_visit():
    known = predictions()
    belief, other = after(known, [(3, 1.0)]), after(known, [(3, 1.0)])
    belief.begin(CANDIDATES[4])
    for step_s in (35.0, 35.2, 35.1):
        belief.see(step_s, 500.0)
    other.add(Timing(1, CANDIDATES[4], (35.0, 35.2, 35.1), 500.0))
    assert steps(belief) == pytest.approx(steps(other), rel=1e-3)


def test_the_noise_of_steps_is_pooled_and_two_that_agree_are_not_free_of_it():
    visits = Visits()
    draw = np.random.default_rng(0)
    for _ in range(40):
        visits.begin(0, 0, 0)
        visits.steps[-1] = (0.02 * draw.standard_normal(5)).tolist()
    assert visits.step_noise() == pytest.approx(0.02, rel=0.15)
    agreeing = Visits()
    agreeing.begin(0, 0, 0)
    agreeing.steps[-1] = [1.0, 1.0]
    assert 0.5 * 0.007 < agreeing.step_noise() < 0.007
