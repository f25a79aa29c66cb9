"""Bytes on paper against those of the CPU's allocator; what a GPU adds to them."""

import pytest
import torch

from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.paper import Ledger, PaperDevice, flash_backward_bytes, stage_memory
from autotune.pipeline.rank.probe import StageProbe
from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import Gpt, build_stage
from autotune.workload.optimizer import hold_gradients
from autotune.workload.partition import layers_of_stage
from tests.workload.models import MODELS, of_config, of_file, opened

SIZES = (2, 32)
STAGES = 3


def workload(precision, **more):
    sizes = {"layers": 6, "hidden": 64, "heads": 4, "seq_len": 32, "vocab": 512, "batch": 32, "stages": STAGES}
    return WorkloadConfig(precision=precision, optimizer="none", **sizes | more)


def measured(work, index, split):
    """The same on the CPU."""
    device = CpuDevice(1)
    stage = build_stage(work, index, STAGES, device.torch_device)
    hold_gradients(stage)
    return StageProbe(stage, Gpt(work), layers_of_stage(work.layers, STAGES, index), device).memory(SIZES, split)


def peak(row):
    """With three micro-batches in flight, as on the first of three stages under 1F1B."""
    return STAGES * row.activation_bytes + row.transient_bytes


def compare_peaks(work, paper, real):
    """Within a thousandth; but in lower precision the CPU's own products take workspace, which is no tensor: on some
    processors a copy of the operands, of which those of the MLP are the largest."""
    workspace = 2 * 4 * work.hidden * (SIZES[-1] * work.seq_len + work.hidden) if work.precision != "fp32" else 0
    assert peak(paper) <= 1.001 * peak(real)
    assert 0.999 * peak(real) <= peak(paper) + workspace


@pytest.mark.parametrize("index", range(STAGES))
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_bytes_on_paper_are_those_of_the_cpu(precision, index):
    work = workload(precision)
    paper, real = (
        stage_memory(Gpt(work), layers_of_stage(work.layers, STAGES, index), SIZES, split=False, cuda=False),
        measured(work, index, False),
    )
    for mine, theirs in zip(paper, real, strict=True):
        assert mine.activation_bytes == pytest.approx(theirs.activation_bytes, rel=1e-3)
    compare_peaks(work, paper[-1], real[-1])


@pytest.mark.parametrize("index", range(STAGES))
def test_halves_of_a_backward_on_paper_are_those_of_the_cpu(index):
    work = workload("fp32")
    paper, real = (
        stage_memory(Gpt(work), layers_of_stage(work.layers, STAGES, index), SIZES, split=True, cuda=False),
        measured(work, index, True),
    )
    for mine, theirs in zip(paper, real, strict=True):
        assert mine.split_held_bytes == pytest.approx(theirs.split_held_bytes, rel=0.03)
        held = max(theirs.activation_bytes, theirs.split_held_bytes)
        assert mine.input_transient_bytes == pytest.approx(theirs.input_transient_bytes, abs=0.03 * held)
        assert mine.weight_transient_bytes == pytest.approx(theirs.weight_transient_bytes, abs=0.03 * held)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_bytes_on_paper_of_a_users_model_are_those_of_the_cpu(name):
    """What is kept within 0.5 %, and the peak within 1 %; but a convolution's workspace is no tensor."""
    if name.startswith("hf:"):
        pytest.importorskip("transformers")
        # fake tensors know grouped products, those of experts, in bf16 alone
        record = of_config(name.removeprefix("hf:"), **({"precision": "bf16"} if name == "hf:mixtral" else {}))
    else:
        record = of_file(name)
    half, device = record.layers // 2, CpuDevice(1)
    for layers in (range(half), range(half, record.layers)):
        (paper,) = stage_memory(opened(record), layers, (8,), split=False, cuda=False)
        stage = opened(record).build_stage(layers, device.torch_device)
        hold_gradients(stage)
        (real,) = StageProbe(stage, opened(record), layers, device).memory((8,), split=False)
        assert paper.activation_bytes == pytest.approx(real.activation_bytes, rel=0.005)
        assert peak(paper) <= 1.01 * peak(real)
        if name != "images":
            assert peak(paper) >= 0.99 * peak(real)


def test_batch_normalisation_is_on_paper_too():
    work = workload("bf16", norm="batch")
    paper, real = (
        stage_memory(Gpt(work), layers_of_stage(work.layers, STAGES, 1), SIZES, split=False, cuda=False),
        measured(work, 1, False),
    )
    compare_peaks(work, paper[-1], real[-1])


@pytest.mark.parametrize("hidden", [1024, 2048])
def test_a_layer_keeps_what_korthikanti_et_al_count_but_for_dropout_and_scores(hidden):
    """34 s b h bytes (arXiv 2205.05198, equation 2), of which two are masks of dropout; flash attention keeps one sum
    per row and head in the place of scores, and each norm two numbers per token."""
    work = workload("bf16", hidden=hidden, heads=hidden // 128, seq_len=256)
    (row,) = stage_memory(Gpt(work), layers_of_stage(work.layers, STAGES, 1), (4,), split=False, cuda=True)
    tokens, layers = 4 * work.seq_len, work.layers // STAGES
    sums = tokens * (4 * work.heads + 16)
    assert layers * 32 * hidden * tokens < row.activation_bytes <= layers * (32 * hidden * tokens + sums)


def test_a_gpu_takes_whole_blocks_and_flash_attention_sums_in_fp32():
    work = workload("bf16")
    (cpu,), (gpu,) = (
        stage_memory(Gpt(work), layers_of_stage(work.layers, STAGES, 1), (4,), split=False, cuda=cuda)
        for cuda in (False, True)
    )
    assert cpu.activation_bytes <= gpu.activation_bytes < 1.05 * cpu.activation_bytes
    assert gpu.transient_bytes > cpu.transient_bytes
    queries = torch.empty(4, 4, 32, 16, device="meta")
    assert flash_backward_bytes(queries) == 4 * 4 * 4 * 128 * (16 + 1)  # rows in blocks of 128


def test_a_storage_is_counted_once_and_until_nothing_refers_to_it():
    with PaperDevice(cuda=False) as device:
        kept = []

        def work():
            whole = torch.empty(1000)
            passing = torch.empty(500)
            kept.append(whole.view(10, 100)[3:])  # a view keeps the whole
            whole.add_(1)
            del whole, passing

        used = device.memory(work)
        assert (used.peak, used.end) == (6000, 4000)
        assert device.memory(kept.clear).end == -4000


def test_small_tensors_take_a_block_of_a_gpu():
    with PaperDevice(cuda=True) as device:
        kept = []
        used = device.memory(lambda: kept.append((torch.empty(1), torch.empty(129))))
        assert used.end == 512 + 1024


def test_nothing_is_allocated_on_paper():
    """The largest stage of a model of a hundred gigabytes."""
    work = workload("bf16", layers=STAGES, hidden=16384, heads=128, seq_len=4096, vocab=100_000)
    rows = []
    used = CpuDevice(1).memory(
        lambda: rows.extend(
            stage_memory(Gpt(work), layers_of_stage(work.layers, STAGES, 2), (64,), split=False, cuda=True)
        )
    )
    assert rows[0].activation_bytes > 10**11
    assert used.peak < 10**6


def test_a_ledger_knows_nothing_of_what_was_there_before():
    before = torch.empty(1000)
    with Ledger(cuda=False) as ledger:
        made = before + 1
    assert ledger.held == made.nbytes
