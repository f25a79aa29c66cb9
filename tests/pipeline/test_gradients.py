"""A pipelined step is the same step: loss and gradients equal those of the model run in one piece on the whole batch.

Real ranks over gloo, driven through ``autotune.pipeline.worker.Rank`` as the controller drives them.
"""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from autotune.config import Workload
from autotune.pipeline.commands import Build, Prepare, Step
from autotune.pipeline.device import CpuDevice
from autotune.pipeline.worker import Rank
from autotune.workload.gpt import SequenceLoss, build_stage, random_batch

BATCH = 12
COUNTS = (1, 2, 3, 4, 5, 6, 8, 12)  # 5 and 8 do not divide 12: their last micro-batches are padded


def workload(stages: int, optimizer: str = "none") -> Workload:
    sizes = {"layers": 6, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": BATCH}
    return Workload(stages=stages, precision="fp32", optimizer=optimizer, **sizes)


def plans(stages: int) -> list[Prepare]:
    """Every schedule and count that torch runs on ``stages`` ranks."""
    return [
        Prepare(schedule=name, micro_batches=m, micro_batch_size=-(-BATCH // m), sequences=BATCH)
        for name in ("GPipe", "1F1B")
        for m in COUNTS
        if name == "GPipe" or m >= stages
    ]


def run_rank(number: int, stages: int, folder: str) -> None:
    """Runs every plan on one rank and leaves its gradients and loss in ``folder``."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    device = CpuDevice(stages)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=stages)
    rank = Rank(number, stages, device)
    rank.obey(Build(workload=workload(stages)))
    found = []
    for plan in plans(stages):
        rank.obey(plan)
        times = rank.obey(Step())
        gradients = [parameter.grad.clone() for parameter in rank.stage.parameters()]
        found.append((times.loss, gradients))
    torch.save(found, Path(folder, f"rank{number}.pt"))
    os._exit(0)


def in_one_piece() -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of the whole model on the whole batch, without any pipeline."""
    work = workload(1)
    model = build_stage(work, 0, 1, torch.device("cpu"))
    ids, targets = random_batch(work, BATCH, 0, torch.device("cpu"))
    loss = SequenceLoss(work, BATCH)(model(ids), targets)
    loss.backward()
    return loss.item(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_pipelined_step_equals_the_model_in_one_piece(stages, tmp_path):
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=run_rank, args=(number, stages, str(tmp_path))) for number in range(stages)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
        assert rank.exitcode == 0
    found = [torch.load(tmp_path / f"rank{number}.pt") for number in range(stages)]
    loss, expected = in_one_piece()
    for index, plan in enumerate(plans(stages)):
        told = f"{plan.schedule}, m = {plan.micro_batches}, {stages} ranks"
        assert found[-1][index][0] == pytest.approx(loss, rel=1e-5), told
        gradients = [gradient for rank in found for gradient in rank[index][1]]
        assert len(gradients) == len(expected)
        for mine, whole in zip(gradients, expected, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6, msg=lambda text, told=told: f"{told}: {text}")
