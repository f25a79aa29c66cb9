"""How the whole model is called: with what of each sample, and with what of all of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autotune.workload.user.paper import Paper
from autotune.workload.user.refusal import ModelRefused
from autotune.workload.user.shapes import Nest, Shape, tensors_of


class Inputs:
    """The arguments of the model, from examples with two numbers of samples.

    ``names``: of the tensors whose first dimension counts samples. ``constants``: all other tensors.
    """

    def __init__(self, few: tuple[Any, Any], more: tuple[Any, Any]) -> None:
        try:
            self.nest = Nest(few, more)
        except ValueError as error:
            raise ModelRefused(f"example_batch: {error}; it must give the same arguments for any batch size") from None
        self.fed = [shape for shape in self.nest.shapes if any(shape.growing)]
        for number, shape in enumerate(self.fed):
            if not shape.is_of_samples:
                raise ModelRefused(
                    f"example_batch: tensor {number} has the sizes {shape.sizes(2)} for two samples and"
                    f" {shape.sizes(3)} for three; the first dimension, and no other, must count the samples"
                )
        if not self.fed:
            raise ModelRefused("example_batch: no tensor that it gives grows with the batch size")
        self.samples = 0
        self.names = [f"input_{number}" for number in range(len(self.fed))]
        self.constants = [
            tensor for tensor, shape in zip(tensors_of(few), self.nest.shapes, strict=True) if not any(shape.growing)
        ]

    def fill(self, fed: Sequence[Tensor], constants: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments with these tensors in them."""
        of_samples, of_all = iter(fed), iter(constants)
        tensors = [next(of_samples if any(shape.growing) else of_all) for shape in self.nest.shapes]
        args, kwargs = self.nest.fill(tensors)
        return args, kwargs

    def split(self, example: tuple[Any, Any]) -> tuple[Tensor, ...]:
        """Return the tensors of samples of an example."""
        pairs = zip(tensors_of(example), self.nest.shapes, strict=True)
        return tuple(tensor for tensor, shape in pairs if any(shape.growing))

    def on_paper(self, samples: int, paper: Paper) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments on paper."""
        return self.fill(self.fed_on_paper(samples), [paper.of(tensor) for tensor in self.constants])

    def fed_on_paper(self, samples: int) -> list[Tensor]:
        """Return the tensors of samples, made where the caller is."""
        return [torch.empty(shape.sizes(samples), dtype=shape.dtype) for shape in self.fed]

    def positional_on_paper(self, samples: int) -> list[Tensor]:
        """Return the positional ones of them, and remember the number of samples."""
        self.samples = samples
        args, _ = self.fill(self.fed_on_paper(samples), ())
        return list(args)

    @property
    def sample_bytes(self) -> int:
        """Bytes that one sample takes."""
        return sum(shape.on_meta(1).nbytes for shape in self.fed)

    @property
    def first(self) -> Shape:
        """The first tensor of samples, by which they are called sequences, images or samples."""
        return self.fed[0]
