"""Where a model's repeated layers are, and what they take and give: found by running the model once on paper.

The model's own ``forward`` calls its layers one after another. What a stage must be sent is what its first layer is
called with, as far as that depends on a parameter: the hidden state, and whatever else earlier layers have made. What
does not (a mask, a rotary table, positions) each stage computes for itself, by the same ``forward``. ::

    forward:  embed --> layer 0 --> layer 1 --> ... --> norm, head
                        ^ what enters here, of what was marked, crosses the boundary
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autotune.workload.user.paper import Paper, on_paper
from autotune.workload.user.refusal import DATA_DEPENDENT, ModelRefused, check_carried, module_of, words_of
from autotune.workload.user.shapes import SAMPLES, Nest, Shape

Call = Callable[[nn.Module, int, Paper], Any]
"""Runs the model on so many samples on paper, and returns what it gives."""
LISTS = nn.ModuleList, nn.ModuleDict, nn.Sequential


class Part(Enum):
    """Where something outside of the layers belongs."""

    BEFORE = "before the first layer"
    AFTER = "after the last layer"


Place = int | Part
"""A layer, by its number, or what is before or after all of them."""


@dataclass(frozen=True)
class LayerList:
    """The container of the repeated layers, by its name in the model, and their names in it."""

    path: str
    keys: tuple[str, ...]

    def container(self, model: nn.Module) -> nn.Module:
        """Return the container."""
        return model.get_submodule(self.path)

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Return the layers, in order."""
        container = self.container(model)
        return [container._modules[key] for key in self.keys]  # type: ignore[misc]  # those that are there

    def name(self, number: int) -> str:
        """Return a layer's name in the model, as messages have it."""
        return f"{self.path}.{self.keys[number]}"

    def ancestors(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the modules that hold the container, the model among them, by their names."""
        names = self.path.split(".")
        return {".".join(names[:depth]): model.get_submodule(".".join(names[:depth])) for depth in range(len(names))}

    def outside(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the modules beside the container and beside its ancestors, by their names."""
        found: dict[str, nn.Module] = {}

        def add(name: str, module: nn.Module) -> None:
            if type(module) in (nn.ModuleList, nn.ModuleDict):  # is never called itself
                for key, child in module.named_children():
                    add(f"{name}.{key}", child)
            else:
                found[name] = module

        ancestors = self.ancestors(model)
        for name, ancestor in ancestors.items():
            for key, child in ancestor.named_children():
                full = f"{name}.{key}" if name else key
                if full != self.path and full not in ancestors:
                    add(full, child)
        return found


def find_layers(model: nn.Module) -> LayerList:
    """Return the list with the most parameters of those that lie in no other; raise ModelRefused where there is
    none."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{other}.") for other in found)
        if name and isinstance(module, LISTS) and len(module) > 1 and not is_inside and has_calls(module):
            found[name] = module
    if not found:
        raise ModelRefused(
            "no repeated layers were found: the model needs an nn.Sequential, nn.ModuleList or nn.ModuleDict of them,"
            " or cut it yourself with a function of (stage, stages)"
        )
    path = max(found, key=lambda name: sum(weight.numel() for weight in found[name].parameters()))
    return LayerList(path, tuple(found[path]._modules))


def has_calls(container: nn.Module) -> bool:
    """Return whether its children are layers, and not lists or dicts of them."""
    kinds = [type(child) for child in container.children()]
    return not any(kind in (nn.ModuleList, nn.ModuleDict) for kind in kinds) and len(set(kinds)) <= max(
        1, len(kinds) // 2
    )


@dataclass
class Seen:
    """One run on paper. ``entries[k]``: what layer k was called with. ``marked[k]``: the leaves of it that depend on a
    parameter."""

    entries: list[Any] = field(default_factory=list)
    marked: list[list[int]] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)
    outside: dict[str, list[Any]] = field(default_factory=dict)
    operations: list[int] = field(default_factory=list)
    used: dict[str, set[object]] = field(default_factory=dict)
    draws: bool = False
    output: Any = None
    is_assumed: bool = False


def look(model: nn.Module, layers: LayerList, paper: Paper, call: Callable[[], Any], opaque: bool) -> Seen:
    """Run the model once and note what its layers take and give.

    ``opaque``: layers are not run: each gives a tensor like the first that it takes.
    """
    seen, marks = Seen(is_assumed=opaque), paper.marks
    order = {id(layer): number for number, layer in enumerate(layers.layers(model))}
    if len(order) < len(layers.keys):
        raise ModelRefused(f"{layers.path} holds the same layer twice: its copies on two stages would not stay equal")
    marks.phase, marks.used = Part.BEFORE, seen.used

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        number = order[id(layer)]
        if number != len(seen.entries):
            raise ModelRefused(
                f"{layers.name(number)} is called where {layers.name(min(len(seen.entries), len(order) - 1))} was"
                " expected: layers must run one after another, each once"
            )
        leaves = tree_leaves((args, kwargs))
        seen.entries.append((args, kwargs))
        seen.marked.append([at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and marks.has(leaf)])
        seen.operations.append(paper.operations)
        marks.phase = number

    def leave(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        number = order[id(layer)]
        seen.made.append(output)
        marks.phase = Part.AFTER if number == len(order) - 1 else number

    def note(name: str) -> Callable[..., None]:
        def noted(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if marks.phase is Part.BEFORE:
                seen.outside.setdefault(name, []).append(output)

        return noted

    for layer in layers.layers(model):
        layer.register_forward_pre_hook(enter, with_kwargs=True)
        layer.register_forward_hook(leave)
        if opaque:
            object.__setattr__(layer, "forward", like_its_input(paper))
    for name, module in layers.outside(model).items():
        module.register_forward_hook(note(name))
    seen.output = call()
    if len(seen.made) < len(order):
        raise ModelRefused(f"{layers.name(len(seen.made))} was never called: every layer must run once in each forward")
    seen.operations.append(paper.operations)
    seen.draws = marks.draws
    return seen


def like_its_input(paper: Paper) -> Callable[..., Tensor]:
    """Return a forward that gives a tensor like the first that it takes."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        first = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        made = first.detach().clone().requires_grad_()
        paper.marks.mark(made)
        return made

    return forward


@dataclass(frozen=True)
class Anatomy:
    """What a model's layers take and give, with any number of samples."""

    layers: LayerList
    entries: list[Nest]
    carried: list[list[int]]  # leaves of each entry that are sent where the model is cut before it
    made: list[Nest]
    outside: dict[str, list[Nest]]  # what modules outside of the layers give before the first layer, call by call
    owner: dict[str, Place]  # of each parameter
    passed_on: frozenset[int]  # layers that are given something that an earlier layer was given too
    output: Nest
    operations: list[float]  # of a forward of one sample, by layer, with what is before and after
    draws: bool
    is_assumed: bool  # what layers give: they did not run on paper

    @property
    def count(self) -> int:
        """Number of layers."""
        return len(self.layers.keys)

    def crossing(self, layer: int) -> list[Shape]:
        """Return the shapes of what is sent where the model is cut before ``layer``."""
        leaves = self.entries[layer].leaves
        return [leaves[at] for at in self.carried[layer]]


def anatomy_of(build: Callable[[], nn.Module], call: Call) -> Anatomy:
    """Look at a model with two numbers of samples; raise ModelRefused where it cannot be cut.

    ``build``: returns it with its parameters on "meta".
    """
    few, layers, names = seen_with(build, call, SAMPLES[0])
    more, _, _ = seen_with(build, call, SAMPLES[1])
    entries = [nest(a, b, layers.name(k)) for k, (a, b) in enumerate(zip(few.entries, more.entries, strict=True))]
    for number in range(1, len(entries)):
        leaves = tree_leaves(few.entries[number])
        check_carried(tuple(leaves[at] for at in few.marked[number]), layers.name(number))
    return Anatomy(
        layers,
        entries,
        few.marked,
        [nest(a, b, layers.name(k)) for k, (a, b) in enumerate(zip(few.made, more.made, strict=True))],
        {
            name: [nest(a, b, name) for a, b in zip(few.outside[name], more.outside[name], strict=True)]
            for name in few.outside
        },
        owners(few.used, names, layers),
        passed_on(few),
        nest(few.output, more.output, "the model"),
        operations(few, more),
        few.draws,
        few.is_assumed or more.is_assumed,
    )


def nest(few: Any, more: Any, name: str) -> Nest:
    """Return what ``name`` takes or gives, with any number of samples."""
    try:
        return Nest(few, more)
    except (ValueError, TypeError) as error:
        raise ModelRefused(f"what {name} takes or gives has no fixed form: {words_of(error)}") from None


def seen_with(build: Callable[[], nn.Module], call: Call, samples: int) -> tuple[Seen, LayerList, list[str]]:
    """Return what a run with so many samples shows, where the layers are, and the names of all parameters.

    A layer that does not run on paper (because a mixture of experts looks at the data, say) is taken to give what it
    takes; ``Layered.try_out`` runs it for real.
    """
    for opaque in (False, True):
        model = build()
        layers = find_layers(model)
        names = [name for name, _ in model.named_parameters()]
        with on_paper() as paper:
            paper.move(model)
            try:
                return look(model, layers, paper, partial(call, model, samples, paper), opaque), layers, names
            except ModelRefused:
                raise
            except Exception as error:
                name = module_of(error, model)
                if opaque or not name.startswith(f"{layers.path}."):
                    raise failed_on_paper(error, name) from error
    raise AssertionError("a run with opaque layers ends above")


def failed_on_paper(error: Exception, name: str) -> ModelRefused:
    """Return in words that the forward of a module failed on paper."""
    if isinstance(error, DATA_DEPENDENT):
        return ModelRefused(
            f"the forward of {name or 'the model'} depends on the data ({words_of(error)}): shapes, and the way that"
            " the code goes, must be the same for every micro-batch"
        )
    return ModelRefused(f"the forward of {name or 'the model'} failed: {words_of(error)}")


def owners(used: dict[str, set[object]], names: list[str], layers: LayerList) -> dict[str, Place]:
    """Return the layer, or the side of the layers, that each parameter belongs to; raise ModelRefused where one is
    needed on two stages."""
    number = {key: at for at, key in enumerate(layers.keys)}
    found: dict[str, Place] = {}
    for name in names:
        inside = name.startswith(f"{layers.path}.")
        phases = used.get(name, set())
        if inside:
            own = number[name.removeprefix(f"{layers.path}.").split(".")[0]]
            phases = phases | {own}
        found[name] = only_place(name, phases)
    return found


def only_place(name: str, phases: set[object]) -> Place:
    """Return the one place where a parameter is used, the beginning where it is not used at all."""
    if len(phases) > 1:
        raise ModelRefused(
            f"{name} is shared: it is used {' and '.join(sorted(map(place_words, phases)))}, and its copies on several"
            " stages would not stay equal; untie the weights (for Hugging Face: --model-args tie_word_embeddings=false)"
        )
    place = next(iter(phases), Part.BEFORE)
    return place  # type: ignore[return-value]  # phases are places


def place_words(place: object) -> str:
    """Return a place in words."""
    return place.value if isinstance(place, Part) else f"in layer {place}"


def passed_on(seen: Seen) -> frozenset[int]:
    """Return the layers that are given, among what is carried, the very tensor that an earlier layer was given."""
    earlier: set[int] = set()
    found = set()
    for number, (entry, marked) in enumerate(zip(seen.entries, seen.marked, strict=True)):
        leaves = tree_leaves(entry)
        ids = {id(leaves[at]) for at in marked}
        if ids & earlier:
            found.add(number)
        earlier |= ids
    return frozenset(found)


def operations(few: Seen, more: Seen) -> list[float]:
    """Return operations of a sample by layer; what is before the first counts with it, what is after with the last."""
    ends = [[0, *seen.operations[1:-1], seen.operations[-1]] for seen in (few, more)]
    grown = [b - a for a, b in zip(*ends, strict=True)]
    return [(b - a) / (SAMPLES[1] - SAMPLES[0]) for a, b in pairwise(grown)]
