"""Stages on paper: what they would hold on a device, from the shapes of their tensors; nothing is computed.

The passes are those of a real measurement (``probe.StageProbe``), run on torch's fake tensors, which have a shape and a
type and no memory. The bytes of each are counted from the operator that makes it until nothing refers to it any more.

Fake tensors take the CPU's operators. Of a GPU's differ, for what is counted here, attention and the allocator: flash
attention keeps the same five tensors there (queries, keys, values, output, one sum per row), but its backward sums the
gradient of the queries in fp32, and tensors take whole blocks. The workspaces of cuBLAS, the CUDA context and NCCL's
buffers are not on paper.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as disable_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from autotune.pipeline.device.device import CpuDevice, MemoryUse
from autotune.pipeline.rank.probe import StageProbe
from autotune.records.stage_costs import StageMemory
from autotune.workload.optimizer import hold_gradients
from autotune.workload.protocol import Workload
from autotune.workload.user.paper import replace_tensors

CUDA_BLOCK = 512  # kMinBlockSize of torch's caching allocator
SMALL = 1 << 16  # numbers in a tensor
CUDA_ROWS = 128  # to whose multiple flash attention rounds a sequence up
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every tensor that operators make, each storage once. ``cuda``: as a GPU would need them."""

    def __init__(self, cuda: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cuda, self.held, self.peak = cuda, 0, 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tensors_in(made):
            self._add(leaf.untyped_storage())
        if self.cuda and func is FLASH_BACKWARD:
            self.peak = max(self.peak, self.held + flash_backward_bytes(args[1]))
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        size = storage.nbytes()
        if self.cuda:
            size = -(-size // CUDA_BLOCK) * CUDA_BLOCK
        self.known[storage] = None
        weakref.finalize(storage, self._drop, size)
        self.held += size
        self.peak = max(self.peak, self.held)

    def _drop(self, size: int) -> None:
        self.held -= size


def flash_backward_bytes(queries: torch.Tensor) -> int:
    """Return what flash attention's backward holds on a GPU while it runs: in fp32 the gradient of ``queries`` (batch,
    heads, tokens, width), and a sum for each of their rows."""
    batch, heads, tokens, width = queries.shape
    rows = -(-tokens // CUDA_ROWS) * CUDA_ROWS
    return 4 * batch * heads * rows * (width + 1)


class RealIndices(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes for real what is made of whole numbers alone, where it is small: positions, masks, rotary tables. Models
    decide by such numbers (transformers leaves a mask out where it masks nothing, and cannot tell of a fake one)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors_in((args, kwargs))
        if any(isinstance(one, FakeTensor) for one in given):
            return func(*args, **(kwargs or {}))
        if torch.Tag.data_dependent_output not in func.tags:
            made = func(*args, **(kwargs or {}))
            results = tensors_in(made)
            has_floats = not given and any(one.is_floating_point() for one in results)
            if not results or has_floats or any(one.numel() > SMALL for one in results):
                return made
        with disable_modes():
            return func(*args, **(kwargs or {}))


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


class PaperDevice(CpuDevice):
    """A device whose tensors have no memory, to be used within ``with``. It can count bytes, and knows no time."""

    def __init__(self, cuda: bool) -> None:
        self.fake, self.ledger = FakeTensorMode(allow_non_fake_inputs=True), Ledger(cuda)
        self.indices = RealIndices()  # type: ignore[no-untyped-call]

    def __enter__(self) -> "PaperDevice":
        self.fake.__enter__()
        self.indices.__enter__()  # type: ignore[no-untyped-call]
        self.ledger.__enter__()  # type: ignore[no-untyped-call]  # the last to enter sees an operator first
        return self

    def __exit__(self, *error: Any) -> None:
        self.ledger.__exit__(*error)  # type: ignore[no-untyped-call]
        self.indices.__exit__(*error)  # type: ignore[no-untyped-call]
        self.fake.__exit__(*error)

    def take(self, model: nn.Module) -> None:
        """Move parameters, buffers and other tensors of its modules from "meta" to this device."""
        replace_tensors(model, self.like)
        for module in model.modules():
            tensors = {name: one for name, one in vars(module).items() if isinstance(one, torch.Tensor)}
            vars(module).update({name: self.like(one) for name, one in tensors.items()})

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same form on this device."""
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.torch_device)

    def memory(self, work: Callable[[], object]) -> MemoryUse:
        ledger = self.ledger
        before = ledger.peak = ledger.held
        work()
        return MemoryUse(ledger.peak - before, ledger.held - before)


def stage_memory(
    workload: Workload, layers: range, micro_batch_sizes: tuple[int, ...], split: bool, cuda: bool
) -> list[StageMemory]:
    """Return what one micro-batch of each size, ascending, takes on the stage of ``layers``; ``split``: also of the two
    halves of a backward. Static bytes: ``workload.optimizer.static_bytes`` of a stage built on "meta"."""
    stage = workload.build_stage(layers, torch.device("meta"))
    for size in micro_batch_sizes:  # what a user's model takes and gives is found by running it, on a paper of its own
        workload.boundary(layers.start, size), workload.boundary(layers.stop, size), workload.loss(size)
    with PaperDevice(cuda) as device:
        device.take(stage)
        hold_gradients(stage)
        return StageProbe(stage, workload, layers, device).memory(micro_batch_sizes, split)
