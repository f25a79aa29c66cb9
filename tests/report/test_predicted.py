"""A prediction is a record like a run's: shown, explained, drawn, exported, compared, ramped, and marked everywhere."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.records.profile import read_profile
from autotune.report.load import read_report

STAGE = {
    "time_s": [{"micro_batch_size": b, "t_f": 0.01 * b + 0.002, "t_bw": 0.02 * b + 0.004} for b in (1, 2, 4, 8)],
    "memory": [{"micro_batch_size": 1, "activation_bytes": 2**30}],
    "static_bytes": 2**32,
    "layers": 12,
    "optimizer_s": 0.01,
}
PROFILE = {
    "kind": "autotune.profile",
    "workload": {"batch": 64, "seq_len": 128, "layers": 48},
    "stages": [STAGE] * 4,
}


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output or done.exception
    return done


@pytest.fixture
def written(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    path = tmp_path / "prediction.json"
    page = tmp_path / "a.html"
    done = run("predict", tmp_path / "profile.json", "--memory-limit", "40GiB", "--out", path, "--html", page)
    return path, done.stdout


def test_predict_writes_what_show_prints(written):
    path, printed = written
    shown = run("show", path).stdout
    assert shown.startswith(printed.rstrip("\n"))
    assert "Best prediction: m = " in shown
    assert "nothing was run" in shown
    assert "sweet spot" not in shown.lower()


def test_json_is_the_same_record_and_names_the_recommended_one(written):
    path, _ = written
    printed = json.loads(run("predict", path.parent / "profile.json", "--memory-limit", "40GiB", "--json").stdout)
    kept = json.loads(path.read_text())
    assert printed["kind"] == kept["kind"] == "autotune.prediction"
    assert printed["candidates"] == kept["candidates"]
    best = printed["candidates"][printed["recommended"]]
    assert best["prediction"]["basis"] == "measured"
    assert printed["sweet_spot"]["candidate"] == printed["recommended"]
    assert printed["sweet_spot"]["confirmed"] is False
    assert {"step_time_s", "step_time_low_s", "step_time_high_s", "fits"} <= best["prediction"].keys()


def test_explain_says_what_is_predicted(written):
    path, _ = written
    report = read_report(path)
    pick = report.sweet_spot.micro_batches
    assert "the best prediction, because" in run("show", path, "--explain", pick).stdout
    other = run("show", path, "--explain", 64 if pick != 64 else 32).stdout
    assert "less throughput than m = " in other
    assert "search ended" not in other


def test_the_page_says_that_nothing_was_run(written):
    text = (written[0].parent / "a.html").read_text()
    assert "predicted: nothing was run" in text
    assert "Real runs" not in text


def test_export_says_that_it_is_predicted(written):
    done = run("export", written[0], "--to", "megatron-lm")
    assert "--micro-batch-size" in done.stdout
    assert "is predicted, and nothing was run" in done.stderr


def test_ramp_and_timeline_read_it(written):
    assert (
        "serve all phases best"
        in run("ramp", written[0], "--step-batch-size-schedule", "0:16 4K:64", "--train-samples", 9000).stdout
    )
    assert "m = " in run("timeline", written[0]).stdout


def test_check_compares_two_predictions(written, tmp_path):
    path, _ = written
    assert "ok" in run("check", path, "--baseline", path).stdout
    slower = json.loads(json.dumps(PROFILE))
    for stage in slower["stages"]:
        for row in stage["time_s"]:
            row["t_f"] *= 1.2
    (tmp_path / "slower.json").write_text(json.dumps(slower))
    run("predict", tmp_path / "slower.json", "--memory-limit", "40GiB", "--out", tmp_path / "new.json")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "new.json"), "--baseline", str(path)])
    assert "regression" in done.output


def test_check_does_not_compare_a_prediction_with_a_run(written, tmp_path):
    from autotune.errors import InputError
    from autotune.records.base import write_record
    from tests.report.export.reports import make_report

    write_record(tmp_path / "run.json", make_report())
    done = CliRunner().invoke(app, ["check", str(written[0]), "--baseline", str(tmp_path / "run.json")])
    assert isinstance(done.exception, InputError)
    assert "only predicted" in str(done.exception)


def test_what_is_extrapolated_is_marked_everywhere(tmp_path):
    one_size = PROFILE | {"stages": [STAGE | {"time_s": STAGE["time_s"][2:3]}] * 4}
    (tmp_path / "profile.json").write_text(json.dumps(one_size))
    page, record = tmp_path / "page.html", tmp_path / "out.json"
    done = run("predict", tmp_path / "profile.json", "--html", page, "--out", record)
    assert "extrapolated, not timed at this b" in done.stdout
    assert "time b = " in done.stderr
    assert ", extrapolated</li>" in page.read_text()  # in the legend of the throughput
    bases = [row["prediction"]["basis"] for row in json.loads(record.read_text())["candidates"]]
    assert bases.count("measured") == 1
    assert bases.count("extrapolated") == 6
    forced = run("export", record, "--to", "key-value", "--candidate", 0)
    assert "were not timed" in forced.stderr
    ramped = run("ramp", record, "--step-batch-size-schedule", "0:16 4K:64", "--train-samples", 9000).stdout
    assert "b = 8 ?" in ramped
    assert "Micro-batches of 4 serve" in ramped


def test_the_template_is_a_profile(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(run("profile", "--template").stdout)
    assert path.read_text().count("//") > 5
    assert len(read_profile(path).stages) == 2
    assert "Best prediction" in run("predict", path).stdout


def test_milliseconds_are_noticed(tmp_path):
    rows = [{"micro_batch_size": 6, "t_f": 18.522, "t_bw": 27.423}]
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE | {"stages": [{"time_s": rows}] * 4}))
    done = run("predict", tmp_path / "profile.json", "--micro-batch-size", 6, "--micro-batches", 8)
    assert "looks like milliseconds" in done.stderr


@pytest.mark.parametrize(("more", "batch"), [((), 64), (("--batch", 128), 128), (("--micro-batch-size", 4), 64)])
def test_the_batch_is_the_one_that_was_asked_about(tmp_path, more, batch):
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    done = run("predict", tmp_path / "profile.json", *more, "--out", tmp_path / "prediction.json")
    assert f"4 stages, batch {batch}; predicted" in done.stdout
    assert json.loads((tmp_path / "prediction.json").read_text())["workload"]["batch"] == batch
