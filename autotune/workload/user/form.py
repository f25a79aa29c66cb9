"""The three forms in which a user gives a model, behind one face: how to build a stage, and what enters each layer."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autotune.workload.user.anatomy import Anatomy, anatomy_of
from autotune.workload.user.construction import construct, numbers
from autotune.workload.user.inputs import Inputs
from autotune.workload.user.layer_row import LayerRow, RowShapes, row_of, shapes_of
from autotune.workload.user.layer_stage import LayerStage, check_on_paper, owned
from autotune.workload.user.paper import on_paper
from autotune.workload.user.refusal import ModelRefused, module_of, words_of
from autotune.workload.user.shapes import Shape, tensors_of

CPU, META = torch.device("cpu"), torch.device("meta")
Example = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of the whole model."""


class Form(Protocol):
    """A model that can be built stage by stage."""

    @property
    def count(self) -> int:
        """Number of layers."""

    @property
    def operations(self) -> list[float]:
        """Floating-point operations of a sample's forward, by layer."""

    @property
    def draws(self) -> bool:
        """True where a forward draws random numbers."""

    def build(self, layers: range, device: torch.device) -> nn.Module:
        """Build the stage of ``layers``, always with the same weights."""

    def crossing(self, layer: int) -> list[Shape]:
        """Return what enters a layer; of the number of layers, what the last one gives."""

    def feed(self, example: Example) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the tensors of an example that the first stage takes, and those that every stage does."""

    def named_state(self, stage: nn.Module, layers: range) -> dict[str, Tensor]:
        """Return parameters and buffers of the stage of ``layers``, by names that they have in any stage."""

    def layers_in(self, stage: nn.Module) -> Sequence[nn.Module]:
        """Return the modules of a stage that recomputation applies to."""

    def check(self, layers: range) -> None:
        """Raise ModelRefused where the stage of ``layers`` cannot be computed from what it is sent."""


class Row:
    """An nn.Sequential, or a list of layers."""

    def __init__(self, make: Callable[[], nn.Module], seed: int, inputs: Inputs) -> None:
        self.seed, self.inputs = seed, inputs
        self.make = lambda: as_row(make())
        self.whole, self.construction = construct(self.make, seed, CPU, ())
        if inputs.nest.spec.num_leaves != len(inputs.fed):
            raise ModelRefused("example_batch: a row of layers takes tensors of samples alone, each layer one argument")

    @cached_property
    def shapes(self) -> RowShapes:
        """What crosses between the layers."""
        return shapes_of(lambda: construct(self.make, self.seed, CPU, ())[0], self.inputs.fed_on_paper)  # type: ignore[arg-type,return-value]

    @property
    def count(self) -> int:
        """Number of layers."""
        return len(self.whole.layers)  # type: ignore[arg-type]

    @property
    def operations(self) -> list[float]:
        """Floating-point operations of a sample's forward, by layer."""
        return self.shapes.operations

    @property
    def draws(self) -> bool:
        """True where a forward draws random numbers."""
        return self.shapes.draws

    def build(self, layers: range, device: torch.device) -> nn.Module:
        """Build the stage of ``layers``."""
        kept: set[int] = set()
        for number in layers:
            kept |= numbers(self.whole.layers[number], self.construction)  # type: ignore[index,arg-type]
        row, _ = construct(self.make, self.seed, device, kept if device != META else ())
        return LayerRow(list(row.layers[layers.start : layers.stop]))  # type: ignore[index]

    def crossing(self, layer: int) -> list[Shape]:
        """Return what enters a layer."""
        return self.shapes.crossing[layer]

    def feed(self, example: Example) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the tensors of an example: only the first layer takes any."""
        return self.inputs.split(example), {}

    def named_state(self, stage: nn.Module, layers: range) -> dict[str, Tensor]:
        """Return parameters and buffers by the number of their layer."""
        rows = zip(layers, stage.layers, strict=True)  # type: ignore[arg-type]
        return {f"{number}.{name}": tensor for number, layer in rows for name, tensor in named_tensors(layer)}

    def layers_in(self, stage: nn.Module) -> Sequence[nn.Module]:
        """Return the layers of the row."""
        return list(stage.layers)  # type: ignore[arg-type]

    def check(self, layers: range) -> None:
        """Do nothing: layers of a row are given nothing but what the one before gave."""


def as_row(model: Any) -> LayerRow:
    """Return a row of the layers of an nn.Sequential, or of a list."""
    return row_of(list(model.children()) if isinstance(model, nn.Sequential) else list(model))


class Layered:
    """A module whose own forward calls the layers of a list in it."""

    def __init__(self, make: Callable[[], nn.Module], seed: int, inputs: Inputs) -> None:
        self.make, self.seed, self.inputs = make, seed, inputs
        self.whole, self.construction = construct(make, seed, CPU, ())

    @cached_property
    def anatomy(self) -> Anatomy:
        """What its layers take and give."""

        def call(model: nn.Module, samples: int, paper: Any) -> Any:
            args, kwargs = self.inputs.on_paper(samples, paper)
            return model(*args, **kwargs)

        return anatomy_of(lambda: construct(self.make, self.seed, CPU, ())[0], call)

    @property
    def count(self) -> int:
        """Number of layers."""
        return self.anatomy.count

    @property
    def operations(self) -> list[float]:
        """Floating-point operations of a sample's forward, by layer."""
        return self.anatomy.operations

    @property
    def draws(self) -> bool:
        """True where a forward draws random numbers."""
        return self.anatomy.draws

    def build(self, layers: range, device: torch.device) -> LayerStage:
        """Build the stage of ``layers``."""
        return self._stage(layers, device, is_empty=device == META)

    def _stage(self, layers: range, device: torch.device, is_empty: bool) -> LayerStage:
        """The stage on a device; where it is to be empty its parameters stay on "meta"."""
        owner = self.anatomy.owner
        own = {name for name, place in owner.items() if owned(place, layers, self.count)}
        kept = {self.construction.number[one] for name, one in self.whole.named_parameters() if name in own}
        model, _ = construct(self.make, self.seed, device, () if is_empty else kept)
        return LayerStage(model, self.anatomy, layers, self.inputs, device)

    def crossing(self, layer: int) -> list[Shape]:
        """Return what enters a layer."""
        return self.anatomy.output.shapes if layer == self.count else self.anatomy.crossing(layer)

    def feed(self, example: Example) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the tensors of an example: every stage takes all of them, for the model's own forward."""
        tensors = self.inputs.split(example)
        return tensors, dict(zip(self.inputs.names, tensors, strict=True))

    def named_state(self, stage: nn.Module, layers: range) -> dict[str, Tensor]:
        """Return parameters and buffers by their names in the model."""
        assert isinstance(stage, LayerStage)
        return {stage.name_in_model(name): tensor for name, tensor in named_tensors(stage.model)}

    def try_out(self) -> None:
        """Run the first layer for real, if layers do not run on paper; raise ModelRefused where it fails, or does not
        give what the next one was taken to be given."""
        if not self.anatomy.is_assumed or self.count < 2:
            return
        stage, samples = self.build(range(1), CPU), 2
        fed = [shape.zeros(samples, CPU).contiguous() for shape in self.inputs.fed]
        try:
            found = stage(*fed)
        except Exception as error:
            name = module_of(error, stage.model)
            raise ModelRefused(f"the forward of {name or 'the model'} failed: {words_of(error)}") from error
        wanted = [shape.sizes(samples) for shape in self.crossing(1)]
        if [tuple(tensor.shape) for tensor in tensors_of(found)] != wanted:
            raise ModelRefused(
                f"{self.anatomy.layers.name(0)} gives other shapes than it takes, and cannot be run on paper to learn"
                " them; cut the model yourself with a function of (stage, stages)"
            )

    def layers_in(self, stage: nn.Module) -> Sequence[nn.Module]:
        """Return the stage's own layers."""
        assert isinstance(stage, LayerStage)
        return stage.own_layers

    def check(self, layers: range) -> None:
        """Run the stage once on paper."""
        if layers.start == 0:
            return
        stage = self._stage(layers, CPU, is_empty=True)
        with on_paper() as paper:
            paper.move(stage)
            paper.forget()
            if self.anatomy.is_assumed:
                return
            received = tuple(torch.empty(shape.sizes(2), dtype=shape.dtype) for shape in self.crossing(layers.start))
            given = dict(zip(self.inputs.names, self.inputs.fed_on_paper(2), strict=True))
            check_on_paper(stage, received, given, paper.marks)


class OwnStages:
    """A function that makes each stage: the user has cut the model.

    Its layers are as many as the most stages that are wanted of it; with fewer, each stage is several of these.
    """

    def __init__(self, make: Callable[[int, int], nn.Module], seed: int, inputs: Inputs, count: int) -> None:
        self.make, self.seed, self.inputs, self.count = make, seed, inputs, count
        if inputs.nest.spec.num_leaves != len(inputs.fed):
            raise ModelRefused("example_batch: stages that you cut yourself take tensors of samples alone")
        self.draws = False
        self.known: dict[int, RowShapes] = {}

    @property
    def operations(self) -> list[float]:
        """Floating-point operations of a sample's forward, by layer."""
        return self.shapes(self.count).operations

    def shapes(self, stages: int) -> RowShapes:
        """Return what crosses between so many stages."""

        def build() -> LayerRow:
            parts = [construct(lambda: self.make(index, stages), self.seed, CPU, ())[0] for index in range(stages)]  # noqa: B023
            return LayerRow([Spread(part, self.inputs) for part in parts])

        if stages not in self.known:
            self.known[stages] = shapes_of(build, self.inputs.positional_on_paper)
        return self.known[stages]

    def build(self, layers: range, device: torch.device) -> nn.Module:
        """Build the stage of ``layers``, which must be one of an even cut."""
        if self.count % len(layers) or layers.start % len(layers):
            raise ModelRefused("the function of (stage, stages) cuts the model itself: only its own cut can be run")
        stages, index = self.count // len(layers), layers.start // len(layers)
        return construct(lambda: self.make(index, stages), self.seed, device, None if device != META else ())[0]

    def crossing(self, layer: int) -> list[Shape]:
        """Return what enters a layer."""
        return self.shapes(self.count).crossing[layer]

    def feed(self, example: Example) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the tensors of an example: the first stage takes the positional ones, every stage those with
        names."""
        args, kwargs = example
        return tuple(args), dict(kwargs)

    def named_state(self, stage: nn.Module, layers: range) -> dict[str, Tensor]:
        """Return parameters and buffers by their names in the stage."""
        return dict(named_tensors(stage))

    def layers_in(self, stage: nn.Module) -> Sequence[nn.Module]:
        """Return the stage as a whole: where its layers are, only its author knows."""
        return [stage]

    def check(self, layers: range) -> None:
        """Do nothing: what a stage takes is the user's own business."""


class Spread(nn.Module):
    """A stage of the user's as a layer of a row: given a tuple, it takes several arguments."""

    def __init__(self, stage: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.stage, self.inputs = stage, inputs

    def forward(self, value: Any) -> Any:
        values = value if isinstance(value, tuple | list) else (value,)
        _, kwargs = self.inputs.fill(self.inputs.fed_on_paper(self.inputs.samples), ())
        return self.stage(*values, **kwargs)


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers with their names."""
    return [*module.named_parameters(), *module.named_buffers()]
