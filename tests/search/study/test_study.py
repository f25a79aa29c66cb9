"""The study on disk: what a later run takes over, what it does not, and what it says of that."""

import optuna
import pytest

from autotune.config import load_config
from autotune.errors import InputError
from autotune.events import Silent
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.search.study.study import CONSTRAINT, METRIC, Study
from autotune.search.study.trouble import check_study
from autotune.search.timing import Timing
from autotune.tune import tune
from autotune.tuning.conclude import drift
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS, Machine, make_search, search

BEST_ONE = next(candidate for candidate in CANDIDATES if candidate.micro_batches == BEST)
HERE = {"workload": {"layers": 48}, "environment": {"torch_version": "2.13.0"}}


class Told(Silent):
    """Keeps what is said to be done."""

    def __init__(self):
        self.texts = []

    def progress(self, text, done=None):
        self.texts.append(text)


def opened(tmp_path, name="scripted", identity=None, fresh=False):
    return Study(tmp_path / "state", name, CANDIDATES, fresh, identity)


def stored(tmp_path):
    """The study as optuna-dashboard opens it."""
    return optuna.load_study(study_name="scripted", storage=f"sqlite:///{tmp_path}/state/study.db")


def test_a_second_run_takes_over_what_the_first_measured(tmp_path):
    first = search(tmp_path, Machine(noise=0.003))
    machine = Machine()
    second = search(tmp_path, machine)
    assert machine.asked == []
    assert all(m.from_earlier_run for m in second.state.measured.values())
    assert second.pick() == first.pick()
    before = {i: m.step_times_s for i, m in first.state.measured.items()}
    assert {i: m.step_times_s for i, m in second.state.measured.items()} == before


def test_a_stopped_study_goes_on_where_it_was(tmp_path):
    search(tmp_path, Machine(), trials=1)
    machine = Machine()
    found = search(tmp_path, machine)
    assert machine.asked[0] == BEST  # again, because the machine drifts
    assert machine.asked[1] == 1
    assert machine.asked.count(BEST) == 1
    assert not found.state.measured[CANDIDATES[0]].from_earlier_run


def test_fresh_measures_everything_again(tmp_path):
    search(tmp_path, Machine())
    machine = Machine()
    found = search(tmp_path, machine, fresh=True)
    assert machine.asked[0] == BEST
    assert not any(m.from_earlier_run for m in found.state.measured.values())


@pytest.mark.parametrize("step", range(1, 14))
def test_dying_at_any_step_loses_no_finished_trial_and_repeats_none(step, tmp_path):
    """As after Ctrl-C; a process killed by signal is in tests/runs/test_resume.py."""
    machine = Machine(dies_at=step, noise=0.003)
    first = make_search(tmp_path, machine)
    try:
        first.run()
    except KeyboardInterrupt:
        done = set(first.state.measured)
        machine = Machine(noise=0.003, seed=1)
        second = search(tmp_path, machine)
        assert done <= set(second.state.measured)
        trials = stored(tmp_path).get_trials()
        finished = [t.params["micro_batches"] for t in trials if "measurement" in t.user_attrs]
        assert len(finished) == len(set(finished))
        assert all(trial.state.is_finished() for trial in trials)
        assert second.pick() is not None


def test_failures_are_kept_and_not_tried_again(tmp_path):
    search(tmp_path, Machine(fails=(BEST,)))
    again = Machine()
    found = search(tmp_path, again)
    assert BEST not in again.asked
    assert isinstance(found.state.outcomes[BEST_ONE], Failure)


def test_what_ran_out_of_memory_under_a_lower_limit_is_tried_again_under_a_higher_one(tmp_path):
    search(tmp_path, Machine(fails=(BEST,)), memory_limit=2**30)
    study = opened(tmp_path)
    assert BEST_ONE in study.finished(2**30)
    assert BEST_ONE in study.finished(2**29)
    assert BEST_ONE not in study.finished(2**31)


def test_memory_is_a_constraint_in_optunas_own_terms(tmp_path):
    search(tmp_path, Machine(fails=(BEST,)), memory_limit=2**40)
    over = {t.params["micro_batches"]: t.constraints[CONSTRAINT] for t in stored(tmp_path).get_trials()}
    assert over.pop(BEST) > 0
    assert over
    assert all(value < 0 for value in over.values())


def test_the_names_explain_themselves(tmp_path):
    search(tmp_path, Machine(), identity=HERE)
    study = stored(tmp_path)
    assert study.metric_names == [METRIC]
    assert study.user_attrs["identity"] == HERE
    for trial in study.get_trials():
        assert set(trial.params) == {"micro_batches", "schedule", "virtual_stages", "split", "recompute"}
        assert trial.intermediate_values
        Measurement.model_validate(trial.user_attrs["measurement"] | {"step_times_s": (1.0,)})


def test_another_workload_or_machine_is_another_study_and_says_how_it_differs(tmp_path):
    opened(tmp_path, identity=HERE)
    newer = opened(tmp_path, "other", HERE | {"environment": {"torch_version": "2.14.0"}})
    assert newer.differs_from_earlier == {"environment": ["torch_version was 2.13.0, is 2.14.0"]}
    assert opened(tmp_path, identity=HERE).differs_from_earlier == {}  # known: it goes on


def test_the_first_study_of_a_file_differs_from_none(tmp_path):
    assert opened(tmp_path, identity=HERE).differs_from_earlier == {}


def test_a_file_that_is_no_study_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "study.db").write_text("not SQLite")
    with pytest.raises(InputError, match=r"cannot open the study .*study\.db"):
        search(tmp_path, Machine())


def test_a_kill_between_two_writes_costs_one_trial_and_no_more(tmp_path):
    """What finish writes before the measurement, and nothing after it."""
    first = make_search(tmp_path, Machine(), trials=1)
    first.run()
    begun = first.study.begin(CANDIDATES[0])[1]
    begun.set_user_attr("visit", 7)
    begun.set_user_attr("rate", 1.0)
    machine = Machine()
    found = search(tmp_path, machine)
    assert 1 in machine.asked
    assert len({timing.number for timing in found.state.timings}) == len(found.state.timings)
    assert all(trial.state.is_finished() for trial in stored(tmp_path).get_trials())


def test_a_kill_before_the_trial_is_told_loses_nothing(tmp_path):
    first = make_search(tmp_path, Machine(), trials=1)
    first.run()
    begun = first.study.begin(CANDIDATES[0])[1]
    slow = Measurement.of((200.0, 200.0), CANDIDATES[0].sequences, 1)
    for name, value in (("visit", 1), ("rate", 0.3), ("measurement", slow.model_dump(mode="json"))):
        begun.set_user_attr(name, value)
    machine = Machine()
    found = search(tmp_path, machine)
    assert CANDIDATES[0] in found.state.measured
    assert 1 not in machine.asked


def test_a_candidate_that_lost_a_rank_is_tried_once_more_and_in_no_later_run(tmp_path):
    class Deadly(Machine):
        def __call__(self, candidate, expected_step_s, steps, keep_going):
            self.asked.append(candidate.micro_batches)
            return Failure(kind="crash", rank=0, message="killed by signal 9")

    asked = []
    for _ in range(2):
        machine = Deadly()
        search(tmp_path, machine, allowed=[3])
        asked.append(machine.asked)
    assert asked == [[BEST, BEST], []]


def test_a_change_of_pace_that_was_not_yet_found_is_found_after_the_stop(tmp_path):
    """Killed right after the trial of the true best, which ran while the machine was slow."""
    slow = Machine(noise=0.002, pace=lambda step: 1.0 if step <= 3 else 1.4)
    first = make_search(tmp_path, slow, trials=1)
    first.run()
    candidate, begun = first.study.begin(CANDIDATES[4])
    times = tuple(1.4 * PREDICTIONS[4].step_time_s for _ in range(3))
    outcome = Measurement.of(times, CANDIDATES[4].sequences, 1, peak_memory_bytes=(1, 1, 1, 1))
    last = first.state.timings[-1]
    first.study.finish(begun, outcome, Timing(last.number + 1, candidate, times, last.at_s + 300.0), None, None)
    after = Machine(noise=0.002, pace=lambda step: 1.4)
    found = search(tmp_path, after)
    assert candidate == CANDIDATES[4]
    assert drift(found).ratio == pytest.approx(1.4, rel=0.03)
    known = found.belief.estimates()
    ratio = known[CANDIDATES[4]].step_time_s / known[CANDIDATES[3]].step_time_s
    assert ratio == pytest.approx(PREDICTIONS[4].step_time_s / PREDICTIONS[3].step_time_s, rel=0.03)


def test_a_damaged_study_is_noticed_before_anything_is_profiled(tmp_path):
    """A file that is none, and one with a page that is spoilt; a whole one and none at all are fine."""
    check_study(tmp_path)
    Study(tmp_path, "x", CANDIDATES, fresh=False).close()
    check_study(tmp_path)
    path = tmp_path / "study.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes([255]) * (len(whole) - 4096))
    with pytest.raises(InputError, match=r"^cannot open the study .*study.db: .*; move the file away or give another"):
        check_study(tmp_path)
    path.write_text("no database at all, but a text that somebody has put here")
    with pytest.raises(InputError, match="file is not a database; move the file away"):
        check_study(tmp_path)
    told = Told()
    with pytest.raises(InputError, match="file is not a database"):
        tune(load_config(None, {"state_dir": tmp_path, "out": tmp_path / "report.json"}), told)
    assert told.texts == []
