"""A pipelined step is the same step: loss and gradients equal those of the model run in one piece on the whole batch.

Real ranks over gloo, driven through ``autotune.pipeline.rank.rank.RankProcess`` as the controller drives them.
"""

import os
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from autotune.config import ScheduleName
from autotune.pipeline.control.activity import ActivityWriter
from autotune.pipeline.control.commands import Build, Prepare, Step
from autotune.pipeline.control.diagnose import activity_file
from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.process_group import Team
from autotune.pipeline.rank.rank import RankProcess
from autotune.predict.predict import illegal_mode
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import Precision, WorkloadConfig
from autotune.records.prediction import Candidate
from autotune.schedule_spec import SCHEDULES, why_illegal
from autotune.torch_range import HAS_GRADIENT_TYPES, RUNS_LISTS, refusal, release_of
from autotune.workload.gpt import SequenceLoss, build_stage, random_batch
from autotune.workload.optimizer import build_optimizer
from tests.pipeline.together import run_together

CPU = torch.device("cpu")
RELEASE = release_of(torch.__version__)  # make test-torch runs this under old ones
BATCH = 12
STEPS = 2  # of the optimizer: Prepare runs the first
COUNTS = (1, 3, 5, 8, 12)  # 5 and 8 do not divide 12: their last micro-batches are padded
VIRTUAL_STAGES: dict[ScheduleName, tuple[int, ...]] = {
    "GPipe": (1,),
    "1F1B": (1,),
    "LoopedBFS": (2,),
    "Interleaved1F1B": (2, 3),
    "InterleavedZeroBubble": (2,),
    "ZBVZeroBubble": (2,),
    "DualPipeV": (2,),
}
TRAINED = [("1F1B", 5, 1), ("InterleavedZeroBubble", 8, 2), ("ZBVZeroBubble", 5, 2)]
"""What is trained with, each with padding: schedule, micro-batches, stages per rank."""
LOW: dict[Precision, float] = {"bf16": 8e-3, "fp16": 1e-3}
"""Lower precisions, and how far rounding takes the gradients of many micro-batches from those of one, of their norm."""
ASCENDING = ("GPipe", "1F1B", "Interleaved1F1B")
"""Schedules whose stages, one to a rank or several, run the backwards in the order of the micro-batches."""

Found = dict[int, list[torch.Tensor]]
"""One tensor per parameter, by the index of the stage."""


def workload(ranks: int, optimizer: str = "none", precision: Precision = "fp32") -> WorkloadConfig:
    """As many layers as the most stages need."""
    sizes = {"layers": 3 * ranks, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": BATCH}
    return WorkloadConfig(stages=ranks, precision=precision, optimizer=optimizer, **sizes)


def plan_of(name: str, count: int, virtual_stages: int) -> Prepare:
    size = -(-BATCH // count)
    return Prepare(
        schedule=name, micro_batches=count, micro_batch_size=size, sequences=BATCH, virtual_stages=virtual_stages
    )


def modes(plan: Prepare) -> list[Recompute]:
    """The ways in which stages may recompute under the plan's schedule."""
    return [mode for mode in reversed(Recompute) if illegal_mode(plan.schedule, mode) is None]


def uneven(ranks: int, virtual_stages: int) -> tuple[int, ...]:
    """A cut in which the last stage but one holds all that can be spared, and the first a layer more."""
    counts = [1] * (ranks * virtual_stages)
    counts[0] += 1
    counts[len(counts) // 2] += 3 * ranks - sum(counts)
    return tuple(counts)


def trained(ranks: int) -> list[tuple[ScheduleName, int, int]]:
    """Those of TRAINED that this torch runs."""
    return [way for way in TRAINED if runs_here(plan_of(*way), ranks)]


def plans(ranks: int) -> list[Prepare]:
    """Every schedule and count that torch runs on ``ranks`` ranks, and each schedule once with an uneven cut of which
    each stage recomputes in another way; those of the same placement together."""
    even = even_plans(ranks)
    several = [plan for plan in even if plan.micro_batches == 12 and ranks * plan.virtual_stages < 3 * ranks]
    cut = [
        replace(
            plan,
            split=uneven(ranks, plan.virtual_stages),
            recompute=tuple(islice(cycle(modes(plan)), ranks * plan.virtual_stages)),
        )
        for plan in several
    ]
    return sorted(even + cut, key=lambda plan: (plan.virtual_stages, plan.placement.v_shaped, plan.split is not None))


def even_plans(ranks: int) -> list[Prepare]:
    """Every schedule and count that torch runs on ``ranks`` ranks."""
    return [
        plan_of(name, count, v)
        for name, several in VIRTUAL_STAGES.items()
        for v in several
        for count in COUNTS
        if why_illegal(name, ranks, v, count) is None and runs_here(plan_of(name, count, v), ranks)
    ]


def runs_here(plan: Prepare, ranks: int) -> bool:
    """Whether the torch of this environment, which may be an old one, runs it."""
    known = {name: getattr(plan, name) for name in Candidate.model_fields}
    return refusal(RELEASE, Candidate(**known), ranks) is None


def run_rank(number: int, ranks: int, folder: str) -> None:
    """Runs every plan on one rank and leaves what came of it in ``folder``."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    device = CpuDevice(ranks)
    torch.set_num_threads(1)  # threads that wait for each other at tiny sizes only cost time on a busy host
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=ranks)
    rank = RankProcess(number, Team(ranks, number), device, ActivityWriter(activity_file(Path(folder), number)))
    found = {"gradients": gradients(rank, workload(ranks), plans(ranks))}
    for precision in LOW if RELEASE >= HAS_GRADIENT_TYPES else ():
        found[precision] = gradients(rank, workload(ranks, precision=precision), low_plans(precision, ranks))
    for optimizer in ("sgd", "adamw"):
        found[optimizer] = [weights_after(rank, workload(ranks, optimizer), plan_of(*way)) for way in trained(ranks)]
    torch.save(found, Path(folder, f"rank{number}.pt"))
    os._exit(0)


def low_plans(precision: str, ranks: int) -> list[Prepare]:
    """Every schedule and cut once, all with the same micro-batches; in fp16 only those of one order."""
    names = VIRTUAL_STAGES if precision == "bf16" else ASCENDING
    return [plan for plan in plans(ranks) if plan.micro_batches == 12 and plan.schedule in names]


def gradients(
    rank: RankProcess, work: WorkloadConfig, several: list[Prepare]
) -> list[tuple[dict, float | None, Found]]:
    """Of one step of every plan: what the first step is told to be, the second one's loss and gradients; of the stages
    that this rank holds."""
    found = []
    for plan in several:
        if (rank.workload, rank.placement) != (work, plan.placement):
            rank.execute(Build(workload=work, placement=plan.placement))
        primed = asdict(rank.execute(plan))
        loss = rank.execute(Step()).loss
        found.append((primed, loss, each_parameter(rank, lambda parameter: parameter.grad.clone())))
    return found


def weights_after(rank: RankProcess, work: WorkloadConfig, plan: Prepare) -> Found:
    """The weights after STEPS steps."""
    rank.execute(Build(workload=work, placement=plan.placement))
    rank.execute(plan)
    for _ in range(STEPS - 1):
        rank.execute(Step())
    return each_parameter(rank, lambda parameter: parameter.detach().clone())


def each_parameter(rank: RankProcess, take) -> Found:
    return {index: [take(parameter) for parameter in stage.parameters()] for index, stage in rank.held.items()}


def in_order(parts: list[Found]) -> list[torch.Tensor]:
    """What the ranks found of their stages, put together as in the model; no stage is missing or there twice."""
    assert sorted(index for part in parts for index in part) == list(range(sum(map(len, parts))))
    whole = {index: tensors for part in parts for index, tensors in part.items()}
    return [tensor for index in sorted(whole) for tensor in whole[index]]


def in_one_piece(work: WorkloadConfig, micro_batches: int = 1) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of the whole model on the whole batch, without any pipeline."""
    model = build_stage(work, 0, 1, CPU)
    loss, total = SequenceLoss(work, BATCH), 0.0
    for part in zip(*(both.chunk(micro_batches) for both in random_batch(work, BATCH, 0, CPU)), strict=True):
        share = loss(model(part[0]), part[1])
        share.backward()
        total += share.item()
    return total / loss.scale, [parameter.grad / loss.scale for parameter in model.parameters()]


@pytest.fixture(
    scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def found(request, tmp_path_factory):
    """What each rank found; one set of processes per number of ranks."""
    ranks, folder = request.param, tmp_path_factory.mktemp("ranks")
    return run_together(run_rank, ranks, folder, 240, ranks)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", [name for name, row in SCHEDULES.items() if row.since <= RELEASE])
def test_every_schedule_is_tried_with_and_without_padding(name, ranks):
    if ranks == 1 and SCHEDULES[name].runtime == "lowered" and RELEASE < RUNS_LISTS:
        pytest.skip("this torch does not run it on one rank")
    assert {BATCH % plan.micro_batches > 0 for plan in plans(ranks) if plan.schedule == name} == {True, False}


def test_a_pipelined_step_equals_the_model_in_one_piece(found):
    ranks = len(found)
    loss, expected = in_one_piece(workload(ranks))
    for number, plan in enumerate(plans(ranks)):
        told = f"{plan.schedule}, m = {plan.micro_batches}, {ranks} ranks of {plan.virtual_stages} stages"
        _, losses, parts = zip(*(rank["gradients"][number] for rank in found), strict=True)
        # Only the rank with the last stage knows the loss: rank 0 where the stages lie in a V.
        holds_last = [max(part) == ranks * plan.virtual_stages - 1 for part in parts]
        assert [value is not None for value in losses] == holds_last, told
        assert losses[holds_last.index(True)] == pytest.approx(loss, rel=1e-5), told
        for part, whole in zip(in_order(parts), expected, strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-6, msg=lambda text, told=told: f"{told}: {text}")


def test_every_first_step_is_told_with_the_loss_and_gradient_norm_of_the_model_in_one_piece(found):
    ranks = len(found)
    loss, gradients = in_one_piece(workload(ranks))
    norm = torch.linalg.vector_norm(torch.cat([part.flatten() for part in gradients])).item()
    off = []
    for number, plan in enumerate(plans(ranks)):
        primed = [rank["gradients"][number][0] for rank in found]
        (told,) = [one["loss"] for one in primed if one["loss"] is not None]
        total = sum(one["gradient_square_sum"] for one in primed) ** 0.5
        off.append((told / loss - 1, total / norm - 1, plan.schedule, plan.micro_batches))
    assert max(abs(one[0]) for one in off) < 1e-6, off
    assert max(abs(one[1]) for one in off) < 1e-6, off


def norm_of(tensors: list[torch.Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


@pytest.fixture
def one_thread():
    """As on the ranks: in lower precision torch rounds the sums of each thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.skipif(RELEASE < HAS_GRADIENT_TYPES, reason="needs torch 2.10")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("precision", LOW)
def test_in_lower_precision_the_gradients_are_those_of_the_model_in_one_piece_however_it_is_cut(found, precision):
    """To the last bit, unless a schedule adds the micro-batches up in another order, in fp32."""
    work = workload(len(found), precision=precision)
    loss, whole = in_one_piece(work, 12)
    of_batch, whole_batch = in_one_piece(work)
    apart = norm_of([a - b for a, b in zip(whole, whole_batch, strict=True)]) / norm_of(whole_batch)
    assert 1e-6 < apart < LOW[precision]  # the lower precision is really there
    assert loss == pytest.approx(of_batch, rel=LOW[precision])
    for number, plan in enumerate(low_plans(precision, len(found))):
        told = f"{plan.schedule}, {plan.virtual_stages} stages per rank"
        _, losses, parts = zip(*(rank[precision][number] for rank in found), strict=True)
        assert [value for value in losses if value is not None] == [pytest.approx(loss, rel=1e-6)], told
        mine, most = in_order(parts), 0.0 if plan.schedule in ASCENDING else 1e-6
        assert all(norm_of([a - b]) <= most * norm_of([b]) for a, b in zip(mine, whole, strict=True)), told


def place_of(way: tuple[ScheduleName, int, int], ranks: int) -> int:
    """Where it is among those that ran; skips the test where this torch does not run it."""
    if way not in trained(ranks):
        pytest.skip("this torch does not run it")
    return trained(ranks).index(way)


@pytest.mark.parametrize("way", TRAINED, ids=lambda way: way[0])
def test_pipelined_training_reaches_the_weights_of_the_model_in_one_piece(found, way):
    work = workload(len(found))
    model = build_stage(work, 0, 1, CPU)
    optimizer = build_optimizer(model, "sgd")
    ids, targets = random_batch(work, BATCH, 0, CPU)
    for _ in range(STEPS):
        model.zero_grad()
        SequenceLoss(work, BATCH)(model(ids), targets).backward()
        optimizer.step()
    mine = in_order([rank["sgd"][place_of(way, len(found))] for rank in found])
    for part, whole in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(part, whole.detach(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("way", TRAINED, ids=lambda way: way[0])
def test_adamw_moves_every_weight_by_about_its_learning_rate(found, way):
    start = build_stage(workload(len(found)), 0, 1, CPU).parameters()
    mine = in_order([rank["adamw"][place_of(way, len(found))] for rank in found])
    for weight, before in zip(mine, start, strict=True):
        moved = (weight - before.detach()).abs().max()
        assert 0.5e-4 < moved < 1.1e-4 * STEPS
