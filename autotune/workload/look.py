"""What is to be known of a user's model before anything runs: its layers, its size, and whether it can be cut."""

import torch
from torch import nn

from autotune.records.job.workload import ModelConfig, ModelRequest
from autotune.workload.open import open_as
from autotune.workload.partition import layers_of_stage
from autotune.workload.user.form import CPU, Layered, OwnStages
from autotune.workload.user.paper import on_paper
from autotune.workload.user.refusal import ModelRefused, words_of
from autotune.workload.user_model import UserModel

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def look(request: ModelRequest) -> ModelConfig:
    """Look at a model; raise ModelRefused where it cannot be trained in a pipeline."""
    model: UserModel = open_as(request.source.library, request)
    form = model.form
    if request.stages <= form.count:  # else the cut is refused, with other words
        for index in range(request.stages):
            form.check(layers_of_stage(form.count, request.stages, index))
    if isinstance(form, Layered):
        form.try_out()
    check_loss(model)
    weights = whole_weights(model)
    if not weights:
        raise ModelRefused(f"{request.source.title} has no parameters: there is nothing to train")
    ids = model.inputs.first
    is_text = not ids.dtype.is_floating_point and len(ids.sizes(1)) == 2
    return ModelConfig(
        request=request,
        model=request.source.title,
        arguments=request.arguments or None,
        source_digest=model.digest,
        parameters=sum(weight.numel() for weight in weights),
        sample="sequence" if is_text else "image" if len(ids.sizes(1)) == 4 else "sample",
        sample_bytes=model.batch(1, 0, CPU).nbytes,
        seq_len=ids.sizes(1)[1] if is_text else None,
        forward_operations=sum(form.operations),
        operations_by_layer=tuple(form.operations),
        cuts_itself=isinstance(form, OwnStages),
        draws_random_numbers=form.draws,
        precision=PRECISIONS.get(weights[0].dtype),  # type: ignore[arg-type]
        layers=form.count,
        stages=request.stages,
        batch=request.batch,
        optimizer=request.optimizer,
        seed=request.seed,
    )


def whole_weights(model: UserModel) -> list[nn.Parameter]:
    """Return every parameter of the model, on "meta"."""
    form = model.form
    stages = [form.build(range(at, at + 1), torch.device("meta")) for at in range(form.count)]
    whole = nn.ModuleList(stages) if isinstance(form, OwnStages) else form.whole  # type: ignore[attr-defined]
    return list(whole.parameters())


def check_loss(model: UserModel) -> None:
    """Run the loss on paper; raise ModelRefused where it is not one number, or does not take what the model gives."""
    given = model.given(2)
    loss = model.loss(2)
    with on_paper() as paper:
        shapes = model.form.crossing(model.form.count)
        outputs = [
            torch.empty(shape.sizes(2), dtype=shape.dtype).requires_grad_(shape.requires_grad) for shape in shapes
        ]
        targets = torch.zeros(2) if given[2] is None else paper.of(given[2])
        try:
            value = loss(tuple(outputs) if len(outputs) > 1 else outputs[0], targets)
        except ModelRefused:
            raise
        except Exception as error:
            raise ModelRefused(f"the loss of what the model gives failed: {words_of(error)}") from error
        if value.shape != () or not value.requires_grad:
            raise ModelRefused("the loss must be one number that depends on what the model gives")
