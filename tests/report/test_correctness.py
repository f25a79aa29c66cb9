"""The checks on what real steps computed and held, on made-up measurements."""

from typing import get_args

import pytest

from autotune.predict.predict import candidates_for, predict
from autotune.records.failure import Failure
from autotune.records.job.workload import Precision
from autotune.records.outcome import Measurement
from autotune.records.profile import Profile
from autotune.records.report import candidate_report
from autotune.report.correctness import TOLERANCE, checked
from autotune.report.table import status

P, BATCH, UNIT = 4, 64, 2**20
ROWS = [{"micro_batch_size": b, "t_f": 0.1 * b, "t_bw": 0.2 * b} for b in (1, 64)]
MEMORY = [{"micro_batch_size": b, "activation_bytes": b * UNIT} for b in (1, 64)]
STAGE = {"time_s": ROWS, "memory": MEMORY, "static_bytes": 100 * UNIT}
PROFILE = Profile.model_validate({"stages": [STAGE] * P})
NORMED = Profile.model_validate({"stages": [STAGE | {"batch_statistics": True}] * P})


def rows(
    counts=(1, 4, 6, 8),
    schedules=("1F1B",),
    size=None,
    loss=lambda m: 6.0,
    norm=lambda m: 2.0,
    extra=lambda row: 0,
    **more,
):
    """Measured candidates with the ``loss`` and ``norm`` of each m; ``extra`` bytes at the peak of rank 1."""
    candidates, _ = candidates_for(counts, schedules, (1,), P, 8, BATCH, size)
    found = []
    for one in candidates:
        prediction, m = predict(PROFILE, one, None), one.micro_batches
        peaks = list(prediction.peak_memory_bytes)
        peaks[1] += extra(one)
        known = {"first_loss": loss(m), "gradient_norm": norm(m), "peak_memory_bytes": tuple(peaks)} | more
        found.append(candidate_report(one, prediction, Measurement.of((1.0, 1.0), one.sequences, 8, **known), None))
    return found


def check(found, profile=PROFILE, precision="fp32"):
    return checked(found, profile, precision)


def test_rounding_is_no_disagreement():
    marked, found = check(rows(loss=lambda m: 6.0 + 1e-6 * m, norm=lambda m: 2.0 - 1e-6 * m))
    assert [row.doubts for row in marked] == [()] * 4
    assert [row.agreement is None for row in marked] == [True, False, False, False]  # the first is what others meet
    assert found.findings == ()
    assert found.compared == 3
    assert found.loss_difference == pytest.approx(7e-6 / 6)
    assert found.gradient_difference == pytest.approx(7e-6 / 2, rel=1e-3)


def test_an_allocator_with_hardly_any_room_is_told():
    tight = [row for m, count in ((4, 1), (6, 0), (8, 5)) for row in rows((1, m), alloc_retries=(0, 0, count, 0))[-1:]]
    marked, found = check(tight)
    (words,) = found.findings
    assert words == (
        "m = 8 1F1B is so close to the memory limit that torch's allocator gave back 5 times in 2 timed steps what it"
        " kept, on rank 2: its steps are slower for that; use more micro-batches or a higher --memory-limit; likewise"
        " m = 4 1F1B"
    )
    assert not any(row.doubts for row in marked)  # it computes the right thing


@pytest.mark.parametrize("silent", [None, (0, 0, 0, 0)])
def test_an_allocator_with_room_says_nothing(silent):
    assert check(rows(alloc_retries=silent))[1].findings == ()


@pytest.mark.parametrize(
    ("faulty", "parts", "words"),
    [
        ({"loss": lambda m: 6.0 * m, "norm": lambda m: 2.0 * m}, "loss and gradients", "8 times as much"),
        ({"norm": lambda m: 2.0 * m}, "gradients", "8 times as much"),
        ({"norm": lambda m: 2.0 / m}, "gradients", "1/8 of it is what"),
        ({"loss": lambda m: 6.0 + (m == 6) * 0.1}, "loss", "its 2 rows of padding"),
        ({"norm": lambda m: 2.0 + (m == 8) * 0.1}, "gradients", "at what micro-batches share"),
    ],
)
def test_a_disagreement_says_who_and_what_to_look_for(faulty, parts, words):
    marked, found = check(rows(**faulty))
    (text,) = found.findings
    assert words in text
    assert "than m = 1" not in text and "m = 1 GPipe computes" in text
    wrong = [row for row in marked if row.doubts]
    assert wrong and all(row.doubts == (f"other {parts} than m = 1",) for row in wrong)
    assert "DOUBTFUL: other" in status(wrong[0], True)
    assert marked[0].doubts == ()


def test_the_precision_sets_what_rounding_explains():
    found = rows(norm=lambda m: 2.0 + 0.001 * m)
    assert check(found, precision="fp32")[1].findings
    assert not check(found, precision="bf16")[1].findings
    assert TOLERANCE.keys() == set(get_args(Precision))


def test_a_batch_that_grows_is_compared_across_schedules_only():
    marked, found = check(rows(counts=(4, 8), schedules=("GPipe", "1F1B"), size=2, loss=lambda m: 6.0 + m))
    assert found.findings == ()
    assert found.compared == 2
    assert [marked[row.agreement.reference].micro_batches for row in marked if row.agreement] == [4, 8]
    _, found = check(rows(counts=(4, 8), size=2, loss=lambda m: 6.0 + m))
    assert (found.compared, found.loss_difference) == (0, None)
    assert found.not_compared == "2 of the candidates that ran: the batch grows with m, so that others saw other data"


def test_batch_statistics_are_compared_at_the_same_m_only():
    faulty = rows(counts=(4, 8), schedules=("GPipe", "1F1B"), loss=lambda m: 6.0 + m)
    assert check(faulty)[1].findings
    _, found = check(faulty, NORMED)
    assert (found.findings, found.compared, found.not_compared) == ((), 2, None)
    assert "BatchNorm" in check(rows(counts=(4, 8)), NORMED)[1].not_compared


def test_what_did_not_run_or_did_not_compute_is_left_alone():
    one = rows(counts=(1,))[0]
    failed = one.model_copy(update={"measurement": None, "failure": Failure(kind="hang", message="no answer")})
    replayed = one.model_copy(update={"measurement": Measurement.of((1.0,), 64, 8)})
    assert check([failed, replayed]) == ((failed, replayed), None)
    marked, found = check([failed, one, replayed])
    assert [row.doubts for row in marked] == [()] * 3
    assert found.not_compared == "1 of the candidates that ran: no other one ran"
    assert found.growth_bytes is None


def test_growth_is_a_leak_beyond_what_passing_objects_explain():
    marked, found = check(rows(growth_bytes=(0, 16_000, -3, 0)))
    assert (found.growth_bytes, found.findings) == (16_000, ())
    marked, found = check(rows(growth_bytes=(0, 2**20, -3, 0)))
    assert [row.doubts for row in marked] == [("leaks memory",)] * 4
    (text,) = found.findings
    assert "m = 1 GPipe leaks memory: each step leaves 1.0 MiB behind on rank 1, 1.0 MiB per micro-batch" in text
    assert "likewise m = 4 1F1B" in text


def test_a_flat_peak_has_no_slope():
    _, found = check(rows())
    assert found.peak_slope.micro_batches == (4, 6, 8)  # m = 1 is not under 1F1B
    assert found.peak_slope.bytes_per_micro_batch == pytest.approx(0.0)


def test_peaks_of_another_cut_or_mode_are_not_compared_with_those_of_the_profile():
    """Of one m they would be a line without a slope."""
    (one, *_) = [row for row in rows() if row.micro_batches == 8]
    twin = one.model_copy(update={"split": (3, 1, 1, 1)})
    _, found = check([one, twin])
    assert found is None or found.peak_slope is None


def test_what_the_model_is_off_by_per_sequence_is_no_slope():
    _, found = check(rows(extra=lambda one: 5 * UNIT * one.micro_batch_size))
    assert found.peak_slope.bytes_per_micro_batch == pytest.approx(0.0, abs=1.0)
    assert found.findings == ()


@pytest.mark.parametrize("size", [None, 2])
def test_a_tensor_kept_per_micro_batch_is_the_slope(size):
    """A tenth of the activations of each; by bytes alone the same at every m, where the batch is fixed."""
    found = rows(counts=(4, 8, 16), size=size, extra=lambda one: one.micro_batches * one.micro_batch_size * UNIT // 10)
    _, found = check(found)
    slope = found.peak_slope
    assert (slope.rank, slope.micro_batches, slope.micro_batch_size) == (1, (4, 8, 16), size or 4)
    assert slope.bytes_per_micro_batch == pytest.approx(0.1 * slope.micro_batch_size * UNIT, rel=1e-6)
    (text,) = found.findings
    assert "under 1F1B the peak of rank 1 grows with m: " in text
    assert "from m = 4 to m = 16" in text
