"""What one rank measures of its stage, on the CPU: sizes in turn, and where the device has no room for more."""

import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autotune.pipeline.control.commands import TimeStages
from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.probe import StageProbe, is_out_of_memory, optimizer_cost, random_bytes
from autotune.records.job.workload import WorkloadConfig
from autotune.records.stage_costs import StageTime
from autotune.torch_range import HAS_GRADIENT_TYPES, release_of
from autotune.workload.gpt import Gpt, SequenceLoss, boundary_type, build_stage, random_batch
from autotune.workload.optimizer import build_optimizer, hold_gradients

WORK = WorkloadConfig(
    layers=2, stages=1, hidden=16, heads=2, seq_len=8, vocab=32, batch=16, precision="fp32", optimizer="none"
)
SIZES = (1, 2, 4, 8, 16)


class SmallDevice(CpuDevice):
    """Refuses work that takes more than ``limit`` bytes, in the words of torch's CPU allocator."""

    def __init__(self, limit):
        super().__init__(1)
        self.limit, self.released = limit, 0

    def memory(self, work):
        use = super().memory(work)
        if use.peak > self.limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return use

    def release(self):
        self.released += 1


def plan(*sizes, fewest=3, split=False):
    return TimeStages(stages=(0,), micro_batch_sizes=sizes, fewest=(fewest,) * len(sizes), split=split)


def probe(device):
    return StageProbe(build_stage(WORK, 0, 1, device.torch_device), Gpt(WORK), range(WORK.layers), device)


@pytest.mark.parametrize("split", [False, True])
def test_memory_ends_at_the_first_size_that_does_not_fit(split):
    rows = probe(CpuDevice(1)).memory(SIZES, split)
    assert [row.micro_batch_size for row in rows] == list(SIZES)
    most = rows[2].activation_bytes + rows[2].transient_bytes
    small = SmallDevice(round(1.5 * most))
    mine = probe(small)
    assert mine.memory(SIZES, split) == rows[:3]
    assert small.released == 1
    assert [row.micro_batch_size for row in mine.times(plan(*SIZES[:3], split=split))] == [1, 2, 4]  # it goes on


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_micro_batches_in_flight_hold_their_activations_and_no_weights(precision):
    """A block keeps, of each token, 16 times the width: both norms' inputs (2), what attention, projection and MLP are
    given (1 + 3 + 1 + 1 + 4), and the MLP's other side (4). Its weights are twelve times as many bytes here."""
    sizes = {"layers": 6, "stages": 3, "hidden": 128, "heads": 2, "seq_len": 4, "precision": precision}
    work, device, size = replace(WORK, **sizes), CpuDevice(1), 2
    stage = build_stage(work, 1, 3, device.torch_device)
    received = torch.zeros(size, 4, 128, dtype=boundary_type(work), requires_grad=True)
    outputs = [stage(received)]
    grown = [device.memory(lambda: outputs.append(stage(received))).end for _ in range(3)]
    width = outputs[0].element_size() * 128
    assert grown[0] == pytest.approx(2 * size * 4 * 16 * width, rel=0.05)
    assert grown == [grown[0]] * 3
    assert sum(weight.nbytes for weight in stage.parameters()) > 11 * grown[0]


def test_another_error_is_not_taken_for_a_lack_of_memory():
    class Broken(CpuDevice):
        def memory(self, work):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        probe(Broken(1)).memory(SIZES, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'"), True),
        (RuntimeError("Connection closed by peer"), False),
    ],
)
def test_every_way_to_say_out_of_memory_is_known(error, expected):
    assert is_out_of_memory(error) is expected


class LoggingStage(torch.nn.Module):
    """Notes the number of sequences of every forward."""

    def __init__(self, log):
        super().__init__()
        self.log, self.weight = log, torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.log.append(("forward", len(x)))
        return x * self.weight


class SlowDevice(CpuDevice):
    """Notes what is timed; every pass takes an hour by its clock. It wants to be warmed up."""

    warm_up_s = 0.05

    def __init__(self, log):
        super().__init__(1)
        self.log = log

    def seconds(self, work):
        work()
        self.log.append(("timed", work.__name__))
        return 3600.0

    def synchronize(self):
        self.log.append(("synchronized", None))


def middle_probe(device, stage):
    """Of the second of three stages: random activations and gradients are what it takes."""
    return StageProbe(stage, Gpt(replace(WORK, layers=3)), range(1, 2), device)


def test_each_size_has_an_untimed_pass_and_three_timed_ones_however_slow_they_are():
    log = []
    rows = middle_probe(SlowDevice(log), LoggingStage(log)).times(plan(1, 8))
    assert [len(row.samples_f) for row in rows] == [3, 3]
    last_warm = max(at for at, entry in enumerate(log) if entry[0] == "synchronized")
    assert last_warm > 0  # warmed up under passes of the largest size
    assert set(log[: last_warm + 1]) == {("forward", 8), ("synchronized", None)}
    once = [("timed", "forward"), ("timed", "backward")]
    for size in (8, 1):
        passes = [("forward", size), *([("forward", size), *once] * 3)]
        start = last_warm + 1 if size == 8 else last_warm + 1 + len(passes)
        assert log[start : start + len(passes)] == passes


class BehindDevice(CpuDevice):
    """Works on for an hour by ``clock`` after the CPU has gone on; that is what it says of every pass."""

    runs_behind = True

    def __init__(self, clock):
        super().__init__(1)
        self.clock = clock

    def synchronize(self):
        self.clock[0] += 3600.0

    def seconds(self, work):
        work()
        self.synchronize()
        return 3600.0


class LaunchedStage(LoggingStage):
    """The CPU needs 1, 2, 3, ... seconds by ``clock`` to start a forward."""

    def __init__(self, clock):
        super().__init__([])
        self.clock = clock

    def forward(self, x):
        output = super().forward(x)
        self.clock[0] += len(self.log)
        return output


def test_what_the_cpu_needs_to_start_a_pass_is_timed_where_the_device_runs_behind(monkeypatch):
    """Of three passes, after the untimed one and the three that are timed: the sixth."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    (row,) = middle_probe(BehindDevice(clock), LaunchedStage(clock)).times(plan(2))
    assert (row.t_f, row.t_bw, row.host_s) == (3600.0, 3600.0, 6.0)
    merged = StageTime.merged([row, replace(row, host_s=8.0), replace(row, host_s=7.0)])
    assert merged.host_s == 7.0


def test_where_the_cpu_computes_it_starts_nothing():
    (row,) = middle_probe(CpuDevice(1), LoggingStage([])).times(plan(2))
    assert row.host_s is None
    assert StageTime.merged([row, row]).host_s is None


def test_sizes_after_one_without_room_are_timed_warm_too():
    """The allocator's cache is empty then: the first pass of each size asks the device for memory again."""
    log, timed = [], []

    class Timed(SmallDevice):
        def seconds(self, work):
            work()
            timed.append(len(log))
            return 0.5

    for limit, untimed in ((0, 1), (10**9, 0)):
        small = Timed(limit)
        stage_probe = middle_probe(small, LoggingStage(log))
        rows = stage_probe.memory((1, 2), False)
        assert (len(rows), small.released) == ((2, 0) if limit else (0, 1))
        log.clear()
        timed.clear()
        stage_probe.times(plan(1))
        assert timed[0] == 1 + untimed  # forwards by the time that the first had been timed


def test_what_a_stage_is_given_is_as_large_as_in_the_model():
    """No zeros: a GPU clocks higher on them. Compared with the boundaries of the model in one piece, within a half."""
    work = replace(WORK, layers=3, hidden=64, vocab=512, seq_len=32)
    cpu = torch.device("cpu")
    ids, targets = random_batch(work, 4, 0, cpu)
    first = build_stage(work, 0, 3, cpu)(ids)
    second = build_stage(work, 1, 3, cpu)(first)
    first.retain_grad()
    second.retain_grad()
    SequenceLoss(work, 4)(build_stage(work, 2, 3, cpu)(second), targets).backward()
    seen = SimpleNamespace()

    class Looking(torch.nn.Module):
        def forward(self, x):
            seen.x = x
            out = x * 1.0
            out.register_hook(lambda gradient: setattr(seen, "gradient", gradient))
            return out

    run = StageProbe(Looking(), Gpt(work), range(1, 2), CpuDevice(1)).passes(4)
    run.forward()
    run.backward()
    assert 0.5 < (seen.x.std() / first.std()).item() < 2
    assert 0.5 < (seen.gradient.std() / second.grad.std()).item() < 2
    assert seen.x.unique().numel() > 0.9 * seen.x.numel()
    before = seen.x.detach().clone(), seen.gradient.clone()
    again = StageProbe(Looking(), Gpt(work), range(1, 2), CpuDevice(1)).passes(4)
    again.forward()
    again.backward()
    assert torch.equal(before[0], seen.x)
    assert torch.equal(before[1], seen.gradient)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_small_gradients_do_not_vanish_in_half_precision(precision):
    work = replace(WORK, layers=3, precision=precision, seq_len=512, hidden=64)
    seen = []

    class Looking(torch.nn.Module):
        def forward(self, x):
            out = x * 1.0
            out.register_hook(seen.append)
            return out

    run = StageProbe(Looking(), Gpt(work), range(1, 2), CpuDevice(1)).passes(8)
    run.forward()
    run.backward()
    assert (seen[0] != 0).float().mean().item() > 0.9


def test_messages_of_a_ping_are_no_empty_pages():
    assert random_bytes(4096, CpuDevice(1)).unique().numel() > 200


class Conversions(TorchDispatchMode):
    """Counts what is cast, by the operator."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten._foreach_copy_.default):
            self.found[func.overloadpacket.__name__] += 1
        return made


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_weights_are_cast_in_the_optimizer_step_and_in_no_pass(precision):
    """``optimizer_s`` is of the zeroing of gradients, the update and the cast; a micro-batch casts nothing."""
    if precision != "fp32" and release_of(torch.__version__) < HAS_GRADIENT_TYPES:
        pytest.skip("this torch keeps no gradients in fp32 of weights in lower precision")
    work = replace(WORK, precision=precision, layers=3, stages=3, optimizer="adamw")
    device = CpuDevice(1)
    stage = build_stage(work, 1, 3, device.torch_device)
    hold_gradients(stage)
    optimizer, run = build_optimizer(stage, "adamw"), StageProbe(stage, Gpt(work), range(1, 2), device).passes(2)
    optimizer.step()  # takes the memory of its state
    with Conversions() as passes:
        run.forward()
        run.backward()
        run.forward()
        run.backward_input()
        run.backward_weight()
    with Conversions() as step:
        cost = optimizer_cost(stage, optimizer, device)
    assert passes.found == {}
    assert step.found == ({} if precision == "fp32" else {"_foreach_copy_": 6})  # once for the bytes, five times timed
    assert cost.transient_bytes < 1024
