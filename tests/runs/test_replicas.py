"""Whole runs of several replicas, on two ranks each: predicted, measured, and what goes wrong in one of them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.command.ports import free_port
from autotune.config import load_config
from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.report.load import read_report
from tests.killing import family, wait_until

SIZES = ("--layers", 8, "--stages", 2, "--hidden", 32, "--heads", 2, "--seq-len", 16, "--vocab", 256, "--batch", 16)
FLAGS = (*SIZES, "--device", "cpu", "--data-parallel", 2, "--quiet")
WORK = load_config(
    None, {"layers": 4, "stages": 2, "hidden": 16, "seq_len": 8, "vocab": 32, "batch": 8, "data_parallel": 2}
).workload("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["run", *map(str, words)])


@pytest.mark.slow
def test_a_run_of_two_replicas_is_predicted_and_measured(folder):
    done = run(*FLAGS, "--exhaustive", "--schedule", "1F1B,LoopedBFS,ZBVZeroBubble", "--virtual-stages", 2)
    assert done.exit_code == 0, done.exception
    report = read_report(folder / "report.json")
    assert (report.workload.data_parallel, report.data_parallel, report.devices) == (2, 2, 4)
    assert "batch 16 in each of 2 replicas" in done.stdout
    assert report.profile.reduction.seconds(10**6) >= report.profile.reduction.latency_s > 0
    assert all(sum(stage.bucket_bytes) for stage in report.profile.stages)
    for row in report.candidates:
        measured = row.measurement
        assert measured.throughput_seq_s == pytest.approx(2 * 16 / measured.step_time_s)
        assert row.estimate.throughput_seq_s == pytest.approx(2 * 16 / row.estimate.step_time_s)
        assert row.prediction.time_split_s.reduction > 0
        # A loose bound: other work on the machine slows four ranks on its cores.
        assert 0.4 < row.prediction.step_time_s / measured.step_time_s < 2.5, row.schedule_text
        for predicted, peak in zip(row.prediction.peak_memory_bytes, measured.peak_memory_bytes, strict=True):
            assert predicted == pytest.approx(peak, rel=0.02), row.schedule_text
    losses = {row.measurement.first_loss for row in report.candidates}
    assert max(losses) == pytest.approx(min(losses), rel=1e-5)
    assert report.soundness is None or not report.soundness.findings


def test_a_dead_rank_of_the_second_replica_is_an_outcome():
    plan = Prepare(schedule="1F1B", micro_batches=4, micro_batch_size=2, sequences=8, replicas=2)
    with Ranks(4, "cpu", replicas=2) as ranks:
        build(ranks, WORK, Placement())
        victim = ranks._live[3].process.pid

        def kill(number, seconds):
            os.kill(victim, signal.SIGKILL)
            return True

        failed = measure_candidate(ranks, WORK, plan, 0.1, 5, kill)
        assert isinstance(failed, Failure)
        assert (failed.kind, failed.rank) == ("crash", 3)
        again = measure_candidate(ranks, WORK, plan, 0.1, 2, lambda number, seconds: True)
        assert len(again.step_times_s) == 2
        assert len(again.peak_memory_bytes) == 2
        assert ranks.alive


def test_ctrl_c_leaves_no_rank_of_any_replica(folder):
    mark = f"REPLICAS_{os.getpid()}_{time.monotonic_ns()}"
    words = [sys.executable, "-m", "autotune", "run", *map(str, FLAGS), "--exhaustive"]
    run = subprocess.Popen(words, env=os.environ | {mark: "1"}, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: len(family(mark)) >= 6, 60), "controller, server and four ranks"
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
        assert wait_until(lambda: not family(mark), 10)
    finally:
        run.kill()
        run.wait()


@pytest.mark.slow
def test_workers_under_torchrun_are_the_ranks_of_all_replicas(folder):
    rendezvous, master = free_port(), free_port()
    secret = {"AUTOTUNE_SECRET": "0123456789abcdef0123"}
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "4", "--master-port", str(master)]
    words += ["-m", "autotune", "worker", "--rendezvous", f"127.0.0.1:{rendezvous}"]
    workers = subprocess.Popen([sys.executable, *words], env=os.environ | secret, stderr=subprocess.DEVNULL)
    try:
        flags = (*FLAGS, "--micro-batches", 4, "--rendezvous", f"127.0.0.1:{rendezvous}")
        words = [sys.executable, "-m", "autotune", "run", *map(str, flags)]
        done = subprocess.run(words, env=os.environ | secret, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert workers.wait(30) == 0
    finally:
        workers.kill()
        workers.wait()
    report = read_report(folder / "report.json")
    assert len(report.environment.hosts) == 4
    assert report.candidates[report.sweet_spot.candidate].measurement is not None
