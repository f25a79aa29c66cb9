"""Measurements on one rank: what one micro-batch costs its stage, and what a message costs its link."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

from autotune.pipeline.control.commands import FEWEST_SAMPLES, Exchange, OptimizerCost, Ping, TimeStages
from autotune.pipeline.device.device import Device
from autotune.records.stage_costs import StageMemory, StageTime
from autotune.workload.optimizer import MasterWeights
from autotune.workload.protocol import Workload

MOST_SAMPLES = 12
NARROW = 0.02  # stop repeating when the median is known to 2 %
LEAST_S, SHARE = 0.01, 0.1  # spent on each size at least; as a share of a pass of the largest
ACTIVATION, GRADIENT = sqrt(2), 0.4
"""Standard deviations of what crosses a boundary of the model with the weights that it begins with: of an activation,
the sum of two embeddings; of the gradient of the mean loss, times the square root of ``hidden``, per token."""


class StageProbe:
    """The stage of ``layers``, driven one micro-batch at a time outside any pipeline."""

    def __init__(self, stage: nn.Module, workload: Workload, layers: range, device: Device) -> None:
        self.stage, self.workload, self.layers, self.device = stage, workload, layers, device
        self.is_first, self.is_last = layers.start == 0, layers.stop == workload.facts.layers
        self.primed: set[int] = set()  # sizes that have run since the allocator last gave back its memory

    def passes(self, micro_batch_size: int) -> "Passes":
        """Return a forward and a backward of one micro-batch, to be called in turn; forward includes the loss."""
        batch = self.workload.batch(micro_batch_size, 0, self.device.torch_device)
        loss = self.workload.loss(micro_batch_size)
        received = batch.args if self.is_first else self._received(micro_batch_size)
        inputs = [tensor for tensor in received if tensor.requires_grad]
        gradients = None if self.is_last else self._gradients(micro_batch_size, loss.scale)
        outputs: list[Tensor] = []
        groups: list[dict[str, Any]] = []

        def forward() -> None:
            output = self.stage(*received, **batch.kwargs)
            sent = output if isinstance(output, tuple | list) else (output,)
            if self.is_last:
                outputs[:] = [loss(output, batch.targets), *sent]
            else:
                outputs[:] = [tensor for tensor in sent if tensor.requires_grad]

        def backward() -> None:
            if outputs:  # a stage without parameters at the beginning gives nothing to go back from
                torch.autograd.backward(outputs[: 1 if self.is_last else None], gradients)
            let_go()

        def let_go() -> None:
            outputs.clear()
            for tensor in received:
                tensor.grad = None

        def backward_input() -> None:
            if self.is_first:
                return  # torch leaves the whole backward of the first stage to the weights
            ends = outputs[: 1 if self.is_last else None]
            _, groups[:] = stage_backward_input(ends, gradients, inputs, self.stage.parameters())
            outputs[:] = ends  # PipelineStage lets go of the logits here; the weights need only the loss's graph

        def backward_weight() -> None:
            if self.is_first:
                backward()
                return
            stage_backward_weight(self.stage.parameters(), groups)
            groups.clear()
            let_go()

        return Passes(forward, backward, backward_input, backward_weight)

    def _received(self, micro_batch_size: int) -> tuple[Tensor, ...]:
        """Return what the stage before would send."""
        sent = self.workload.boundary(self.layers.start, micro_batch_size)
        return tuple(self._random(one, ACTIVATION).requires_grad_(one.requires_grad) for one in sent)

    def _gradients(self, micro_batch_size: int, scale: float) -> list[Tensor]:
        """Return what the stage behind would send back, of a loss that is multiplied by ``scale``."""
        sent = self.workload.boundary(self.layers.stop, micro_batch_size)
        widths = [(one, one.shape[-1] if one.shape else 1) for one in sent if one.requires_grad]
        return [self._random(one, GRADIENT * scale * sqrt(width) / one.numel()) for one, width in widths]

    def _random(self, like: Tensor, deviation: float) -> Tensor:
        """Return random numbers, the same each time; zeros where the type is not floating-point.

        A GPU that computes with zeros draws less power, and then reaches a higher clock than it does in training.
        """
        device = self.device.torch_device
        if not like.is_floating_point():
            return torch.zeros_like(like, device=device)
        generator = torch.Generator(device).manual_seed(self.workload.facts.seed or 0)
        return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).mul_(deviation)

    def times(self, plan: TimeStages) -> list[StageTime]:
        """Time every size, the largest first, until its median is narrow, but no longer than a tenth of a pass of the
        largest, and as often as the plan asks for at least."""
        if self.device.warm_up_s:
            self.primed.clear()  # an untimed pass costs nothing beside the warm-up
            self._warm_up(max(plan.micro_batch_sizes))
        rows: list[StageTime] = []
        budget_s = LEAST_S
        for size, fewest in sorted(zip(plan.micro_batch_sizes, plan.fewest, strict=True), reverse=True):
            rows.append(self._times(size, fewest, budget_s, plan.split))
            budget_s = max(LEAST_S, SHARE * (rows[0].t_f + rows[0].backward))
        return rows[::-1]

    def _times(self, micro_batch_size: int, fewest: int, budget_s: float, split: bool) -> StageTime:
        run, seconds = self.passes(micro_batch_size), self.device.seconds
        self._prime(micro_batch_size)
        f: list[float] = []
        bw: list[float] = []
        b: list[float] = []
        w: list[float] = []
        deadline = time.monotonic() + budget_s
        for _ in range(MOST_SAMPLES):
            f.append(seconds(run.forward))
            bw.append(seconds(run.backward))
            if split:
                run.forward()
                b.append(seconds(run.backward_input))
                w.append(seconds(run.backward_weight))
            is_over = time.monotonic() > deadline or (len(f) >= FEWEST_SAMPLES and is_narrow(f, bw))
            if len(f) >= fewest and is_over:
                break
        return StageTime.of(micro_batch_size, f, bw, b, w, self._host_seconds(run))

    def _host_seconds(self, run: "Passes") -> list[float]:
        """Return the seconds after which a forward and a backward have been started, of several, where the device runs
        behind; nothing where the CPU computes. Each begins with a device that has nothing left to do: a full queue
        would hold up the CPU."""
        found: list[float] = []
        for _ in range(FEWEST_SAMPLES if self.device.runs_behind else 0):
            self.device.synchronize()
            start = time.perf_counter()
            run.forward()
            run.backward()
            found.append(time.perf_counter() - start)
        return found

    def _warm_up(self, micro_batch_size: int) -> None:
        """Passes under which the device comes to the clock that it keeps under load, where it has one of its own."""
        run, deadline = self.passes(micro_batch_size), time.monotonic() + self.device.warm_up_s
        while time.monotonic() < deadline:
            run.forward()
            run.backward()
            self.device.synchronize()

    @property
    def fewest(self) -> int:
        """As few sequences as the stage can take."""
        return 2 if has_batch_statistics(self.stage) else 1

    def first_pass(self) -> None:
        """Run a forward and backward of the fewest sequences; nothing where there is no room for it."""
        try:
            self._prime(self.fewest)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise

    def _prime(self, micro_batch_size: int) -> None:
        """An untimed pass of a size, where none has run: the first asks the device for the memory of all."""
        if micro_batch_size not in self.primed:
            run = self.passes(micro_batch_size)
            run.forward()
            run.backward()
            self.primed.add(micro_batch_size)

    def memory(self, micro_batch_sizes: tuple[int, ...], split: bool) -> list[StageMemory]:
        """Measure every size once, the allocator being deterministic; these passes prime the sizes for ``times``.

        Sizes ascend; the first that the device has no room for ends the list.
        """
        self._prime(micro_batch_sizes[0])  # what torch allocates in its very first pass belongs to no size
        rows: list[StageMemory] = []
        for size in micro_batch_sizes:
            row = self._memory_if_it_fits(size, split)
            if row is None:
                self.device.release()
                self.primed.clear()
                break
            rows.append(row)
        return rows

    def _memory_if_it_fits(self, micro_batch_size: int, split: bool) -> StageMemory | None:
        """The row of one size; None where the allocator refuses. All that the pass held is freed when this returns."""
        try:
            return self._memory(micro_batch_size, split)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _memory(self, micro_batch_size: int, split: bool) -> StageMemory:
        run = self.passes(micro_batch_size)
        during_forward = self.device.memory(run.forward)
        during_backward = self.device.memory(run.backward)
        transient = max(during_forward.peak - during_forward.end, during_backward.peak)
        row = StageMemory(
            micro_batch_size=micro_batch_size,
            activation_bytes=max(0, during_forward.end),
            transient_bytes=max(0, transient),
        )
        self.primed.add(micro_batch_size)
        if not split:
            return row
        held = self.device.memory(run.forward).end
        during_input = self.device.memory(run.backward_input)
        during_weight = self.device.memory(run.backward_weight)
        known = {
            "split_held_bytes": max(0, held + during_input.end),
            "input_transient_bytes": max(0, during_input.peak),
            "weight_transient_bytes": max(0, during_weight.peak),
        }
        return replace(row, **known)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, its libraries or the driver had no room: CUDA, cuBLAS, NCCL and the CPU's allocator."""
    words = str(error).lower()
    known = ("out of memory", "alloc_failed", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in words for word in known)


class Passes(NamedTuple):
    """The passes of one micro-batch: after each forward either backward, or the two halves in turn."""

    forward: Callable[[], None]
    backward: Callable[[], None]
    backward_input: Callable[[], None]
    backward_weight: Callable[[], None]


def is_narrow(*series: list[float]) -> bool:
    """Return whether each median's standard error, 1.25 sigma / sqrt(n) for a normal spread, is below NARROW of it."""
    for samples in series:
        middle = median(samples)
        # sigma from the median absolute deviation, so that one disturbed pass does not ask for many more
        sigma = 1.48 * median(abs(sample - middle) for sample in samples)
        if 1.25 * sigma > NARROW * middle * len(samples) ** 0.5:
            return False
    return True


def optimizer_cost(stages: nn.Module, optimizer: MasterWeights | None, device: Device) -> OptimizerCost:
    """Time one optimizer step over all of a rank's stages, with the zeroing of their gradients and the cast of their
    weights to the precision of the model."""

    def update() -> None:
        stages.zero_grad(set_to_none=False)
        if optimizer is not None:
            optimizer.step()

    peak = device.memory(update).peak
    return OptimizerCost(seconds=median(device.seconds(update) for _ in range(5)), transient_bytes=max(0, peak))


def random_bytes(count: int, device: Device) -> Tensor:
    """Return a random message. Zeros that nobody has written are one page of memory on the CPU, and are read faster
    than others."""
    generator = torch.Generator(device.torch_device).manual_seed(0)
    return torch.randint(256, (count,), generator=generator, dtype=torch.uint8, device=device.torch_device)


def round_trips(ping: Ping, rank: int, device: Device) -> list[float]:
    """Return seconds of each round trip, measured at the source; an empty list elsewhere.

    Not in batches: neither are a pipeline's messages, but for those that go while another comes. Over NCCL the former
    have a communicator of the two ranks to themselves, the latter that of all ranks.
    """
    if rank not in (ping.source, ping.target):
        return []
    there, back = random_bytes(ping.there_bytes, device), random_bytes(ping.back_bytes, device)

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


def exchanges(exchange: Exchange, rank: int, device: Device) -> list[float]:
    """Return seconds in which a rank's messages of each round have gone and come, all ranks having begun together."""

    def message() -> Tensor:
        return random_bytes(exchange.message_bytes, device)

    mine = [dist.P2POp(dist.isend, message(), target) for source, target in exchange.links if source == rank]
    mine += [dist.P2POp(dist.irecv, message(), source) for source, target in exchange.links if target == rank]
    samples = []
    for _ in range(exchange.repeats + 1):
        device.barrier()
        start = time.perf_counter()
        for work in dist.batch_isend_irecv(mine) if mine else ():
            work.wait()
        device.synchronize()
        samples.append(time.perf_counter() - start)
    return samples[1:] if mine else []  # the first is a priming pass


def has_batch_statistics(module: nn.Module) -> bool:
    """Return whether any layer normalises over the batch, so that the micro-batch size changes what is learned."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
