"""The expected cost of a search: of whole searches on machines that are as wrong as the model says."""

from autotune.search.dry_run import SimulatedMachine, exhaustive_seconds, expected_cost
from autotune.search.goal import Goal, Limits
from tests.search.machine import CANDIDATES, PREDICTIONS

KNOWN = dict(zip(CANDIDATES, PREDICTIONS, strict=True))


def test_a_search_costs_fewer_steps_than_measuring_all():
    cost = expected_cost(KNOWN, {}, Limits(), Goal(), "cost-model")
    assert 1 <= cost.trials <= len(CANDIDATES)
    assert cost.steps >= 2 * cost.trials
    assert 0 < cost.seconds < exhaustive_seconds([one.step_time_s for one in PREDICTIONS])


def test_limits_and_exclusions_are_kept():
    assert expected_cost(KNOWN, {}, Limits(trials=1), Goal(), "cost-model").trials == 1
    but_two = dict.fromkeys(CANDIDATES[2:], "not now")
    assert expected_cost(KNOWN, but_two, Limits(exhaustive=True), Goal(), "cost-model").trials == 2


def test_the_clock_of_a_simulated_machine_is_its_steps():
    machine = SimulatedMachine(0)
    done = machine(CANDIDATES[3], PREDICTIONS[3], 3, lambda number, seconds: True)
    assert machine.seconds > sum(done.step_times_s)
    assert machine.seconds < 5 * max(done.step_times_s)
