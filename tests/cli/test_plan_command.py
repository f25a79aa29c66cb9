"""autotune plan as its users run it."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import UsageError
from autotune.report.load import read_report
from tests.bench.defaults import MACHINES, rows

A100_80, A100_40, _ = MACHINES


def run(*words):
    return CliRunner().invoke(app, ["plan", *map(str, words)])


def document(*words):
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output or done.exception
    return json.loads(done.stdout)


def told(printed, fits):
    return {
        (row["schedule"], row["micro_batches"]) for row in printed["candidates"] if row["prediction"]["fits"] is fits
    }


@pytest.mark.slow
@pytest.mark.parametrize(("device", "machine"), [("a100-80gb", A100_80), ("a100-40gb", A100_40)])
def test_the_default_workload_fits_where_the_test_of_the_defaults_says(device, machine):
    """There bytes are fake tensors', here a closed form: the same candidates fit, and peaks agree within 3 %."""
    limit = () if machine is A100_80 else ("--memory-limit", "40GB")
    printed = document("--config", "a100", "--device-spec", device, *limit)
    known = {row.told: row for row in rows(machine)}
    assert told(printed, True) == {key for key, row in known.items() if row.prediction.fits}
    assert told(printed, False) == {key for key, row in known.items() if not row.prediction.fits}
    for row in printed["candidates"]:
        mine = max(row["prediction"]["device_memory_bytes"])
        assert mine == pytest.approx(known[row["schedule"], row["micro_batches"]].most, rel=0.03)


def test_everything_is_marked_as_estimated(tmp_path):
    out, page = tmp_path / "plan.json", tmp_path / "plan.html"
    done = run("--config", "a100", "--device-spec", "a100-80gb", "--out", out, "--html", page)
    assert done.exit_code == 0, done.exception
    assert "estimated, nothing was run" in done.stdout
    assert "MFU" in done.stdout
    assert "not included: data loading" in done.stderr
    report = read_report(out)
    assert {row.prediction.basis.value for row in report.candidates} == {"estimated"}
    assert report.layout.devices == report.devices == 4
    assert "nothing was run" in page.read_text()
    shown = CliRunner().invoke(app, ["show", str(out)])
    assert "Layout: p = 4, t = 1, d = 1 on 4 A100" in shown.stdout
    exported = CliRunner().invoke(app, ["export", str(out), "--to", "megatron-lm"])
    assert "--pipeline-model-parallel-size 4" in exported.stdout
    assert "nothing was run" in exported.stderr


def test_from_nothing_to_a_plan_for_a_llama_70b_on_64_h100(tmp_path):
    """The command of the guide."""
    words = ("--model", "llama-70b", "--devices", "64", "--device-spec", "h100", "--global-batch-size", "512")
    done = run(*words, "--html", tmp_path / "plan.html")
    assert done.exit_code == 0, done.exception
    assert "The best layouts" in (tmp_path / "plan.html").read_text()
    assert "the best layouts" in done.stdout
    printed = document(*words)
    best = printed["layouts"][0]
    assert best["layout"] == printed["layout"]
    layout = best["layout"]
    assert layout["pipeline_parallel"] * layout["tensor_parallel"] * layout["data_parallel"] == 64
    recommended = printed["candidates"][printed["recommended"]]
    assert recommended["prediction"]["fits"] is True
    assert recommended["prediction"]["step_time_s"] <= best["step_time_s"] * 1.001
    assert 0.3 < best["model_flops_utilisation"] < 0.6
    assert best["step_time_s"] == min(one["step_time_s"] for one in printed["layouts"])


def test_what_was_not_backtested_is_less_sure():
    width = {}
    for device in ("a100-80gb", "h100"):
        row = document("--config", "a100", "--device-spec", device)["candidates"][-1]["prediction"]
        width[device] = row["step_time_high_s"] / row["step_time_s"] - 1
    assert width["a100-80gb"] == pytest.approx(0.152, abs=0.01)
    assert width["h100"] > 2 * width["a100-80gb"]


def test_replicas_share_a_global_batch():
    words = ("--config", "a100", "--device-spec", "a100-80gb", "--data-parallel", "4")
    printed = document(*words, "--global-batch-size", "256")
    assert printed["workload"]["batch"] == 64
    assert printed["layout"]["data_parallel"] == 4
    alone = document("--config", "a100", "--device-spec", "a100-80gb")
    slower, quicker = (one["candidates"][-1]["prediction"]["step_time_s"] for one in (printed, alone))
    assert slower > quicker


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tensor-parallel", "3"), "must divide the 16 heads"),
        (("--tensor-parallel", "0"), "numbers of 1 or more"),
        (("--recompute", "some"), "use none, selective, full"),
        (("--attention", "none"), "use flash, scores"),
        (("--data-parallel", "3", "--global-batch-size", "64"), "3 replicas must divide it"),
        (("--devices", "0"), "--devices: give 1 or more"),
    ],
)
def test_what_cannot_be_asked(words, message):
    done = run("--config", "a100", "--device-spec", "a100-80gb", *words)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
