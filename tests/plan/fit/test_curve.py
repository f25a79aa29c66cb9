"""The curve that a few steps teach: on made-up pipelines whose truth is known, and on published sweeps."""

import numpy as np
import pytest

from autotune.plan.fit.curve import DRAWS, learn, makespan
from autotune.records.prediction import Candidate
from autotune.records.timed_run import TimedRun
from tests.published.fits import summary


def candidate(m, b, schedule="1F1B", v=1):
    return Candidate(micro_batches=m, micro_batch_size=b, sequences=m * b, schedule=schedule, virtual_stages=v)


def run(m, b, seconds, **more):
    return TimedRun(micro_batches=m, micro_batch_size=b, step_time_s=seconds, **more)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (candidate(16, 1), 16 + 3),
        (candidate(4, 1, "GPipe"), 4 + 3),
        (candidate(16, 1, "Interleaved1F1B", 2), 16 + 3 / 2),
        (candidate(16, 1, "ZBVZeroBubble", 2), 16 + 0.5),
    ],
)
def test_the_makespan_is_the_schedules_closed_form(one, expected):
    """A zero-bubble schedule is left with what fills the pipeline, a part of a micro-batch."""
    assert makespan(4, one) == pytest.approx(expected, abs=0.6 if "ZBV" in one.schedule else 1e-9)


def truth(p, m, b, h=0.4, c=0.02, constant=0.3):
    return (m + p - 1) * c * (b + h) + constant


def test_three_runs_tell_the_rest_of_a_pipeline_that_the_formula_holds_of():
    candidates = [candidate(64 // b, b) for b in (1, 2, 4, 8, 16)]
    runs = [run(64 // b, b, truth(8, 64 // b, b)) for b in (1, 2, 8)]
    mean, another = learn(8, runs, candidates).draws()
    assert mean.shape == another.shape == (DRAWS, 5)
    errors = np.median(mean, axis=0) / [truth(8, 64 // b, b) for b in (1, 2, 4, 8, 16)] - 1
    assert np.abs(errors[:4]).max() < 0.01
    assert abs(errors[4]) < 0.06


def test_intervals_widen_away_from_what_ran_and_narrow_with_more_runs():
    candidates = [candidate(64 // b, b) for b in (1, 2, 4, 8, 16)]

    def widths(sizes):
        runs = [run(64 // b, b, truth(8, 64 // b, b)) for b in sizes]
        mean, _ = learn(8, runs, candidates).draws()
        low, high = np.quantile(mean, [0.05, 0.95], axis=0)
        return high / low - 1

    few, more = widths((1, 2)), widths((1, 2, 4, 8))
    assert few[0] < few[2] < few[3] < few[4]
    assert (more[2:] < few[2:]).all()


def test_a_run_whose_median_is_uncertain_weighs_less():
    candidates = [candidate(16, 4)]
    steady, shaken = run(16, 4, 1.0), run(16, 4, 1.2, standard_error=0.2)
    mean, _ = learn(4, [steady, shaken], candidates).draws()
    assert float(np.median(mean)) == pytest.approx(1.0, abs=0.02)


def test_other_batches_and_schedules_of_the_same_job_teach_too():
    """The scale is common: a run of half the batch, or of GPipe, tells nearly as much."""
    target = [candidate(16, 4)]
    for other in (run(8, 4, truth(4, 8, 4)), run(16, 4, truth(4, 16, 4), schedule="GPipe")):
        mean, _ = learn(4, [other], target).draws()
        assert float(np.median(mean)) == pytest.approx(truth(4, 16, 4), rel=0.08)


def test_published_sweeps_of_which_two_runs_are_given():
    """Steps held out, and what the recommended size loses."""
    found = summary()
    assert found.runs == 30
    assert found.error <= 0.02
    assert found.within >= 0.9
    assert 0.8 <= found.covered <= 0.97
    assert found.regret <= 0.005
