"""Replicas of a pipeline: their gradients are those of one replica on the whole batch, under every schedule, whether
torch's DDP reduces them in a backward or ranks do after it, and in lower precision too."""

import os
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from autotune.config import ScheduleName
from autotune.pipeline.control.activity import ActivityWriter
from autotune.pipeline.control.commands import Build, Prepare, Step
from autotune.pipeline.control.diagnose import activity_file
from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.process_group import team_of
from autotune.pipeline.rank.rank import RankProcess
from autotune.records.job.workload import WorkloadConfig
from autotune.schedule_spec import SCHEDULE_NAMES, SCHEDULES, why_illegal
from autotune.workload.gpt import SequenceLoss, build_stage, random_batch
from autotune.workload.optimizer import hold_gradients
from tests.pipeline.together import run_together

P, REPLICAS, BATCH, STEPS = 2, 2, 6, 3
CPU = torch.device("cpu")
WORK = WorkloadConfig(
    layers=4,
    stages=P,
    hidden=16,
    heads=2,
    seq_len=8,
    vocab=32,
    batch=BATCH,
    precision="fp32",
    optimizer="sgd",
    data_parallel=REPLICAS,
)


def plan_of(name: ScheduleName, count: int) -> Prepare:
    """5 does not divide the batch: its last micro-batch is padded."""
    v = 1 if SCHEDULES[name].has_one_stage else 2
    return Prepare(
        schedule=name, micro_batches=count, micro_batch_size=-(-BATCH // count), sequences=BATCH, virtual_stages=v
    )


PLANS = [
    plan
    for plan in (plan_of(name, count) for name in SCHEDULE_NAMES for count in (2, 4, 5))
    if why_illegal(plan.schedule, P, plan.virtual_stages, plan.micro_batches) is None
]
# Every step takes other weights, so what torch does once, in the first, shows.
LOW = replace(WORK, precision="bf16", optimizer="none")
LOW_PLAN = Prepare(schedule="1F1B", micro_batches=3, micro_batch_size=2, sequences=BATCH, virtual_stages=1)


def run_rank(number: int, folder: str) -> None:
    """Run every plan on one rank; leave its weights, the gradients of the last step and what was told in ``folder``."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    ranks, device = P * REPLICAS, CpuDevice(P * REPLICAS)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=ranks)
    team = team_of(number, ranks, REPLICAS, timedelta(seconds=60))
    rank = RankProcess(number, team, device, ActivityWriter(activity_file(Path(folder), number)))
    found = []
    for plan in PLANS:
        if rank.placement != plan.placement:
            rank.execute(Build(workload=WORK, placement=plan.placement))
        primed = asdict(rank.execute(plan))
        losses = [rank.execute(Step()).loss for _ in range(STEPS - 1)]
        kept = {
            index: ([p.grad.clone() for p in stage.parameters()], [p.detach().clone() for p in stage.parameters()])
            for index, stage in rank.held.items()
        }
        found.append((primed, losses[-1], kept))
    rank.execute(Build(workload=LOW, placement=LOW_PLAN.placement))
    rank.execute(LOW_PLAN)
    low = {index: [p.grad.clone() for p in stage.parameters()] for index, stage in rank.held.items()}
    torch.save((found, low), Path(folder, f"rank{number}.pt"))
    os._exit(0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank found."""
    return run_together(run_rank, P * REPLICAS, tmp_path_factory.mktemp("replicas"), 120)


@pytest.fixture(scope="module")
def expected():
    """First and last loss, gradient norm of the first step, gradients and weights of the last, of one model on the
    batches of all replicas."""
    model: nn.Module = build_stage(WORK, 0, 1, CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    parts = [random_batch(WORK, BATCH, 0, CPU, replica) for replica in range(REPLICAS)]
    ids, targets = (torch.cat(both) for both in zip(*parts, strict=True))
    loss, losses, norms = SequenceLoss(WORK, REPLICAS * BATCH), [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss(model(ids), targets)
        value.backward()
        losses.append(value.item())
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        optimizer.step()
    return losses, norms[0], [p.grad for p in model.parameters()], [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("number", range(len(PLANS)), ids=lambda at: f"{PLANS[at].schedule}-{PLANS[at].micro_batches}")
def test_gradients_and_weights_are_those_of_one_replica_on_the_whole_batch(number, found, expected):
    losses, norm, gradients, weights = expected
    for replica in range(REPLICAS):
        of_replica = [every[number] for every, _ in found[replica * P : replica * P + P]]
        stages = {index: kept for _, _, part in of_replica for index, kept in part.items()}
        for of_kind, whole in ((0, gradients), (1, weights)):
            ours = [tensor for index in sorted(stages) for tensor in stages[index][of_kind]]
            for part, one in zip(ours, whole, strict=True):
                torch.testing.assert_close(part, one, rtol=1e-4, atol=1e-6)
        assert sum(told["gradient_square_sum"] for told, _, _ in of_replica) ** 0.5 == pytest.approx(norm, rel=1e-5)
    for told, wanted in ((0, losses[0]), (1, losses[-1])):
        every = [plans[number][0]["loss"] if told == 0 else plans[number][1] for plans, _ in found]
        of_replicas = [value for value in every if value is not None]
        assert len(of_replicas) == REPLICAS
        assert of_replicas[0] != of_replicas[1], "replicas have batches of their own"
        assert sum(of_replicas) / REPLICAS == pytest.approx(wanted, rel=1e-5)


def test_gradients_in_lower_precision_are_the_mean_of_the_replicas(found):
    """Summed in fp32, as within a replica: they are off by the rounding of one micro-batch and no more."""
    whole: list[torch.Tensor] = []
    for replica in range(REPLICAS):
        model = build_stage(LOW, 0, 1, CPU)
        hold_gradients(model)
        ids, targets = random_batch(LOW, BATCH, 0, CPU, replica)
        loss = SequenceLoss(LOW, BATCH)
        for part, wanted in zip(ids.split(2), targets.split(2), strict=True):
            loss(model(part), wanted).backward()
        mine = [p.grad / REPLICAS for p in model.parameters()]
        whole = [one + other for one, other in zip(whole, mine, strict=True)] if whole else mine
    for replica in range(REPLICAS):
        stages = {index: kept for _, low in found[replica * P : replica * P + P] for index, kept in low.items()}
        ours = [tensor for index in sorted(stages) for tensor in stages[index]]
        assert all(tensor.dtype == torch.float32 for tensor in ours)
        off = torch.cat([(a - b).flatten() for a, b in zip(ours, whole, strict=True)]).norm()
        assert off < 1e-3 * torch.cat([part.flatten() for part in whole]).norm()
