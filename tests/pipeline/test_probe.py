"""What one rank measures of its stage, on the CPU: sizes in turn, and where the device has no room for more."""

import pytest

from autotune.config import Workload
from autotune.pipeline.device import CpuDevice
from autotune.pipeline.probe import StageProbe, is_out_of_memory
from autotune.workload.gpt import build_stage

WORK = Workload(
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


def probe(device):
    return StageProbe(build_stage(WORK, 0, 1, device.torch_device), WORK, 0, 1, device)


@pytest.mark.parametrize("split", [False, True])
def test_memory_ends_at_the_first_size_that_does_not_fit(split):
    rows = probe(CpuDevice(1)).memory(SIZES, split)
    assert [row.micro_batch_size for row in rows] == list(SIZES)
    most = rows[2].activation_bytes + rows[2].transient_bytes
    small = SmallDevice(round(1.5 * most))
    mine = probe(small)
    assert mine.memory(SIZES, split) == rows[:3]
    assert small.released == 1
    assert [row.micro_batch_size for row in mine.times(SIZES[:3], split)] == [1, 2, 4]  # it goes on


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
