"""A training script on torch's own pipelining, as somebody would run it under torchrun; it has a log of its own.

torchrun --standalone --nproc-per-node 2 pipelining.py --micro-batches 8 --batch 32 --steps 100
"""

import argparse
import time

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

WIDTH, LAYERS = 256, 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--micro-batches", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    layers = [torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU()) for _ in range(LAYERS)]
    stage = PipelineStage(torch.nn.Sequential(*layers), rank, ranks, torch.device("cpu"))
    kind = Schedule1F1B if given.micro_batches >= ranks else ScheduleGPipe
    schedule = kind(stage, given.micro_batches, loss_fn=torch.nn.functional.mse_loss)
    optimizer = torch.optim.AdamW(stage.submod.parameters(), lr=1e-4)
    inputs, targets = torch.randn(given.batch, 64, WIDTH), torch.randn(given.batch, 64, WIDTH)
    for step in range(1, given.steps + 1):
        begun, losses = time.perf_counter(), []
        optimizer.zero_grad()
        if rank == 0:
            schedule.step(inputs)
        elif rank == ranks - 1:
            schedule.step(target=targets, losses=losses)
        else:
            schedule.step()
        optimizer.step()
        if rank == ranks - 1:
            loss = float(torch.stack(losses).mean())
            print(f"[trainer] step {step} | loss {loss:.5f} | {1e3 * (time.perf_counter() - begun):.2f} ms", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
