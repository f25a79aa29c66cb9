"""The built-in GPT: the same model however it is cut, a loss that padding does not change."""

import pytest
import torch

from autotune.config import Workload
from autotune.workload.gpt import SequenceLoss, boundary_type, build_stage, has_batch_statistics, random_batch
from autotune.workload.partition import layers_per_stage

CPU = torch.device("cpu")
SIZES = {"layers": 5, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": 4}


def workload(**more):
    return Workload(**{"stages": 1, "precision": "fp32", "optimizer": "none", **SIZES, **more})


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (48, 4, (12, 12, 12, 12)),
        (50, 4, (12, 13, 13, 12)),
        (51, 4, (13, 13, 13, 12)),
        (48, 5, (9, 10, 10, 10, 9)),
        (3, 2, (2, 1)),
        (7, 1, (7,)),
    ],
)
def test_the_remainder_goes_to_stages_that_neither_embed_nor_compute_the_loss(layers, stages, expected):
    assert layers_per_stage(layers, stages) == expected


def test_every_cut_is_whole_and_even():
    for layers in range(1, 40):
        for stages in range(1, layers + 1):
            counts = layers_per_stage(layers, stages)
            assert sum(counts) == layers
            assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("stages", [2, 3, 5])
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


def test_building_on_meta_allocates_nothing():
    stage = build_stage(workload(), 0, 1, torch.device("meta"))
    assert all(parameter.is_meta for parameter in stage.parameters())


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
