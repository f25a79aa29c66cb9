"""The search against a scripted machine: what it tries, when it stops, what it keeps. The study is real SQLite."""

import pytest

from autotune.outcome import Failure
from autotune.search.prospects import Goal
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS, Machine, make_search, search

COUNTS = [candidate.micro_batches for candidate in CANDIDATES]


def picked(found):
    return CANDIDATES[found.pick()].micro_batches


def test_the_best_prediction_and_the_naive_come_first(tmp_path):
    machine = Machine()
    search(tmp_path, machine)
    assert machine.asked[:2] == [BEST, 1]


def test_a_true_model_needs_few_trials(tmp_path):
    machine = Machine(noise=0.003)
    found = search(tmp_path, machine)
    assert found.trials < len(CANDIDATES)
    assert found.real_steps < 0.5 * len(CANDIDATES) * 6
    assert "no other candidate can beat the best by more than 1 %" in found.stopped_because
    assert picked(found) == BEST
    assert found.confidence() > 0.9


def test_a_model_that_misleads_is_found_out(tmp_path):
    """Large m is far slower than predicted: the search goes on to the true best, m = 4."""
    found = search(tmp_path, Machine(factor=lambda m: 1.0 if m <= 4 else 1.5 * m / 8, noise=0.003))
    assert picked(found) == 4


def test_a_machine_at_another_pace_than_the_profiles_changes_nothing(tmp_path):
    found = search(tmp_path, Machine(factor=lambda m: 1.3, noise=0.003))
    assert picked(found) == BEST
    assert found.trials < len(CANDIDATES)


def test_a_clearly_worse_candidate_is_pruned_after_a_step(tmp_path):
    naive = search(tmp_path, Machine()).measured[0]
    assert (naive.pruned, len(naive.step_times_s)) == (True, 1)


def search_where_unsure(tmp_path, machine, **options):
    """A search run with a model that may be off by a fifth and so rules nobody out."""
    found = make_search(tmp_path, machine, **options)
    found.predictions = [
        one.model_copy(update={"uncertainty": one.uncertainty.model_copy(update={"own": 0.12})}) for one in PREDICTIONS
    ]
    found.run()
    return found


def steps_where_unsure(tmp_path, machine):
    """The timed steps of each m's trial."""
    found = search_where_unsure(tmp_path, machine)
    return {CANDIDATES[index].micro_batches: len(one.step_times_s) for index, one in found.measured.items()}


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


def test_where_noise_leaves_all_open_trials_are_short_and_chance_leaders_are_no_reason_to_look_back(tmp_path):
    lengths, checks = [], 0
    for seed in range(5):
        found = search(tmp_path / str(seed), Machine(noise=0.06, seed=seed))
        lengths += [len(visit.step_times_s) for visit in found.visits.all]
        checks += found.checks
    assert sum(length > 3 for length in lengths) < len(lengths) / 4
    assert checks <= 5


def test_every_outcome_is_saved_at_once(tmp_path):
    found = search(tmp_path, Machine(), trials=2)
    assert [len(outcomes) for outcomes in found.saved[:2]] == [1, 2]
    assert found.stopped_because == "the limit of 2 trials"


def test_a_budget_ends_the_search(tmp_path):
    found = search(tmp_path, Machine(), budget_s=1e-9)
    assert found.trials == 0
    assert found.stopped_because == "the budget of 1e-09 s"


def test_exhaustive_runs_all_and_prunes_none(tmp_path):
    found = search(tmp_path, Machine(), exhaustive=True)
    assert len(found.measured) == len(CANDIDATES)
    assert not any(m.pruned for m in found.measured.values())
    assert found.stopped_because == "every candidate was measured"


def test_a_failure_is_an_outcome(tmp_path):
    found = search(tmp_path, Machine(fails=(BEST,)))
    assert isinstance(found.outcomes[COUNTS.index(BEST)], Failure)
    assert picked(found) == 16


def test_what_needs_as_much_memory_as_one_that_ran_out_is_not_tried(tmp_path):
    """GPipe at m = 2 holds both halves of the batch on every rank, as m = 1 holds the whole."""
    machine = Machine(fails=(1, 2))
    found = search(tmp_path, machine, exhaustive=True)
    assert machine.asked.count(1) + machine.asked.count(2) == 1
    ruled_out = found.ruled_out[COUNTS.index(1 if 2 in machine.asked else 2)]
    assert "which ran out" in ruled_out


def test_what_is_not_allowed_is_not_tried(tmp_path):
    machine = Machine()
    search(tmp_path, machine, allowed=[0, 1])
    assert set(machine.asked) == {1, 2}


def test_tied_candidates_meet_in_a_final_in_random_order(tmp_path):
    equal = {c.micro_batches: 10.0 / p.step_time_s for c, p in zip(CANDIDATES, PREDICTIONS, strict=True)}
    machine = Machine(factor=lambda m: equal[m], noise=0.01)
    found = search(tmp_path, machine, exhaustive=True)
    final = machine.asked[len(CANDIDATES) + found.checks :]
    assert len(final) in (3, 6)  # rounds of three finalists
    assert all(len(set(final[at : at + 3])) == 3 for at in range(0, len(final), 3))
    assert "the tie is accepted" in found.final


def test_a_final_ends_before_it_costs_more_than_measuring_all(tmp_path):
    """Two candidates that are alike on a machine so noisy that five rounds would not tell them apart."""
    step_s = PREDICTIONS[3].step_time_s
    equal = {c.micro_batches: step_s / p.step_time_s for c, p in zip(CANDIDATES, PREDICTIONS, strict=True)}
    found = search_where_unsure(tmp_path, Machine(factor=lambda m: equal[m], noise=0.2), allowed=[2, 3])
    assert found.final == "the tie is accepted: not separated after 2 rounds"


def test_where_steps_say_less_than_the_model_both_are_heard(tmp_path):
    """The model is right, and steps differ so much that others often look faster than the best."""
    fooled = 0
    for seed in range(10):
        found = search(tmp_path / str(seed), Machine(noise=0.15, seed=seed), exhaustive=True)
        assert picked(found) == BEST
        fooled += max(found.measured, key=found.rate) != found.pick()
    assert fooled >= 3


def test_a_winner_that_stands_apart_needs_no_final(tmp_path):
    found = search(tmp_path, Machine(factor=lambda m: 1.0 if m == BEST else 1.2), exhaustive=True)
    assert found.final == "the winner is separated by the trials"


def test_the_memory_objective_finds_a_leaner_candidate(tmp_path):
    fast = search(tmp_path / "fast", Machine(noise=0.002))
    lean = search(tmp_path / "lean", Machine(noise=0.002), goal=Goal("memory", 0.30))
    standings = lean.standings()
    assert standings[lean.pick()].peak < fast.standings()[fast.pick()].peak
    assert standings[lean.pick()].rate >= 0.70 * max(one.rate for one in standings.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_machine_that_slows_down_midway_is_noticed_and_does_not_mislead(seed, tmp_path):
    slow = Machine(noise=0.004, pace=lambda step: 1.0 if step < 7 else 1.6, seed=seed)
    found = search(tmp_path, slow, exhaustive=True)
    assert picked(found) == BEST
    assert any("the machine drifted" in text for text in found.warned)
    assert max(found.visits.paces) == pytest.approx(1.6, rel=0.05)


def test_the_final_waits_for_the_usual_pace(tmp_path):
    """All are alike, so that there are rounds; the machine is slow when they would begin, and then recovers, or not."""
    equal = {c.micro_batches: 10.0 / p.step_time_s for c, p in zip(CANDIDATES, PREDICTIONS, strict=True)}
    for slow_for, ended in ((16, "after"), (10_000, "did not come back to its usual pace")):
        trials = make_search(tmp_path / "length", Machine(lambda m: equal[m], noise=0.01), exhaustive=True, fresh=True)
        trials.run()
        machine = Machine(lambda m: equal[m], noise=0.01)
        length = sum(len(visit.step_times_s) for visit in trials.visits.all[: trials.trials])
        machine.pace = lambda step, last=length - 8, more=slow_for: 1.5 if last < step <= last + more else 1.0
        found = search(tmp_path / str(slow_for), machine, exhaustive=True)
        assert any("the machine drifted" in text for text in found.warned)
        assert ended in found.final
        if slow_for > 16:
            assert len(found.visits.all) < 30


def test_a_steady_machine_is_not_said_to_drift(tmp_path):
    for seed in range(5):
        found = search(tmp_path / str(seed), Machine(noise=0.01, seed=seed), exhaustive=True)
        assert found.warned == []


def test_what_does_not_fit_never_wins(tmp_path):
    """As after --explore-limit, or when an earlier run of the study had no limit: the fastest needs too much."""
    fast = search(tmp_path / "free", Machine())
    limit = fast.standings()[fast.pick()].peak - 1
    found = search(tmp_path / "limited", Machine(), memory_limit=limit, exhaustive=True)
    assert fast.pick() in found.measured
    assert found.standings()[found.pick()].peak <= limit
    assert fast.pick() not in found.standings()
    resumed = search(tmp_path / "free", Machine(), memory_limit=limit, allowed=[4, 5, 6])
    assert resumed.pick() in (4, 5, 6)


def test_a_promising_candidate_whose_trial_was_disturbed_is_visited_again(tmp_path):
    """The first steps of the true best run while something else does; only those."""
    search(tmp_path, Machine(), allowed=[4])
    machine = Machine()
    machine.factor = lambda m: 1.4 if m == BEST and machine.asked.count(BEST) == 1 else 1.0
    found = search(tmp_path, machine)
    assert machine.asked.count(BEST) >= 2
    assert len(found.visits.of(COUNTS.index(BEST))) == machine.asked.count(BEST)


def test_no_candidate_left_is_not_called_measured(tmp_path):
    found = search(tmp_path, Machine(fails=(64,)), exhaustive=True)
    assert found.stopped_because == "no candidate is left to try"
