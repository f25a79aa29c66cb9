"""The expected cost of a search: of whole searches on machines that are as wrong as the model says."""

from autotune.backend.dry_run import Simulated
from autotune.backend.protocol import Paper
from autotune.backend.ranks import TorchRanks
from autotune.config import Config
from autotune.pipeline.control.ranks import Ranks
from autotune.records.job.environment import Environment
from autotune.search.goal import exhaustive_seconds
from autotune.tuning.forecast import expected_cost
from tests.search.machine import CANDIDATES, PREDICTIONS, PROFILE

KNOWN = dict(zip(CANDIDATES, PREDICTIONS, strict=True))


def machine():
    """What the ranks of the default workload would do, if the scripted machine's profile were true."""
    config = Config()
    work = config.workload("cpu")
    ranks = TorchRanks(Environment(device="cpu"), work, work, None, Ranks(4, "cpu"), config=config)
    return Simulated(ranks, Paper([PROFILE], "arithmetic"), noise=0.007)


def test_a_search_costs_fewer_steps_than_measuring_all():
    cost = expected_cost(machine(), KNOWN, {}, Config())
    assert 1 <= cost.trials <= len(CANDIDATES)
    assert cost.steps >= 2 * cost.trials
    assert 0 < cost.seconds < exhaustive_seconds([one.step_time_s for one in PREDICTIONS])


def test_limits_and_exclusions_are_kept():
    assert expected_cost(machine(), KNOWN, {}, Config(trials=1)).trials == 1
    but_two = dict.fromkeys(CANDIDATES[2:], "not now")
    assert expected_cost(machine(), KNOWN, but_two, Config(exhaustive=True)).trials == 2


def test_the_clock_of_a_simulated_machine_is_its_steps():
    simulated = machine()
    done = simulated.measure(CANDIDATES[3], PREDICTIONS[3].step_time_s, 3, lambda number, seconds: True)
    assert simulated.busy_s > sum(done.step_times_s)
    assert simulated.busy_s < 5 * max(done.step_times_s)
