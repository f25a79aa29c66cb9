"""What one rank measures of its stage, on the CPU: sizes in turn, and where the device has no room for more."""

import pytest
import torch

from autotune.config import Workload
from autotune.pipeline.device import CpuDevice
from autotune.pipeline.probe import StageProbe, is_out_of_memory
from autotune.workload.gpt import boundary_type, build_stage

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


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_micro_batches_in_flight_hold_their_activations_and_no_weights(precision):
    """A block keeps, of each token, 16 times the width: both norms' inputs (2), what attention, projection and MLP are
    given (1 + 3 + 1 + 1 + 4), and the MLP's other side (4). Its weights are twelve times as many bytes here."""
    sizes = {"layers": 6, "stages": 3, "hidden": 128, "heads": 2, "seq_len": 4, "precision": precision}
    work, device, size = WORK.model_copy(update=sizes), CpuDevice(1), 2
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
