"""Pipelines on real GPUs: memory that runs out, links, schedules over NCCL, ranks that die, and predictions of them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from statistics import median

import pytest
import torch

from autotune.pipeline.control.commands import Exchange, Ping, Prepare
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.memory import peak_memory
from autotune.predict.schedules import build_schedule
from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.records.job.workload import WorkloadConfig
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate
from autotune.report.units import show_bytes
from tests.gpu.figures import IS_EMULATED, note
from tests.pipeline.test_peak_memory import BATCH, measured_profile
from tests.pipeline.test_peak_memory import workload as memory_workload

MIB = 2**20
TIMEOUT_S = 120.0
ROOM = 2048 * MIB  # for a context, NCCL's buffers and the small model, but not for the large micro-batch
LARGE = 8192  # sequences
SCHEDULES = {"GPipe": 1, "1F1B": 1, "Interleaved1F1B": 2, "InterleavedZeroBubble": 2, "ZBVZeroBubble": 2}
SIZES = (4096, MIB, 64 * MIB)  # of messages, bytes
NEAR = 0.02  # of the measured peak


def workload(stages, **more):
    sizes = {"layers": 4 * stages, "hidden": 64, "heads": 4, "seq_len": 32, "vocab": 128, "batch": 8}
    return WorkloadConfig(**({"stages": stages, "precision": "bf16", "optimizer": "adamw"} | sizes | more))


def plan_of(schedule, micro_batches, sequences=8):
    return Prepare(
        schedule=schedule,
        micro_batches=micro_batches,
        micro_batch_size=sequences // micro_batches,
        sequences=sequences,
        virtual_stages=SCHEDULES[schedule],
    )


def measured(ranks, work, plan, steps=3):
    return measure_candidate(ranks, work, plan, 1.0, steps, lambda *_: True)


def test_running_out_of_memory_is_an_outcome_and_the_next_candidate_runs():
    """Beyond the limit of the user, which is real: the allocator gives up there."""
    work = workload(1, vocab=4096)
    free, total = torch.cuda.mem_get_info(0)  # what is taken now counts against the limit, this process's context too
    limit = total - free + ROOM
    with Ranks(1, "cuda", memory_limit=limit) as ranks:
        build(ranks, work, Placement())
        outcome = measured(ranks, work, plan_of("GPipe", 1, LARGE))
        healthy = measured(ranks, work, plan_of("GPipe", 1))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.rank) == ("out_of_memory", 0)
    assert "CUDA out of memory. Tried to allocate" in outcome.message
    assert "http" not in outcome.message
    assert outcome.short_bytes > 0
    assert isinstance(healthy, Measurement), healthy
    assert healthy.device_memory_bytes[0] <= limit
    note("out of memory", outcome.message)


def test_a_rank_that_is_killed_is_an_outcome_and_the_next_candidate_runs():
    count = min(2, torch.cuda.device_count())
    work = workload(count)
    with Ranks(count, "cuda") as ranks:
        build(ranks, work, Placement())
        victim = ranks._live[-1].process.pid
        outcome = measure_candidate(
            ranks, work, plan_of("GPipe", 4), 1.0, 9, lambda *_: os.kill(victim, signal.SIGKILL) is None
        )
        healthy = measured(ranks, work, plan_of("GPipe", 4))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.rank) == ("crash", count - 1)
    assert "killed by signal 9" in outcome.message
    assert isinstance(healthy, Measurement), healthy
    note("a killed rank", outcome.message)


@pytest.mark.gpus(2)
def test_links_are_measured():
    links = ((0, 1), (1, 0))
    with Ranks(2, "cuda") as ranks:
        build(ranks, workload(2), Placement())
        for size in SIZES:
            ping = Ping(source=0, target=1, there_bytes=size, back_bytes=size, repeats=10)
            alone = median(ranks.ask(ping, TIMEOUT_S)[0]) / 2
            exchange = Exchange(links=links, message_bytes=size, repeats=10)
            together = median(max(pair) for pair in zip(*ranks.ask(exchange, TIMEOUT_S), strict=True))
            assert alone > 0 < together
            words = f"{alone * 1e6:.0f} us one way, {together * 1e6:.0f} us both ways at once"
            note(f"message of {show_bytes(size)}", words)


@pytest.mark.gpus(2)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_kind_of_schedule_computes_the_same_over_nccl(schedule):
    """As one GPU that runs the model in one piece."""
    work = workload(2)
    with Ranks(2, "cuda") as ranks:
        build(ranks, work, plan_of(schedule, 4).placement)
        found = measured(ranks, work, plan_of(schedule, 4))
    assert isinstance(found, Measurement), found
    with Ranks(1, "cuda") as ranks:
        alone = replace(work, stages=1)
        build(ranks, alone, Placement())
        whole = measured(ranks, alone, plan_of("GPipe", 1))
    assert found.first_loss == pytest.approx(whole.first_loss, rel=1e-2)
    assert found.gradient_norm == pytest.approx(whole.gradient_norm, rel=3e-2)
    assert found.growth_bytes == (0, 0)
    note(
        schedule, f"{found.step_time_s * 1e3:.2f} ms a step, two GPUs; one piece on one: {whole.step_time_s * 1e3:.2f}"
    )


def test_the_measured_peak_is_the_predicted_one():
    count = min(2, torch.cuda.device_count())
    work, off = memory_workload(count, 1024, "bf16"), []
    with Ranks(count, "cuda") as ranks:
        profile = measured_profile(ranks, work, 1)
        for schedule, m in (("GPipe", 1), ("GPipe", 8), ("1F1B", 4), ("1F1B", 8)):
            candidate = Candidate(micro_batches=m, micro_batch_size=BATCH // m, sequences=BATCH, schedule=schedule)
            predicted = peak_memory(profile, candidate, build_schedule(schedule, count, m, 1))
            for start in (False, True):  # on used ranks, and on fresh ones
                if start or not ranks.alive or ranks.placement != Placement():
                    ranks.start()
                    build(ranks, work, Placement())
                real = ranks.ask(Prepare(**candidate.model_dump()), TIMEOUT_S)
                off += [
                    peak.total / primed["peak_memory_bytes"] - 1 for peak, primed in zip(predicted, real, strict=True)
                ]
    note("predicted peak memory", f"{min(off):+.2%} to {max(off):+.2%} of the measured one")
    assert max(map(abs, off)) <= NEAR


@pytest.mark.timeout(600)
def test_the_whole_program_in_small(tmp_path):
    """As many stages as there are GPUs, four at most; on real ones the predicted steps are near the measured ones."""
    stages = min(4, torch.cuda.device_count())
    sizes = {"layers": 8, "hidden": 64, "heads": 4, "seq-len": 32, "vocab": 512, "batch": 8}
    if not IS_EMULATED:
        sizes = {"layers": 8, "hidden": 1024, "heads": 16, "seq-len": 512, "vocab": 8192, "batch": 32}
    flags = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    command = [sys.executable, "-m", "autotune", "run", "--stages", str(stages), *flags, "--budget", "120s", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    ran = [row for row in report["candidates"] if row["measurement"]]
    assert report["sweet_spot"] is not None
    for row in ran:
        step, peak = row["relative_error"]["step_time"], row["relative_error"]["peak_memory"]
        note(f"m = {row['micro_batches']} {row['schedule']}", f"predicted step {step:+.1%}, peak memory {peak:+.2%}")
        if not IS_EMULATED:
            assert abs(step) < 0.25


@pytest.mark.gpus(2)
@pytest.mark.parametrize(("schedule", "precision"), [("1F1B", "fp32"), ("ZBVZeroBubble", "fp32"), ("1F1B", "bf16")])
def test_replicas_reduce_the_same_gradients_over_nccl(schedule, precision):
    """By DDP in the last backward, or after the last action: those of one backward of the whole batch of each."""
    work = workload(1, precision=precision, data_parallel=2)
    norms = []
    with Ranks(2, "cuda", replicas=2) as ranks:
        for name, count in (("GPipe", 1), (schedule, 4)):
            plan = replace(plan_of(name, count), replicas=2)
            build(ranks, work, plan.placement)
            found = measured(ranks, work, plan)
            assert isinstance(found, Measurement), found
            norms.append(found.gradient_norm)
            assert not any(found.growth_bytes)
    assert norms[1] == pytest.approx(norms[0], rel=3e-2 if precision == "bf16" else 1e-3)
    note(f"2 replicas, {schedule} {precision}", f"{found.step_time_s * 1e3:.2f} ms a step, two GPUs")
