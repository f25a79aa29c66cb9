"""The emulation itself: its numbers are the CPU's, its memory is torch's own allocator's, and misuse is caught."""

import pytest
import torch
from torch.nn import functional

from tests.emulated.machine import MIB, Machine

TRAIN = """
import torch
from torch.nn import functional

def losses(device, mixed):
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Embedding(50, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 96), torch.nn.GELU(),
        torch.nn.Linear(96, 50),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.randint(50, (8, 16), generator=torch.Generator().manual_seed(3)).to(device)
    found = []
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            logits = model(ids)
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found

for mixed in (False, True):
    assert losses("cuda", mixed) == losses("cpu", mixed)
"""
RUNTIME = """
import ctypes, os, sys, torch
from emulated_cuda import LIBRARIES
runtime = ctypes.CDLL(str(LIBRARIES / "libcudart.so.13"))
def made(call, *arguments):
    handle = ctypes.c_void_p()
    assert call(ctypes.byref(handle), *arguments) == 0
    return handle
def allocated(size):
    return made(runtime.cudaMalloc, ctypes.c_size_t(size))
runtime.cudaSetDevice(0)
"""
SEND_TOO_MUCH = """
import os, sys, torch, torch.distributed as dist
rank = int(sys.argv[1])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", init_method=f"file://{os.getcwd()}/store", rank=rank, world_size=2)
tensor = torch.ones(4 - rank, device="cuda")
(dist.send if rank == 0 else dist.recv)(tensor, 1 - rank)
torch.cuda.synchronize()
"""
MISUSE = {
    "a stream of another device": (
        "s = made(runtime.cudaStreamCreate); runtime.cudaSetDevice(1); p = allocated(8)\n"
        "assert runtime.cudaMemsetAsync(p, 0, ctypes.c_size_t(8), s) == 400",
        "a stream of device 0 while device 1 is current",
    ),
    "a stream that is none": ("assert runtime.cudaStreamSynchronize(ctypes.c_void_p(8)) == 400", "no such stream"),
    "an event of another device": (
        "e = made(runtime.cudaEventCreate); runtime.cudaSetDevice(1)\nassert runtime.cudaEventRecord(e, None) == 400",
        "an event of device 0 on a stream of 1",
    ),
    "a time that is not over": (
        "a, b = made(runtime.cudaEventCreate), made(runtime.cudaEventCreate)\n"
        "runtime.cudaEventRecord(a, None); torch.cuda._sleep(10**9); runtime.cudaEventRecord(b, None)\n"
        "assert runtime.cudaEventElapsedTime(ctypes.byref(ctypes.c_float()), a, b) == 600",
        "an event that the device has not come to",
    ),
    "a copy to the host that is none": (
        "a, b = allocated(8), allocated(8)\nassert runtime.cudaMemcpy(a, b, ctypes.c_size_t(8), 2) == 1",
        "not a copy of kind 2",
    ),
    "a fork": (
        "pid = os.fork()\nif pid == 0:\n    os._exit(runtime.cudaSetDevice(0))\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3",
        "used after a fork",
    ),
    "a product by cuBLAS": (
        'cublas = ctypes.CDLL(str(LIBRARIES / "libcublas.so.13"))\nassert cublas.cublasSgemm_v2() == 15',
        "cublasSgemm_v2: the emulation lacks it",
    ),
}


def test_training_gives_the_numbers_of_the_cpu(machine):
    """With and without mixed precision: embedding, norm, products, cross entropy, AdamW."""
    done = machine.run("-c", TRAIN)
    assert done.code == 0, done


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_fused_attention_gives_the_numbers_of_the_cpu(kind):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        q, k, v = (tensor.to(device, kind).requires_grad_() for tensor in torch.randn(3, 2, 4, 16, 8))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out.float().square().sum().backward()
        found.append([tensor.cpu() for tensor in (out, q.grad, k.grad, v.grad)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_memory_runs_out_where_the_device_ends(machines):
    machine = machines(device_bytes=100 * MIB, context_bytes=10 * MIB)
    code = "import torch; torch.empty({} * 2**20, dtype=torch.uint8, device='cuda')"
    assert machine.run("-c", code.format(80)).code == 0
    assert "CUDA out of memory. Tried to allocate 96.00 MiB" in machine.run("-c", code.format(96)).err


@pytest.mark.parametrize("kind", MISUSE)
def test_misuse_is_an_error_and_is_logged(kind, tmp_path):
    machine = Machine(tmp_path)  # not of the fixture, which allows no misuse
    code, words = MISUSE[kind]
    done = machine.run("-c", RUNTIME + code)
    assert done.code == 0, done
    (line,) = machine.lines("misuse")
    assert words in line


def test_messages_of_unequal_size_are_misuse(tmp_path):
    machine = Machine(tmp_path)
    ranks = [machine.start("-c", SEND_TOO_MUCH, rank) for rank in range(2)]
    ranks[1].communicate(timeout=60)
    ranks[0].kill()
    ranks[0].communicate()
    assert machine.lines("misuse") == ["NCCL: 16 bytes were sent where 12 are received"]
