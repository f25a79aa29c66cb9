"""What is wrong with a model of the user's, in words."""

import os
from inspect import signature
from types import TracebackType

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.distributed.pipelining import stage
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)
"""What torch raises on paper where a shape, or which way the code goes, depends on the numbers in a tensor."""
CARRIES_WHOLE_NUMBERS = "tensor_meta" in signature(stage._RecvInfo).parameters
"""Whether torch's pipelining knows which of the tensors that it receives have a gradient; older ones take it of all."""
WORDS = 200  # characters of somebody else's message that ours repeats


class ModelRefused(Exception):
    """A model that cannot be trained here, and why: one line for its author."""


def words_of(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    text = f": {lines[0][:WORDS]}" if lines else ""
    return f"{type(error).__name__}{text}"


def line_of(error: BaseException, files: tuple[str, ...]) -> str:
    """Return `` (model.py, line 12)``, the last line of one of these files that was running; else nothing."""
    found, step = "", error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if name in files:
            found = f" ({os.path.basename(name)}, line {step.tb_lineno})"
        step = step.tb_next
    return found


def module_of(error: BaseException, model: nn.Module) -> str:
    """Return the name within ``model`` of the innermost module whose code was running; "" where it was the model."""
    names = {id(module): name for name, module in model.named_modules()}
    found, step = "", error.__traceback__
    while step is not None:
        found = names.get(id(own_self(step)), found)
        step = step.tb_next
    return found


def own_self(step: TracebackType) -> object:
    """Return ``self`` of the function that was running; None where it has none."""
    return step.tb_frame.f_locals.get("self")


def check_carried(tensors: tuple[object, ...], where: str) -> None:
    """Raise ModelRefused where torch's pipelining cannot carry these from stage to stage."""
    for value in tensors:
        if not isinstance(value, Tensor):
            raise ModelRefused(
                f"{where} is given {describe(value)} by the layer before: between stages only tensors, or a tuple of"
                " them, can be sent; pass anything else as a keyword argument of the model, or compute it in each layer"
            )
        if value.is_complex():
            raise ModelRefused(
                f"{where} is given a complex tensor by the layer before, which cannot be sent; send torch.view_as_real"
                " of it, or compute it in each layer"
            )
        if not (value.is_floating_point() or CARRIES_WHOLE_NUMBERS):
            raise ModelRefused(
                f"{where} is given a tensor of {value.dtype} by the layer before: torch {torch.__version__} wants a"
                " gradient of all that it sends between stages, which whole numbers have not; compute it in each layer,"
                " or update torch: 2.13 sends it"
            )
        if not all(isinstance(size, int) for size in value.shape):
            raise ModelRefused(
                f"{where} is given a tensor whose shape depends on the data: stages must know all shapes before they"
                " run; pad it to a fixed size, and give a mask"
            )
    if not tensors:
        raise ModelRefused(f"{where} is given nothing that depends on the layer before: the model cannot be cut there")


def describe(value: object) -> str:
    """Return what it is, with its article."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"
