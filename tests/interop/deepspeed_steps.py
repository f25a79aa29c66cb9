"""Two real steps of DeepSpeed's pipeline engine on CPU ranks, told by a config file: what test_deepspeed.py starts.

torchrun --nproc-per-node RANKS deepspeed_steps.py CONFIG STAGES WORKLOAD, where WORKLOAD is the report's, as JSON.
Each rank writes what it found into rank-N.json.
"""

import itertools
import json
import sys
from pathlib import Path

import deepspeed
import deepspeed.ops
import torch
from torch.nn import functional

from autotune.records.job.workload import WorkloadConfig
from autotune.workload.gpt import build_stage, random_batch

STEPS = 2


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main(config: str, stages: int, workload: WorkloadConfig) -> None:
    # DeepSpeed would compile a shared-memory all-reduce for ranks on CPUs; without it, gloo carries everything.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed("gloo")
    layers = list(build_stage(workload, 0, 1, torch.device("cpu")))
    module = deepspeed.PipelineModule(layers, num_stages=stages, loss_fn=loss_of, partition_method="uniform")
    optimizer = torch.optim.AdamW(module.parameters())
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)

    batch = random_batch(workload, engine.train_micro_batch_size_per_gpu(), 0, torch.device("cpu"))
    count = itertools.count()
    pulled = (batch for _ in count)
    losses = [engine.train_batch(pulled).item() for _ in range(STEPS)]
    facts = {
        "stage": engine.stage_id,
        "stages": engine.num_stages,
        "micro_batches": engine.micro_batches,
        "micro_batch_size": engine.micro_batch_size,
        "global_batch": engine.train_batch_size(),
        "data_parallel": engine.dp_world_size,
        "pulled": next(count),  # micro-batches that this rank took from its data; ranks between the ends take none
        "losses": losses,
    }
    Path(f"rank-{engine.global_rank}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), WorkloadConfig(**json.loads(sys.argv[3])))
