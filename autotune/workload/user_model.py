"""A model of the user's as a Workload: the function that makes it, and what stands beside that in the same module.

::

    def build(dim: int = 256) -> nn.Module: ...                       --model llama.py:build --model-args dim=512
    def example_batch(batch_size): return (ids,), {"mask": mask}, targets      or (ids,), targets; or ids alone
    def loss(output, target): ...                                     the mean over the samples that it is given
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.records.job.workload import ModelConfig, ModelRequest, WorkloadFacts
from autotune.workload.gpt import ELEMENT_TYPES, cast_to
from autotune.workload.protocol import Batch, Loss
from autotune.workload.user.construction import construct, seeded
from autotune.workload.user.form import CPU, META, Form, Layered, OwnStages, Row
from autotune.workload.user.inputs import Inputs
from autotune.workload.user.refusal import ModelRefused, line_of, words_of
from autotune.workload.user.shapes import SAMPLES, Nest, both, tensors_of
from autotune.workload.user.source import Source, digest, find

RESET_PARTS = 4  # in which a stage is given its first weights back: so much of a second copy is held at a time
Given = tuple[tuple[Any, ...], dict[str, Any], Tensor | None]
"""Positional arguments, keyword arguments, target."""


class UserModel:
    """A model of the user's, its data and its loss."""

    def __init__(self, record: ModelConfig | ModelRequest) -> None:
        self.record = record
        self.request = record.request if isinstance(record, ModelConfig) else record
        self.source = self.find_source()

    def find_source(self) -> Source:
        """Return the user's function and what stands beside it."""
        return find(self.request.source.place, self.request.source.name, self.request.arguments)

    @property
    def digest(self) -> str:
        """Changes with the code that the model is made from."""
        return digest(self.source.module)

    @property
    def facts(self) -> WorkloadFacts:
        """The facts that reports state of it."""
        assert isinstance(self.record, ModelConfig), "nobody has looked at the model yet"
        return self.record

    # --- the model ---------------------------------------------------------------------------------------------------

    @cached_property
    def form(self) -> Form:
        """The form in which the user gives the model."""
        seed = self.request.seed
        if self.source.cuts_itself:

            def make_stage(stage: int, stages: int) -> nn.Module:
                return self.cast(self.module(self.source.make(stage=stage, stages=stages)))

            return OwnStages(make_stage, seed, self.inputs, self.request.most_stages)
        model = self.on_meta
        if isinstance(model, list | tuple) or type(model).forward is nn.Sequential.forward:
            return Row(self.make, seed, self.inputs)
        return Layered(self.make, seed, self.inputs)

    @cached_property
    def on_meta(self) -> Any:
        """What the function makes, without memory."""
        model, _ = construct(self.make, self.request.seed, CPU, ())
        return model if isinstance(model, list | tuple) else self.module(model)

    def make(self) -> Any:
        """Make the whole model."""
        made = self.source.make()
        return made if isinstance(made, list | tuple) else self.cast(self.module(made))

    def module(self, made: Any) -> nn.Module:
        """Return what the function made, if it is a module; raise ModelRefused otherwise."""
        if not isinstance(made, nn.Module):
            raise ModelRefused(
                f"{self.source.title} returns a {type(made).__name__}; it must return an nn.Module, or a list of layers"
            )
        return made

    def cast(self, model: nn.Module) -> nn.Module:
        """Give the weights the type that was asked for, if any."""
        return cast_to(model, ELEMENT_TYPES[self.request.precision]) if self.request.precision else model

    def build_stage(self, layers: range, device: torch.device) -> nn.Module:
        """Build the stage of ``layers`` in training mode; on "meta" it is checked that it can be computed alone."""
        if device == META:
            self.form.check(layers)
        return self.form.build(layers, device).train()

    def layers_in(self, stage: nn.Module) -> Sequence[nn.Module]:
        """Return the modules of a stage that recomputation applies to."""
        return self.form.layers_in(stage)

    def reset_stage(self, stage: nn.Module, layers: range) -> None:
        """Give a stage its first weights back, part by part."""
        device = next(tensor.device for tensor in (*stage.parameters(), *stage.buffers()))
        held = self.form.named_state(stage, layers)
        for part in [layers] if isinstance(self.form, OwnStages) else parts(layers, RESET_PARTS):
            fresh = self.form.named_state(self.form.build(part, device), part)
            with torch.no_grad():
                for name in fresh.keys() & held.keys():
                    held[name].copy_(fresh[name])

    def boundary(self, layer: int, micro_batch_size: int) -> tuple[Tensor, ...]:
        """Return what enters a layer, or what the model gives."""
        if layer == 0:
            return tuple(shape.on_meta(micro_batch_size) for shape in self.first_shapes)
        return tuple(shape.on_meta(micro_batch_size) for shape in self.form.crossing(layer))

    # --- the data ----------------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> Inputs:
        """How the whole model is called."""
        few, more = both(self.given)
        return Inputs(few[:2], more[:2])

    @cached_property
    def first_shapes(self) -> list[Any]:
        """Shapes of what the first stage takes."""
        few, more = both(lambda samples: self.form.feed(self.given(samples)[:2])[0])
        return Nest(few, more).shapes

    def given(self, samples: int, replica: int = 0) -> Given:
        """Return the user's example of so many samples, for a replica always the same, or one of random token ids."""
        seed = self.request.seed + replica
        with seeded(seed, CPU):
            example = self.source.beside("example_batch")
            return self.token_ids(samples, seed) if example is None else self.examined(example, samples)

    def examined(self, example: Callable[..., Any], samples: int) -> Given:
        """Call ``example_batch`` and return its parts; raise ModelRefused where they are none."""
        try:
            made = example(samples)
        except Exception as error:
            where = line_of(error, (str(self.source.module.__file__),))
            raise ModelRefused(f"example_batch({samples}) failed{where}: {words_of(error)}") from error
        args, kwargs, target = parts_of_example(made)
        if not isinstance(target, Tensor | None) or (target is not None and len(target) != samples):
            raise ModelRefused(f"example_batch({samples}): the target must be one tensor of {samples} rows")
        return tuple(map(self.in_precision, args)), {name: self.in_precision(v) for name, v in kwargs.items()}, target

    def in_precision(self, value: Any) -> Any:
        """Return inputs in the type that the model computes in, where one was asked for."""
        is_float = isinstance(value, Tensor) and value.is_floating_point() and self.request.precision is not None
        return value.to(ELEMENT_TYPES[self.request.precision]) if is_float and self.request.precision else value

    def token_ids(self, samples: int, seed: int) -> Given:
        """Return random token ids and their next-token targets, for a model that begins with an embedding."""
        return random_tokens(self.vocabulary, samples, self.request.seq_len, seed)

    @cached_property
    def vocabulary(self) -> int:
        """Token ids that the model takes, where it begins with an embedding."""
        whole = {"stage": 0, "stages": 1} if self.source.cuts_itself else {}
        made, _ = construct(lambda: self.source.make(**whole), self.request.seed, CPU, ())
        layers = list(made) if isinstance(made, list | tuple) else [self.module(made)]
        modules = [part for layer in layers if isinstance(layer, nn.Module) for part in layer.modules()]
        first = next((module for module in modules if module._parameters), None)
        if not isinstance(first, nn.Embedding):
            raise ModelRefused(
                f"{self.source.title} does not begin with an nn.Embedding, so random token ids are not what it takes;"
                " give example_batch(batch_size) beside it, in the same module"
            )
        return first.num_embeddings

    def batch(self, sequences: int, padding: int, device: torch.device, replica: int = 0) -> Batch:
        """Return the same samples each time; there is no padding that any loss would leave out."""
        assert not padding, "candidates that need padding are left out"
        args, kwargs, target = self.given(sequences, replica)
        first, every = self.form.feed((args, kwargs))
        moved = {id(tensor): tensor.to(device) for tensor in (*first, *every.values())}
        targets = torch.zeros(sequences) if target is None else target
        return Batch(
            tuple(moved[id(tensor)] for tensor in first),
            targets.to(device),
            {name: moved[id(tensor)] for name, tensor in every.items()},
        )

    def loss(self, sequences: int) -> Loss:
        """Return the user's loss, or cross-entropy, as a share of the mean over so many samples."""
        own = self.source.beside("loss")
        if own is None and not self.has_target:
            raise ModelRefused(
                f"{self.source.title} has no targets: give loss(output, target) beside it, or an example_batch with one"
            )
        return ShareOfMean(self, own, sequences)

    @cached_property
    def has_target(self) -> bool:
        """Whether the batch has a target."""
        return self.given(SAMPLES[0])[2] is not None

    @property
    def output(self) -> Nest | None:
        """How the model's output is put together from its tensors; None where that is left as it comes."""
        return self.form.anatomy.output if isinstance(self.form, Layered) else None


class ShareOfMean:
    """A loss that is a mean over the samples of a micro-batch, as its share of the mean over all of the batch's.

    ``scale`` keeps fp16 gradients from vanishing; it is 1 otherwise.
    """

    def __init__(self, model: UserModel, own: Callable[..., Any] | None, samples: int) -> None:
        self.own, self.samples, self.has_target, self.output = own, samples, model.has_target, model.output
        dtypes = {shape.dtype for shape in model.form.crossing(model.form.count)}
        self.scale = 1024.0 if torch.float16 in dtypes else 1.0

    def __call__(self, output: Any, targets: Tensor, /) -> Tensor:
        rows = len(targets)
        whole = self.output.fill(tensors_of(output)) if self.output is not None else output
        target = targets if self.has_target else None
        mean: Tensor = cross_entropy(whole, targets) if self.own is None else self.own(whole, target)
        return mean.float() * (self.scale * rows / self.samples)


def cross_entropy(output: Any, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of a class for each target, the classes being the last dimension."""
    logits = tensors_of(output)[0]
    if targets.is_floating_point() or logits.shape[:-1] != targets.shape:
        raise ModelRefused(
            f"the model gives {tuple(logits.shape)} and the target is {tuple(targets.shape)}: that is no classification"
            " of each target; give loss(output, target) beside the model's function"
        )
    return functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())


def random_tokens(vocabulary: int, samples: int, tokens: int, seed: int) -> Given:
    """Return random token ids and the tokens that follow them."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(vocabulary, (samples, tokens + 1), generator=generator, device=CPU)
    return (text[:, :-1].contiguous(),), {}, text[:, 1:].contiguous()


def parts_of_example(made: Any) -> tuple[tuple[Any, ...], Mapping[str, Any], Any]:
    """Return arguments, keyword arguments and target of what ``example_batch`` gave: of these three, the first and the
    last, or an argument alone."""
    args: Any = made
    kwargs: Mapping[str, Any] = {}
    target = None
    if isinstance(made, tuple) and len(made) == 3 and isinstance(made[1], dict):
        args, kwargs, target = made
    elif isinstance(made, tuple) and len(made) == 2:
        args, target = made
    elif isinstance(made, dict):
        args, kwargs = (), made
    elif not isinstance(made, Tensor):
        raise ModelRefused(
            f"example_batch returns a {type(made).__name__}; it must return (args, kwargs, target), (args, target) or"
            " one tensor"
        )
    return tuple(args) if isinstance(args, tuple | list) else (args,), kwargs, target


def parts(layers: range, count: int) -> list[range]:
    """Cut a range into so many contiguous ones, or fewer, that are not empty."""
    length = -(-len(layers) // count)
    return [layers[at : at + length] for at in range(0, len(layers), length)]
