"""nanotron, whose numbers have three significant digits. ::

    08/22 15:22:22 [INFO|DP=0|PP=1|TP=0]: iteration: 5 / 100 | consumed_tokens: 1.31M | time_per_iteration_ms: 1.23K |
    tokens_per_sec: 85.3K | tokens_per_sec_per_gpu: 10.7K | global_batch_size: 262K | lm_loss: 10.9 | ...
    Peak allocated 123.45MiB. Peak reserved: 456.00MiB

Before 2025 ``elapsed_time_per_iteration_ms``. ``global_batch_size`` counts tokens.
"""

import re

from autotune.logs.formats.spec import LogFormat, Role, memory_line, picked
from autotune.logs.line import ArgumentLine, StepLine
from autotune.logs.text import NUMBER, clock, finite, is_broken, short_number

SHORT = r"([\d.]+[KMBGT]?)"
ITERATION = re.compile(r"\biteration: (\d+) / \d+ \|")
ELAPSED = re.compile(rf"\b(?:elapsed_)?time_per_iteration_ms: {SHORT}")
TOKENS = re.compile(rf"\btokens_per_sec: {SHORT}")
LOSS = re.compile(rf"\blm_loss: ({NUMBER})")
NORM = re.compile(rf"\bgrad_norm: ({NUMBER})")
MEMORY = re.compile(r"Peak allocated (?P<allocated>[\d.]+)MiB\. Peak reserved: (?P<reserved>[\d.]+)MiB")
KEY = re.compile(
    r"\b(micro_batch_size|batch_accumulation_per_replica|sequence_length|dp|pp|pp_engine)['\"]?\s*[:=]\s*"
    r"['\"]?(\w+)"
)
DIGITS = 0.005
"""Half of the last of three digits, at most, as a share of the number."""


def step(line: str) -> StepLine | None:
    """Return the step in a line of iteration."""
    count, elapsed = picked(ITERATION, line), picked(ELAPSED, line)
    if count is None or elapsed is None:
        return None
    loss, norm, tokens = picked(LOSS, line), picked(NORM, line), picked(TOKENS, line)
    seconds = short_number(elapsed) / 1e3
    return StepLine(
        number=int(count),
        seconds=seconds,
        half_width_s=seconds * DIGITS,
        tokens_s=short_number(tokens) if tokens else None,
        loss=finite(loss),
        gradient_norm=finite(norm),
        is_broken=is_broken(loss, norm),
        written_at=clock(line),
    )


def argument(line: str) -> ArgumentLine | None:
    """Return a key of the configuration that nanotron prints when it starts."""
    match = KEY.search(line)
    return ArgumentLine(match[1], match[2]) if match else None


ARGUMENTS = {
    "micro_batch_size": Role.MICRO_BATCH_SIZE,
    "batch_accumulation_per_replica": Role.MICRO_BATCHES,
    "sequence_length": Role.SEQ_LEN,
    "dp": Role.DATA_PARALLEL,
    "pp": Role.STAGES,
}
NANOTRON = LogFormat(
    "nanotron",
    (step, memory_line(MEMORY, 2**20), argument),
    ARGUMENTS,
    marks=("iteration: ", "Peak ", "batch", "sequence_length", "dp", "pp"),
)
