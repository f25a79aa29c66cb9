"""A model on paper: run on torch's fake tensors, which have a shape and no memory, to see what its parts take and
give."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten
SHAPE_ONLY = {
    aten.zeros_like, aten.ones_like, aten.empty_like, aten.full_like, aten.rand_like, aten.randn_like,
    aten.new_zeros, aten.new_ones, aten.new_empty, aten.new_full, aten.new_empty_strided,
}  # fmt: skip
"""Operators whose result depends on no number in the tensors that they take."""


def attention_operations(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return operations of attention between these shapes, as torch counts them of the same operator on GPUs."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu: attention_operations}
"""What torch's counter of operations leaves out."""
DROPOUT = {aten.native_dropout, aten.bernoulli_, aten.bernoulli}


class Marks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows of every tensor whether it depends on one that was marked, and who used what.

    ``used``: for every marked parameter, by its name, the values that ``phase`` had when it was used.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.marked: dict[int, torch.UntypedStorage] = {}  # held, so that no other takes its place
        self.names: dict[int, str] = {}
        self.used: dict[str, set[object]] = {}
        self.phase: object = None
        self.draws = False

    def mark(self, tensor: Tensor, name: str | None = None) -> None:
        """Mark a tensor, a parameter by its name."""
        storage = tensor.untyped_storage()
        self.marked[storage._cdata] = storage
        if name is not None:
            self.names[storage._cdata] = name

    def has(self, tensor: Tensor) -> bool:
        """Return whether it depends on a marked one."""
        return tensor.untyped_storage()._cdata in self.marked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = func(*args, **kwargs)
        for tensor in taken:
            if name := self.names.get(tensor.untyped_storage()._cdata):
                self.used.setdefault(name, set()).add(self.phase)
        packet = func.overloadpacket
        if packet not in SHAPE_ONLY and any(map(self.has, taken)):
            for leaf in tree_leaves(made):
                if isinstance(leaf, Tensor):
                    self.mark(leaf)
        self.draws |= packet in DROPOUT or draws_in_attention(func, args, kwargs)
        return made


def draws_in_attention(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether this is fused attention with dropout."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            return bool(kwargs.get("dropout_p", args[number] if number < len(args) else 0.0))
    return False


def replace_tensors(model: nn.Module, likeness: Callable[[Tensor], Tensor]) -> None:
    """Put its likeness in the place of each parameter and buffer; those that modules share stay shared."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # with the old one, so that no other takes its place

    def of(old: Tensor) -> Tensor:
        if id(old) not in made:
            new = likeness(old.detach())
            made[id(old)] = old, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        return made[id(old)][1]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, old in held.items():
                if old is not None:
                    held[name] = of(old)  # type: ignore[assignment]


class Paper:
    """What is at hand while a model runs on paper."""

    def __init__(self) -> None:
        environment = ShapeEnv(allow_dynamic_output_shape_ops=True, allow_scalar_outputs=True)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=environment)
        self.marks = Marks()
        self.counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)

    @property
    def operations(self) -> int:
        """Floating-point operations so far, of matrix products, convolutions and attention."""
        return int(self.counter.get_total_flops())

    def of(self, tensor: Tensor) -> Tensor:
        """Return a tensor's likeness on paper, on the CPU; one on "meta" has a place there too."""
        if not tensor.is_meta:
            return self.fake.from_tensor(tensor, static_shapes=True)
        with self.fake:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

    def move(self, model: nn.Module) -> None:
        """Move a model's parameters and buffers to paper; those that modules share stay shared."""
        replace_tensors(model, self.of)
        for name, parameter in model.named_parameters():
            self.marks.mark(parameter, name)

    def forget(self) -> None:
        """Take all marks away."""
        self.marks.marked.clear()
        self.marks.names.clear()


@contextmanager
def on_paper() -> Iterator[Paper]:
    """Within, tensors have no memory and operators compute nothing."""
    paper = Paper()
    with torch.random.fork_rng(devices=[]), paper.fake, paper.counter, paper.marks:  # the last to enter sees it first
        yield paper
