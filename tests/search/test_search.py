"""The search against a scripted machine: what it tries, when it stops, what it keeps. The study is real SQLite."""

from itertools import pairwise

import pytest

from autotune.events import Silent
from autotune.records.failure import Failure
from autotune.records.verdict import StopReason
from autotune.search.choose import certainty
from autotune.search.goal import Goal
from autotune.tuning.conclude import drift
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS, Machine, search

COUNTS = [candidate.micro_batches for candidate in CANDIDATES]
BEST_ONE = CANDIDATES[COUNTS.index(BEST)]


def picked(found):
    return found.pick().micro_batches


def test_the_best_prediction_and_the_naive_come_first(tmp_path):
    machine = Machine()
    search(tmp_path, machine)
    assert machine.asked[:2] == [BEST, 1]


def test_a_true_model_needs_few_trials(tmp_path):
    machine = Machine(noise=0.003)
    found = search(tmp_path, machine)
    assert found.state.trials < len(CANDIDATES)
    assert found.state.real_steps < 0.5 * len(CANDIDATES) * 6
    assert found.state.stop.reason == StopReason.DECIDED
    assert picked(found) == BEST
    assert certainty(found.belief, found.pick(), found.state).probability > 0.9


def test_a_model_that_misleads_is_found_out(tmp_path):
    """Large m is far slower than predicted: the search goes on to the true best, m = 4."""
    found = search(tmp_path, Machine(factor=lambda m: 1.0 if m <= 4 else 1.5 * m / 8, noise=0.003))
    assert picked(found) == 4


def test_a_machine_at_another_pace_than_the_profiles_changes_nothing(tmp_path):
    found = search(tmp_path, Machine(factor=lambda m: 1.3, noise=0.003))
    assert picked(found) == BEST
    assert found.state.trials < len(CANDIDATES)


def test_a_clearly_worse_candidate_is_pruned_after_a_step(tmp_path):
    naive = search(tmp_path, Machine()).state.measured[CANDIDATES[0]]
    assert (naive.pruned, len(naive.step_times_s)) == (True, 1)


def test_every_timed_step_of_a_trial_is_told_counted_from_one(tmp_path):
    told = []

    class Listener(Silent):
        def step(self, candidate, number, seconds):
            told.append((candidate, number, seconds))

    state = search(tmp_path, Machine(), events=Listener()).state
    assert len(state.measured) > 1
    for candidate in state.measured:
        trial, *_ = state.visits(candidate)
        steps = [(number, seconds) for label, number, seconds in told if label == candidate.label]
        assert steps == list(enumerate(trial.step_times_s, 1))


def search_where_unsure(tmp_path, machine, **options):
    """A search run with a model that may be off by a fifth and so rules nobody out."""
    return search(tmp_path, machine, unsure=0.12, **options)


def steps_where_unsure(tmp_path, machine):
    """The timed steps of each m's trial."""
    found = search_where_unsure(tmp_path, machine)
    return {candidate.micro_batches: len(one.step_times_s) for candidate, one in found.state.measured.items()}


def test_a_candidate_that_is_behind_as_expected_ends_after_one_step(tmp_path):
    steps = steps_where_unsure(tmp_path, Machine(noise=0.002))
    behind = [count for m, count in steps.items() if m not in (1, BEST)]
    assert behind
    assert set(behind) == {1}
    assert steps[BEST] > 1


def test_one_step_that_is_slower_than_expected_is_not_enough(tmp_path):
    """Something else may have disturbed it."""
    steps = steps_where_unsure(tmp_path, Machine(factor=lambda m: 1.0 if m in (1, BEST) else 1.5, noise=0.002))
    behind = [count for m, count in steps.items() if m not in (1, BEST)]
    assert behind
    assert max(behind) >= 2


def test_where_noise_leaves_all_open_visits_are_short(tmp_path):
    lengths = []
    for seed in range(5):
        found = search(tmp_path / str(seed), Machine(noise=0.06, seed=seed))
        lengths += [len(timing.step_times_s) for timing in found.state.timings]
    assert sum(length > 3 for length in lengths) < len(lengths) / 4


def test_every_outcome_is_saved_at_once(tmp_path):
    found = search(tmp_path, Machine(), trials=2)
    assert [len(outcomes) for outcomes in found.saved[:2]] == [1, 2]
    assert (found.state.stop.reason, found.state.stop.limit) == (StopReason.TRIALS, 2)


def test_a_budget_ends_the_search(tmp_path):
    found = search(tmp_path, Machine(), budget_s=1e-9)
    assert found.state.trials == 0
    assert (found.state.stop.reason, found.state.stop.limit) == (StopReason.BUDGET, 1e-9)


def test_exhaustive_runs_all_and_prunes_none(tmp_path):
    found = search(tmp_path, Machine(), exhaustive=True)
    assert len(found.state.measured) == len(CANDIDATES)
    assert not any(m.pruned for m in found.state.measured.values())
    assert found.state.stop.reason == StopReason.ALL_MEASURED


def test_a_failure_is_an_outcome(tmp_path):
    found = search(tmp_path, Machine(fails=(BEST,)))
    assert isinstance(found.state.outcomes[BEST_ONE], Failure)
    assert picked(found) == 16


def test_what_needs_as_much_memory_as_one_that_ran_out_is_not_tried(tmp_path):
    """GPipe at m = 2 holds both halves of the batch on every rank, as m = 1 holds the whole."""
    machine = Machine(fails=(1, 2))
    found = search(tmp_path, machine, exhaustive=True)
    assert machine.asked.count(1) + machine.asked.count(2) == 1
    ruled_out = found.state.ruled_out[CANDIDATES[0 if 2 in machine.asked else 1]]
    assert "which ran out" in ruled_out.text


def test_what_is_not_allowed_is_not_tried(tmp_path):
    machine = Machine()
    search(tmp_path, machine, allowed=[0, 1])
    assert set(machine.asked) == {1, 2}


def alike():
    """For each m the factor that makes all candidates take as long."""
    return {c.micro_batches: 10.0 / p.step_time_s for c, p in zip(CANDIDATES, PREDICTIONS, strict=True)}


def test_two_that_are_alike_are_timed_side_by_side(tmp_path):
    """On a machine so noisy that one visit to each tells little."""
    equal, turns = alike(), 0
    for seed in range(3):
        machine = Machine(factor=lambda m: equal[m], noise=0.05, seed=seed)
        search_where_unsure(tmp_path / str(seed), machine, allowed=[2, 3])
        turns += sum(one != other for one, other in pairwise(machine.asked)) / max(1, len(machine.asked) - 1)
    assert turns / 3 > 0.6


def test_a_tie_ends_before_it_costs_more_than_it_may_gain(tmp_path):
    """Two candidates that are alike on a machine so noisy that many visits would not tell them apart."""
    equal = alike()
    found = search_where_unsure(tmp_path, Machine(factor=lambda m: equal[m], noise=0.1), allowed=[2, 3])
    assert found.state.stop.reason == StopReason.ALL_MEASURED
    assert found.state.real_steps < 150


@pytest.mark.slow
def test_where_steps_say_less_than_the_model_both_are_heard(tmp_path):
    """The model is right, and steps differ so much that others often look faster than the best."""
    fooled = 0
    for seed in range(10):
        found = search(tmp_path / str(seed), Machine(noise=0.15, seed=seed), exhaustive=True)
        assert picked(found) == BEST
        raw = {candidate: one.throughput_seq_s for candidate, one in found.state.measured.items()}
        fooled += max(raw, key=lambda candidate: raw[candidate]) != found.pick()
    assert fooled >= 3


def test_a_winner_that_stands_apart_is_not_timed_again(tmp_path):
    found = search(tmp_path, Machine(factor=lambda m: 1.0 if m == BEST else 1.2), exhaustive=True)
    assert len(found.state.timings) == len(CANDIDATES)


def test_the_memory_objective_finds_a_leaner_candidate(tmp_path):
    fast = search(tmp_path / "fast", Machine(noise=0.002))
    lean = search(tmp_path / "lean", Machine(noise=0.002), goal=Goal("memory", 0.30))
    known = lean.belief.estimates()
    rates = {one: known[one].throughput_seq_s for one in lean.state.measured}
    assert lean.state.peak(lean.pick()) < fast.state.peak(fast.pick())
    assert rates[lean.pick()] >= 0.70 * max(rates.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_machine_that_slows_down_midway_is_noticed_and_does_not_mislead(seed, tmp_path):
    slow = Machine(noise=0.004, pace=lambda step: 1.0 if step < 7 else 1.6, seed=seed)
    found = search(tmp_path, slow, exhaustive=True)
    assert picked(found) == BEST
    assert any("the machine drifted" in text for text in found.warned)
    assert drift(found).ratio == pytest.approx(1.6, rel=0.05)


@pytest.mark.parametrize("slow_for", [16, 10_000])
def test_a_machine_that_is_slow_for_a_while_is_told_and_not_waited_for(tmp_path, slow_for):
    """All are alike; the machine is slow from some step on, and then recovers, or not."""
    equal = alike()
    machine = Machine(lambda m: equal[m], noise=0.01, pace=lambda step: 1.5 if 20 < step <= 20 + slow_for else 1.0)
    found = search(tmp_path, machine, exhaustive=True)
    assert any("the machine drifted" in text for text in found.warned)
    assert len(found.state.timings) < 30


def test_a_steady_machine_is_not_said_to_drift(tmp_path):
    for seed in range(5):
        found = search(tmp_path / str(seed), Machine(noise=0.01, seed=seed), exhaustive=True)
        assert found.warned == []


def test_what_does_not_fit_never_wins(tmp_path):
    """As after --explore-limit, or when an earlier run of the study had no limit: the fastest needs too much."""
    fast = search(tmp_path / "free", Machine())
    limit = fast.state.peak(fast.pick()) - 1
    found = search(tmp_path / "limited", Machine(), memory_limit=limit, exhaustive=True)
    assert fast.pick() in found.state.measured
    assert found.state.peak(found.pick()) <= limit
    assert fast.pick() not in found.state.contenders
    resumed = search(tmp_path / "free", Machine(), memory_limit=limit, allowed=[4, 5, 6])
    assert resumed.pick() in CANDIDATES[4:]


def test_a_promising_candidate_whose_trial_was_disturbed_is_visited_again(tmp_path):
    """The first steps of the true best run while something else does; only those."""
    search(tmp_path, Machine(), allowed=[4])
    machine = Machine()
    machine.factor = lambda m: 1.4 if m == BEST and machine.asked.count(BEST) == 1 else 1.0
    found = search(tmp_path, machine)
    assert machine.asked.count(BEST) >= 2
    assert len(list(found.state.visits(BEST_ONE))) == machine.asked.count(BEST)


def test_no_candidate_left_is_not_called_measured(tmp_path):
    found = search(tmp_path, Machine(fails=(64,)), exhaustive=True)
    assert found.state.stop.reason == StopReason.NOTHING_LEFT
