"""Weights in lower precision follow master weights in fp32, and what all of it holds is known without building it."""

import pytest
import torch

from autotune.pipeline.device.device import CpuDevice
from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import build_stage
from autotune.workload.optimizer import MasterWeights, build_optimizer, hold_gradients, static_bytes

CPU, META = torch.device("cpu"), torch.device("meta")
SIZES = {"layers": 2, "hidden": 32, "heads": 2, "seq_len": 8, "vocab": 64, "batch": 4, "stages": 1}
BYTES_PER_WEIGHT = {  # weight, gradient, master weight, moments
    ("fp32", "none"): 4 + 4,
    ("fp32", "sgd"): 4 + 4,
    ("fp32", "adamw"): 4 + 4 + 8,
    ("bf16", "none"): 2 + 4,
    ("bf16", "sgd"): 2 + 4 + 4,
    ("bf16", "adamw"): 2 + 4 + 4 + 8,
    ("fp16", "adamw"): 2 + 4 + 4 + 8,
}


def workload(precision, optimizer, **more):
    return WorkloadConfig(precision=precision, optimizer=optimizer, **SIZES | more)


def held(stage, name):
    """What the stage and its optimizer hold, built and stepped once as a rank does it."""
    hold_gradients(stage)
    optimizer = build_optimizer(stage, name)
    if optimizer is not None:
        optimizer.step()
    return stage, optimizer


@pytest.mark.parametrize(("precision", "name"), BYTES_PER_WEIGHT)
def test_static_bytes_are_those_of_the_real_allocator(precision, name):
    work, kept = workload(precision, name), []
    real = CpuDevice(1).memory(lambda: kept.append(held(build_stage(work, 0, 1, CPU), name))).end
    on_paper = static_bytes(build_stage(work, 0, 1, META), name)
    weights = sum(weight.numel() for weight in kept[0][0].parameters())
    assert on_paper == BYTES_PER_WEIGHT[precision, name] * weights
    assert real == pytest.approx(on_paper, rel=0.01)  # AdamW counts the steps of every weight, in four bytes each


def test_batch_normalisation_keeps_its_weights_and_statistics_in_fp32():
    stage = build_stage(workload("bf16", "adamw", norm="batch"), 0, 1, META)
    low, full = (
        sum(weight.numel() for weight in stage.parameters() if (weight.dtype == torch.float32) is is_full)
        for is_full in (False, True)
    )
    assert full > 0
    assert static_bytes(stage, "adamw") == 18 * low + 16 * full + sum(buffer.nbytes for buffer in stage.buffers())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_changes_nothing_but_weights_and_takes_no_memory(precision, name):
    """An optimizer made of a series of kernels would hold as much as all weights while it runs."""
    stage, optimizer = held(build_stage(workload(precision, name), 0, 1, CPU), name)
    for weight in stage.parameters():
        weight.grad.fill_(0.5)
    before = [weight.detach().clone() for weight in stage.parameters()]
    used = CpuDevice(1).memory(optimizer.step)
    assert used.end == 0
    assert used.peak < 1024
    assert all(torch.equal(weight.grad, torch.full_like(weight.grad, 0.5)) for weight in stage.parameters())
    assert not all(torch.equal(old, weight) for old, weight in zip(before, stage.parameters(), strict=True))


def test_changes_too_small_for_the_weights_are_not_lost():
    """A bf16 number near 1 has a neighbour at 1 - 2^-8: steps of 1e-3 show after two of them."""
    stage = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        stage.weight.fill_(1.0)
    hold_gradients(stage)
    optimizer = MasterWeights(stage, "sgd")
    stage.weight.grad.fill_(1.0)
    seen = []
    for _ in range(4):
        optimizer.step()
        seen.append(stage.weight.item())
    assert seen == [1.0, 1 - 2**-8, 1 - 2**-8, 1 - 2**-8]
    assert optimizer.masters[0].item() == pytest.approx(0.996)


def test_weights_that_were_set_anew_are_taken_over():
    stage = torch.nn.Linear(4, 4).to(torch.bfloat16)
    hold_gradients(stage)
    optimizer = MasterWeights(stage, "sgd")
    with torch.no_grad():
        stage.weight.fill_(3.0)
    optimizer.restart()
    optimizer.step()
    assert (stage.weight == 3.0).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_of_micro_batches_are_added_up_in_fp32(precision):
    """256 + 1 is 256 in bf16, and 2048 + 1 is 2048 in fp16: sums there would stop growing."""
    stage = torch.nn.Linear(1, 1, bias=False).to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    hold_gradients(stage)
    stage.weight.grad.fill_(4096.0)
    place = stage.weight.grad.data_ptr()
    for _ in range(3):
        stage(torch.ones(1, 1, dtype=stage.weight.dtype)).sum().backward()
    assert stage.weight.grad.item() == 4099.0
    assert stage.weight.grad.data_ptr() == place
