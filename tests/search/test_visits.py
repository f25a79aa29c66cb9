"""Noise, the machine's pace, and estimates that drift does not spoil."""

import random
from statistics import NormalDist

import pytest

from autotune.search.noise import PRIOR_NOISE, Noise, step_noise
from autotune.search.visits import VISIT_NOISE, PaceChange, Visits


def noisy(seconds, sigma, count, seed):
    draw = random.Random(seed)
    return tuple(seconds * draw.lognormvariate(0.0, sigma) for _ in range(count))


def test_the_noise_is_pooled_over_visits_of_different_candidates():
    series = [noisy(seconds, 0.02, 5, seed) for seed, seconds in enumerate((0.1, 1.0, 5.0, 20.0) * 10)]
    assert step_noise(series).sigma == pytest.approx(0.02, rel=0.2)


def test_two_steps_that_happen_to_agree_are_not_free_of_noise():
    assert 0.5 * PRIOR_NOISE < step_noise([(1.0, 1.0)]).sigma < PRIOR_NOISE


def test_one_disturbed_step_does_not_make_all_look_noisy():
    calm = [noisy(1.0, 0.005, 5, seed) for seed in range(6)]
    disturbed = [*calm[:-1], (*calm[-1][:-1], 3.0)]
    assert step_noise(disturbed).sigma < 1.5 * step_noise(calm).sigma


def test_the_bound_is_students_t():
    for freedom, expected in ((4, 3.747), (10, 2.764), (30, 2.457)):  # 99 % one-sided, from any table
        assert Noise(1.0, freedom).bound(0.01) == pytest.approx(expected, rel=0.04)
    assert Noise(1.0, 1e9).bound(0.01) == pytest.approx(NormalDist().inv_cdf(0.99))


def test_an_estimate_narrows_with_steps_down_to_what_visits_differ_by():
    few, many = Visits(), Visits()
    few.add(0, noisy(1.0, 0.01, 2, 1))
    many.add(0, noisy(1.0, 0.01, 400, 1))
    assert few.estimate(0).sigma > many.estimate(0).sigma > VISIT_NOISE
    assert many.estimate(0).step_time_s == pytest.approx(1.0, rel=0.005)


def test_a_reference_that_takes_longer_than_noise_explains_is_a_change_of_pace():
    visits = Visits()
    visits.add(0, (1.0, 1.001, 0.999))
    same = visits.add(0, (1.004, 1.003))
    assert visits.change_since([same.number], same.number) is None
    slow = visits.add(0, (1.5, 1.501))
    change = visits.change_since([slow.number], slow.number)
    assert change.visit == slow.number
    assert change.pace == pytest.approx(1.5, rel=0.01)


def test_a_pace_that_comes_back_is_the_old_one():
    visits = Visits()
    visits.add(0, (1.0, 1.0, 1.0))
    slow = visits.add(0, (1.5, 1.5))
    visits.changes.append(PaceChange(slow.number, 1.5))
    back = visits.add(0, (1.003, 1.001))
    assert visits.change_since([back.number], back.number) == PaceChange(back.number, 1.0)


def test_what_was_timed_at_another_pace_is_scaled_and_weighs_less():
    visits = Visits()
    visits.add(0, (1.0,) * 5)
    visits.add(1, (2.0,) * 5)
    visits.changes.append(PaceChange(2, 1.5))
    visits.add(2, (4.5, 4.5))
    assert visits.usual_pace == 1.0
    assert visits.estimate(2).step_time_s == pytest.approx(3.0)
    assert visits.estimate(2).sigma > 2 * visits.estimate(1).sigma
    visits.add(1, (3.6, 3.6))  # beside the slow visit of 2: scaled it says 2.4, but the five calm steps decide
    assert visits.estimate(1).step_time_s == pytest.approx(2.0, rel=0.01)


def test_a_visit_that_was_disturbed_alone_hardly_counts():
    visits = Visits()
    for step_s in (1.4, 1.0, 1.001):
        visits.add(0, (step_s, step_s))
        visits.add(1, (2.0, 2.0))
    assert visits.estimate(0).step_time_s == pytest.approx(1.0, rel=0.005)
    assert visits.visit_noise() < 0.005


def test_of_two_visits_that_disagree_the_faster_counts_for_more():
    visits = Visits()
    visits.add(0, (1.4, 1.4))
    visits.add(0, (1.0, 1.0))
    assert visits.estimate(0).step_time_s < 1.2


def slowed():
    """Candidate 0 at the first pace and at half again as long, candidate 1 at the first, candidate 2 at the other."""
    visits = Visits()
    visits.add(0, (1.0, 1.0))
    visits.add(1, (2.0, 2.0))
    slow = visits.add(0, (1.5, 1.5))
    visits.changes.append(PaceChange(slow.number, 1.5))
    visits.add(2, (4.2, 4.2))
    return visits


@pytest.mark.parametrize(("index", "step_s"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_the_end_of_a_disturbance_is_told_by_whoever_is_visited(index, step_s):
    """Be it known at both paces, at the usual one only, or only while it was disturbed."""
    visits = slowed()
    back = visits.add(index, (step_s, step_s))
    assert visits.change_since([back.number], back.number) == PaceChange(back.number, 1.0)


@pytest.mark.parametrize(("index", "step_s"), [(0, 1.5), (1, 2.8), (2, 4.2)])
def test_a_disturbance_that_goes_on_is_no_change(index, step_s):
    """Candidates need not slow down alike."""
    visits = slowed()
    still = visits.add(index, (step_s, step_s))
    assert visits.change_since([still.number], still.number) is None


def test_what_profiling_saw_counts_for_the_usual_pace():
    visits = slowed()
    assert visits.usual_pace == 1.5
    visits.profiled_s = 10.0
    visits.place_profile([1.1, 2.0, 3.1])
    assert visits.usual_pace == 1.0
    visits.place_profile([1.5, 3.1, 4.5])  # the profile was measured on a machine as slow
    assert visits.usual_pace == 1.5
    visits.place_profile([0.5, 1.0, 1.5])  # at another pace than any of the visits, or the model is off
    visits.add(0, (1.0,) * 9)
    assert visits.usual_pace == 1.5


def test_visits_that_differ_more_than_their_steps_say_so():
    """Steps agree within a visit, visits do not: what one visit says is known no better than visits differ."""
    calm, uneven = Visits(), Visits()
    draw = random.Random(0)
    for _ in range(12):
        calm.add(0, noisy(1.0, 0.004, 3, draw.random()))
        uneven.add(0, noisy(draw.lognormvariate(0.0, 0.03), 0.004, 3, draw.random()))
    assert calm.visit_noise() < 0.004
    assert uneven.visit_noise() == pytest.approx(0.03, rel=0.4)
    assert uneven.estimate(0).sigma > 3 * calm.estimate(0).sigma


def test_raw_steps_of_two_paces_are_never_averaged():
    visits = Visits()
    visits.add(0, (1.0, 1.0, 1.0))
    visits.changes.append(PaceChange(1, 2.0))
    visits.add(0, (2.0, 2.0))
    assert visits.at_one_pace(0) == ((1.0, 1.0, 1.0), 1.0)
