"""The models of tests/models as workloads, and the same models in one piece, built without any of our code."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.records.job.workload import Library, ModelConfig, ModelPlace, ModelRequest
from autotune.workload.look import look
from autotune.workload.open import open_workload
from autotune.workload.user_model import UserModel

FOLDER = Path(__file__).parents[1] / "models"
CPU = torch.device("cpu")
FILES = ("sequential", "llama", "encoder", "images", "two_tensors")
CONFIGS = ("gpt2", "llama", "mistral", "qwen3", "gemma3", "mixtral")
QUICK = ("gpt2", "llama", "mixtral")  # the others are relatives of these
MODELS = [
    *FILES,
    *(pytest.param(f"hf:{name}", marks=() if name in QUICK else pytest.mark.slow) for name in CONFIGS),
]
TOKENS = 16


def request(place: Path, name: str = "build", stages: int = 2, **more) -> ModelRequest:
    """What the controller asks for."""
    library = Library.HUGGING_FACE if place.suffix != ".py" else Library.CODE
    source = ModelPlace(library=library, place=str(place), name=name if library is Library.CODE else "")
    usual = {"stages": stages, "most_stages": stages, "batch": 6, "optimizer": "none", "seq_len": TOKENS}
    return ModelRequest(source=source, **(usual | more))


def of_file(name: str, stages: int = 2, **more) -> ModelConfig:
    """A model of tests/models, looked at."""
    return look(request(FOLDER / f"{name}.py", stages=stages, **more))


def of_config(name: str, stages: int = 2, **more) -> ModelConfig:
    """A model of transformers, looked at."""
    return look(request(FOLDER / "hf" / f"{name}.json", stages=stages, **more))


def opened(record: ModelConfig) -> UserModel:
    workload = open_workload(record)
    assert isinstance(workload, UserModel)
    return workload


def imported(name: str) -> ModuleType:
    """The file, imported by hand."""
    spec = importlib.util.spec_from_file_location(f"by_hand_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_hand(record: ModelConfig) -> nn.Module:
    """The whole model as its author would build it, without weights that mean anything."""
    place = Path(record.request.source.place)
    if record.request.source.library is Library.CODE:
        return imported(place.stem).build(**record.request.arguments)
    import json

    from transformers import AutoConfig, AutoModelForCausalLM

    values = json.loads(place.read_text())
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))


def loss_by_hand(record: ModelConfig, output, target: Tensor) -> Tensor:
    """The mean loss of the whole batch."""
    if record.request.source.library is Library.HUGGING_FACE:
        return functional.cross_entropy(output.logits.flatten(0, 1).float(), target.flatten())
    module = imported(Path(record.request.source.place).stem)
    if hasattr(module, "loss"):
        return module.loss(output, target)
    return functional.cross_entropy(output.flatten(0, -2), target.flatten())


def in_one_piece(record: ModelConfig, samples: int) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the whole model on the whole batch, by parameter; it is given the weights of our stage of
    all layers."""
    workload, model = opened(record), by_hand(record).train()
    whole = range(record.layers)
    weights = workload.form.named_state(workload.build_stage(whole, CPU), whole)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    assert named.keys() == weights.keys()
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(weights[name])
    args, kwargs, target = workload.given(samples)
    loss = loss_by_hand(record, model(*args, **kwargs), target)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters()}


def stage_by_stage(
    workload: UserModel, cuts: list[range], samples: int, micro_batches: int
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a model cut into stages, run one after another as a pipeline would."""
    stages = [workload.build_stage(layers, CPU) for layers in cuts]
    batch, loss, total = workload.batch(samples, 0, CPU), workload.loss(samples), 0.0
    rows = samples // micro_batches
    for number in range(micro_batches):
        part = slice(number * rows, (number + 1) * rows)
        value = tuple(tensor[part] for tensor in batch.args)
        given = {name: tensor[part] for name, tensor in batch.kwargs.items()}
        for stage in stages:
            output = stage(*value, **given)
            value = output if isinstance(output, tuple) else (output,)
        share = loss(output, batch.targets[part])
        share.backward()
        total += share.item()
    found = {}
    for stage, layers in zip(stages, cuts, strict=True):
        for name, tensor in workload.form.named_state(stage, layers).items():
            if isinstance(tensor, nn.Parameter):
                assert name not in found, f"{name} is on two stages"
                found[name] = tensor.grad
    return total, found
