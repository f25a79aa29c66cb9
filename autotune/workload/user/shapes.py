"""Tensors on paper whose sizes grow with the samples, and nests of them: what layers take and give."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

SAMPLES = (2, 3)
"""Numbers of samples at which a model is looked at: two, for shapes to tell which of their sizes grow."""


class Shape(NamedTuple):
    """A tensor of ``samples``: size ``fixed[d] + samples * growing[d]`` along each dimension d."""

    fixed: tuple[int, ...]
    growing: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool

    @staticmethod
    def of(few: Tensor, more: Tensor) -> "Shape":
        """Read the shape off a tensor at both of SAMPLES."""
        growing = tuple((b - a) // (SAMPLES[1] - SAMPLES[0]) for a, b in zip(few.shape, more.shape, strict=True))
        fixed = tuple(a - SAMPLES[0] * each for a, each in zip(few.shape, growing, strict=True))
        return Shape(fixed, growing, few.dtype, few.requires_grad)

    @property
    def is_of_samples(self) -> bool:
        """True where the first dimension, and no other, counts the samples."""
        return bool(self.growing) and self.growing[0] == 1 and self.fixed[0] == 0 and not any(self.growing[1:])

    def sizes(self, samples: int) -> tuple[int, ...]:
        """Sizes along each dimension."""
        return tuple(a + samples * each for a, each in zip(self.fixed, self.growing, strict=True))

    def on_meta(self, samples: int) -> Tensor:
        """Return such a tensor without memory."""
        return torch.empty(self.sizes(samples), dtype=self.dtype, device="meta", requires_grad=self.requires_grad)

    def zeros(self, samples: int, device: torch.device) -> Tensor:
        """Return zeros that take the memory of one element."""
        return torch.zeros((), dtype=self.dtype, device=device).expand(self.sizes(samples))


class Nest:
    """A tensor, or tensors and other things in tuples, lists, dicts or a library's own classes."""

    def __init__(self, few: Any, more: Any) -> None:
        self.spec: TreeSpec
        leaves, self.spec = tree_flatten(few)
        others, spec = tree_flatten(more)
        kinds = [[isinstance(leaf, Tensor) for leaf in several] for several in (leaves, others)]
        if spec != self.spec or kinds[0] != kinds[1]:
            raise ValueError("its structure depends on the number of samples")
        self.leaves = [Shape.of(a, b) if isinstance(a, Tensor) else a for a, b in zip(leaves, others, strict=True)]

    @property
    def shapes(self) -> list[Shape]:
        """The tensors in it, in order."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Shape)]

    def fill(self, tensors: Sequence[Tensor]) -> Any:
        """Return the nest with these tensors."""
        rest = iter(tensors)
        return tree_unflatten([next(rest) if isinstance(leaf, Shape) else leaf for leaf in self.leaves], self.spec)

    def zeros(self, samples: int, device: torch.device) -> Any:
        """Return the nest with zeros that take next to no memory."""
        return self.fill([shape.zeros(samples, device) for shape in self.shapes])


def tensors_of(value: Any) -> tuple[Tensor, ...]:
    """Return the tensors in a nest, in order."""
    return tuple(leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor))


def both(look: Callable[[int], Any]) -> tuple[Any, Any]:
    """Return what ``look`` finds with each of SAMPLES."""
    return look(SAMPLES[0]), look(SAMPLES[1])
