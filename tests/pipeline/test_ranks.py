"""The ranks from the controller's side: answers, and deaths that come back as failures and leave nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from multiprocessing import Pipe
from pathlib import Path

import pytest

from autotune.pipeline.control.commands import (
    Build,
    Describe,
    MeasureMemory,
    Ping,
    Prepare,
    Step,
    TimeOptimizer,
    TimeStages,
)
from autotune.pipeline.control.measure import build, by_stage, describe, growth, measure_candidate
from autotune.pipeline.control.process import LocalRank
from autotune.pipeline.control.ranks import RankFailure, Ranks
from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.records.job.workload import WorkloadConfig
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate
from autotune.torch_range import RUNS_LISTS, refusal, release_of

SIZES = {"layers": 4, "hidden": 32, "heads": 2, "seq_len": 16, "vocab": 64, "batch": 16}
WORK = WorkloadConfig(stages=2, precision="fp32", optimizer="adamw", **SIZES)
PLAN = Prepare(schedule="1F1B", micro_batches=4, micro_batch_size=4, sequences=16)
TIMEOUT_S = 60.0
RELEASE = release_of(version("torch"))  # make test-torch runs this under old ones


@pytest.fixture
def ranks():
    with Ranks(2, "cpu") as started:
        started.ask(Build(workload=WORK), TIMEOUT_S)
        yield started


def pids(ranks):
    return [rank.process.pid for rank in ranks._live]


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_every_command_is_answered_by_every_rank(ranks):
    built = ranks.ask(Build(workload=WORK), TIMEOUT_S)
    described = ranks.ask(Describe(workload=WORK), TIMEOUT_S)
    for (real,), (on_paper,) in zip(built, described, strict=True):
        assert real["layers"] == on_paper["layers"] == 2
        assert real["static_bytes"] == pytest.approx(on_paper["static_bytes"], rel=0.01)
    absent, ((row,),) = ranks.ask(TimeStages(stages=(1,), micro_batch_sizes=(4,), fewest=(3,)), TIMEOUT_S)
    assert absent == []
    assert row["t_f"] > 0 < row["t_bw"]
    assert row["t_b"] is row["t_w"] is None
    assert len(row["samples_f"]) >= 3
    idle, cost = ranks.ask(TimeOptimizer(active=(1,)), TIMEOUT_S)
    assert idle is None
    assert cost["seconds"] > 0 < cost["transient_bytes"]
    there, back = ranks.ask(Ping(source=0, target=1, there_bytes=64, back_bytes=1, repeats=3), TIMEOUT_S)
    assert len(there) == 3
    assert back == []


@pytest.mark.parametrize(("v_shaped", "placed"), [(False, (0, 1, 0, 1)), (True, (0, 1, 1, 0))])
def test_a_placement_lays_several_stages_on_each_rank(ranks, v_shaped, placed):
    """Four layers in four stages: only the first embeds, only the last has a head, whichever rank holds it."""
    placement = Placement(virtual_stages=2, v_shaped=v_shaped)
    answers = ranks.ask(Build(workload=WORK, placement=placement), TIMEOUT_S)
    assert [len(facts) for facts in answers] == [2, 2]
    first, *middle, last = [fact["parameters"] for fact in by_stage(answers, placement)]
    block, width = 12 * 32 * 32 + 13 * 32, 32
    assert middle == [block, block]
    assert first == block + (WORK.vocab + WORK.seq_len) * width
    assert last == block + WORK.vocab * width + 2 * width
    for stage, rank in enumerate(placed):
        timed = ranks.ask(TimeStages(stages=(stage,), micro_batch_sizes=(2,), fewest=(3,), split=True), TIMEOUT_S)
        assert [answer != [] for answer in timed] == [rank == 0, rank == 1]
        ((row,),) = timed[rank]
        assert min(row["t_f"], row["t_bw"], row["t_w"]) > 0
        assert row["t_b"] < row["t_bw"] / 10 if stage == 0 else row["t_b"] > 0  # the first has no input gradient


def test_ranks_time_a_stage_each_at_the_same_moment(ranks):
    ranks.ask(Build(workload=WORK, placement=Placement(virtual_stages=2)), TIMEOUT_S)
    answers = ranks.ask(TimeStages(stages=(2, 3), micro_batch_sizes=(1, 2), fewest=(3, 2)), TIMEOUT_S)
    for answer in answers:
        (rows,) = answer
        assert [(row["micro_batch_size"], len(row["samples_f"]) >= 2) for row in rows] == [(1, True), (2, True)]


def test_building_on_paper_tells_the_bytes_of_the_real_build(ranks):
    for optimizer in ("none", "sgd", "adamw"):
        for placement in (Placement(), Placement(virtual_stages=2), Placement(virtual_stages=2, v_shaped=True)):
            work = replace(WORK, optimizer=optimizer)
            on_paper = describe(ranks, work, placement)
            for mine, real in zip(on_paper, build(ranks, work, placement), strict=True):
                assert mine.parameters == real.parameters
                assert mine.static_bytes == pytest.approx(real.static_bytes, rel=1e-3)


def parts_of_peak(ranks, work, plan):
    """The bytes per rank that each part of a step's memory was measured to take, added up."""
    p, m, b = work.stages, plan.micro_batches, plan.micro_batch_size
    static = [fact["static_bytes"] for (fact,) in ranks.ask(Build(workload=work), TIMEOUT_S)]
    memory = [rows[0] for (rows,) in ranks.ask(MeasureMemory(micro_batch_sizes=(b,)), TIMEOUT_S)]
    batch = 2 * m * b * work.seq_len * 8  # ids and targets
    for rank in range(p):
        received = m * message_bytes(work, plan) * neighbours(rank, p)
        in_flight = min(m, p - rank) if plan.schedule == "1F1B" else m
        working = in_flight * memory[rank]["activation_bytes"] + memory[rank]["transient_bytes"]
        yield static[rank] + batch + received + working


def message_bytes(work, plan):
    return plan.micro_batch_size * work.seq_len * work.hidden * 4


def neighbours(rank, p):
    return (rank > 0) + (rank < p - 1)


def test_the_peak_of_a_step_is_the_sum_of_its_measured_parts():
    """Of GPipe to the byte. 1F1B keeps the message that it last sent to each neighbour, and the losses; before torch
    2.10 it keeps some messages longer, and the last stage all that it gave."""
    is_new = RELEASE >= RUNS_LISTS
    work = replace(WORK, stages=4)
    with Ranks(4, "cpu") as ranks:
        for name, m, b in [
            ("GPipe", 1, 16),
            ("GPipe", 3, 6),
            ("GPipe", 8, 2),
            ("1F1B", 4, 4),
            ("1F1B", 5, 4),
            ("1F1B", 16, 1),
        ]:
            one = Candidate(schedule=name, micro_batches=m, micro_batch_size=b, sequences=16)
            if refusal(RELEASE, one, 4) is not None:
                continue
            plan = Prepare(**one.model_dump())
            parts = list(parts_of_peak(ranks, work, plan))
            peaks = [primed["peak_memory_bytes"] for primed in ranks.ask(plan, TIMEOUT_S)]
            for rank, (peak, part) in enumerate(zip(peaks, parts, strict=True)):
                if name == "1F1B" and rank == 3 and not is_new:
                    part += m * b * work.seq_len * work.vocab * 4
                kept = neighbours(rank, 4) * message_bytes(work, plan) + 4 * m if name == "1F1B" else 0
                if is_new or name == "GPipe":
                    assert part <= peak <= part + kept, (plan, rank)
                assert peak == pytest.approx(part, rel=0.03 if is_new else 0.2)


def test_the_optimizer_really_steps(ranks):
    ranks.ask(PLAN, TIMEOUT_S)
    losses = [ranks.ask(Step(), TIMEOUT_S)[1]["loss"] for _ in range(30)]
    assert losses[-1] < losses[0] - 0.05


def test_every_candidate_begins_with_the_same_weights(ranks):
    """Loss and gradients of the first step are those of the seed, whatever was trained before."""
    first = ranks.ask(PLAN, TIMEOUT_S)
    for _ in range(3):
        ranks.ask(Step(), TIMEOUT_S)
    again = ranks.ask(PLAN, TIMEOUT_S)
    for name in ("loss", "gradient_square_sum"):
        assert [answer[name] for answer in again] == [answer[name] for answer in first]
    assert [answer["loss"] is None for answer in first] == [True, False]
    assert all(answer["gradient_square_sum"] > 0 for answer in first)


def test_a_measurement_holds_what_the_first_step_computed_and_what_each_step_left(ranks):
    primed = ranks.ask(PLAN, TIMEOUT_S)
    found = measure_candidate(ranks, WORK, PLAN, 0.1, 4, lambda *_: True)
    assert found.first_loss == primed[1]["loss"]
    assert found.gradient_norm == pytest.approx(sum(answer["gradient_square_sum"] for answer in primed) ** 0.5)
    assert found.loss < found.first_loss
    assert len(found.growth_bytes) == 2
    one = measure_candidate(ranks, WORK, PLAN, 0.1, 1, lambda *_: True)
    assert one.growth_bytes is None  # a single step tells nothing


def test_growth_is_the_least_that_any_step_leaves():
    assert growth([[10, 5], [14, 5], [15, 9], [20, 9]]) == (1, 0)
    assert growth([[10, None], [14, None], [15, None]]) is None
    assert growth([[10, 5], [60, 9]]) is None  # one step may leave something by chance
    assert growth([]) is None


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
    before = pids(ranks)
    outcome = measure_candidate(ranks, WORK, PLAN, 0.1, 100_000, lambda *_: True)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.rank) == ("crash", 0)
    assert "killed by signal 9" in outcome.message
    assert not any(alive(pid) for pid in before)


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


@pytest.mark.skipif(RELEASE < (2, 7), reason="torch 2.6 takes m < stages")
def test_what_torch_refuses_is_a_model_error_with_its_words(ranks):
    refused = replace(PLAN, micro_batches=1, micro_batch_size=16)
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


def test_an_error_between_commands_leaves_nothing_either():
    with pytest.raises(KeyboardInterrupt), Ranks(2, "cpu") as ranks:
        folder, before = ranks._folder, pids(ranks)
        raise KeyboardInterrupt
    assert not any(alive(pid) for pid in before)
    assert not folder.exists()
    assert not any(child.pid in before for child in multiprocessing.active_children())


def test_busy_ranks_exit_when_their_controller_is_killed(tmp_path):
    code = f"""
from autotune.config import WorkloadConfig
from autotune.pipeline.control.commands import Build, Ping
from autotune.pipeline.control.ranks import Ranks
if __name__ == "__main__":
    ranks = Ranks(2, "cpu")
    ranks.start()
    ranks.ask(Build(workload=WorkloadConfig(**{asdict(WORK)!r})), 60)
    print(*[rank.process.pid for rank in ranks._live], flush=True)
    ranks.ask(Ping(source=0, target=1, there_bytes=1, back_bytes=1, repeats=10**8), 90)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    controller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    orphans = [int(pid) for pid in controller.stdout.readline().split()]
    time.sleep(0.3)
    controller.kill()
    controller.wait()
    controller.stdout.close()
    assert len(orphans) == 2
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in orphans)
    deadline = time.monotonic() + 10
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(tmp_path.iterdir())  # the server that they were forked from is the last to go


class DeafProcess:
    """In the kernel, where no signal reaches it."""

    def join(self, timeout):
        self.timeout = timeout

    def is_alive(self):
        return True


def test_a_rank_that_does_not_die_is_not_waited_for():
    rank = object.__new__(LocalRank)
    rank.process, (rank.connection, theirs) = DeafProcess(), Pipe()
    rank.close()
    theirs.close()
    assert 0 < rank.process.timeout <= 60
    assert rank.connection.closed
