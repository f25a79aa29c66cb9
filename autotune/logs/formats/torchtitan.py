"""torchtitan.

::

    [rank0]:[titan] 2026-08-21 21:30:21,123 - root - INFO - step:  3  loss:  8.11210  grad_norm:  1.2345  memory:
    2.66GiB(2.80%)  tps: 175,100  tflops: 12.59  mfu: 1.27%

``tps`` counts tokens per second of one device over the whole interval; ``memory`` is what the allocator of this rank
took from its device.
"""

import re

from autotune.logs.formats.spec import LogFormat, Role
from autotune.logs.line import ArgumentLine, MemoryLine, StepLine
from autotune.logs.text import NUMBER, clock, finite, is_broken, number

STEP = re.compile(
    rf"step:\s*(\d+)\s+loss:\s*({NUMBER})\s+(?:grad_norm:\s*({NUMBER})\s+)?memory:\s*([\d.]+)GiB\(([\d.]+)%\)\s+"
    r"tps:\s*([\d,]+)"
)
KEY = re.compile(
    r"\b((?:training|parallelism)\.\w+|(?:local|global)_batch_size|seq_len|num_pp_microbatches|"
    r"pipeline_parallel_(?:degree|schedule|microbatch_size))['\"]?\s*[:=]\s*['\"]?([\w.]+)"
)
GIB = 2**30


def step(line: str) -> StepLine | None:
    """Return the step in a line of metrics."""
    match = STEP.search(line)
    if match is None:
        return None
    return StepLine(
        number=int(match[1]),
        loss=finite(match[2]),
        gradient_norm=finite(match[3]),
        is_broken=is_broken(match[2], match[3]),
        tokens_device_s=number(match[6]) or None,
        written_at=clock(line),
    )


def peak(line: str) -> MemoryLine | None:
    """Return the memory in a line of metrics."""
    match = STEP.search(line)
    return MemoryLine(reserved_bytes=round(float(match[4]) * GIB)) if match else None


def argument(line: str) -> ArgumentLine | None:
    """Return a key of the configuration."""
    match = KEY.search(line)
    return ArgumentLine(match[1].rpartition(".")[2], match[2]) if match else None


ARGUMENTS = {
    "pipeline_parallel_microbatch_size": Role.MICRO_BATCH_SIZE,
    "num_pp_microbatches": Role.MICRO_BATCHES,
    "local_batch_size": Role.REPLICA_BATCH,
    "global_batch_size": Role.GLOBAL_BATCH,
    "pipeline_parallel_degree": Role.STAGES,
    "pipeline_parallel_schedule": Role.SCHEDULE,
    "seq_len": Role.SEQ_LEN,
}
TORCHTITAN = LogFormat(
    "torchtitan",
    (step, peak, argument),
    ARGUMENTS,
    marks=("step:", "training.", "parallelism.", "batch_size", "seq_len", "num_pp_", "pipeline_parallel_"),
)
