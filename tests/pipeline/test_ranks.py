"""The ranks from the controller's side: answers, and deaths that come back as failures and leave nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autotune.config import Workload
from autotune.pipeline.commands import Build, Contend, Describe, MeasureMemory, Ping, Prepare, Step, TimeStage
from autotune.pipeline.measure import measure_candidate
from autotune.pipeline.outcome import Failure, Measurement
from autotune.pipeline.ranks import RankFailure, Ranks

SIZES = {"layers": 4, "hidden": 32, "heads": 2, "seq_len": 16, "vocab": 64, "batch": 16}
WORK = Workload(stages=2, precision="fp32", optimizer="adamw", **SIZES)
PLAN = Prepare(schedule="1F1B", micro_batches=4, micro_batch_size=4, sequences=16)
TIMEOUT_S = 60.0


@pytest.fixture
def ranks():
    with Ranks(2, "cpu") as started:
        started.ask(Build(workload=WORK), TIMEOUT_S)
        yield started


def pids(ranks):
    return [process.pid for process in ranks._processes]


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_every_command_is_answered_by_every_rank(ranks):
    built = ranks.ask(Build(workload=WORK), TIMEOUT_S)
    described = ranks.ask(Describe(workload=WORK), TIMEOUT_S)
    for real, on_paper in zip(built, described, strict=True):
        assert real["layers"] == on_paper["layers"] == 2
        assert real["static_bytes"] == pytest.approx(on_paper["static_bytes"], rel=0.01)
    (row,) = ranks.ask(TimeStage(active=(1,), micro_batch_sizes=(4,), budget_s=0.1), TIMEOUT_S)[1]
    assert row["t_f"] > 0 < row["t_bw"]
    assert len(row["samples_f"]) >= 3
    assert ranks.ask(Contend(active=(0, 1), micro_batch_size=4, seconds=0.05), TIMEOUT_S)[1] > 0
    there, back = ranks.ask(Ping(source=0, target=1, there_bytes=64, back_bytes=1, repeats=3), TIMEOUT_S)
    assert len(there) == 3
    assert back == []


def test_the_peak_of_a_step_is_the_sum_of_its_measured_parts(ranks):
    static = [fact["static_bytes"] for fact in ranks.ask(Build(workload=WORK), TIMEOUT_S)]
    memory = [rows[0] for rows in ranks.ask(MeasureMemory(micro_batch_sizes=(4,)), TIMEOUT_S)]
    peaks = [primed["peak_memory_bytes"] for primed in ranks.ask(PLAN, TIMEOUT_S)]
    received = 4 * 4 * 16 * 32 * 4  # m buffers of b x tokens x hidden floats from the one neighbour
    batch = 2 * 16 * 16 * 8  # ids and targets
    for rank, in_flight in ((0, 2), (1, 1)):
        working = in_flight * memory[rank]["activation_bytes"] + memory[rank]["transient_bytes"]
        assert peaks[rank] == pytest.approx(static[rank] + received + batch + working, rel=0.02)


def test_the_optimizer_really_steps(ranks):
    ranks.ask(PLAN, TIMEOUT_S)
    losses = [ranks.ask(Step(), TIMEOUT_S)[1]["loss"] for _ in range(30)]
    assert losses[-1] < losses[0] - 0.05


def test_a_killed_rank_is_named_and_all_are_replaced(ranks):
    before = pids(ranks)
    ranks.ask(PLAN, TIMEOUT_S)
    os.kill(before[1], signal.SIGKILL)
    with pytest.raises(RankFailure) as caught:
        ranks.ask(Step(), TIMEOUT_S)
    assert caught.value.failure.kind == "crash"
    assert not any(alive(pid) for pid in before)
    outcome = measure_candidate(ranks, WORK, PLAN, 0.1, 2, lambda *_: True)
    assert isinstance(outcome, Measurement)
    assert set(pids(ranks)).isdisjoint(before)


def test_a_rank_killed_while_it_works_is_an_outcome(ranks):
    victim = pids(ranks)[0]
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    outcome = measure_candidate(ranks, WORK, PLAN, 0.1, 100_000, lambda *_: True)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "crash"


def test_a_silent_rank_is_a_hang_within_its_time(ranks):
    before = pids(ranks)
    ranks.ask(PLAN, TIMEOUT_S)
    os.kill(before[0], signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(RankFailure) as caught:
        ranks.ask(Step(), 1.0)
    assert caught.value.failure.kind == "hang"
    assert time.monotonic() - start < 10
    assert not any(alive(pid) for pid in before)


def test_what_torch_refuses_is_a_model_error_with_its_words(ranks):
    refused = PLAN.model_copy(update={"micro_batches": 1, "micro_batch_size": 16})
    outcome = measure_candidate(ranks, WORK, refused, 0.1, 1, lambda *_: True)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "model_error"
    assert "Number of microbatches (1)" in outcome.message


def test_leaving_ends_every_process_and_removes_every_file(ranks):
    folder, before = ranks._folder, pids(ranks)
    assert folder.stat().st_mode & 0o777 == 0o700
    ranks.stop()
    assert not any(alive(pid) for pid in before)
    assert not folder.exists()


def test_ranks_exit_when_their_controller_is_killed():
    code = (
        "import time; from autotune.pipeline.ranks import Ranks\n"
        "if __name__ == '__main__':\n"
        "    ranks = Ranks(2, 'cpu'); ranks.start(); time.sleep(3)\n"
        "    print(*[process.pid for process in ranks._processes], flush=True); time.sleep(60)"
    )
    controller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    orphans = [int(pid) for pid in controller.stdout.readline().split()]
    assert len(orphans) == 2
    controller.kill()
    controller.wait()
    controller.stdout.close()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in orphans)
