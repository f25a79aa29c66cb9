"""autotune fit and autotune tell as their users run them."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import InputError, UsageError
from autotune.records.profile import read_profile
from autotune.report.load import read_report
from tests.logs import lines

HEAD = "micro_batches,micro_batch_size,step_time_s,peak_memory_bytes,schedule,virtual_stages,data_parallel\n"
TABLE = HEAD + f"64,1,10.9,{20 * 2**30},1F1B,1,2\n16,4,8.2,{26 * 2**30},1F1B,1,2\n"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words):
    found = run(*words)
    assert found.exit_code == 0, found.output or found.exception
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text(TABLE)
    return tmp_path


def test_a_table_of_runs_becomes_a_report_and_a_profile(folder):
    shown = done("fit", "runs.csv", "--stages", 4)
    assert "Best prediction: m = " in shown.stdout
    assert "fitted to 2 runs made elsewhere" in shown.stdout
    report = read_report(folder / "fit.json")
    rows = {row.micro_batches: row for row in report.candidates}
    assert list(rows) == [1, 2, 4, 8, 16, 32, 64]
    assert (rows[64].prediction.basis, rows[32].prediction.basis, rows[8].prediction.basis) == (
        "measured",
        "interpolated",
        "extrapolated",
    )
    assert rows[16].measurement.step_times_s == (8.2,)
    assert rows[16].prediction.step_time_s == pytest.approx(8.2, rel=0.02)
    assert report.workload.batch == 64
    assert report.sweet_spot.confirmed is (rows[report.sweet_spot.micro_batches].measurement is not None)
    profile = read_profile(folder / "fit-profile.json")
    assert len(profile.stages) == 4
    assert [row.micro_batch_size for row in profile.stages[0].time_s] == [1, 2, 4]


def test_the_profile_predicts_the_fitted_curve(folder):
    done("fit", "runs.csv", "--stages", 4)
    printed = json.loads(done("predict", "fit-profile.json", "--micro-batches", "16,32,64", "--json").stdout)
    fitted = {row.micro_batches: row.prediction for row in read_report(folder / "fit.json").candidates}
    for row in printed["candidates"]:
        told = fitted[row["micro_batches"]]
        assert row["prediction"]["step_time_s"] == pytest.approx(told.step_time_s, rel=1e-6)
        assert row["prediction"]["peak_memory_bytes"] == list(told.peak_memory_bytes)


def test_memory_of_the_runs_rules_candidates_out(folder):
    shown = json.loads(done("fit", "runs.csv", "--stages", 4, "--memory-limit", "30GiB", "--json").stdout)
    fits = {row["micro_batches"]: row["prediction"]["fits"] for row in shown["candidates"]}
    assert fits == {1: False, 2: False, 4: False, 8: False, 16: True, 32: True, 64: True}
    assert shown["candidates"][shown["recommended"]]["micro_batches"] in (16, 32)


@pytest.mark.parametrize(
    "words",
    [
        ("show", "fit.json"),
        ("show", "fit.json", "--explain", 64),
        ("show", "fit.json", "--html", "page.html"),
        ("export", "fit.json", "--to", "megatron-lm", "--data-parallel", 2),
        ("timeline", "fit.json", "-m", 16),
        ("ramp", "fit.json", "--step-batch-size-schedule", "0:32 3200:64", "--train-samples", 64000),
        ("check", "fit.json", "--baseline", "fit.json"),
    ],
)
def test_every_reader_takes_the_report(folder, words):
    done("fit", "runs.csv", "--stages", 4)
    assert done(*words).stdout.strip()


def test_a_log_says_the_rest_itself(folder):
    (folder / "m8.log").write_text(lines.megatron())
    shown = done("fit", "m8.log")
    assert "m8.log: megatron-lm, m = 8 of b = 4: 4 steady steps, median 1 s, 2 before them left out" in shown.stderr
    report = read_report(folder / "fit.json")
    assert (report.workload.stages, report.workload.layers, report.workload.batch) == (4, 24, 32)
    (made,) = report.timed_runs
    assert (made.data_parallel, made.peak_memory_bytes) == (
        2,
        tuple((16000 - 100 * rank) * 2**20 for rank in (0, 2, 4, 6)),
    )
    assert next(one.measurement for one in report.candidates if one.micro_batches == 8).throughput_tokens_s == 32 * 2048


def test_what_a_log_does_not_say_is_given(folder):
    (folder / "mine.log").write_text("".join(f"step {n} took {s * 1e3:.1f} ms\n" for n, s in enumerate(lines.SECONDS)))
    pattern = r"took (?P<step_time_ms>[0-9.]+) ms"
    with pytest.raises(InputError, match="does not say b; give --batch and --micro-batch-size"):
        raise run("fit", "mine.log", "--stages", 2, "--read", pattern).exception
    done("fit", "mine.log", "--stages", 2, "--read", pattern, "--batch", 32, "--micro-batch-size", 4)
    (made,) = read_report(folder / "fit.json").timed_runs
    assert (made.micro_batches, made.micro_batch_size, made.step_time_s) == (8, 4, 1.0)


def test_a_step_that_is_told_changes_the_prediction(folder):
    done("fit", "runs.csv", "--stages", 4)
    before = {row.micro_batches: row.prediction for row in read_report(folder / "fit.json").candidates}
    shown = done("tell", "fit.json", "-m", 32, "--step-time", "7900ms", "--peak-memory", "22GiB")
    report = read_report(folder / "fit.json")
    after = {row.micro_batches: row.prediction for row in report.candidates}
    assert len(report.timed_runs) == 3
    assert report.timed_runs[-1].micro_batch_size == 2
    assert after[32].step_time_s == pytest.approx(7.9, rel=0.03)
    assert after[32].basis == "measured"
    width = {m: one[32].step_time_high_s / one[32].step_time_low_s for m, one in ((0, before), (1, after))}
    assert width[1] < width[0]
    assert "fitted to 3 runs" in shown.stdout


def test_tell_keeps_the_report_that_it_adds_to_where_another_file_is_named(folder):
    done("fit", "runs.csv", "--stages", 4)
    before = (folder / "fit.json").read_text()
    done("tell", "fit.json", "-m", 32, "--step-time", 7.9, "--out", "more.json", "--quiet")
    assert (folder / "fit.json").read_text() == before
    assert len(read_report(folder / "more.json").timed_runs) == 3
    assert (folder / "more-profile.json").is_file()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("fit", "runs.csv"), UsageError, "--stages: no log says the number"),
        (("fit", "none.csv", "--stages", 4), InputError, "cannot read none.csv: No such file"),
        (("fit", "bad.csv", "--stages", 4), InputError, "bad.csv, line 2: step_time_s is missing"),
        (("fit", "negative.csv", "--stages", 4), InputError, "negative.csv, line 2: step_time_s: .*greater than 0"),
        (("fit", "noise.log", "--stages", 4), InputError, "no step was recognised in 1 lines; name the format"),
        (("fit", "runs.csv", "--stages", 4, "--read", "megatron"), UsageError, "there is no format 'megatron'"),
        (("fit", "mixed.csv", "--stages", 4), InputError, "the runs have 1 and 2 replicas"),
        (("tell", "fit.json", "-m", 3, "--step-time", "soon"), UsageError, "--step-time: write a number with a unit"),
        (
            ("tell", "fit.json", "-m", 3, "--step-time", "0"),
            UsageError,
            "--step-time: a step takes more than 0 seconds",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, words, error, message):
    (folder / "bad.csv").write_text("micro_batches,micro_batch_size,step_time_s\n8,4,\n")
    (folder / "negative.csv").write_text("micro_batches,micro_batch_size,step_time_s\n8,4,-1\n")
    (folder / "mixed.csv").write_text("micro_batches,micro_batch_size,step_time_s,data_parallel\n8,4,1,1\n8,2,1,2\n")
    (folder / "noise.log").write_text("nothing here\n")
    done("fit", "runs.csv", "--stages", 4, "--quiet")
    with pytest.raises(error, match=message) as caught:
        raise run(*words).exception
    assert "\n" not in str(caught.value)


def test_tell_adds_to_a_prediction_as_well(folder):
    done("fit", "runs.csv", "--stages", 4)
    done("predict", "fit-profile.json", "--out", "prediction.json")
    before = (folder / "prediction.json").read_text()
    shown = done("tell", "prediction.json", "-m", 16, "--step-time", "8.0", "--out", "told.json")
    assert "corrected by 1 step made elsewhere" in shown.stdout
    assert "the report is told.json" in shown.stderr
    assert (folder / "prediction.json").read_text() == before
    assert not (folder / "told-profile.json").exists()
    done("show", "told.json", "--explain", 64)
    done("export", "told.json", "--to", "shell")
