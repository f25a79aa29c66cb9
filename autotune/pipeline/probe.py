"""Measurements on one rank: what one micro-batch costs its stage, and what a message costs its link."""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor, nn

from autotune.config import Workload
from autotune.pipeline.commands import OptimizerCost, Ping, StageMemory, StageTime
from autotune.pipeline.device import Device
from autotune.workload.gpt import SequenceLoss, boundary_type, random_batch

FEWEST_SAMPLES, MOST_SAMPLES = 3, 12
NARROW = 0.02  # stop repeating when the median is known to 2 %


class StageProbe:
    """One stage of the model, driven one micro-batch at a time outside any pipeline."""

    def __init__(self, stage: nn.Module, workload: Workload, rank: int, device: Device) -> None:
        self.stage, self.workload, self.device = stage, workload, device
        self.is_first, self.is_last = rank == 0, rank == workload.stages - 1

    def passes(self, micro_batch_size: int) -> tuple[Callable[[], None], Callable[[], None]]:
        """A forward and a backward of one micro-batch, to be called in turn; forward includes the loss."""
        ids, targets = random_batch(self.workload, micro_batch_size, 0, self.device.torch_device)
        loss = SequenceLoss(self.workload, micro_batch_size)
        received = self._boundary(micro_batch_size).requires_grad_()
        gradient = self._boundary(micro_batch_size)
        outputs: list[Tensor] = []

        def forward() -> None:
            output = self.stage(ids if self.is_first else received)
            outputs[:] = [loss(output, targets), output] if self.is_last else [output]

        def backward() -> None:
            torch.autograd.backward(outputs[0], None if self.is_last else gradient)
            outputs.clear()
            received.grad = None

        return forward, backward

    def _boundary(self, micro_batch_size: int) -> Tensor:
        shape = (micro_batch_size, self.workload.seq_len, self.workload.hidden)
        return torch.zeros(shape, dtype=boundary_type(self.workload), device=self.device.torch_device)

    def times(self, micro_batch_sizes: tuple[int, ...], budget_s: float) -> list[StageTime]:
        """Times every size in turn, round after round, until each median is narrow or its share of the budget spent."""
        passes = {size: self.passes(size) for size in micro_batch_sizes}
        forward: dict[int, list[float]] = {size: [] for size in passes}
        backward: dict[int, list[float]] = {size: [] for size in passes}
        for prime_forward, prime_backward in passes.values():
            prime_forward()
            prime_backward()
        deadline = time.monotonic() + budget_s
        for _ in range(MOST_SAMPLES):
            for size, (run_forward, run_backward) in passes.items():
                enough = len(forward[size]) >= FEWEST_SAMPLES
                if enough and (time.monotonic() > deadline or is_narrow(forward[size], backward[size])):
                    continue
                forward[size].append(self.device.seconds(run_forward))
                backward[size].append(self.device.seconds(run_backward))
        return [stage_time(size, forward[size], backward[size]) for size in micro_batch_sizes]

    def memory(self, micro_batch_sizes: tuple[int, ...]) -> list[StageMemory]:
        """Measures every size once; the allocator is deterministic."""
        return [self._memory(size) for size in micro_batch_sizes]

    def _memory(self, micro_batch_size: int) -> StageMemory:
        forward, backward = self.passes(micro_batch_size)
        during_forward = self.device.memory(forward)
        during_backward = self.device.memory(backward)
        transient = max(during_forward.peak - during_forward.end, during_backward.peak)
        return StageMemory(
            micro_batch_size=micro_batch_size,
            activation_bytes=max(0, during_forward.end),
            transient_bytes=max(0, transient),
        )

    def seconds_per_pass(self, micro_batch_size: int, seconds: float) -> float:
        """Repeats forward and backward for ``seconds``; returns seconds of one pair."""
        forward, backward = self.passes(micro_batch_size)
        forward()
        backward()
        self.device.synchronize()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            forward()
            backward()
            self.device.synchronize()
            count += 1
        return (time.perf_counter() - start) / count


def is_narrow(*series: list[float]) -> bool:
    """Whether each median's standard error, 1.25 sigma / sqrt(n) for a normal spread, is below NARROW of it."""
    for samples in series:
        middle = median(samples)
        # sigma from the median absolute deviation, so that one disturbed pass does not ask for many more
        sigma = 1.48 * median(abs(sample - middle) for sample in samples)
        if 1.25 * sigma > NARROW * middle * len(samples) ** 0.5:
            return False
    return True


def stage_time(micro_batch_size: int, forward: list[float], backward: list[float]) -> StageTime:
    """The row of one size: medians, and the samples behind them."""
    return StageTime(
        micro_batch_size=micro_batch_size,
        t_f=median(forward),
        t_bw=median(backward),
        samples_f=tuple(forward),
        samples_bw=tuple(backward),
    )


def optimizer_cost(stage: nn.Module, optimizer: torch.optim.Optimizer | None, device: Device) -> OptimizerCost:
    """Times one optimizer step with the zeroing of its gradients."""

    def update() -> None:
        stage.zero_grad(set_to_none=False)
        if optimizer is not None:
            optimizer.step()

    peak = device.memory(update).peak
    return OptimizerCost(seconds=median(device.seconds(update) for _ in range(5)), transient_bytes=max(0, peak))


def round_trips(ping: Ping, rank: int, device: Device) -> list[float]:
    """Seconds of each round trip, measured at the source; an empty list elsewhere."""
    if rank not in (ping.source, ping.target):
        return []
    there = torch.zeros(ping.there_bytes, dtype=torch.uint8, device=device.torch_device)
    back = torch.zeros(ping.back_bytes, dtype=torch.uint8, device=device.torch_device)

    def round_trip() -> None:
        dist.send(there, ping.target)
        dist.recv(back, ping.target)
        device.synchronize()

    def answer() -> None:
        dist.recv(there, ping.source)
        dist.send(back, ping.source)
        device.synchronize()

    work = round_trip if rank == ping.source else answer
    samples = []
    for _ in range(ping.repeats + 1):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return samples[1:] if rank == ping.source else []  # the first is a priming pass
