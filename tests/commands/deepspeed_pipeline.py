"""A training script on DeepSpeed's pipeline engine on CPU ranks, as somebody would run it; it reads a JSON file.

torchrun --standalone --nproc-per-node 2 deepspeed_pipeline.py ds_config.json
"""

import argparse
import itertools

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist

WIDTH, LAYERS = 256, 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # DeepSpeed would compile a shared-memory all-reduce for ranks on CPUs; without it, gloo carries everything.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed("gloo")
    layers = [torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU()) for _ in range(LAYERS)]
    module = deepspeed.PipelineModule(
        layers, num_stages=dist.get_world_size(), loss_fn=torch.nn.functional.mse_loss, partition_method="uniform"
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=given.config)
    rows = engine.train_micro_batch_size_per_gpu()
    batches = itertools.repeat((torch.randn(rows, 64, WIDTH), torch.randn(rows, 64, WIDTH)))
    for _ in range(given.steps):
        engine.train_batch(batches)


if __name__ == "__main__":
    main()
