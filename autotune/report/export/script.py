"""A training loop in plain torch that runs a plan: what autotune measured, to put one's own model into."""

from string import Template

from autotune.records.job.workload import GPT, GPT_SIZES, NEEDED
from autotune.report.export.plan import Plan
from autotune.schedule_spec import SCHEDULES

TEMPLATE = Template(
    '''"""$plan: a pipeline-parallel training loop as autotune measured it.

torchrun --standalone --nproc-per-node $stages pipeline.py

The model is the GPT that autotune builds, and the data is random: put your own into main().
"""

import os
import time
from statistics import median

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, get_schedule_class

from autotune.config import WorkloadConfig
from autotune.records.job.recompute import Recompute
from autotune.workload.gpt import SequenceLoss, build_stage, random_batch
from autotune.workload.optimizer import build_optimizer, hold_gradients
from autotune.workload.partition import stage_ranks

SCHEDULE = "$schedule"
MICRO_BATCHES, MICRO_BATCH_SIZE = $micro_batches, $micro_batch_size
VIRTUAL_STAGES, IS_V_SHAPED = $virtual_stages, $v_shaped
SPLIT = $split  # layers of each stage; None: as even as possible
RECOMPUTE = $recompute  # of each stage; None: nothing
SEQUENCES = MICRO_BATCHES * MICRO_BATCH_SIZE
STEPS = 8
WORKLOAD = WorkloadConfig(
$workload
)


def main() -> None:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert ranks == $stages, "torchrun --nproc-per-node $stages"
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl")
    else:
        device = torch.device("cpu")
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
        dist.init_process_group("gloo")

    count = ranks * VIRTUAL_STAGES
    mine = [stage for stage, owner in enumerate(stage_ranks(ranks, VIRTUAL_STAGES, IS_V_SHAPED)) if owner == rank]
    modules = torch.nn.ModuleList(build_stage(WORKLOAD, stage, count, device, SPLIT, RECOMPUTE) for stage in mine)
    stages = [PipelineStage(module, stage, count, device) for module, stage in zip(modules, mine, strict=True)]
    loss = SequenceLoss(WORKLOAD, SEQUENCES)
    schedule_class = get_schedule_class(SCHEDULE)
    schedule = schedule_class(
        stages if issubclass(schedule_class, PipelineScheduleMulti) else stages[0],
        n_microbatches=MICRO_BATCHES,
        loss_fn=loss,
        scale_grads=False,  # the loss is a mean over the whole batch already
    )
    hold_gradients(modules)
    optimizer = build_optimizer(modules, WORKLOAD.optimizer)

    seconds = []
    for _ in range(STEPS):
        ids, targets = random_batch(WORKLOAD, SEQUENCES, 0, device)
        dist.barrier()
        begun = time.perf_counter()
        modules.zero_grad(set_to_none=False)
        losses: list[torch.Tensor] = []
        schedule.step(
            *((ids,) if 0 in mine else ()),
            target=targets if count - 1 in mine else None,
            losses=losses,
            return_outputs=False,
        )
        if loss.scale != 1.0:  # of fp16
            for weight in modules.parameters():
                if weight.grad is not None:
                    weight.grad /= loss.scale
        if optimizer is not None:
            optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        dist.barrier()
        seconds.append(time.perf_counter() - begun)
    if count - 1 in mine:  # the first steps prime torch
        last = torch.stack(losses).sum().item() / loss.scale
        print(f"loss {last:.3f}, {SEQUENCES / median(seconds[2:]):.1f} sequences/s")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
'''
)


def torch_script(plan: Plan) -> str:
    """Return the script; the workload must be a complete one."""
    given = {name: getattr(plan.workload, name) for name in GPT_SIZES}
    known = {name: value for name, value in given.items() if value is not None}
    return TEMPLATE.substitute(
        plan=plan,
        stages=plan.stages,
        schedule=plan.schedule,
        micro_batches=plan.micro_batches,
        micro_batch_size=plan.micro_batch_size,
        virtual_stages=plan.virtual_stages,
        split=plan.split,
        recompute=f"[Recompute(mode) for mode in {list(map(str, plan.recompute))}]" if plan.recompute else None,
        v_shaped=SCHEDULES[plan.schedule].placement == "v",
        workload="\n".join(f"    {name}={value!r}," for name, value in known.items()),
    )


def torch_limit(plan: Plan) -> str | None:
    """Return why not: the script runs one replica of a model that autotune can build."""
    if plan.data_parallel > 1:
        return "runs one replica; wrap the stages in DDP or FSDP yourself, and leave out --data-parallel"
    if plan.workload.model not in (None, GPT):
        return (
            f"builds the built-in GPT, and the report is of {plan.workload.model}; export to shell, and use the values"
        )
    missing = [name for name in NEEDED if getattr(plan.workload, name) is None]
    return f"builds the model, of which the report does not know {', '.join(missing)}" if missing else None
