"""``autotune run --device replay``: real ranks and messages, recorded stage times, and no figure that hides it."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import AutotuneError
from autotune.predict.schedules import build_schedule
from autotune.report.load import read_report
from tests.report.printed import contradictions

pytestmark = pytest.mark.alone  # ranks wait as long as was recorded
BATCH = 4
A100 = {"device": "cuda", "devices": ["NVIDIA A100"] * 2, "memory_bytes": 80 * 10**9, "hostname": "cluster-7"}


def stage(forward, backward, **more):
    """Seconds per sequence, with a twentieth more for each micro-batch; the backward in halves where it is a pair."""
    rows = []
    for size in (1, 4):
        f, *b = (seconds * (size + 0.05) for seconds in (forward, *backward))
        known = {"t_bw": b[0]} if len(b) == 1 else {"t_b": b[0], "t_w": b[1]}
        rows.append({"micro_batch_size": size, "t_f": f} | known)
    memory = [{"micro_batch_size": 1, "activation_bytes": 10**6}]
    return {"time_s": rows, "memory": memory, "static_bytes": 10**9, "optimizer_s": 0.003} | more


def document(stages, **more):
    return {
        "schema_version": 1,
        "kind": "autotune.profile",
        "environment": A100,
        "stages": stages,
        "workload": {"layers": 24, "batch": BATCH, "seq_len": 128, "precision": "bf16"},
        "message_bytes": [{"micro_batch_size": 1, "bytes": 4096}],
    } | more


ONE_STAGE_EACH = document([stage(0.005, (0.010,)), stage(0.008, (0.012,))])
TWO_STAGES_EACH = document(
    [stage(f, (b, b)) for f, b in ((0.003, 0.004), (0.006, 0.003), (0.004, 0.005), (0.005, 0.004))], virtual_stages=2
)


def replay(folder, recorded, *flags, name="recorded.json"):
    """Runs the command with the profile as ``name``; returns its report and what it printed."""
    (folder / name).write_text(json.dumps(recorded))
    arguments = ["run", "--device", "replay", "--profile", name, *flags]
    command = [sys.executable, "-m", "autotune", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / name).read_text()) == recorded
    return read_report(folder / "report.json"), done


@pytest.mark.parametrize("flags", [(), ("--trials", "1"), ("--objective", "memory"), ("--budget", "3s")])
def test_what_a_replay_prints_follows_from_its_table(tmp_path, flags):
    """The recorded profile, called and placed as in the guide, where a run's own would go, is left as it was."""
    report, done = replay(tmp_path, ONE_STAGE_EACH, *flags, name="profile.json")
    assert contradictions(report) == []
    assert report.sweet_spot is None or "Sweet spot: " in done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return replay(tmp_path_factory.mktemp("plain"), ONE_STAGE_EACH, "--exhaustive")


@pytest.fixture(scope="module")
def virtual(tmp_path_factory):
    flags = ("--schedule", "all", "--micro-batches", "4", "--exhaustive")
    return replay(tmp_path_factory.mktemp("virtual"), TWO_STAGES_EACH, *flags)


@pytest.fixture(params=["plain", "virtual"])
def either(request):
    return request.getfixturevalue(request.param)


def test_the_report_never_passes_for_one_of_the_recorded_device(either):
    report, done = either
    assert report.environment.device == "replay of cuda (NVIDIA A100)"
    assert report.profile.environment.device == report.environment.device
    assert "replay of cuda (NVIDIA A100)" in done.stdout.split("\n")[1]  # the table's title, below the answer
    assert "device    replay of cuda (NVIDIA A100)" in done.stderr
    assert report.environment.devices == ()
    assert report.environment.hostname != "cluster-7"  # the ranks ran here


def test_the_report_tells_of_the_recorded_workload(either):
    report, _ = either
    facts = {name: value for name, value in asdict(report.workload).items() if value is not None}
    assert facts == {"layers": 24, "stages": 2, "batch": BATCH, "seq_len": 128, "precision": "bf16"}
    assert report.memory_limit_bytes == 80 * 10**9


def test_only_a_prediction_tells_of_memory(either):
    report, _ = either
    for row in report.candidates:
        assert row.measurement is not None
        assert row.measurement.peak_memory_bytes is row.measurement.device_memory_bytes is None
        assert row.relative_error.peak_memory is None
        assert min(row.prediction.peak_memory_bytes) > 10**9
    assert report.sweet_spot.memory_headroom_bytes is None


def test_a_step_takes_at_least_the_work_of_its_busiest_rank(either):
    report, _ = either
    for row in report.candidates:
        schedule = build_schedule(row.schedule, 2, row.micro_batches, row.virtual_stages)
        busy = [0.0, 0.0]
        for owner, recorded in zip(schedule.stage_ranks, report.profile.stages, strict=True):
            work = recorded.seconds(row.micro_batch_size, lambda times: times.t_f + times.backward)
            busy[owner] += work * row.micro_batches + recorded.optimizer_s
        assert min(row.measurement.step_times_s) >= max(busy)
        assert row.measurement.step_time_s < 2 * row.prediction.step_time_s
        assert row.prediction.step_time_s >= max(busy)


def test_each_candidate_is_measured_as_often_as_any_real_one(plain):
    rows = plain[0].candidates
    assert [(row.micro_batches, row.schedule) for row in rows] == [(1, "GPipe"), (2, "1F1B"), (4, "1F1B")]
    assert all(len(row.measurement.step_times_s) >= 5 for row in rows)


def test_all_schedules_of_two_stages_per_rank_are_replayed(virtual):
    tried = {row.schedule for row in virtual[0].candidates if row.micro_batches == 4}
    assert tried == {"LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"}
    assert {row.virtual_stages for row in virtual[0].candidates} == {2}
    assert virtual[0].profile.virtual_stages == 2
    assert any("m = 1: DualPipeV on 2 ranks" in warning for warning in virtual[0].warnings)


def test_links_and_the_runtimes_cost_are_those_of_this_machine(either):
    profile = either[0].profile
    assert {(link.from_, link.to) for link in profile.links} == {(0, 1), (1, 0)}
    assert all(link.latency_s > 0 for link in profile.links)
    assert 0 < profile.action_overhead_s < 0.05
    assert profile.message_overhead_s < 0.05  # none where the recorded runs were as fast as the model without it
    assert profile.shared is None


def test_tokens_are_counted_where_the_profile_knows_the_sequence(plain):
    for row in plain[0].candidates:
        assert row.measurement.throughput_tokens_s == pytest.approx(128 * row.measurement.throughput_seq_s)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--profile", "recorded.json"], 2, ["--profile", "--device replay", "give both or neither"]),
        (["--device", "replay"], 2, ["--profile", "give both or neither"]),
        (["--device", "cpu", "--profile", "recorded.json"], 2, ["--profile", "--device replay"]),
        (["--device", "replay", "--profile", "nowhere.json"], 3, ["nowhere.json", "No such file"]),
        (["--device", "replay", "--profile", "broken.json"], 3, ["broken.json"]),
        (["--device", "replay", "--profile", "recorded.json", "--stages", "4"], 2, ["--stages", "has 2", "given: 4"]),
        (
            ["--device", "replay", "--profile", "recorded.json", "--schedule", "1F1B"],
            2,
            ["--schedule", "2 stages per rank", "1F1B one"],
        ),
        (
            ["--device", "replay", "--profile", "recorded.json", "--virtual-stages", "3"],
            2,
            ["--virtual-stages", "measured with 2", "given: 3"],
        ),
        (
            ["--device", "replay", "--profile", "recorded.json", "--micro-batches", "9", "--trials", "1"],
            2,
            ["--micro-batches", "m = 9", "batch of 4"],
        ),
        (
            ["--device", "replay", "--profile", "recorded.json", "--memory-limit", "1GB"],
            5,
            ["no candidate fits in 953.7 MiB", "the leanest needs 1.9 GiB", "--memory-limit"],
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(flags, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recorded.json").write_text(json.dumps(TWO_STAGES_EACH))
    (tmp_path / "broken.json").write_text("{")
    error = CliRunner().invoke(app, ["run", *flags, "--quiet"]).exception
    assert isinstance(error, AutotuneError)
    assert error.exit_code == code
    assert [word for word in words if word not in str(error)] == []
    assert "\n" not in str(error)


def test_where_nothing_fits_the_figure_is_the_one_that_was_compared(tmp_path, monkeypatch):
    """What is held outside of torch counts against the limit, so it stands in the message: of the fullest rank."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recorded.json").write_text(json.dumps(ONE_STAGE_EACH | {"outside_bytes": [0, 3 * 2**30]}))
    flags = ["--device", "replay", "--profile", "recorded.json", "--memory-limit", "2GiB", "--quiet"]
    error = CliRunner().invoke(app, ["run", *flags]).exception
    assert "the leanest needs 3.9 GiB, 3.0 GiB of them held outside of torch on rank 1;" in str(error)
