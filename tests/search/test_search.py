"""The search against a scripted machine: what it tries, when it stops, what it keeps. The study is real SQLite."""

import pytest

from autotune.errors import InputError
from autotune.pipeline.outcome import Failure, Measurement
from autotune.predict.predict import candidates_for, predict
from autotune.profile.record import Profile
from autotune.search.search import Limits, Search
from autotune.search.study import Study

ROWS = [{"micro_batch_size": b, "t_f": 0.2 + 0.1 * b, "t_bw": 0.4 + 0.2 * b} for b in (1, 2, 4, 8, 16, 32, 64)]
PROFILE = Profile.model_validate({"stages": [{"time_s": ROWS}] * 4})
CANDIDATES = candidates_for((1, 2, 4, 8, 16, 32, 64), ("1F1B",), stages=4, batch=64)
PREDICTIONS = [predict(PROFILE, candidate, None) for candidate in CANDIDATES]


class Machine:
    """Runs a candidate in ``factor(m)`` times its predicted step; notes what it was asked."""

    def __init__(self, factor=lambda m: 1.0, fails=()):
        self.factor, self.fails, self.asked = factor, fails, []

    def __call__(self, candidate, prediction, steps, keep_going):
        self.asked.append(candidate.micro_batches)
        if candidate.micro_batches in self.fails:
            return Failure(kind="out_of_memory", rank=1, message="no memory")
        times = []
        for number in range(steps):
            times.append(prediction.step_time_s * self.factor(candidate.micro_batches))
            if not keep_going(number, times[-1]):
                break
        peaks = (candidate.micro_batch_size,)
        return Measurement.of(tuple(times), candidate.sequences, 1, peak_memory_bytes=peaks, pruned=len(times) < steps)


def search(tmp_path, machine, fresh=False, allowed=None, **limits):
    saved = []
    found = Search(
        candidates=CANDIDATES,
        predictions=PREDICTIONS,
        allowed=list(range(len(CANDIDATES))) if allowed is None else allowed,
        study=Study(tmp_path / "state", "scripted", CANDIDATES, fresh),
        measure=machine,
        limits=Limits(**limits),
        on_progress=lambda text: None,
        on_outcome=lambda search: saved.append(dict(search.outcomes)),
        rule_of_thumb=16,
    )
    found.run()
    return found, saved


BEST = max(CANDIDATES, key=lambda c: PREDICTIONS[CANDIDATES.index(c)].throughput_seq_s).micro_batches


def test_the_best_prediction_the_rule_of_thumb_and_the_naive_come_first(tmp_path):
    machine = Machine()
    search(tmp_path, machine)
    assert machine.asked[0] == BEST
    assert set(machine.asked[:3]) == {BEST, 16, 1}


def test_a_true_model_needs_few_trials(tmp_path):
    machine = Machine()
    found, _ = search(tmp_path, machine)
    assert len(set(machine.asked)) < len(CANDIDATES)
    assert "no other candidate can beat" in found.stopped_because


def test_a_model_that_misleads_is_found_out(tmp_path):
    """Large m is far slower than predicted: the search goes on to the true best, m = 4."""
    machine = Machine(factor=lambda m: 1.0 if m <= 4 else 1.5 * m / 8)
    found, _ = search(tmp_path, machine)
    rates = {CANDIDATES[i].micro_batches: m.throughput_seq_s for i, m in found.measured.items()}
    assert max(rates, key=rates.get) == 4


def test_a_clearly_worse_candidate_is_pruned_after_two_steps(tmp_path):
    found, _ = search(tmp_path, Machine())
    naive = found.measured[0]
    assert (naive.pruned, len(naive.step_times_s)) == (True, 2)


def test_every_outcome_is_saved_at_once(tmp_path):
    found, saved = search(tmp_path, Machine(), trials=2)
    assert [len(outcomes) for outcomes in saved] == [1, 2]
    assert found.stopped_because == "the limit of 2 trials"


def test_a_budget_ends_the_search(tmp_path):
    found, _ = search(tmp_path, Machine(), budget_s=1e-9)
    assert found.trials == 0
    assert found.stopped_because == "the budget of 1e-09 s"


def test_a_second_run_takes_over_what_the_first_measured(tmp_path):
    first, _ = search(tmp_path, Machine())
    machine = Machine()
    second, _ = search(tmp_path, machine)
    assert machine.asked == []
    assert all(m.from_earlier_run for m in second.measured.values())
    before = {i: m.step_times_s for i, m in first.measured.items()}
    assert {i: m.step_times_s for i, m in second.measured.items()} == before


def test_a_stopped_study_goes_on_where_it_was(tmp_path):
    search(tmp_path, Machine(), trials=1)
    machine = Machine()
    search(tmp_path, machine)
    assert BEST not in machine.asked[:2]
    assert {16, 1} <= set(machine.asked)


def test_fresh_measures_everything_again(tmp_path):
    search(tmp_path, Machine())
    machine = Machine()
    search(tmp_path, machine, fresh=True)
    assert machine.asked[0] == BEST


def test_exhaustive_runs_and_prunes_all(tmp_path):
    found, _ = search(tmp_path, Machine(), exhaustive=True)
    assert len(found.measured) == len(CANDIDATES)
    assert not any(m.pruned for m in found.measured.values())
    assert found.stopped_because == "every candidate was measured"


def test_a_failure_is_an_outcome_and_is_not_tried_again(tmp_path):
    machine = Machine(fails=(BEST,))
    found, _ = search(tmp_path, machine)
    assert isinstance(found.outcomes[[c.micro_batches for c in CANDIDATES].index(BEST)], Failure)
    assert len(found.measured) >= 2
    again = Machine()
    search(tmp_path, again)
    assert BEST not in again.asked


def test_what_is_not_allowed_is_not_tried(tmp_path):
    machine = Machine()
    search(tmp_path, machine, allowed=[0, 1])
    assert set(machine.asked) == {1, 2}


def test_tied_candidates_meet_in_a_final(tmp_path):
    equal = {c.micro_batches: 10.0 / p.step_time_s for c, p in zip(CANDIDATES, PREDICTIONS, strict=True)}
    machine = Machine(factor=lambda m: equal[m])
    found, _ = search(tmp_path, machine, exhaustive=True)
    final = machine.asked[len(CANDIDATES) :]
    assert len(final) == 6  # two rounds of three finalists
    assert sorted(final[:3]) == sorted(final[3:])
    assert max(len(m.step_times_s) for m in found.measured.values()) == 5 + 6


def test_a_file_that_is_no_study_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "study.db").write_text("not SQLite")
    with pytest.raises(InputError, match=r"cannot open the study .*study\.db"):
        search(tmp_path, Machine())
