"""Who proposes candidates: every sampler on the same study, each candidate at most once."""

import pytest

from autotune.errors import UsageError
from autotune.search.space import Space, params_of
from autotune.search.study import sampler as module
from autotune.search.study.sampler import check_sampler
from tests.search.machine import BEST, CANDIDATES, Machine, make_search, search


def test_the_space_is_the_smallest_that_holds_every_candidate():
    space = Space(CANDIDATES)
    assert space.distributions["micro_batches"].low == 1
    assert space.distributions["micro_batches"].high == 64
    assert space.distributions["micro_batches"].log
    assert set(space.distributions["schedule"].choices) == {"1F1B", "GPipe"}
    assert space.distributions["virtual_stages"].single()


def test_any_point_becomes_the_nearest_candidate_that_is_left():
    space = Space(CANDIDATES)
    point = params_of(CANDIDATES[4]) | {"micro_batches": 20}
    assert space.nearest(point, CANDIDATES).micro_batches == 16
    left = [candidate for candidate in CANDIDATES if candidate.micro_batches != 16]
    assert space.nearest(point, left).micro_batches == 32
    assert all(space.nearest(params_of(candidate), CANDIDATES) == candidate for candidate in CANDIDATES)


def test_a_candidate_has_a_name_that_a_reader_understands():
    assert [candidate.label for candidate in CANDIDATES[1:3]] == ["m = 2 GPipe", "m = 4 1F1B"]


def test_the_cost_model_proposes_the_best_prediction_first(tmp_path):
    machine = Machine()
    search(tmp_path, machine)
    assert machine.asked[0] == BEST


@pytest.mark.parametrize("name", ["cost-model", "tpe", pytest.param("gp", marks=pytest.mark.slow), "random", "grid"])
def test_every_sampler_goes_through_all_candidates_once(name, tmp_path):
    machine = Machine()
    found = search(tmp_path, machine, sampler=name, exhaustive=True)
    assert found.state.trials == len(found.state.measured) == len(CANDIDATES)
    assert set(machine.asked) == {candidate.micro_batches for candidate in CANDIDATES}


def test_seeds_repeat_and_differ(tmp_path):
    def order(seed, folder):
        machine = Machine()
        search(tmp_path / folder, machine, sampler="random", seed=seed, exhaustive=True)
        return machine.asked[: len(CANDIDATES)]

    assert order(1, "a") == order(1, "b")
    assert any(order(1, "c") != order(seed, f"d{seed}") for seed in (2, 3, 4))


def test_all_samplers_share_one_study(tmp_path):
    search(tmp_path, Machine(), sampler="random", trials=2)
    machine = Machine()
    found = search(tmp_path, machine, sampler="cost-model", trials=1, exhaustive=True)
    assert len(found.state.measured) == 3
    trials = make_search(tmp_path, Machine()).study._study.get_trials()
    assert len({trial.params["micro_batches"] for trial in trials}) == 3


def test_gp_without_scipy_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install scipy"):
        check_sampler("gp")
    check_sampler("tpe")
