"""Layers by themselves: which are alike, and that their bytes add up to those of a stage."""

import pytest
import torch

from autotune.pipeline.control.commands import MeasureLayers
from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.layers import kinds, measure_layers
from autotune.pipeline.rank.probe import StageProbe
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import Gpt
from autotune.workload.optimizer import hold_gradients
from autotune.workload.recompute import recompute
from tests.workload.models import of_config, of_file, opened

WORK = WorkloadConfig(
    layers=5, stages=2, hidden=16, heads=2, seq_len=8, vocab=64, batch=4, precision="fp32", optimizer="adamw"
)
SIZES = (1, 2)


def test_layers_are_alike_but_for_the_embedding_and_the_head():
    assert kinds(Gpt(WORK)) == [(0,), (1, 2, 3), (4,)]


def test_what_stands_for_other_stages_layers_makes_no_kind_of_its_own():
    assert kinds(opened(of_file("heavy_head"))) == [(0,), tuple(range(1, 11)), (11,)]


@pytest.mark.slow  # loads transformers
def test_layers_with_the_same_weights_that_work_otherwise_are_told_apart():
    """Gemma 3: of six layers the last attends to all tokens, the others to those in a window."""
    assert kinds(opened(of_config("gemma3"))) == [(0,), (1, 2, 3, 4), (5,), (6,)]


@pytest.mark.parametrize("mode", [Recompute.NONE, Recompute.FULL])
def test_what_layers_keep_adds_up_to_what_a_stage_keeps(mode):
    """A stage that goes from layer 2 to the end, of 3 layers and the head."""
    model, device, own = Gpt(WORK), CpuDevice(1), range(2, 5)
    first, middle, last = measure_layers(model, MeasureLayers(active=(0,), micro_batch_sizes=SIZES, mode=mode), device)
    stage = model.build_stage(own, torch.device("cpu"))
    recompute(model.layers_in(stage), mode)
    hold_gradients(stage)
    for number, row in enumerate(StageProbe(stage, model, own, device).memory(SIZES, split=False)):
        total = 2 * middle.memory[number].activation_bytes + last.memory[number].activation_bytes
        assert row.activation_bytes == pytest.approx(total, rel=0.01)
    assert 2 * middle.parameters + last.parameters == sum(weight.numel() for weight in stage.parameters())
    assert first.parameters - middle.parameters == (64 + 8) * 16  # token and position embeddings
    assert all(layer.time_s[1].t_f > 0 for layer in (first, middle, last))
