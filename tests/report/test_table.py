"""What people read: the table's cells, the sentence about the winner, numbers with their units."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from autotune.predict.memory import LOSS_BYTES
from autotune.predict.predict import candidates_for, predict
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.profile import Profile
from autotune.records.report import candidate_report, relative_error
from autotune.report.load import read_report
from autotune.report.paper.predicted import predicted_report
from autotune.report.table import Mark, cells, print_report, room_for
from autotune.report.units import show_bytes, show_rough, show_seconds

DATA = Path(__file__).parent / "data"
MEMORY = [{"micro_batch_size": 1, "activation_bytes": 2**20}]
STAGE = {"time_s": [{"micro_batch_size": 1, "t_f": 0.1, "t_bw": 0.2}], "memory": MEMORY}
PROFILE = Profile.model_validate({"stages": [STAGE] * 2})
(CANDIDATE,) = candidates_for((4,), ("1F1B",), (1,), 2, 2, 7)[0]
PREDICTION = predict(PROFILE, CANDIDATE, None)


def row(outcome=None, excluded=None):
    return candidate_report(CANDIDATE, PREDICTION, outcome, excluded)


def test_an_untried_candidate_shows_dashes():
    assert cells(row())[3:] == ["2.333", "-", "-", "20%", "4.0 MiB", "not run"]
    assert cells(row(excluded="does not fit"))[-1] == "does not fit"


def test_a_measured_candidate_shows_spread_and_error():
    outcome = Measurement.of((2.0, 2.0, 2.0), sequences=7, seq_len=1, peak_memory_bytes=(2**21, 2**20))
    shown = cells(row(outcome), Mark.SWEET_SPOT)
    assert shown[4:6] == ["+50.0%", "3.500"]
    assert shown[7:] == ["2.0 MiB", "sweet spot, confirmed, 3 raw steps 3.500 ±0.000"]


def test_what_was_measured_elsewhere_says_so():
    for where, words in (("from_earlier_run", "(earlier run)"), ("from_other_controller", "(another controller)")):
        outcome = Measurement.of((2.0, 2.0), sequences=7, seq_len=1, **{where: True})
        assert cells(row(outcome))[-1] == f"confirmed, 2 raw steps 3.500 ±0.000 {words}"


def test_padding_and_failures_are_named():
    shown = cells(row(Failure(kind="out_of_memory", rank=1, message="no")))
    assert shown[1] == "2 (+1 pad)"
    assert shown[-1] == "out of memory on rank 1"


def test_the_relative_error_is_prediction_less_measurement_over_measurement():
    outcome = Measurement.of((1.5, 1.5), sequences=7, seq_len=1, peak_memory_bytes=(2**22, 2**23))
    error = relative_error(PREDICTION, outcome)
    assert error.step_time == pytest.approx(1.0)
    predicted = (
        2 * 2**20 + 4 * LOSS_BYTES
    )  # rank 0 holds two micro-batches of two sequences; rank 1 one, and the losses
    assert PREDICTION.peak_memory_bytes == (2 * 2**21, predicted)
    assert error.peak_memory == pytest.approx(predicted / 2**23 - 1)


def printed(report, width):
    out = io.StringIO()
    print_report(report, Console(file=out, width=width))
    return out.getvalue()


def test_predictions_print_at_80_columns_without_a_terminal():
    (timed,) = candidates_for((7,), ("1F1B",), (1,), 2, 2, 7)[0]
    shown = printed(predicted_report(PROFILE, [(timed, predict(PROFILE, timed, None))], None), 80)
    assert "Best prediction: m = 7 micro-batches of 1 under 1F1B" in shown
    assert "Nothing was run" in shown
    assert max(len(line) for line in shown.split("\n")[:6]) <= 80


def test_columns_of_which_nothing_is_known_are_left_out():
    (timed,) = candidates_for((7,), ("1F1B",), (1,), 2, 2, 7)[0]
    shown = printed(predicted_report(PROFILE, [(timed, predict(PROFILE, timed, None))], None), 160)
    assert "tokens/s" not in shown and "MFU" not in shown
    assert "sequences/s per device" in shown


def test_predicted_figures_have_three_significant_digits():
    assert [show_rough(x) for x in (0.012345, 4.5678, 123.45, 45678.0, 99.96, 0.0)] == [
        "0.0123",
        "4.57",
        "123",
        "45700",
        "100",
        "0",
    ]


def test_units():
    assert [show_bytes(n) for n in (512, 1536, 3 * 2**20, 5 * 2**30)] == ["512 B", "1.5 KiB", "3.0 MiB", "5.0 GiB"]
    assert [show_seconds(s) for s in (2.5, 0.0123, 4.5e-5)] == ["2.50 s", "12.3 ms", "45.0 µs"]


def searched_text(width, is_detailed, case="four_stages"):
    out = io.StringIO()
    report = read_report(DATA / f"{case}.json")
    print_report(report, Console(file=out, width=width, force_terminal=True, color_system=None), is_detailed)
    return report, [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("case", ["four_stages", "two_stages", "contradiction"])
def test_at_80_columns_the_answer_comes_first_and_all_fits(case):
    report, lines = searched_text(80, False, case)
    spot = report.sweet_spot
    assert lines[0].startswith(f"m = {spot.micro_batches}, b = {spot.micro_batch_size}, ")
    assert " sequences/s" in lines[0]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert len(lines) <= 18 + len(report.candidates)


def test_a_run_leaves_to_show_what_is_not_the_answer():
    _, short = searched_text(200, False)
    _, full = searched_text(200, True)
    for words in ("Knee: ", "raw step"):
        assert any(words in line for line in full)
        assert not any(words in line for line in short)
    assert short[0] == full[0]
    below = short[max(at for at, line in enumerate(short) if not line) + 1 :]
    assert [line.split()[0] for line in below if line[0].isupper()] == ["Sweet", "Stopped"]


def test_columns_give_way_by_importance_and_the_status_never():
    names = ["m", "step vs raw", "bubble", "predicted", "status"]
    rows = [["1", "+1.0%", "20%", "333.4", "sweet spot, confirmed"]]
    kept = {width: [names[at] for at in room_for(names, rows, width)] for width in (80, 50, 44, 30)}
    assert kept[80] == names
    assert kept[50] == ["m", "bubble", "predicted", "status"]
    assert kept[44] == ["m", "predicted", "status"]
    assert kept[30] == ["m", "status"]
