"""Timing a user's own stages: the passes of a training loop, whatever it is written in, become a Profile."""

import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from statistics import median
from types import TracebackType
from typing import Self

from autotune.errors import UsageError
from autotune.records.job.environment import Environment
from autotune.records.job.workload import WorkloadFacts
from autotune.records.profile import Profile, StageProfile
from autotune.records.stage_costs import StageTime


class Part(StrEnum):
    """What is timed of a stage."""

    FORWARD = "forward"
    BACKWARD = "backward"
    INPUT_GRADIENT = "input_gradient"
    WEIGHT_GRADIENT = "weight_gradient"
    OPTIMIZER = "optimizer"


Samples = dict[Part, list[float]]
"""Seconds of every pass that counts, by what it was."""


class StageTimer:
    """Times forwards and backwards of stages, and makes a Profile of them when its block ends::

        with autotune.StageTimer(batch=64) as timer:
            for size in (1, 2, 4):
                for number, stage in enumerate(stages):
                    for _ in range(6):
                        with timer.forward(number, size):
                            output = stage(inputs[number][:size])
                        with timer.backward(number, size):
                            output.sum().backward()
        report = autotune.predict(timer.profile)

    The first ``priming`` passes of each kind are not counted; of the others the
    median is taken and every sample kept. Where torch is loaded and uses GPUs, these are waited for before a pass and
    after it; ``synchronize`` does that for what else computes behind the CPU. ``batch``: sequences per step;
    ``seq_len``: tokens of each; ``layers``: of each stage. Raises UsageError for what cannot be a profile.
    """

    def __init__(
        self,
        *,
        batch: int | None = None,
        seq_len: int | None = None,
        layers: Sequence[int] | None = None,
        priming: int = 1,
        synchronize: Callable[[], object] | None = None,
    ) -> None:
        self.batch, self.seq_len, self.layers, self.priming = batch, seq_len, layers, priming
        self.synchronize = synchronize
        self._passes: defaultdict[tuple[int, int, Part], list[float]] = defaultdict(list)
        self._timed_now: Part | None = None
        self._profile: Profile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._profile = self._made()

    @property
    def profile(self) -> Profile:
        """The profile of what was timed; raises UsageError before the block has ended."""
        if self._profile is None:
            raise UsageError("StageTimer: the profile is made when the with block ends; ask for it after that")
        return self._profile

    def forward(self, stage: int, micro_batch_size: int) -> AbstractContextManager[None]:
        """Time the forward of one micro-batch."""
        return self._pass(stage, micro_batch_size, Part.FORWARD)

    def backward(self, stage: int, micro_batch_size: int) -> AbstractContextManager[None]:
        """Time the whole backward of one micro-batch."""
        return self._pass(stage, micro_batch_size, Part.BACKWARD)

    def input_gradient(self, stage: int, micro_batch_size: int) -> AbstractContextManager[None]:
        """Time the backward for the input alone, which schedules with split backwards run apart."""
        return self._pass(stage, micro_batch_size, Part.INPUT_GRADIENT)

    def weight_gradient(self, stage: int, micro_batch_size: int) -> AbstractContextManager[None]:
        """Time the backward for the weights that follows."""
        return self._pass(stage, micro_batch_size, Part.WEIGHT_GRADIENT)

    def optimizer(self, stage: int) -> AbstractContextManager[None]:
        """Time the step of a stage's optimizer."""
        return self._pass(stage, 1, Part.OPTIMIZER)

    @contextmanager
    def _pass(self, stage: int, size: int, part: Part) -> Iterator[None]:
        """Time what is done inside; nothing is kept of what raises."""
        if stage < 0 or size < 1:
            raise UsageError(
                f"StageTimer: stages count from 0 and micro-batches have 1 sequence or more (given: stage {stage}, size"
                f" {size})"
            )
        if self._timed_now is not None:
            raise UsageError(
                f"StageTimer: {part} of stage {stage} begins while a {self._timed_now} is timed; end that block first"
            )
        self._timed_now = part
        try:
            self._wait()
            begun = time.perf_counter()
            yield
            self._wait()
            self._passes[stage, size, part].append(time.perf_counter() - begun)
        finally:
            self._timed_now = None

    def _wait(self) -> None:
        """Return once devices have done what was asked of them."""
        if self.synchronize is not None:
            self.synchronize()
        if "torch" in sys.modules:
            from autotune.pipeline.device.device import wait_for_gpus

            wait_for_gpus()

    def _made(self) -> Profile:
        """The profile of all passes."""
        stages = sorted({stage for stage, _, _ in self._passes})
        if not stages or stages != list(range(len(stages))):
            timed = ", ".join(map(str, stages)) or "none"
            raise UsageError(f"StageTimer: time every stage, from 0 on without a gap (timed: {timed})")
        if self.layers is not None and len(self.layers) != len(stages):
            raise UsageError(f"StageTimer: layers has {len(self.layers)} numbers, and {len(stages)} stages were timed")
        return Profile(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=environment(),
            workload=WorkloadFacts(stages=len(stages), batch=self.batch, seq_len=self.seq_len),
            stages=tuple(self._stage(stage) for stage in stages),
        )

    def _stage(self, stage: int) -> StageProfile:
        """What was timed of one stage."""
        sizes = sorted({size for of, size, part in self._passes if of == stage and part is not Part.OPTIMIZER})
        steps = self._counted(stage, 1, Part.OPTIMIZER)
        return StageProfile(
            layers=self.layers[stage] if self.layers is not None else None,
            time_s=tuple(self._row(stage, size) for size in sizes),
            optimizer_s=median(steps) if steps else 0.0,
        )

    def _row(self, stage: int, size: int) -> StageTime:
        """The times of one size."""
        found: Samples = {part: self._counted(stage, size, part) for part in Part}
        is_split = bool(found[Part.INPUT_GRADIENT] and found[Part.WEIGHT_GRADIENT])
        if not found[Part.FORWARD] or not (found[Part.BACKWARD] or is_split):
            raise UsageError(
                f"StageTimer: stage {stage} needs a forward and a backward of {size} sequences that count; time more"
                f" than {self.priming} of each (the first {self.priming} are left out: priming)"
            )
        b, w = (found[part] if is_split else [] for part in (Part.INPUT_GRADIENT, Part.WEIGHT_GRADIENT))
        return StageTime.of(size, found[Part.FORWARD], found[Part.BACKWARD], b, w)

    def _counted(self, stage: int, size: int, part: Part) -> list[float]:
        """The passes that count."""
        return self._passes.get((stage, size, part), [])[self.priming :]


def environment() -> Environment:
    """Return where the stages were timed, as far as this process knows it without loading torch."""
    if "torch" not in sys.modules:
        return Environment(
            cores=len(os.sched_getaffinity(0)),
            python_version=platform.python_version(),
            hostname=platform.node(),
            platform=platform.platform(),
        )
    from autotune.pipeline.device.collect_env import cpu, host
    from autotune.pipeline.device.device import wait_for_gpus
    from autotune.pipeline.device.gpus import gpus

    return Environment.model_validate(host() | (gpus() if wait_for_gpus() else cpu()))
