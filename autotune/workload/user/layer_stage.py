"""A stage of a model whose own ``forward`` calls its layers: that ``forward`` runs on every stage, from its beginning.

::

    forward:   embed      layer 0    layer 1    layer 2    layer 3    norm, head
    stage 1:   stand-in   stand-in   stand-in   entrance   layer 3    ...
                          (zeros)               (takes what was received; runs layer 2)
    stage 0:   embed      layer 0    layer 1    exit       (never reached)
                                                (takes what layer 2 would be called with, and ends the forward)

So masks, rotary tables and whatever else the layers are given besides are the stage's own, computed where they are
needed. A stand-in gives zeros of the right shape that take no memory; nothing that is computed of them is used.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from autotune.workload.user.anatomy import Anatomy, Part
from autotune.workload.user.inputs import Inputs
from autotune.workload.user.refusal import ModelRefused
from autotune.workload.user.shapes import Nest, tensors_of


class Reached(BaseException):
    """The forward has come to the next stage's first layer; not an error, so that no ``except Exception`` takes it."""

    def __init__(self, sent: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.sent = sent


class Crossing:
    """What one forward of a stage knows of its boundaries.

    ``on_stand_in``, ``on_entry``: told of what stand-ins give and of what layers take, for a check on paper.
    """

    def __init__(self) -> None:
        self.samples, self.device = 0, torch.device("cpu")
        self.received: tuple[Tensor, ...] = ()
        self.taken: dict[int, tuple[Tensor, Tensor]] = {}  # what the forward had in its place, and what was received
        self.calls: dict[str, Iterator[Nest]] = {}
        self.on_stand_in: Callable[[Any], None] = lambda value: None
        self.on_entry: Callable[[str, Any], None] = lambda name, value: None

    def begin(self, received: tuple[Tensor, ...], samples: int, device: torch.device) -> None:
        """Begin a forward of so many samples."""
        self.received, self.samples, self.device = received, samples, device

    def end(self) -> None:
        """Let go of what the forward held."""
        self.received, self.taken, self.calls = (), {}, {}

    def zeros(self, nest: Nest) -> Any:
        """Return what a stand-in gives."""
        value = nest.zeros(self.samples, self.device)
        self.on_stand_in(value)
        return value

    def exchanged(self, leaves: list[Any]) -> list[Any]:
        """Return leaves with what was received in the place of what stands for it."""
        return [self.taken[id(leaf)][1] if id(leaf) in self.taken else leaf for leaf in leaves]


class Disguise(nn.Module):
    """Takes the place of a module; has the attributes of that one, whose parameters are not its own."""

    def __init__(self, crossing: Crossing, name: str, like: nn.Module) -> None:
        super().__init__()
        self.crossing, self.name = crossing, name
        object.__setattr__(self, "like", like)  # not as a child

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "like"), name)


class StandIn(Disguise):
    """Gives zeros, call by call of the shapes that the module gives."""

    def __init__(self, crossing: Crossing, name: str, like: nn.Module, gives: list[Nest]) -> None:
        super().__init__(crossing, name, like)
        self.gives = gives

    def forward(self, *_: Any, **__: Any) -> Any:
        calls = self.crossing.calls.setdefault(self.name, iter(self.gives))
        return self.crossing.zeros(next(calls))


class Owned(Disguise):
    """A layer of the stage that is given what was received: the first one, and those after it that are given parts of
    the same."""

    def __init__(self, crossing: Crossing, name: str, layer: nn.Module, carried: list[int] | None) -> None:
        super().__init__(crossing, name, layer)
        self.layer, self.carried = layer, carried

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        crossing = self.crossing
        for at, tensor in zip(self.carried or (), crossing.received, strict=self.carried is not None):
            crossing.taken[id(leaves[at])] = (leaves[at], tensor)
        leaves = crossing.exchanged(leaves)
        crossing.on_entry(self.name, leaves)
        args, kwargs = tree_unflatten(leaves, spec)
        return self.layer(*args, **kwargs)


class Exit(Disguise):
    """The next stage's first layer: ends the forward with what it would be called with."""

    def __init__(self, crossing: Crossing, name: str, like: nn.Module, carried: list[int]) -> None:
        super().__init__(crossing, name, like)
        self.carried = carried

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves = self.crossing.exchanged(tree_flatten((args, kwargs))[0])
        self.crossing.on_entry(self.name, [leaves[at] for at in self.carried])
        raise Reached(tuple(leaves[at] for at in self.carried))


class LayerStage(nn.Module):
    """The stage of ``layers`` of a model, of which only what the stage owns was built.

    ``inputs``: how the whole model is called. It is given all of them on every stage, by their names, and on the first
    one in their order as well.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy, layers: range, inputs: Inputs, device: torch.device) -> None:
        super().__init__()
        self.anatomy, self.layers, self.inputs, self.device = anatomy, layers, inputs, device
        for number, tensor in enumerate(inputs.constants):
            self.register_buffer(f"constant_{number}", tensor.to(device), persistent=False)
        self.crossing = Crossing()
        self.hollows: list[Tensor] = []
        self.disguised: list[str] = []  # layers within Owned
        every = anatomy.layers.layers(model)
        self.own_layers = tuple(every[number] for number in layers)  # as a tuple they are not children once more
        self._cut(model)
        self.model = model

    def _cut(self, model: nn.Module) -> None:
        """Put something in the place of whatever is not the stage's own."""
        anatomy, layers, crossing = self.anatomy, self.layers, self.crossing
        container = anatomy.layers.container(model)
        for name, module in anatomy.layers.outside(model).items():
            places = {anatomy.owner[f"{name}.{key}"] for key, _ in module.named_parameters()}
            if layers.start > 0 and places == {Part.BEFORE} and name in anatomy.outside:
                replace(model, name, StandIn(crossing, name, module, anatomy.outside[name]))
        for number, key in enumerate(anatomy.layers.keys):
            layer, name = container._modules[key], anatomy.layers.name(number)
            assert layer is not None
            new: Disguise | None = None
            if number < layers.start:
                new = StandIn(crossing, name, layer, [anatomy.made[number]])
            elif number == layers.stop:
                new = Exit(crossing, name, layer, anatomy.carried[number])
            elif number > layers.stop:
                new = Disguise(crossing, name, layer)
            elif number == layers.start and number > 0:
                new = Owned(crossing, name, layer, anatomy.carried[number])
            elif layers.start > 0 and number in anatomy.passed_on:
                new = Owned(crossing, name, layer, None)
            if new is not None:
                replace(model, name, new)
            if isinstance(new, Owned):
                self.disguised.append(name)
        for name, _ in list(model.named_parameters()):
            # A layer within Owned is the stage's; its parameters have other names than they had.
            if name in anatomy.owner and not owned(anatomy.owner[name], layers, anatomy.count):
                self.hollows.append(hollow(model, name, self.device))

    def name_in_model(self, name: str) -> str:
        """Return the name in the model of what has this name in the stage's."""
        for layer in self.disguised:
            if name.startswith(f"{layer}.layer."):
                return layer + name.removeprefix(f"{layer}.layer")
        return name

    def forward(self, *received: Tensor, **given: Tensor) -> Any:
        is_first, is_last = self.layers.start == 0, self.layers.stop == self.anatomy.count
        fed = received if is_first else tuple(given[name] for name in self.inputs.names)
        args, kwargs = self.inputs.fill(
            fed, [getattr(self, f"constant_{at}") for at in range(len(self.inputs.constants))]
        )
        self.crossing.begin(() if is_first else received, fed[0].shape[0], fed[0].device)
        try:
            output = self.model(*args, **kwargs)
        except Reached as reached:
            return reached.sent if len(reached.sent) > 1 else reached.sent[0]
        finally:
            self.crossing.end()
        assert is_last, "the forward ended before the stage did"
        tensors = tensors_of(output)
        return tensors if len(tensors) > 1 else tensors[0]


def owned(place: object, layers: range, count: int) -> bool:
    """Return whether what belongs to a place belongs to the stage of ``layers``."""
    if place is Part.BEFORE:
        return layers.start == 0
    return layers.stop == count if place is Part.AFTER else place in layers


def replace(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of another."""
    path, _, key = name.rpartition(".")
    parent = model.get_submodule(path)
    old = parent._modules[key]
    assert old is not None
    if not isinstance(new, Owned):
        old.to("meta")  # its buffers; its parameters are there
    parent._modules[key] = new


def hollow(model: nn.Module, name: str, device: torch.device) -> Tensor:
    """Put zeros that take no memory in the place of a parameter of another stage; return them."""
    path, _, key = name.rpartition(".")
    module = model.get_submodule(path)
    old = module._parameters.pop(key)
    assert old is not None
    zeros = torch.zeros((), dtype=old.dtype, device=device).expand(old.shape)
    object.__setattr__(module, key, zeros)
    return zeros


def check_on_paper(stage: LayerStage, received: tuple[Tensor, ...], given: dict[str, Tensor], marks: Any) -> None:
    """Run a stage on paper; raise ModelRefused where it computes with what only stands for another stage's results."""

    def stood_in(value: Any) -> None:
        for tensor in tensors_of(value):
            marks.mark(tensor)

    def entered(name: str, leaves: Any) -> None:
        for tensor in tensors_of(leaves):
            if marks.has(tensor):
                raise ModelRefused(
                    f"{name} is given something that the forward of the model computed from the embeddings, or from"
                    " earlier layers, and that is not handed on from layer to layer; hand it on as an argument of each"
                    " layer, or cut the model yourself with a function of (stage, stages)"
                )

    for tensor in stage.hollows:
        marks.mark(tensor)
    stage.crossing.on_stand_in, stage.crossing.on_entry = stood_in, entered
    try:
        entered("the end of the model", stage(*received, **given))
    finally:
        crossing = stage.crossing
        crossing.on_stand_in, crossing.on_entry = lambda value: None, lambda name, value: None
