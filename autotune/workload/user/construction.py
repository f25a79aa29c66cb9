"""Building part of a model whose constructor only knows how to build all of it.

The constructor runs as it is, on the device. Each parameter that is not of the part goes to "meta" as soon as the
constructor has registered it, so that no more than the part and one parameter more lie in memory at any moment. Random
numbers are seeded anew before every operator that draws some, by the parameter that they are for: what the other
parameters draw makes no difference, and the same weights come out however the model is cut.
"""

import random
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

Make = Callable[[], nn.Module]


class SeededDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator that draws random numbers draws those of its own number: of the parameter that it fills, or that
    was filled or registered last, and how many draws there were since.

    Not of its number among all draws: torch's initialisers draw again what they reject, and nothing on "meta".
    """

    def __init__(self, seed: int, construction: "Construction | None" = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed, self.construction = seed, construction
        self.parameter, self.draws = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            filled = self.construction.number_of(args[0]) if self.construction and func._schema.is_mutable else None
            if filled is not None:
                self.begin(filled)
            torch.manual_seed(((self.seed * 1_000_003 + self.parameter) * 1_009 + self.draws) % 2**63)
            self.draws += 1
        return func(*args, **(kwargs or {}))

    def begin(self, parameter: int) -> None:
        """Begin the draws of a parameter."""
        self.parameter, self.draws = parameter + 1, 0


class Construction:
    """One run of a constructor: numbers its parameters, and keeps those that are wanted.

    ``kept``: numbers of the parameters that are built; None: all of them.
    """

    def __init__(self, kept: Container[int] | None) -> None:
        self.kept = kept
        self.number: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of each parameter, as it is in the model
        self.stands_for: WeakIdKeyDictionary = (
            WeakIdKeyDictionary()
        )  # a parameter that was dropped -> the one on "meta"
        self.registered = 0
        self.storages: dict[int, int] = {}  # the number of the parameter that has it
        self.on_new: Callable[[int], None] = lambda number: None

    def register(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        """Return what takes the place of a parameter; a hook of torch's."""
        if parameter is None or parameter in self.number:
            return None  # one that several modules share
        if parameter in self.stands_for:
            shared: nn.Parameter = self.stands_for[parameter]
            return shared
        number, self.registered = self.registered, self.registered + 1
        self.on_new(number)
        if self.kept is None or number in self.kept or isinstance(parameter, nn.parameter.UninitializedParameter):
            self.number[parameter] = number
            self.storages[parameter.untyped_storage()._cdata] = number
            return None
        on_meta = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        self.stands_for[parameter], self.number[on_meta] = on_meta, number
        self.storages[on_meta.untyped_storage()._cdata] = number
        return on_meta

    def number_of(self, tensor: Tensor) -> int | None:
        """Return the number of the parameter that a tensor is, or is a view of."""
        return self.storages.get(tensor.untyped_storage()._cdata)


@contextmanager
def seeded(seed: int, device: torch.device, construction: Construction | None = None) -> Iterator[None]:
    """Within, modules are built on ``device`` with random numbers of ``seed``; those of the outside do not change."""
    state = random.getstate()
    random.seed(seed)
    devices = [device] if device.type == "cuda" else []
    draws = SeededDraws(seed, construction)
    if construction is not None:
        construction.on_new = draws.begin
    try:
        with torch.random.fork_rng(devices=devices), device, draws:
            yield
    finally:
        random.setstate(state)


def construct(
    make: Make, seed: int, device: torch.device, kept: Container[int] | None
) -> tuple[nn.Module, Construction]:
    """Run a constructor; return the model, and the number of each of its parameters."""
    construction = Construction(kept)
    hook = register_module_parameter_registration_hook(construction.register)  # type: ignore[arg-type]  # stub lags
    try:
        with seeded(seed, device, construction):
            return make(), construction
    finally:
        hook.remove()


def numbers(module: nn.Module, construction: Construction) -> set[int]:
    """Return the numbers of a module's parameters in the construction of the model."""
    return {construction.number[one] for one in module.parameters() if one in construction.number}
