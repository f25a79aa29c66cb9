"""The built-in GPT: the same model however it is cut, a loss that padding does not change."""

import pytest
import torch

from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.probe import has_batch_statistics
from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import (
    IGNORED,
    Gpt,
    SequenceLoss,
    boundary_type,
    build_stage,
    random_batch,
)
from autotune.workload.partition import layers_of_stage

CPU = torch.device("cpu")
SIZES = {"layers": 5, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": 4}


def workload(**more):
    return WorkloadConfig(**{"stages": 1, "precision": "fp32", "optimizer": "none", **SIZES, **more})


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_the_same_model_comes_out_however_it_is_cut(stages):
    whole = build_stage(workload(), 0, 1, CPU)
    parts = [build_stage(workload(), index, stages, CPU) for index in range(stages)]
    cut = [parameter for part in parts for parameter in part.parameters()]
    for mine, theirs in zip(cut, whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    ids, _ = random_batch(workload(), 4, 0, CPU)
    out = ids
    for part in parts:
        out = part(out)
    assert torch.equal(out, whole(ids))
    assert out.shape == (4, 8, 32)


def test_another_seed_is_another_model():
    first, second = (next(build_stage(workload(seed=seed), 0, 1, CPU).parameters()) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("index", [0, 1])
def test_reseeding_takes_a_stage_back_in_place(norm, index):
    work = workload(norm=norm)
    stage, fresh = (build_stage(work, index, 2, CPU) for _ in range(2))
    places = [tensor.data_ptr() for tensor in stage.state_dict().values()]
    for tensor in stage.state_dict().values():
        tensor.add_(1)
    before = torch.get_rng_state()
    Gpt(work).reset_stage(stage, layers_of_stage(work.layers, 2, index))
    assert torch.equal(torch.get_rng_state(), before)
    for mine, theirs in zip(stage.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert [tensor.data_ptr() for tensor in stage.state_dict().values()] == places


def test_reseeding_holds_one_part_at_a_time():
    work = workload(layers=12, hidden=64)
    stage = build_stage(work, 0, 1, CPU)
    part = max(sum(p.nbytes for p in part.parameters()) for part in stage)
    used = CpuDevice(1).memory(lambda: Gpt(work).reset_stage(stage, range(work.layers)))
    assert used.end == 0
    assert used.peak < 2 * part + 16 * 2**10  # a part's place is taken by the next one's before its own is given back


def test_building_leaves_the_callers_random_numbers_alone():
    before = torch.get_rng_state()
    build_stage(workload(), 0, 1, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_on_meta_allocates_nothing():
    large = workload(layers=48, hidden=4096, heads=32, seq_len=2048, vocab=50304)
    stages = []
    used = CpuDevice(1).memory(lambda: stages.append(build_stage(large, 0, 1, torch.device("meta"))))
    assert sum(parameter.numel() for parameter in stages[0].parameters()) > 10e9
    assert used.end == 0
    assert used.peak < 16 * 2**10  # the state of the random generator, while it is put aside


def test_a_batch_is_the_same_each_time_and_padding_only_adds_rows():
    ids, targets = random_batch(workload(), 4, 0, CPU)
    again, padded = random_batch(workload(), 4, 0, CPU), random_batch(workload(), 4, 3, CPU)
    assert torch.equal(ids, again[0]) and torch.equal(targets, again[1])
    assert torch.equal(ids, padded[0][:4]) and torch.equal(targets, padded[1][:4])
    assert (padded[1][4:] == IGNORED).all()
    assert not torch.equal(ids, random_batch(workload(seed=1), 4, 0, CPU)[0])


def test_the_targets_are_the_next_tokens():
    ids, targets = random_batch(workload(), 4, 0, CPU)
    assert torch.equal(ids[:, 1:], targets[:, :-1])
    assert ids.min() >= 0 and ids.max() < 32


def test_padding_changes_neither_loss_nor_gradients():
    work = workload()
    model = build_stage(work, 0, 1, CPU)
    found = []
    for padding in (0, 3):
        ids, targets = random_batch(work, 4, padding, CPU)
        assert len(ids) == 4 + padding
        model.zero_grad()
        loss = SequenceLoss(work, 4)(model(ids), targets)
        loss.backward()
        found.append((loss.item(), [parameter.grad.clone() for parameter in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for plain, padded in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(plain, padded, rtol=1e-4, atol=1e-7)


def test_the_loss_is_the_mean_over_real_tokens():
    work = workload()
    logits = torch.randn(4, 8, 32, generator=torch.Generator().manual_seed(0))
    _, targets = random_batch(work, 4, 0, CPU)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(SequenceLoss(work, 4)(logits, targets), expected)


def test_losses_of_micro_batches_add_up_to_that_of_the_batch():
    work = workload()
    logits = torch.randn(6, 8, 32, generator=torch.Generator().manual_seed(0))
    _, targets = random_batch(work, 4, 2, CPU)  # 4 real sequences in micro-batches of 3: the second is mostly padding
    loss = SequenceLoss(work, 4)
    parts = [loss(*part) for part in zip(logits.split(3), targets.split(3), strict=True)]
    torch.testing.assert_close(sum(parts), loss(logits[:4], targets[:4]))


def test_the_future_is_masked():
    model = build_stage(workload(), 0, 1, CPU)
    ids, _ = random_batch(workload(), 1, 0, CPU)
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 32
    torch.testing.assert_close(model(ids)[:, :-1], model(changed)[:, :-1])


def test_batch_statistics_are_noticed():
    assert has_batch_statistics(build_stage(workload(norm="batch"), 0, 1, CPU))
    assert not has_batch_statistics(build_stage(workload(), 0, 1, CPU))


def test_what_crosses_a_boundary_has_the_precisions_type():
    assert boundary_type(workload()) == torch.float32
    assert boundary_type(workload(precision="bf16")) == torch.bfloat16
    assert boundary_type(workload(precision="fp16")) == torch.float16


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_stage_sends_and_computes_in_the_boundary_type_and_sums_gradients_in_fp32(precision, norm):
    """The first too: its residual would be in fp32 if only what it sends were cast."""
    work = workload(precision=precision, norm=norm)
    out = random_batch(work, 4, 0, CPU)[0]
    sent = []
    for index in range(2):
        stage = build_stage(work, index, 2, CPU)
        for part in stage:
            part.register_forward_hook(lambda _, __, output: sent.append(output.dtype))
        out = stage(out)
        for weight in stage.parameters():
            assert weight.dtype == boundary_type(work) or has_batch_statistics(stage)
    assert set(sent) == {boundary_type(work)} and len(sent) == 5 + 2
    SequenceLoss(work, 4)(out, random_batch(work, 4, 0, CPU)[1]).backward()
    assert {weight.grad.dtype for weight in stage.parameters()} == {torch.float32}


def test_batch_statistics_stay_in_fp32():
    stage = build_stage(workload(precision="bf16", norm="batch"), 1, 2, CPU)
    kept = [part for part in stage.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    assert kept and {tensor.dtype for part in kept for tensor in part.state_dict().values()} <= {
        torch.float32,
        torch.int64,
    }


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_model_in_lower_precision_is_the_model_in_fp32_rounded(precision):
    exact, low = (build_stage(workload(precision=name), 0, 1, CPU) for name in ("fp32", precision))
    for weight, rounded in zip(exact.parameters(), low.parameters(), strict=True):
        assert torch.equal(weight.to(rounded.dtype), rounded)
