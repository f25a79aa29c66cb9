"""The device seam: the only code that knows whether a rank computes on a CPU or a GPU.

What a device must offer: a clock for a piece of work, the bytes a piece of work takes from the allocator, and the
backend its ranks talk over.
"""

import gc
import os
import re
import resource
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch._C._autograd import _disable_profiler, _enable_profiler, _prepare_profiler
from torch._C._profiler import ProfilerActivity, ProfilerConfig, ProfilerState, RecordScope, _ExperimentalConfig

from autotune.pipeline.device.malloc import malloc_bytes

SLACK = 64 * 2**20, 1 / 8
"""Bytes, and share of the limit, that malloc may take from the kernel beyond what it hands out: stacks of threads, and
holes between what was given back. What the allocator counted is held against the limit itself."""


class MemoryUse(NamedTuple):
    """Bytes above what was held when the work began: the most at any moment, and at its end."""

    peak: int
    end: int


class Footprint(NamedTuple):
    """Bytes of the device beyond the allocator's own count: taken from it for that, and held by others."""

    reserved: int
    outside: int


class Device(Protocol):
    """One rank's device."""

    kind: str
    backend: str
    torch_device: torch.device
    runs_behind: bool
    """True where it may still be at work when the CPU has gone on."""
    warm_up_s: float
    """Seconds that it must work before it is timed: until it has come to the clock that it keeps under load."""

    def seconds(self, work: Callable[[], object]) -> float:
        """Run ``work`` to completion and return the seconds it took."""

    def wait(self, seconds: float) -> None:
        """Keep the device from other work for ``seconds``, without computing."""

    def memory(self, work: Callable[[], object]) -> MemoryUse:
        """Run ``work`` to completion and return what it took from the device's allocator."""

    def footprint(self) -> Footprint | None:
        """Return what the device has given away by the highest level of the last ``memory``; None where it
        cannot tell."""

    def held(self) -> int | None:
        """Return bytes held now, by a count that begins anywhere and costs next to nothing; None where it
        cannot tell."""

    def synchronize(self) -> None:
        """Return when the device has done everything asked of it so far."""

    def stamp(self) -> Any:
        """Return this point in the device's work."""

    def seconds_between(self, one: Any, other: Any) -> float:
        """Return the seconds from one stamp to a later one, once the device has come past both."""

    def mark(self) -> Any:
        """Return this point in the device's work, for ``has_passed``."""

    def has_passed(self, mark: Any) -> bool:
        """Return whether the device has come past a mark; raise RuntimeError where it has failed."""

    def use(self) -> None:
        """Make it the device of the calling thread."""

    def release(self) -> None:
        """Give back what the allocator keeps for later."""

    def retries(self) -> int:
        """Return how often so far the allocator had to give back what it keeps before it could go on."""

    def limit(self, memory_bytes: int) -> None:
        """Let this process take at most ``memory_bytes`` from now on, beyond what is held now."""

    def shortage(self, words: str) -> int | None:
        """Return bytes beyond the limit, or beyond what the device has, that the allocator was asked for when it gave
        up in these ``words``; None where it cannot tell."""

    def barrier(self) -> None:
        """Return when every rank has called this."""


class CpuDevice:
    """One of the ranks that share the host's cores, ``cores // ranks`` threads each."""

    kind = "cpu"
    backend = "gloo"
    runs_behind = False
    torch_device = torch.device("cpu")
    warm_up_s = 0.0

    def __init__(self, ranks: int) -> None:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
        self.counts = counts_tensors()

    def synchronize(self) -> None:
        """Do nothing: the CPU is never behind."""

    def mark(self) -> None:
        """Return nothing: the CPU has no queue of work to come past."""

    def has_passed(self, mark: None) -> bool:
        return True

    def use(self) -> None:
        """Do nothing: every thread uses the CPU."""

    def stamp(self) -> float:
        return time.perf_counter()

    def seconds_between(self, one: float, other: float) -> float:
        return other - one

    def seconds(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def wait(self, seconds: float) -> None:
        """Sleep, so that the neighbours of the process have the cores."""
        if seconds > 0:
            time.sleep(seconds)

    def memory(self, work: Callable[[], object]) -> MemoryUse:
        """Add up the CPU allocator's own events, which torch's profiler collects.

        torch.profiler records every operator as well, which makes small micro-batches up to seven times slower; here
        the profiler underneath is asked for user scopes only, of which there are none, and for memory events.
        """
        gc.collect()  # what refers to itself, as checkpoints do, would go meanwhile, and hide as much of the peak
        config = ProfilerConfig(ProfilerState.KINETO, False, True, False, False, False, _ExperimentalConfig())
        _prepare_profiler(config, {ProfilerActivity.CPU})
        _enable_profiler(config, {ProfilerActivity.CPU}, {RecordScope.USER_SCOPE})  # type: ignore[call-arg]  # stub lags
        try:
            work()
        finally:
            events: list[Any] = _disable_profiler().events()
        held = peak = 0
        for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
            held += size
            peak = max(peak, held)
        return MemoryUse(peak, held)

    def limit(self, memory_bytes: int) -> None:
        """Set RLIMIT_DATA, which counts what is private and writable, and not the libraries, which RLIMIT_AS counts as
        well."""
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = data_bytes() + memory_bytes + round(max(SLACK[0], SLACK[1] * memory_bytes))
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))

    def shortage(self, words: str) -> int | None:
        asked = re.search(r"tried to allocate (\d+) bytes", words)
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        return max(0, int(asked[1]) + data_bytes() - limit) if asked and limit >= 0 else None

    def footprint(self) -> None:
        """Return None: not reported on the CPU, whose allocator keeps nothing back."""

    def held(self) -> int | None:
        """Return what malloc has handed out to the whole process: torch keeps no count of its own on the CPU."""
        return malloc_bytes() if self.counts else None

    def release(self) -> None:
        """Do nothing: the CPU has no caching allocator."""

    def retries(self) -> int:
        return 0

    def barrier(self) -> None:
        dist.barrier()


class CudaDevice:
    """GPU number ``rank`` of this host, ``rank`` being the rank's number on it; the only one that is visible, where a
    launcher shows each rank its own."""

    kind = "cuda"
    backend = "nccl"
    warm_up_s = 0.7
    runs_behind = True

    def __init__(self, rank: int) -> None:
        assert not torch.cuda._is_in_bad_fork(), "this process was forked after CUDA had begun"
        self.torch_device = torch.device("cuda", rank if torch.cuda.device_count() > 1 else 0)
        self.limit_bytes: int | None = None
        try:
            self.use()  # makes the context, which takes some hundred MiB
        except RuntimeError as error:
            raise RuntimeError(
                f"{self.torch_device} cannot be used: {str(error).splitlines()[0]}; another process may hold its"
                " memory, or have it for itself: see nvidia-smi"
            ) from error
        self.number = torch.zeros((), device=self.torch_device, requires_grad=True)
        self.number.grad = torch.zeros_like(self.number)

    def use(self) -> None:
        torch.cuda.set_device(self.torch_device)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

    def has_passed(self, mark: torch.cuda.Event) -> bool:
        return bool(mark.query())  # type: ignore[no-untyped-call]

    def _allocated(self) -> int:
        """Bytes that the caching allocator has handed out, once all work is done and nobody holds on to its results.

        The thread that runs backward passes keeps the last gradient until it is given something else: a backward that
        allocates nothing.
        """
        self.number.view(()).backward(self.number.detach())  # type: ignore[no-untyped-call]
        self.synchronize()
        return torch.cuda.memory_allocated(self.torch_device)

    def stamp(self) -> torch.cuda.Event:
        """Record an event on the current stream, behind what waits there for a received message."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds_between(self, one: torch.cuda.Event, other: torch.cuda.Event) -> float:
        return float(one.elapsed_time(other)) / 1e3  # elapsed_time is in milliseconds

    def seconds(self, work: Callable[[], object]) -> float:
        """Time on the device's own clock, between two events on the current stream."""
        self.synchronize()
        start = self.stamp()
        work()
        end = self.stamp()
        end.synchronize()
        return self.seconds_between(start, end)

    @cached_property
    def cycles_per_s(self) -> float:
        """Cycles per second of the clock that ``torch.cuda._sleep`` counts."""
        cycles = 20_000_000
        for _ in range(10):  # the first launch loads the kernel, and an idle GPU takes its time to reach its clock
            torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
        return cycles / self.seconds(lambda: torch.cuda._sleep(cycles))  # type: ignore[no-untyped-call]

    def wait(self, seconds: float) -> None:
        """Start a kernel that spins; like every kernel it runs asynchronously to the CPU."""
        if seconds > 0:
            torch.cuda._sleep(int(seconds * self.cycles_per_s))  # type: ignore[no-untyped-call]

    def memory(self, work: Callable[[], object]) -> MemoryUse:
        """Read the caching allocator's counters of allocated (not reserved) bytes."""
        gc.collect()  # as on the CPU
        before = self._allocated()
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        work()
        self.synchronize()
        peak = torch.cuda.max_memory_allocated(self.torch_device)
        return MemoryUse(peak - before, self._allocated() - before)

    def footprint(self) -> Footprint:
        """Return the peak of reserved bytes, which ``reset_peak_memory_stats`` in ``memory`` resets as well."""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        outside = total - free - torch.cuda.memory_reserved(self.torch_device)
        return Footprint(torch.cuda.max_memory_reserved(self.torch_device), max(0, outside))

    def held(self) -> int:
        return self._allocated()

    def release(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        self._build_wall()  # more may lie outside by now: NCCL takes its buffers when they are first used

    def limit(self, memory_bytes: int) -> None:
        """Let the caching allocator run out of memory when it would reserve more than the rest of ``memory_bytes``
        beside what lies outside of it: a prediction holds the sum of both against the limit."""
        self.limit_bytes = memory_bytes
        self._build_wall()

    def retries(self) -> int:
        return int(torch.cuda.memory_stats(self.torch_device).get("num_alloc_retries", 0))

    def _build_wall(self) -> None:
        if self.limit_bytes is None:
            return
        free, total = torch.cuda.mem_get_info(self.torch_device)
        outside = total - free - torch.cuda.memory_reserved(self.torch_device)
        fraction = (self.limit_bytes - outside) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, fraction)), self.torch_device)

    def shortage(self, words: str) -> int | None:
        """Read the allocator's own words, "Tried to allocate 2.00 GiB", and what is free within the fraction.

        These are the bytes of the segment that it asked the device for; the tensor may have been smaller.
        """
        asked = re.search(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", words)
        if asked is None:
            return None
        unit = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[asked[2]]
        free, total = torch.cuda.mem_get_info(self.torch_device)
        fraction = torch.cuda.get_per_process_memory_fraction(self.torch_device)
        reserved = torch.cuda.memory_reserved(self.torch_device)
        unused = reserved - torch.cuda.memory_allocated(self.torch_device)
        room = min(free, round(fraction * total) - reserved) + unused
        return max(0, least_tensor(round(float(asked[1]) * unit)) - room)

    def barrier(self) -> None:
        """Wait for all ranks; the first time this makes the group's communicator, before messages of both directions
        are mixed. The device is told here and not to ``init_process_group``: that makes NCCL run all messages of a rank
        one after the other.
        """
        try:
            dist.barrier(device_ids=[self.torch_device.index])
        except dist.DistBackendError as error:  # NCCL's own words, such as "Duplicate GPU detected", come last
            raise RuntimeError(f"NCCL on {self.torch_device}: {str(error).strip().splitlines()[-1]}") from error


def least_tensor(segment_bytes: int) -> int:
    """Return bytes that a tensor has at least for which torch's caching allocator takes such a segment from the device.

    Segments are of 2 MiB for up to 1 MiB, of 20 MiB for less than 10 MiB, else multiples of 2 MiB (c10's
    AllocatorConfig.h).
    """
    mib = 2**20
    if segment_bytes in (2 * mib, 20 * mib):
        return 1 if segment_bytes == 2 * mib else mib + 1
    return max(10 * mib, segment_bytes - 2 * mib + 1)


def data_bytes() -> int:
    """Return private writable memory of this process, as RLIMIT_DATA counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")


def counts_tensors() -> bool:
    """Return whether the heap's count grows with a tensor; it does not where another malloc than glibc's is at work."""
    before = malloc_bytes()
    tensor = torch.empty(2**20, dtype=torch.uint8)
    return before is not None and (malloc_bytes() or 0) - before >= tensor.nbytes


def wait_for_gpus() -> bool:
    """Return once the GPUs that this process uses have done all that was asked of them; False where it uses none."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    for index in range(torch.cuda.device_count()):
        if torch.cuda.memory_reserved(index):  # else waiting would begin a context there
            torch.cuda.synchronize(index)
    return True


def open_device(kind: str, rank: int, ranks: int) -> Device:
    """Return the device of the ``rank``-th of ``ranks`` on this host; ``kind`` is "cpu" or "cuda"."""
    return CudaDevice(rank) if kind == "cuda" else CpuDevice(ranks)
