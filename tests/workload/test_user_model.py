"""A model of the user's computes, cut into stages in any way, what it computes in one piece."""

from functools import cache

import pytest
import torch
from torch import nn

from autotune.records.job.workload import ModelConfig
from autotune.workload.user.layer_row import LayerRow
from autotune.workload.user.refusal import CARRIES_WHOLE_NUMBERS
from tests.workload.models import CPU, MODELS, in_one_piece, of_config, of_file, opened, stage_by_stage

SAMPLES = 6


@cache
def record(name: str) -> ModelConfig:
    if name.startswith("hf:"):
        pytest.importorskip("transformers")
        return of_config(name.removeprefix("hf:"))
    if name == "two_tensors" and not CARRIES_WHOLE_NUMBERS:
        pytest.skip("this torch sends no whole numbers between stages")
    return of_file(name)


def cuts(layers: int) -> list[list[range]]:
    """One stage, two even ones, three of which one has a single layer, and a stage for every layer."""
    return [
        [range(layers)],
        [range(layers // 2), range(layers // 2, layers)],
        [range(1), range(1, layers - 2), range(layers - 2, layers)],
        [range(at, at + 1) for at in range(layers)],
    ]


def in_parts(name: str) -> int:
    """Micro-batches of the whole batch: one where statistics are over each of them."""
    return 1 if name == "images" else 3


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_any_cut_are_those_of_the_model_in_one_piece(name):
    loss, gradients = in_one_piece(record(name), SAMPLES)
    workload = opened(record(name))
    for cut in cuts(record(name).layers):
        found, parts = stage_by_stage(workload, cut, SAMPLES, in_parts(name))
        assert found == pytest.approx(loss, rel=1e-5), cut
        if name == "sequential":  # children of children of an nn.Sequential have other names, and the same order
            parts = dict(zip(gradients, parts.values(), strict=True))
        assert parts.keys() == gradients.keys(), cut
        for key, gradient in gradients.items():
            if gradient is None:  # an expert that no token came to
                assert parts[key] is None or not parts[key].any()
            else:
                torch.testing.assert_close(
                    parts[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key} {m}"
                )


@pytest.mark.parametrize("name", MODELS)
def test_what_enters_a_stage_is_what_the_one_before_gives(name):
    workload, layers = opened(record(name)), record(name).layers
    batch = workload.batch(4, 0, CPU)
    value = batch.args
    for at in range(layers):
        told = workload.boundary(at, 4)
        assert [(one.shape, one.dtype, one.requires_grad) for one in value] == [
            (one.shape, one.dtype, one.requires_grad) for one in told
        ], at
        output = workload.build_stage(range(at, at + 1), CPU)(*value, **batch.kwargs)
        value = output if isinstance(output, tuple) else (output,)
    assert [(one.shape, one.dtype) for one in value] == [(one.shape, one.dtype) for one in workload.boundary(layers, 4)]


@pytest.mark.parametrize("name", MODELS)
def test_a_stage_holds_its_own_parameters_and_gets_its_first_weights_back(name):
    workload, layers = opened(record(name)), record(name).layers
    cut = cuts(layers)[2]
    stages = [workload.build_stage(part, CPU) for part in cut]
    assert sum(weight.numel() for stage in stages for weight in stage.parameters()) == record(name).parameters
    for stage, part in zip(stages, cut, strict=True):
        first = {key: tensor.clone() for key, tensor in workload.form.named_state(stage, part).items()}
        with torch.no_grad():
            for tensor in (*stage.parameters(), *stage.buffers()):
                tensor.add_(1)
        workload.reset_stage(stage, part)
        for key, tensor in workload.form.named_state(stage, part).items():
            assert torch.equal(tensor, first[key]), key


@pytest.mark.parametrize("name", MODELS)
def test_a_stage_on_meta_has_the_parameters_and_no_memory(name):
    workload = opened(record(name))
    for part in cuts(record(name).layers)[2]:
        stage, real = (workload.build_stage(part, device) for device in (torch.device("meta"), CPU))
        assert {key: weight.shape for key, weight in stage.named_parameters()} == {
            key: weight.shape for key, weight in real.named_parameters()
        }
        assert all(weight.is_meta for weight in stage.parameters())


def test_facts_are_counted_by_hand():
    llama = record("llama")
    layer = 4 * 32 * 32 + 3 * 32 * 96 + 2 * 32
    assert llama.parameters == 6 * layer + 2 * 64 * 32 + 32
    products, attention = 2 * (4 * 32 * 32 + 3 * 32 * 96), 4 * 16 * 32
    assert llama.operations_by_layer == (16 * (products + attention),) * 5 + (
        16 * (products + attention + 2 * 64 * 32),
    )
    assert (llama.sample, llama.seq_len, llama.sample_bytes, llama.layers) == ("sequence", 16, 2 * 16 * 8, 6)
    images = record("images")
    assert (images.sample, images.seq_len, images.sample_bytes) == ("image", None, 3 * 16 * 16 * 4 + 8)
    assert not llama.draws_random_numbers
    assert of_file("encoder", arguments={"dropout": 0.1}).draws_random_numbers


def test_arguments_and_code_change_the_digest_or_the_facts(tmp_path):
    """What a study is known by."""
    assert of_file("llama", arguments={"dim": 64}).arguments == {"dim": 64}
    assert record("llama").source_digest == of_file("llama").source_digest != record("encoder").source_digest


def test_precision_is_that_of_the_weights_and_of_what_crosses():
    low = opened(of_file("llama", precision="bf16"))
    assert low.boundary(2, 1)[0].dtype is torch.bfloat16
    assert {weight.dtype for weight in low.build_stage(range(2), CPU).parameters()} == {torch.bfloat16}


def test_the_first_stage_alone_takes_the_embedding_and_the_last_alone_the_head():
    workload = opened(record("llama"))
    middle = workload.build_stage(range(2, 4), CPU)
    assert {key.split(".")[1] for key, _ in middle.named_parameters()} == {"layers"}


class Spec:
    """As DeepSpeed's LayerSpec."""

    def __init__(self, kind, *args) -> None:
        self.typename, self.args = kind, args

    def build(self) -> nn.Module:
        return self.typename(*self.args)


class TiedSpec(Spec):
    """As DeepSpeed's TiedLayerSpec."""

    def __init__(self, key, kind, *args, forward_fn=None) -> None:
        super().__init__(kind, *args)
        self.key, self.forward_fn = key, forward_fn


def test_layer_specs_are_taken_by_their_attributes():
    from autotune.workload.user.layer_row import row_of

    torch.manual_seed(0)
    row = row_of([Spec(nn.Linear, 4, 8), torch.relu, TiedSpec("t", nn.Linear, 8, 8), nn.Linear(8, 8),
                  TiedSpec("t", nn.Linear, 8, 8, forward_fn=lambda layer, x: x @ layer.weight)])  # fmt: skip
    assert isinstance(row, LayerRow)
    x = torch.randn(3, 4)
    first, _, tied, last, again = row.layers
    assert again.layer is tied.layer
    expected = last(tied.layer(torch.relu(first(x)))) @ tied.layer.weight
    torch.testing.assert_close(row(x), expected)
