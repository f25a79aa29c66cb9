"""Bytes in closed form against fake tensors of the built-in GPT, and against Korthikanti et al.'s table."""

import pytest
import torch

from autotune.pipeline.rank.paper import stage_memory
from autotune.plan.held import layer_elements, other_bytes, stage_held, static_bytes
from autotune.plan.shape import Shape, of_workload
from autotune.records.job.layout import Attention, Layout
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import Gpt, build_stage
from autotune.workload.optimizer import static_bytes as counted_bytes
from autotune.workload.partition import layers_of_stage

STAGES = 3
USUAL = {"layers": 12, "stages": STAGES, "hidden": 2048, "heads": 16, "seq_len": 1024, "vocab": 50304, "batch": 8}
CHANGES = (
    {},
    {"hidden": 4096, "heads": 32, "seq_len": 2048, "vocab": 32000},
    {"precision": "fp32", "vocab": 1024},
    {"hidden": 1024, "seq_len": 512, "precision": "fp16"},
    {"hidden": 512, "heads": 8, "seq_len": 256},
    {"layers": 3},
)
PLAIN = Layout(pipeline_parallel=STAGES)


def workload(changes):
    return WorkloadConfig(**USUAL | {"precision": "bf16", "optimizer": "adamw"} | changes)


@pytest.mark.parametrize("index", range(STAGES))
@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.slow
def test_what_a_stage_holds_is_what_fake_tensors_add_up_to(changes, index):
    """Within 3 % per stage, of what is kept and of the peak of one micro-batch; really within 1.7 %."""
    work = workload(changes)
    layers = layers_of_stage(work.layers, STAGES, index)
    for real in stage_memory(Gpt(work), layers, (1, 2, 8), split=False, cuda=True):
        ends = (index == 0, index == STAGES - 1)
        made = stage_held(of_workload(work), PLAIN, work.precision, len(layers), ends, real.micro_batch_size)
        assert made.activation_bytes == pytest.approx(real.activation_bytes, rel=0.003)
        peaks = [row.activation_bytes + row.transient_bytes for row in (made, real)]
        assert peaks[0] == pytest.approx(peaks[1], rel=0.03)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_weights_and_what_goes_with_them(changes):
    work = workload(changes)
    real = sum(
        counted_bytes(build_stage(work, index, STAGES, torch.device("meta")), work.optimizer) for index in range(STAGES)
    )
    made = static_bytes(of_workload(work).weights, work.precision, work.optimizer, PLAIN)
    assert made == pytest.approx(real, rel=0.01)


KORTHIKANTI = {  # Table 2 in bytes per s·b·h, without the two (t: one) masks of dropout that 34 and 10 contain
    (1, False, Recompute.NONE): lambda t, scores: 32 + scores,
    (8, False, Recompute.NONE): lambda t, scores: 8 + 24 / t + scores / t,
    (8, True, Recompute.NONE): lambda t, scores: 32 / t + scores / t,
    (8, False, Recompute.SELECTIVE): lambda t, scores: 8 + 24 / t,
    (8, True, Recompute.SELECTIVE): lambda t, scores: 32 / t,
}


@pytest.mark.parametrize(("t", "sequence", "recompute"), KORTHIKANTI)
def test_a_layer_keeps_what_korthikanti_et_al_count(t, sequence, recompute):
    shape = Shape(layers=96, hidden=12288, heads=96, kv_heads=96, ffn=49152, vocab=51200, seq_len=2048)
    layout = Layout(
        pipeline_parallel=8,
        tensor_parallel=t,
        sequence_parallel=sequence,
        recompute=recompute,
        attention=Attention.SCORES,
    )
    scores = 5 * shape.heads * shape.seq_len / shape.hidden
    held = (2 * layer_elements(shape, layout) + other_bytes(shape, layout)) / shape.hidden
    assert held == pytest.approx(KORTHIKANTI[t, sequence, recompute](t, scores), rel=0.01)


def test_full_recomputation_keeps_the_inputs_alone():
    shape = of_workload(workload({}))
    layout = PLAIN.model_copy(update={"recompute": Recompute.FULL})
    assert layer_elements(shape, layout) == shape.hidden
    kept = [stage_held(shape, one, "bf16", 4, (False, False), 4) for one in (layout, PLAIN)]
    assert kept[0].activation_bytes == 4 * 2 * 4 * shape.seq_len * shape.hidden
    assert kept[0].activation_bytes < kept[1].activation_bytes / 15
    assert kept[0].transient_bytes > kept[1].transient_bytes
