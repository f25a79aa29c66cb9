"""DeepSpeed: its pipeline engine, its plain engine, its memory reports and its configuration.

::

    steps: 10 loss: 7.1234 iter time (s): 0.123 samples/sec: 520.325
    [2026-08-22 15:22:22,123] [INFO] [timer.py:264:stop] epoch=0/micro_step=20/global_step=10,
    RunningAvgSamplesPerSec=12.3, CurrSamplesPerSec=12.5, MemAllocated=3.21GB, MaxMemAllocated=10.5GB
    MA 3.2 GB  Max_MA 10.5 GB  CA 11.0 GB  Max_CA 11 GB
    CONFIG: micro_batches=32 micro_batch_size=4
      train_micro_batch_size_per_gpu  4
"""

import re

from autotune.logs.formats.megatron import argument as dotted_argument
from autotune.logs.formats.spec import LogFormat, Role, memory_line, picked
from autotune.logs.line import ArgumentLine, MemoryLine, Said, StepLine
from autotune.logs.text import NUMBER, clock, finite, half_width, is_broken

PIPELINE = re.compile(rf"steps: (\d+) loss: ({NUMBER}) .*?iter time \(s\): ([\d.]+)(?: samples/sec: ([\d.]+))?")
ENGINE = re.compile(r"global_step=(\d+), RunningAvgSamplesPerSec=[\d.]+, CurrSamplesPerSec=([\d.]+)")
PEAK = re.compile(r"MaxMemAllocated=([\d.]+)GB")
USAGE = re.compile(r"\bMax_MA (?P<allocated>[\d.]+) GB\s+CA [\d.]+ GB\s+Max_CA (?P<reserved>[\d.]+) GB")
CONFIG = re.compile(r"CONFIG: micro_batches=(?P<micro_batches>\d+) micro_batch_size=(?P<micro_batch_size>\d+)")
KEY = re.compile(
    r"(?:^|[\s,{])\"?(train_micro_batch_size_per_gpu|gradient_accumulation_steps|train_batch_size)\"?"
    r"(?: \.{2,} |: |\s*=\s*|\s{2,})(\d+)"
)
GIB = 2**30


def pipeline_step(line: str) -> StepLine | None:
    """Return the step in a line of the pipeline engine: the mean of the steps since the last one."""
    match = PIPELINE.search(line)
    if match is None:
        return None
    return StepLine(
        number=int(match[1]),
        seconds=float(match[3]),
        half_width_s=half_width(match[3]),
        sequences_s=float(match[4]) if match[4] else None,
        loss=finite(match[2]),
        is_broken=is_broken(match[2]),
        written_at=clock(line),
    )


def engine_step(line: str) -> StepLine | None:
    """Return the step in a line of the plain engine's timer."""
    match = ENGINE.search(line)
    if match is None or not float(match[2]):
        return None
    return StepLine(number=int(match[1]), sequences_s=float(match[2]), written_at=clock(line))


def engine_peak(line: str) -> MemoryLine | None:
    """Return the peak in a line of the plain engine's timer, which is of the rank that prints."""
    peak = picked(PEAK, line)
    return MemoryLine(allocated_bytes=round(float(peak) * GIB)) if peak else None


def setting(line: str) -> Said | None:
    """Return a key of the configuration that DeepSpeed prints when it starts."""
    if match := KEY.search(line):
        return ArgumentLine(match[1], match[2])
    return dotted_argument(line)


def configured(name: str, line: str) -> ArgumentLine | None:
    """Return m or b from the pipeline engine's line of configuration."""
    match = CONFIG.search(line)
    return ArgumentLine(name, match[name]) if match else None


ARGUMENTS = {
    "train_micro_batch_size_per_gpu": Role.MICRO_BATCH_SIZE,
    "gradient_accumulation_steps": Role.MICRO_BATCHES,
    "micro_batches": Role.MICRO_BATCHES,
    "micro_batch_size": Role.MICRO_BATCH_SIZE,
    "train_batch_size": Role.GLOBAL_BATCH,
}
DEEPSPEED = LogFormat(
    "deepspeed",
    (
        pipeline_step,
        engine_step,
        engine_peak,
        memory_line(USAGE, GIB),
        lambda line: configured("micro_batches", line),
        lambda line: configured("micro_batch_size", line),
        setting,
    ),
    ARGUMENTS,
    marks=("steps: ", "global_step=", "Max_MA", "CONFIG: ", "train_", "gradient_accumulation", " .."),
)
