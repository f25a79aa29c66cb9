"""Trainers without a pipeline, and launchers whose lines are like theirs: Hugging Face, Lightning, NeMo, Automodel,
Paddle. ::

    {'loss': '10.9', 'grad_norm': '1.2', 'learning_rate': '5e-05', 'epoch': '0.01'}
      3%|3         | 3/100 [00:01<00:40,  2.35it/s]
    Epoch 0:  3%|3         | 3/100 [00:01<00:40,  2.35it/s, v_num=0]
    Training epoch 0, iteration 1/249 | lr: 3.922e-06 | ... | reduced_train_loss: 1.653 | train_step_timing in s: 2.505
    step 3 | epoch 0 | loss 1.2345 | grad_norm 2.3456 | lr 1.00e-05 | mem 12.34 GiB | tps 1234.56(154.32/gpu) | ...
    global step 3, loss: 10.9, ..., interval_runtime: 0.1, interval_samples_per_second: ..

Neither the Trainer nor Lightning prints the time of a step: there the moments tell at which the progress bar counts on.
"""

import re

from autotune.logs.formats.spec import LogFormat, memory_line, picked
from autotune.logs.line import StepLine
from autotune.logs.text import NUMBER, clock, finite, half_width, is_broken, number

BAR = re.compile(r"(?:^|[|\s])(\d+)/(\d+) \[\d+:\d\d(?::\d\d)?<[^,\]]*, *(?:[\d.]+(?:it/s|s/it)|\?it/s)")
LOGGED = re.compile(rf"['\"]loss['\"]: ['\"]?({NUMBER})")
LOGGED_NORM = re.compile(rf"['\"]grad_norm['\"]: ['\"]?({NUMBER})")
TIMING = re.compile(r"train_step_timing in s[:=] ?([\d.]+)")
ITERATION = re.compile(r"\biteration (\d+)/\d+")
REDUCED = re.compile(rf"reduced_train_loss[:=] ?({NUMBER})")
AUTOMODEL = re.compile(rf"\bstep (\d+) \| epoch \d+ \| loss ({NUMBER}) \| grad_norm ({NUMBER}) \|.*?\| tps ([\d.]+)")
AUTOMODEL_MEMORY = re.compile(r"\bstep \d+ \| epoch .*\| mem (?P<allocated>[\d.]+) GiB")
PADDLE = re.compile(r"interval_runtime: ([\d.]+)")
PADDLE_STEP = re.compile(r"global_?_?step:? (\d+)")
PADDLE_LOSS = re.compile(rf"\bloss: ({NUMBER})")
PADDLE_MEMORY = re.compile(r"max_memory_allocated: (?P<allocated>[\d.]+)")
PADDLE_RESERVED = re.compile(r"max_memory_reserved: (?P<reserved>[\d.]+)")
GIB = 2**30


def bar(line: str) -> StepLine | None:
    """Return the step that a progress bar has come to; a line may hold several states of it, of which the last counts.
    Bars of anything but training, such as of loading, count as well: what does not count on is dropped."""
    found = list(BAR.finditer(line))
    if not found or not int(found[-1][1]):
        return None
    return StepLine(number=int(found[-1][1]))


def logged(line: str) -> StepLine | None:
    """Return loss and gradient norm in a line of the Trainer, which gives the epoch and not the step."""
    if "'epoch'" not in line and '"epoch"' not in line:
        return None
    loss, norm = picked(LOGGED, line), picked(LOGGED_NORM, line)
    if loss is None:
        return None
    return StepLine(loss=finite(loss), gradient_norm=finite(norm), is_broken=is_broken(loss, norm))


def timing(line: str) -> StepLine | None:
    """Return the step in a line of NeMo."""
    seconds = picked(TIMING, line)
    if seconds is None:
        return None
    loss, count = picked(REDUCED, line), picked(ITERATION, line) or picked(BAR, line)
    return StepLine(
        number=int(count) if count else None,
        seconds=float(seconds),
        half_width_s=half_width(seconds),
        loss=finite(loss),
        is_broken=is_broken(loss),
        written_at=clock(line),
    )


def automodel_step(line: str) -> StepLine | None:
    """Return the step in a line of NeMo Automodel."""
    match = AUTOMODEL.search(line)
    if match is None:
        return None
    return StepLine(
        number=int(match[1]),
        loss=finite(match[2]),
        gradient_norm=finite(match[3]),
        is_broken=is_broken(match[2], match[3]),
        tokens_s=number(match[4]) or None,
        written_at=clock(line),
    )


def paddle_step(line: str) -> StepLine | None:
    """Return the step in a line of PaddleNLP."""
    seconds = picked(PADDLE, line)
    if seconds is None:
        return None
    loss, count = picked(PADDLE_LOSS, line), picked(PADDLE_STEP, line)
    return StepLine(
        number=int(count) if count else None,
        seconds=float(seconds),
        half_width_s=half_width(seconds),
        loss=finite(loss),
        is_broken=is_broken(loss),
        written_at=clock(line),
    )


HF = LogFormat("hf", (logged, bar), by_arrival=True, marks=("it/s", "s/it", "loss"))
LIGHTNING = LogFormat("lightning", (timing, bar), by_arrival=True, marks=("it/s", "s/it", "train_step_timing"))
AUTOMODEL_FORMAT = LogFormat("automodel", (automodel_step, memory_line(AUTOMODEL_MEMORY, GIB)), marks=("step ",))
PADDLE_FORMAT = LogFormat(
    "paddle",
    (paddle_step, memory_line(PADDLE_MEMORY, GIB), memory_line(PADDLE_RESERVED, GIB)),
    marks=("interval_runtime", "max_memory_"),
)
