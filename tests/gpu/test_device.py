"""The GPU side of the device seam: its clock and its memory, a stage on it, and two ranks over NCCL."""

import math
import time

import pytest
import torch

from autotune.pipeline.control.commands import Prepare, Step
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.pipeline.device.device import CudaDevice, open_device
from autotune.pipeline.rank.recording import Recording
from autotune.records.job.placement import Placement
from autotune.records.job.workload import WorkloadConfig
from autotune.report.correctness import TOLERANCE

MIB = 2**20
TIMEOUT_S = 120.0


def workload(stages):
    return WorkloadConfig(
        layers=4,
        stages=stages,
        hidden=64,
        heads=4,
        seq_len=32,
        vocab=128,
        batch=8,
        precision="bf16",
        optimizer="adamw",
    )


@pytest.fixture
def device():
    return CudaDevice(0)


def test_open_device_opens_a_gpu():
    opened = open_device("cuda", 0, 1)
    assert (opened.kind, opened.backend, opened.torch_device) == ("cuda", "nccl", torch.device("cuda", 0))


def test_seconds_wait_for_the_device(device):
    """A kernel returns to Python at once; the time must be that of the work, not that of its launch."""
    matrix = torch.randn(2048, 2048, device=device.torch_device)

    def multiply():
        for _ in range(5):
            torch.mm(matrix, matrix)

    device.seconds(multiply)  # primes
    start = time.perf_counter()
    measured = device.seconds(multiply)
    assert 0.0 < measured <= time.perf_counter() - start


@pytest.mark.speed
def test_twice_the_work_takes_about_twice_as_long(device):
    matrix = torch.randn(4096, 4096, device=device.torch_device)

    def multiply(times):
        for _ in range(times):
            torch.mm(matrix, matrix)

    device.seconds(lambda: multiply(20))  # primes
    once = min(device.seconds(lambda: multiply(20)) for _ in range(5))
    twice = min(device.seconds(lambda: multiply(40)) for _ in range(5))
    assert 1.6 < twice / once < 2.4


@pytest.mark.speed
def test_a_recording_is_on_the_devices_own_clock(device):
    """Kernels that spin return to Python at once; the recording must say when they ran, on the host's clock."""
    device.wait(0.001)  # finds the clock's pace
    began = time.monotonic()
    recording = Recording(device)
    for name, seconds in (("forward", 0.01), ("backward", 0.02)):
        recording.begin(name, 0, 3)
        device.wait(seconds)
        recording.end()
    one, other = recording.read()
    assert one.end_s - one.start_s == pytest.approx(0.01, rel=0.3)
    assert other.end_s - other.start_s == pytest.approx(0.02, rel=0.3)
    assert began <= one.start_s < one.end_s <= other.start_s < other.end_s <= time.monotonic()


def test_memory_tells_peak_from_end(device):
    kept = []

    def work():
        passing = torch.empty(64 * MIB, dtype=torch.uint8, device=device.torch_device)
        del passing
        kept.append(torch.empty(16 * MIB, dtype=torch.uint8, device=device.torch_device))

    use = device.memory(work)
    assert (use.peak, use.end) == (64 * MIB, 16 * MIB)


def test_memory_counts_from_what_was_held(device):
    held = torch.empty(32 * MIB, dtype=torch.uint8, device=device.torch_device)
    use = device.memory(lambda: held.clone())
    assert (use.peak, use.end) == (32 * MIB, 0)


def run_step(stages, schedule, micro_batches):
    """Loss and bytes of one primed and one timed step on ``stages`` GPUs."""
    work = workload(stages)
    size = work.batch // micro_batches
    plan = Prepare(schedule=schedule, micro_batches=micro_batches, micro_batch_size=size, sequences=work.batch)
    with Ranks(stages, "cuda") as ranks:
        facts = build(ranks, work, Placement())
        primed = ranks.ask(plan, TIMEOUT_S)
        steps = ranks.ask(Step(), TIMEOUT_S)
    return facts, primed, steps


def check_step(facts, primed, steps):
    """The last stage alone has a loss, near that of guessing; every rank took time and more than its weights."""
    assert [step["loss"] is None for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1]["loss"] == pytest.approx(math.log(workload(1).vocab), rel=0.2)
    for fact, use, step in zip(facts, primed, steps, strict=True):
        assert use["peak_memory_bytes"] > fact.static_bytes > 0
        assert step["end_s"] > step["start_s"]


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_one_rank_steps(micro_batches):
    check_step(*run_step(1, "GPipe", micro_batches))


@pytest.mark.gpus(2)
@pytest.mark.parametrize(("schedule", "micro_batches"), [("GPipe", 1), ("GPipe", 4), ("1F1B", 4)])
def test_two_ranks_step(schedule, micro_batches):
    check_step(*run_step(2, schedule, micro_batches))


def test_what_is_held_is_the_allocators_count(device):
    before = device.held()
    kept = torch.empty(16 * MIB, dtype=torch.uint8, device=device.torch_device)
    assert device.held() - before == 16 * MIB
    del kept
    assert device.held() == before


def test_candidates_compute_the_same_and_steps_leave_nothing():
    """Each begins with the weights of the seed, however many steps another has made."""
    work, found = workload(1), []
    with Ranks(1, "cuda") as ranks:
        for count in (1, 2, 8):
            plan = Prepare(schedule="GPipe", micro_batches=count, micro_batch_size=8 // count, sequences=8)
            found.append(measure_candidate(ranks, work, plan, 1.0, 3, lambda *_: True))
    for one in found:
        assert one.first_loss == pytest.approx(found[0].first_loss, rel=TOLERANCE["bf16"])
        assert one.gradient_norm == pytest.approx(found[0].gradient_norm, rel=TOLERANCE["bf16"])
        assert one.growth_bytes == (0,)


def test_the_limit_holds_for_the_allocator_and_what_lies_outside_of_it(device):
    """These are the bytes that a prediction holds against it."""
    device.release()
    _, total = torch.cuda.mem_get_info(device.torch_device)
    taken = device.footprint().outside + torch.cuda.memory_reserved(device.torch_device)
    assert taken > 64 * MIB  # the context alone
    device.limit(taken + 64 * MIB)
    try:
        fitting = torch.empty(64 * MIB, dtype=torch.uint8, device=device.torch_device)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(22 * MIB, dtype=torch.uint8, device=device.torch_device)  # more than a segment may have left
        del fitting
        device.release()  # looks again what lies outside
        torch.empty(64 * MIB, dtype=torch.uint8, device=device.torch_device)
    finally:
        device.limit(total)
        device.release()


def test_an_allocator_that_has_to_begin_anew_is_counted(device):
    """What it kept of a freed tensor is too small for the next, and beside it there is no room."""
    device.release()
    _, total = torch.cuda.mem_get_info(device.torch_device)
    taken, before = device.footprint().outside + torch.cuda.memory_reserved(device.torch_device), device.retries()
    device.limit(taken + 80 * MIB)
    try:
        for size in (64, 64, 72):
            torch.empty(size * MIB, dtype=torch.uint8, device=device.torch_device)
        assert device.retries() == before + 1
    finally:
        device.limit(total)
        device.release()
