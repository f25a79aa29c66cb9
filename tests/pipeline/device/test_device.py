"""The CPU side of the device seam: its clock, and the allocator's bytes to the last one."""

import os
import time

import pytest
import torch

from autotune.pipeline.device.device import CpuDevice, MemoryUse, least_tensor, open_device
from autotune.pipeline.device.malloc import malloc_bytes

MIB = 2**20


@pytest.fixture
def device():
    threads = torch.get_num_threads()
    yield CpuDevice(1)
    torch.set_num_threads(threads)


def reserve(size):
    return torch.empty(size, dtype=torch.uint8)


def test_what_is_kept_is_the_end_and_what_is_dropped_only_the_peak(device):
    kept = []

    def work():
        kept.append(reserve(3 * MIB))
        dropped = reserve(5 * MIB)
        del dropped
        kept.append(reserve(1 * MIB))

    assert device.memory(work) == MemoryUse(peak=8 * MIB, end=4 * MIB)


def test_what_one_measured_work_took_another_gives_back(device):
    """As a backward frees what its forward kept. What was taken unmeasured, the allocator's events do not name."""
    kept = []
    assert device.memory(lambda: kept.append(reserve(7 * MIB))).end == 7 * MIB

    def work():
        kept.clear()
        kept.append(reserve(2 * MIB))

    assert device.memory(work) == MemoryUse(peak=0, end=-5 * MIB)


def test_work_without_allocations_takes_nothing(device):
    assert device.memory(lambda: None) == MemoryUse(0, 0)


def test_a_backward_counts_its_gradients(device):
    weight = torch.ones(MIB // 4, requires_grad=True)
    loss = (weight * 2).sum()
    used = device.memory(loss.backward)
    assert weight.grad.nbytes == MIB
    assert MIB <= used.end <= MIB + 64  # and the gradient of the scalar
    assert used.peak >= used.end


def test_the_same_work_takes_the_same_bytes_each_time(device):
    layer = torch.nn.Linear(64, 64)
    found = {device.memory(lambda: layer(torch.ones(8, 64)).relu().sum().item()) for _ in range(3)}
    assert len(found) == 1


def test_measuring_goes_on_after_work_that_failed(device):
    def fail():
        raise ValueError("the work's own")

    with pytest.raises(ValueError, match="the work's own"):
        device.memory(fail)
    assert device.memory(lambda: reserve(MIB)).peak == MIB


def test_seconds_are_those_of_the_work(device):
    start = time.perf_counter()
    measured = device.seconds(lambda: time.sleep(0.02))
    assert 0.02 <= measured <= time.perf_counter() - start


def test_ranks_share_the_cores(device):
    cores = len(os.sched_getaffinity(0))
    for ranks in (1, cores, 10 * cores):
        opened = open_device("cpu", 0, ranks)
        assert (opened.kind, opened.backend, opened.torch_device) == ("cpu", "gloo", torch.device("cpu"))
        assert torch.get_num_threads() == max(1, cores // ranks)


@pytest.mark.skipif(malloc_bytes() is None, reason="needs glibc's mallinfo2")
@pytest.mark.parametrize("size", [1000, 64 * 1024, 3 * MIB, 64 * MIB])
def test_what_is_held_grows_by_a_tensor_and_shrinks_by_it(device, size):
    """Small ones lie on the heap, large ones are mapped apart."""
    reserve(size)  # what torch makes for its first tensor of a kind stays
    before = device.held()
    kept = reserve(size)
    assert size <= device.held() - before < size + 8192
    del kept
    assert abs(device.held() - before) < 8192


@pytest.mark.parametrize(
    ("segment_mib", "least"), [(2, 1), (20, MIB + 1), (10, 10 * MIB), (12, 10 * MIB + 1), (4096, 4094 * MIB + 1)]
)
def test_a_segment_of_the_gpus_allocator_is_for_a_tensor_of_so_many_bytes_at_least(segment_mib, least):
    """2 MiB for what is small, 20 MiB for what is larger than 1 MiB and less than 10, else multiples of 2 MiB."""
    assert least_tensor(segment_mib * MIB) == least
