"""Processes that run one function together, as the ranks of a test."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run_together(run_rank: Callable[..., None], ranks: int, folder: Path, limit_s: float, *arguments: Any) -> list[Any]:
    """What each of ``run_rank(number, *arguments, folder)`` left in ``folder`` as rank<number>.pt."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["autotune.pipeline.rank.rank"])
    processes = [context.Process(target=run_rank, args=(number, *arguments, str(folder))) for number in range(ranks)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(limit_s)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"rank{number}.pt") for number in range(ranks)]
