"""Megatron-LM and what prints alike: Megatron-Bridge, gpt-neox, Megatron-DeepSpeed.

::

     [2026-08-22 15:22:22.123456] iteration        3/     500 | consumed samples:          192 | elapsed time per
     iteration (ms): 1234.5 | ... | global batch size:    64 | lm loss: 1.084000E+01 | ... | grad norm: 2.345 |
     number of skipped iterations:   0 | number of nan iterations:   0 |
    [Rank 6] (after 2 iterations) memory (MB) | allocated: 12012.35 | max allocated: 15120.00 | reserved: ...
    [Rank 0] (after 2 iterations) memory (GB) | mem-allocated-gigabytes: .. | mem-max-allocated-gigabytes: 12.345 | ..
      micro_batch_size ................................ 4
"""

import re

from autotune.logs.formats.spec import LogFormat, Role, memory_line, picked
from autotune.logs.line import ArgumentLine, StepLine
from autotune.logs.text import NUMBER, clock, finite, half_width, is_broken

ITERATION = re.compile(r"\biteration\s+(\d+)/\s*\d+")
ELAPSED = re.compile(r"elapsed time per iteration \((ms|s)\):\s*([\d.]+)")
LOSS = re.compile(rf"\blm[ _]loss:\s*({NUMBER})", re.IGNORECASE)
NORM = re.compile(rf"\bgrad[ _]norm:\s*({NUMBER})", re.IGNORECASE)
BATCH = re.compile(r"global batch size:\s*(\d+)")
LOST = re.compile(r"number of (?:skipped|nan) iterations:\s*([1-9]\d*)")
ARGUMENT = re.compile(r"^\s*([a-z]\w+) \.{2,} ?(.*?)\s*$")
MEMORY_MIB = re.compile(
    r"\[Rank (?P<rank>\d+)\].*max allocated: (?P<allocated>[\d.]+).*max reserved: (?P<reserved>[\d.]+)"
)
MEMORY_GB = re.compile(
    r"\[Rank (?P<rank>\d+)\].*mem-max-allocated-gigabytes: (?P<allocated>[\d.]+)"
    r"(?:.*mem-max-reserved-gigabytes: (?P<reserved>[\d.]+))?"
)


def step(line: str) -> StepLine | None:
    """Return the step in a line of iteration; the time is the mean since the last such line."""
    elapsed, count = ELAPSED.search(line), picked(ITERATION, line)
    if elapsed is None or count is None:
        return None
    unit = 1e-3 if elapsed[1] == "ms" else 1.0
    loss, norm, batch = picked(LOSS, line), picked(NORM, line), picked(BATCH, line)
    return StepLine(
        number=int(count),
        seconds=float(elapsed[2]) * unit,
        half_width_s=half_width(elapsed[2], unit),
        sequences=int(batch) if batch else None,
        loss=finite(loss),
        gradient_norm=finite(norm),
        is_broken=is_broken(loss, norm) or LOST.search(line) is not None,
        written_at=clock(line),
    )


def argument(line: str) -> ArgumentLine | None:
    """Return an argument of the list that Megatron and DeepSpeed print when they start."""
    match = ARGUMENT.match(line)
    return ArgumentLine(match[1], match[2]) if match else None


ARGUMENTS = {
    "micro_batch_size": Role.MICRO_BATCH_SIZE,
    "global_batch_size": Role.GLOBAL_BATCH,
    "data_parallel_size": Role.DATA_PARALLEL,
    "pipeline_model_parallel_size": Role.STAGES,
    "virtual_pipeline_model_parallel_size": Role.VIRTUAL_STAGES,
    "world_size": Role.DEVICES,
    "seq_length": Role.SEQ_LEN,
    "num_layers": Role.LAYERS,
    "hidden_size": Role.HIDDEN,
    "num_attention_heads": Role.HEADS,
    "padded_vocab_size": Role.VOCAB,
    # gpt-neox
    "train_micro_batch_size_per_gpu": Role.MICRO_BATCH_SIZE,
    "gradient_accumulation_steps": Role.MICRO_BATCHES,
    "train_batch_size": Role.GLOBAL_BATCH,
    "pipe_parallel_size": Role.STAGES,
}
MEGATRON = LogFormat(
    "megatron-lm",
    (step, memory_line(MEMORY_MIB, 2**20), memory_line(MEMORY_GB, 1e9), argument),
    ARGUMENTS,
    marks=("iteration", "memory (", " .."),
)
