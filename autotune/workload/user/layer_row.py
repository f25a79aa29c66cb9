"""A model that is a row of layers, each given what the one before gave: an nn.Sequential, or a list as DeepSpeed's
pipelines have it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from autotune.workload.user.paper import Paper, on_paper
from autotune.workload.user.refusal import DATA_DEPENDENT, ModelRefused, check_carried, module_of, words_of
from autotune.workload.user.shapes import SAMPLES, Nest, Shape, both


class Called(nn.Module):
    """A plain function as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Any) -> Any:
        return self.function(value)


class Tied(nn.Module):
    """A layer that uses another one's weights in its own way (DeepSpeed's TiedLayerSpec)."""

    def __init__(self, layer: nn.Module, function: Callable[..., Any] | None) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, value: Any) -> Any:
        return self.layer(value) if self.function is None else self.function(self.layer, value)


class LayerRow(nn.Module):
    """Layers one after another; what crosses is a tensor or a tuple of them, which a layer takes as one argument."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *received: Tensor, **_: Tensor) -> Any:
        value: Any = received if len(received) > 1 else received[0]
        for layer in self.layers:
            value = layer(value)
        return value


def row_of(layers: list[Any] | tuple[Any, ...]) -> LayerRow:
    """Return the row of a list's layers: modules, functions, and whatever has ``build`` as DeepSpeed's LayerSpec has.

    Specs are told apart by their attributes, so that DeepSpeed need not be installed: ``key`` and ``forward_fn`` are a
    TiedLayerSpec's.
    """
    tied: dict[str, nn.Module] = {}
    found: list[nn.Module] = []
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Module):
            found.append(layer)
        elif hasattr(layer, "build") and hasattr(layer, "forward_fn"):
            if layer.key not in tied:
                tied[layer.key] = layer.build()
            found.append(Tied(tied[layer.key], layer.forward_fn))
        elif hasattr(layer, "build"):
            found.append(layer.build())
        elif callable(layer):
            found.append(Called(layer))
        else:
            raise ModelRefused(
                f"layer {number} of the list is a {type(layer).__name__}; a layer is an nn.Module, a LayerSpec or a"
                " function"
            )
    return LayerRow(found)


class RowSeen(NamedTuple):
    """What a row's layers take, and what the last gives; operations by layer."""

    taken: list[Any]
    operations: list[int]
    draws: bool


class RowShapes(NamedTuple):
    """``crossing[k]``: what enters layer k; of the number of layers, what the last one gives."""

    crossing: list[list[Shape]]
    operations: list[float]
    draws: bool


def shapes_of(build: Callable[[], LayerRow], fed: Callable[[int], list[Tensor]]) -> RowShapes:
    """Return what crosses between the layers of a row; raise ModelRefused where it cannot be carried."""

    def look(samples: int) -> RowSeen:
        row = build()
        check_untied(row)
        with on_paper() as paper:
            paper.move(row)
            return walk(row, fed(samples), paper)

    few, more = both(look)
    crossing = [Nest(a, b).shapes for a, b in zip(few.taken, more.taken, strict=True)]
    grown = [b - a for a, b in zip(few.operations, more.operations, strict=True)]
    return RowShapes(crossing, [one / (SAMPLES[1] - SAMPLES[0]) for one in grown], few.draws)


def walk(row: LayerRow, fed: list[Tensor], paper: Paper) -> RowSeen:
    """Run the layers one by one, and note what each takes."""
    value: Any = tuple(fed) if len(fed) > 1 else fed[0]
    taken, operations = [value], []
    for number, layer in enumerate(row.layers):
        before, name = paper.operations, f"layer {number} ({type(layer).__name__})"
        try:
            value = layer(value)
        except DATA_DEPENDENT as error:
            raise ModelRefused(
                f"{name} gives a tensor whose shape depends on the data ({words_of(error)}): stages must know all"
                " shapes before they run; pad it to a fixed size, and give a mask"
            ) from None
        except Exception as error:
            inner = module_of(error, layer)
            raise ModelRefused(f"the forward of {name}{inner and f', {inner}'} failed: {words_of(error)}") from error
        if number < len(row.layers) - 1:
            following = f"layer {number + 1} ({type(row.layers[number + 1]).__name__})"
            check_carried(tuple(value) if isinstance(value, tuple | list) else (value,), following)
        taken.append(value)
        operations.append(paper.operations - before)
    return RowSeen(taken, operations, paper.marks.draws)


def check_untied(row: LayerRow) -> None:
    """Raise ModelRefused where two layers share a parameter."""
    holder: dict[int, int] = {}
    for number, layer in enumerate(row.layers):
        for name, parameter in layer.named_parameters():
            first = holder.setdefault(id(parameter), number)
            if first != number:
                raise ModelRefused(
                    f"layers {first} and {number} share {name}: its copies on several stages would not stay equal;"
                    " untie the weights"
                )
