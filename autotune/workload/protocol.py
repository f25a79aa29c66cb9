"""The model that is trained, as ranks, probes and the memory model see it: nothing outside ``workload`` knows the
model.

A model is a row of layers, numbered from 0. A stage is a contiguous range of them, and what must come before the first
layer or after the last (an embedding, a head) belongs to the stage that holds that layer.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from autotune.records.job.workload import WorkloadFacts


class Batch(NamedTuple):
    """The data of one step, each tensor of (sequences + padding, ...).

    ``args``: what the first stage takes. ``targets``: what the loss compares the last stage's output with. ``kwargs``:
    what every stage takes, by name.
    """

    args: tuple[Tensor, ...]
    targets: Tensor
    kwargs: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors, each counted once."""
        tensors = {id(tensor): tensor for tensor in (*self.args, self.targets, *self.kwargs.values())}
        return sum(tensor.nbytes for tensor in tensors.values())


class Loss(Protocol):
    """The loss of the last stage's output against the targets; the losses of a step's micro-batches are added up.

    Gradients come out multiplied by ``scale``, which keeps those of fp16 from vanishing; it is 1 otherwise.
    """

    scale: float

    def __call__(self, output: Any, targets: Tensor, /) -> Tensor: ...


class Workload(Protocol):
    """A model, its data and its loss."""

    @property
    def facts(self) -> WorkloadFacts:
        """The facts that reports state of it: layers, sizes, tokens per sequence."""

    def build_stage(self, layers: range, device: torch.device) -> nn.Module:
        """Build the stage of ``layers`` on ``device`` ("meta" allocates nothing), always with the same weights."""

    def layers_in(self, stage: nn.Module) -> Sequence[nn.Module]:
        """Return the modules of a stage that recomputation applies to, one for each layer; nothing where it cannot."""

    def reset_stage(self, stage: nn.Module, layers: range) -> None:
        """Give a stage the weights back that ``build_stage`` gave it."""

    def batch(self, sequences: int, padding: int, device: torch.device, replica: int = 0) -> Batch:
        """Return the same ``sequences`` each time, and ``padding`` rows more that the loss leaves out; each ``replica``
        has its own."""

    def boundary(self, layer: int, micro_batch_size: int) -> tuple[Tensor, ...]:
        """Return what enters ``layer``, on "meta"; of the number of layers, what the last stage gives to the loss."""

    def loss(self, sequences: int) -> Loss:
        """Return the loss whose sum over the micro-batches is the mean over all real ``sequences``."""


def stage_outputs(workload: Workload, layers: range, micro_batch_size: int) -> tuple[Tensor, ...]:
    """Return what the stage of ``layers`` gives to the next one, on "meta"; nothing where it is the last."""
    is_last = layers.stop == workload.facts.layers
    return () if is_last else workload.boundary(layers.stop, micro_batch_size)
