"""What stages keep under each mode of recomputation, and that they compute the same."""

import pytest
import torch

from autotune.pipeline.rank.paper import PaperDevice
from autotune.pipeline.rank.probe import StageProbe
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import Gpt, build_stage
from autotune.workload.optimizer import hold_gradients
from autotune.workload.recompute import recompute

LAYERS, HIDDEN, TOKENS, SIZE = 3, 16, 8, 2
WORK = WorkloadConfig(
    layers=9, stages=3, hidden=HIDDEN, heads=2, seq_len=TOKENS, vocab=32, batch=4, precision="fp32", optimizer="none"
)
ROW = SIZE * TOKENS * HIDDEN * 4  # bytes of hidden states


def activation_bytes(mode):
    """Of one micro-batch on the stage in the middle, on paper."""
    with PaperDevice(cuda=False) as device:
        model, layers = Gpt(WORK), range(LAYERS, 2 * LAYERS)
        stage = model.build_stage(layers, device.torch_device)
        recompute(model.layers_in(stage), mode)
        hold_gradients(stage)
        return StageProbe(stage, model, layers, device).memory((SIZE,), split=False)[0].activation_bytes


def test_full_keeps_what_leaves_each_layer_and_little_else():
    """The first layer's input is the message that was received."""
    assert LAYERS * ROW <= activation_bytes(Recompute.FULL) < (LAYERS + 1) * ROW + 10_000 * LAYERS


def test_each_mode_keeps_less_than_the_one_before():
    none, selective, full = map(activation_bytes, Recompute)
    assert none > selective > full


def test_selective_keeps_products_and_attention():
    """Of each layer: queries, keys and values, attention and its sums, its projection, and both products of the MLP."""
    kept = LAYERS * ROW * (3 + 1 + 1 + 4 + 1)
    assert kept <= activation_bytes(Recompute.SELECTIVE) < 1.35 * kept


@pytest.mark.parametrize("mode", [Recompute.SELECTIVE, Recompute.FULL])
def test_names_weights_and_gradients_are_the_same(mode):
    plain, again = (build_stage(WORK, 1, 3, torch.device("cpu"), None, (one,) * 3) for one in (Recompute.NONE, mode))
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in again.named_parameters()]
    Gpt(WORK).reset_stage(again, range(3, 6))
    given = torch.randn(SIZE, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1))
    for stage in (plain, again):
        stage(given).square().sum().backward()
    for mine, other in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=0)
