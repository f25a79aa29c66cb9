"""Several controllers on one study, in an SQLite file: who runs what, who is dead, whose machine is how fast."""

import random
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from optuna.trial import TrialState

from autotune.errors import UsageError
from autotune.events import Silent
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.verdict import StopReason
from autotune.search.space import params_of
from autotune.search.study.sampler import make_sampler
from autotune.search.study.shared import SILENT, SharedStudy
from autotune.search.timing import Timing
from autotune.tuning.conclude import drift
from tests import postgres
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS, Machine, make_search

pytestmark = pytest.mark.slow  # several controllers, some of which are killed

HEARTBEAT_S = 1.0
PATIENT_S = 3 * HEARTBEAT_S  # long enough to measure all others before the dead one is given up
DEAD_S = SILENT * HEARTBEAT_S + 2.5  # SQLite's clock counts seconds
BEST_AT = [candidate.micro_batches for candidate in CANDIDATES].index(BEST)


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path}/shared.db"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=postgres.needed)])
def any_address(request):
    """Of a database in which nothing is yet."""
    if request.param == "sqlite":
        yield request.getfixturevalue("address")
        return
    with postgres.running() as server:
        yield server.url()


@pytest.fixture
def join(address):
    """Makes controllers of one study; closes all at the end."""
    joined = []

    def make(fresh=False, heartbeat_s=HEARTBEAT_S, address=address):
        study = SharedStudy(address, heartbeat_s, "scripted", CANDIDATES, fresh)
        study.use(make_sampler("cost-model", study.space, 0, None))
        joined.append(study)
        return study

    yield make
    for study in joined:
        study.close()


def measured(address):
    """Who measured what: (m, controller) of every trial that counts."""
    done = [trial for trial in postgres.trials(address) if trial.state == TrialState.COMPLETE]
    return [(trial.params["micro_batches"], trial.user_attrs["controller"]) for trial in done]


def outcome(candidate):
    times = (PREDICTIONS[CANDIDATES.index(candidate)].step_time_s,) * 3
    return Measurement.of(times, candidate.sequences, 1, peak_memory_bytes=(1, 1, 1, 1))


def finish(study, begun, visit=0):
    candidate, trial = begun
    done = outcome(candidate)
    timing = Timing(visit, candidate, done.step_times_s, 0.0, study.controller)
    return study.finish(trial, done, timing, None, None)


def die(study):
    """As the kernel would do it: no more signs of life, and nothing is handed on."""
    study._pulse.stop()


@contextmanager
def asleep(study):
    """A controller that gives no sign of life for a while, and then goes on."""
    study._pulse.stop()
    time.sleep(DEAD_S)
    yield


def test_who_comes_second_gives_way(join, address):
    one, other = join(), join()
    begun = one.begin(CANDIDATES[2])
    assert other.begin(CANDIDATES[2]) is None
    assert other.begin(CANDIDATES[3]) is not None
    assert other.running_elsewhere() == {CANDIDATES[2]}
    assert finish(one, begun)
    assert other.running_elsewhere() == set()
    assert other.begin(CANDIDATES[2]) is None, "measured already"
    assert [trial.user_attrs.get("gave way") for trial in postgres.trials(address)] == [None, True, None, True]


def test_trials_that_gave_way_are_no_outcomes(join):
    one, other = join(), join()
    begun = one.begin(CANDIDATES[2])
    for _ in range(3):
        assert other.begin(CANDIDATES[2]) is None
    assert other.finished() == {}
    finish(one, begun)
    assert set(other.finished()) == {CANDIDATES[2]}


def test_many_at_once_measure_every_candidate_exactly_once(any_address, join):
    start, errors = threading.Barrier(4), []

    def work(order):
        try:
            start.wait()
            study, visit = join(heartbeat_s=30, address=any_address), 0  # all make the tables, too
            start.wait()
            while left := [one for one in order if one not in study.finished()]:
                begun = study.begin(left[0])  # all want the same, to be in each other's way
                if begun is not None:
                    assert finish(study, begun, visit)
                    visit += 1
        except BaseException as error:
            start.abort()
            errors.append(error)

    order = random.Random(0).sample(CANDIDATES, len(CANDIDATES))
    threads = [threading.Thread(target=work, args=(order,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(m for m, _ in measured(any_address)) == sorted(candidate.micro_batches for candidate in CANDIDATES)


def test_a_trial_that_says_not_yet_what_it_runs_is_waited_for(join):
    slow, other = join(), join()
    trial_id = slow._storage.create_new_trial(slow._study._study_id)
    found = []
    waiting = threading.Thread(target=lambda: found.append(other.begin(CANDIDATES[2])))
    waiting.start()
    waiting.join(1.0)
    assert waiting.is_alive()
    for name, distribution in slow.space.distributions.items():
        value = params_of(CANDIDATES[2])[name]
        value = CANDIDATES[2].schedule if name == "schedule" else value
        slow._storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
    waiting.join(10)
    assert found == [None]


def test_one_that_never_says_it_is_dead_after_a_while(join):
    """Killed between its trial and the first sign of life."""
    slow, other = join(), join()
    slow._storage.create_new_trial(slow._study._study_id)
    begun = time.monotonic()
    assert other.begin(CANDIDATES[2]) is not None
    assert SILENT * HEARTBEAT_S - 1 < time.monotonic() - begun < DEAD_S + 2


def test_what_a_dead_controller_was_running_is_free_again(join, address):
    dead, other = join(), join()
    dead.begin(CANDIDATES[2])
    die(dead)
    other.recover()
    assert other.running_elsewhere() == {CANDIDATES[2]}
    time.sleep(DEAD_S)
    other.recover()
    assert other.running_elsewhere() == set()
    assert finish(other, other.begin(CANDIDATES[2]))
    assert measured(address) == [(CANDIDATES[2].micro_batches, other.controller)]


def test_a_living_controller_keeps_its_trial_however_long_it_takes(join):
    living, other = join(), join()
    begun = living.begin(CANDIDATES[2])
    time.sleep(DEAD_S)
    other.recover()
    assert other.begin(CANDIDATES[2]) is None
    assert finish(living, begun)


def test_who_was_only_asleep_finds_that_its_trial_is_not_its_own(join, address):
    sleeper, other = join(), join()
    candidate, trial = sleeper.begin(CANDIDATES[2])
    assert sleeper.note_step(trial, 1.0, 0)
    with asleep(sleeper):
        other.recover()
        assert finish(other, other.begin(CANDIDATES[2]))
    assert not sleeper.note_step(trial, 1.0, 1)
    assert not finish(sleeper, (candidate, trial))
    assert measured(address) == [(CANDIDATES[2].micro_batches, other.controller)]


def test_a_kill_before_the_trial_is_complete_loses_no_measurement(join):
    dead, other = join(), join()
    candidate, trial = dead.begin(CANDIDATES[2])
    for name, value in (("visit", 0), ("rate", 1.0), ("measurement", outcome(candidate).model_dump(mode="json"))):
        trial.set_user_attr(name, value)
    die(dead)
    other.recover()  # at once: there is nothing to wait for
    assert set(other.finished()) == {CANDIDATES[2]}
    assert finish(dead, (candidate, trial)), "completed by another, and still its own"


def test_an_end_in_good_order_hands_the_trial_on_at_once(join):
    leaver, other = join(), join()
    leaver.begin(CANDIDATES[2])
    leaver.close()
    assert other.begin(CANDIDATES[2]) is not None


def test_fresh_is_refused_while_another_is_at_work(join, address):
    one = join()
    begun = one.begin(CANDIDATES[2])
    with pytest.raises(UsageError, match="another controller is working on this study"):
        join(fresh=True)
    finish(one, begun)
    join(fresh=True)
    assert postgres.trials(address) == []


def test_a_study_that_was_removed_by_another_is_said_to_be(join, tmp_path):
    """Between two trials, when nothing showed that somebody was at work."""
    left_alone, told = join(), []

    class Removed(Machine):
        def __call__(self, candidate, expected_step_s, steps, keep_going):
            outcome = super().__call__(candidate, expected_step_s, steps, keep_going)
            if len(self.asked) == 2:
                left_alone.close()  # hands its trial on
                told.append(join(fresh=True).controller)
            return outcome

    with pytest.raises(KeyError) as found:
        make_search(tmp_path, Removed(), study=left_alone).run()
    assert told
    assert "another controller has removed the study" in left_alone.trouble(found.value)
    assert left_alone.trouble(KeyError("a bug")) is None


def test_two_searches_at_once_share_the_work_and_agree(join, tmp_path, address):
    machines = [Machine(noise=0.003, seed=seed) for seed in range(2)]
    searches = [
        make_search(tmp_path, machine, study=join(), exhaustive=True, seed=i) for i, machine in enumerate(machines)
    ]
    threads = [threading.Thread(target=one.run) for one in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = {candidate.micro_batches for candidate in CANDIDATES}
    assert sorted(m for m, _ in measured(address)) == sorted(every)
    assert [len(one.state.measured) for one in searches] == [len(every)] * 2
    assert [one.pick().micro_batches for one in searches] == [BEST] * 2
    assert searches[0].state.trials + searches[1].state.trials == len(every)


def test_figures_of_another_controller_say_so(join, tmp_path):
    make_search(tmp_path, Machine(), study=join()).run()
    machine = Machine()
    second = make_search(tmp_path, machine, study=join())
    second.run()
    assert machine.asked == []  # nothing is left to try, and the final was held
    assert all(one.from_other_controller and not one.from_earlier_run for one in second.state.measured.values())


@pytest.mark.alone
def test_a_search_waits_for_what_another_runs_and_takes_it_over_when_that_dies(join, tmp_path):
    dead = join(heartbeat_s=PATIENT_S)
    assert dead.begin(CANDIDATES[BEST_AT])
    die(dead)
    told, machine = [], Machine()

    class Listener(Silent):
        def progress(self, text, done=None):
            told.append(text)

    study = join(heartbeat_s=PATIENT_S)
    found = make_search(tmp_path, machine, study=study, exhaustive=True, events=Listener())
    found.run()
    assert f"waiting for another controller's trial of m = {BEST} 1F1B" in told
    assert machine.asked.count(BEST) >= 1
    assert len(found.state.measured) == len(CANDIDATES)
    assert found.state.stop.reason == StopReason.ALL_MEASURED


@pytest.mark.alone
def test_a_budget_ends_the_waiting(join, tmp_path):
    busy = join()
    busy.begin(CANDIDATES[BEST_AT])
    found = make_search(tmp_path, Machine(), study=join(), exhaustive=True, budget_s=6.0, clock=time.time)
    found.run()
    assert len(found.state.measured) == len(CANDIDATES) - 1


def test_a_search_that_slept_through_its_trial_adds_a_visit_and_no_trial(join, tmp_path, address):
    sleeper, other = join(), join()

    class Sleepy(Machine):
        def __call__(self, candidate, expected_step_s, steps, keep_going):
            if not self.asked:
                with asleep(sleeper):
                    other.recover()
                    finish(other, other.begin(candidate))
            return super().__call__(candidate, expected_step_s, steps, keep_going)

    found = make_search(tmp_path, Sleepy(), study=sleeper)
    found.run()
    numbers = [m for m, _ in measured(address)]
    assert len(numbers) == len(set(numbers))
    assert found.state.measured
    assert any("was handed on to others" in text for text in found.warned)


def test_a_slower_machine_is_compared_by_what_both_have_run(join, tmp_path):
    """Half as fast, and joined late: no candidate looks worse for having run there."""
    make_search(tmp_path, Machine(noise=0.002), study=join(), trials=2).run()
    slow = Machine(lambda m: 2.0, noise=0.002, seed=1)
    second = make_search(tmp_path, slow, study=join(), exhaustive=True)
    second.run()
    assert slow.asked[0] == BEST  # beside the other's
    assert second.pick().micro_batches == BEST
    theirs = second.belief.visits.machine == 1
    assert np.median(second.belief.speed_factors()[theirs]) == pytest.approx(0.5, rel=0.02)
    assert drift(second).ratio == pytest.approx(1.0, abs=0.01), "another machine is no change of our own speed"
    third = make_search(tmp_path, Machine(noise=0.002, seed=2), study=join(), exhaustive=True)
    third.run()
    assert third.pick().micro_batches == BEST


def test_a_failure_of_another_controller_counts(join, tmp_path):
    make_search(tmp_path, Machine(fails=(BEST,)), study=join(), trials=1).run()
    machine = Machine()
    found = make_search(tmp_path, machine, study=join())
    found.run()
    assert BEST not in machine.asked
    assert isinstance(found.state.outcomes[CANDIDATES[BEST_AT]], Failure)
