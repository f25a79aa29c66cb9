"""``autotune run --dry-run``: what a run would cost, with nothing run or written; and what a run says it cost."""

import json
import subprocess
import sys

import pytest

from autotune.config import load_config
from autotune.events import Silent
from autotune.report.load import read_report
from autotune.tuning.forecast import forecast

FLAGS = ("--layers", "4", "--stages", "2", "--hidden", "32", "--heads", "4", "--seq-len", "16", "--vocab", "64")
SMALL = (*FLAGS, "--batch", "8", "--device", "cpu")


def run(folder, *flags):
    command = [sys.executable, "-m", "autotune", "run", *SMALL, *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dry")


def test_a_forecast_by_arithmetic_runs_and_writes_nothing(folder):
    found = json.loads(run(folder, "--dry-run", "--json"))
    assert (found["kind"], found["basis"]) == ("autotune.forecast", "arithmetic")
    assert (found["candidates"], found["ranks"]) == (4, 2)
    assert 1 <= found["trials"] <= 4
    assert found["real_steps"] >= 2 * found["trials"]
    assert 0 < found["device_s"] < found["exhaustive_device_s"]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_after_a_run_the_forecast_is_made_from_its_profile(folder):
    said = run(folder, "-v")
    cost = read_report(folder / "report.json").search
    assert "The devices worked" in said
    assert cost.device_s == pytest.approx(2 * (cost.profiling_s + cost.steps_s))
    assert cost.exhaustive_device_s > 0
    text = run(folder, "--dry-run")
    assert "basis       profile of an earlier run; nothing was run" in text
    assert "trials      about" in text
    again = run(folder, "--dry-run", "--fresh")
    assert "basis       arithmetic and a matrix product timed here" in again


@pytest.mark.slow
def test_limits_bound_the_forecast(folder):
    few = json.loads(run(folder, "--dry-run", "--json", "--trials", "1"))
    assert few["trials"] == 1
    every = json.loads(run(folder, "--dry-run", "--json", "--exhaustive"))
    assert every["trials"] == 4
    short = json.loads(run(folder, "--dry-run", "--json", "--budget", "0.001s"))
    assert short["steps_s"] == pytest.approx(0.001)


def test_of_a_replay_from_the_recorded_profile(tmp_path):
    rows = [{"micro_batch_size": size, "t_f": 0.1 * size, "t_bw": 0.2 * size} for size in (1, 2, 4)]
    profile = {"kind": "autotune.profile", "schema_version": 1, "stages": [{"time_s": rows}] * 2}
    (tmp_path / "profile.json").write_text(json.dumps(profile | {"workload": {"batch": 4}}))
    flags = {"device": "replay", "profile": tmp_path / "profile.json", "state_dir": tmp_path / "state"}
    found = forecast(load_config(None, flags), Silent())
    assert (found.basis, found.candidates) == ("recorded profile", 3)
    steps = [(m + 1) * 4 / m * (0.1 + 0.2) for m in (1, 2, 4)]  # (m + p - 1)(t_f + t_bw)
    assert found.exhaustive_device_s == pytest.approx(2 * 6 * sum(steps))
    assert not (tmp_path / "state").exists()
