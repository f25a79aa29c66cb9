"""Measuring a Profile on live ranks: each stage alone for its own cost, all together for what they do to each other."""

from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

from pydantic import TypeAdapter

from autotune.config import Workload, WorkloadFacts
from autotune.errors import DeviceError
from autotune.pipeline.commands import (
    Command,
    Contend,
    MeasureMemory,
    OptimizerCost,
    Ping,
    Prepare,
    StageFacts,
    StageMemory,
    StageTime,
    Step,
    StepTimes,
    TimeOptimizer,
    TimeStage,
)
from autotune.pipeline.ranks import RankFailure, Ranks
from autotune.profile.record import Environment, Link, MessageSize, Profile, Shared, StageProfile

TIMING_BUDGET_S = 10.0  # for all stages together
CONTENTION_S, CONTENTION_ROUNDS = 0.2, 3
COMMAND_TIMEOUT_S = 600.0
ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

Notify = Callable[[str, float], None]
"""Called with what is measured now and the fraction already done."""


class Measurer:
    """Asks the ranks for one thing after the other and puts the answers into a Profile."""

    def __init__(self, ranks: Ranks, workload: Workload, sizes: tuple[int, ...], environment: Environment) -> None:
        self.ranks, self.workload, self.sizes, self.environment = (ranks, workload, sizes, environment)
        self.everyone = tuple(range(workload.stages))

    def ask(self, command: Command) -> list[Any]:
        try:
            return self.ranks.ask(command, COMMAND_TIMEOUT_S)
        except RankFailure as error:
            raise DeviceError(f"profiling failed on rank {error.failure.rank}: {error.failure.message}") from None

    def stage_times(self, notify: Notify) -> list[list[StageTime]]:
        """Times each stage while the others are idle."""
        rows = TypeAdapter(list[StageTime])
        found = []
        for rank in self.everyone:
            notify(f"timing stage {rank}", rank / len(self.everyone))
            budget = TIMING_BUDGET_S / len(self.everyone)
            command = TimeStage(active=(rank,), micro_batch_sizes=self.sizes, budget_s=budget)
            found.append(rows.validate_python(self.ask(command)[rank]))
        return found

    def stage_memory(self) -> list[list[StageMemory]]:
        return TypeAdapter(list[list[StageMemory]]).validate_python(
            self.ask(MeasureMemory(micro_batch_sizes=self.sizes))
        )

    def optimizers(self) -> list[OptimizerCost]:
        """Optimizer steps, one rank at a time."""
        return [OptimizerCost.model_validate(self.ask(TimeOptimizer(active=(rank,)))[rank]) for rank in self.everyone]

    def message_bytes(self, size: int) -> int:
        """Bytes of the activations (and of their gradients) of one micro-batch at a boundary."""
        return size * self.workload.seq_len * self.workload.hidden * ELEMENT_BYTES[self.workload.precision]

    def links(self) -> list[Link]:
        """Every boundary, activations forward and gradients back."""
        pairs = [(rank, rank + 1) for rank in self.everyone[:-1]]
        return [self._link(*pair) for pair in pairs] + [self._link(*pair[::-1]) for pair in pairs]

    def _link(self, source: int, target: int) -> Link:
        """Half of an almost empty round trip is the latency; what the largest message adds to it the bandwidth."""
        largest = self.message_bytes(self.sizes[-1])
        empty = median(self.ask(Ping(source=source, target=target, there_bytes=1, back_bytes=1, repeats=20))[source])
        full = median(
            self.ask(Ping(source=source, target=target, there_bytes=largest, back_bytes=1, repeats=8))[source]
        )
        bandwidth = largest / (full - empty) if full > empty else None
        return Link(**{"from": source, "to": target}, latency_s=empty / 2, bandwidth_bytes_s=bandwidth)

    def shared(self) -> Shared | None:
        """How much k ranks at once slow each other on one host's cores; None where each rank has its own device."""
        if self.environment.device != "cpu":
            return None
        size = self.sizes[len(self.sizes) // 2]
        rounds = [self._slowdowns(size) for _ in range(CONTENTION_ROUNDS)]
        slowdown = tuple(max(1.0, median(column)) for column in zip(*rounds, strict=True))
        return Shared(resources=self.environment.cores or 1, slowdown=slowdown)

    def _slowdowns(self, size: int) -> list[float]:
        """For k = 1 ... p ranks at once, how many times longer a pass takes than alone, averaged over the ranks."""
        alone = [self._contend((rank,), size)[rank] for rank in self.everyone]
        slowdowns = [1.0]
        for k in range(2, len(self.everyone) + 1):
            together = self._contend(self.everyone[:k], size)
            slowdowns.append(sum(together[rank] / alone[rank] for rank in range(k)) / k)
        return slowdowns

    def _contend(self, active: tuple[int, ...], size: int) -> list[Any]:
        return self.ask(Contend(active=active, micro_batch_size=size, seconds=CONTENTION_S))

    def message_overhead(self, times: list[list[StageTime]], optimizer_s: float, shared: Shared | None) -> float:
        """Seconds that torch's runtime and the messages cost each action, beyond the stage's own work.

        On shared cores: the processor time of a real pipelined step at the smallest micro-batch size, less the work
        that the stages were timed at (as slow as they are beside each other), spread over the actions. On devices of
        their own: the wall time per action of a pipeline whose stages compute nothing.
        """
        ranks, size = len(self.everyone), self.sizes[0]
        count = 4 * ranks
        plan = Prepare(
            schedule="1F1B", micro_batches=count, micro_batch_size=size, sequences=count * size, empty=shared is None
        )
        self.ask(plan)
        steps = [[StepTimes.model_validate(answer) for answer in self.ask(Step())] for _ in range(5)]
        if shared is None:
            walls = [max(s.end_s for s in step) - min(s.start_s for s in step) for step in steps]
            return median(walls) / (count + ranks - 1) / 2
        processor = median(sum(s.cpu_s for s in step) for step in steps)
        beside = shared.slowdown[-1] * min(1.0, shared.resources / ranks)
        work = sum(row[0].t_f + row[0].backward for row in times) * count + optimizer_s
        return max(0.0, (processor - beside * work) / (2 * count * ranks))


def measure_profile(
    ranks: Ranks,
    workload: Workload,
    facts: list[StageFacts],
    sizes: tuple[int, ...],
    environment: Environment,
    notify: Notify,
) -> Profile:
    """Measures everything that a prediction for micro-batches of ``sizes`` needs.

    ``facts``: what the ranks answered to Build. Raises DeviceError where a rank fails.
    """
    measurer = Measurer(ranks, workload, tuple(sorted(sizes)), environment)
    times = measurer.stage_times(lambda what, done: notify(what, 0.7 * done))
    notify("measuring memory", 0.7)
    memory, optimizers = measurer.stage_memory(), measurer.optimizers()
    notify("measuring links", 0.8)
    links = measurer.links()
    notify("measuring shared cores", 0.85)
    shared = measurer.shared()
    notify("measuring the runtime's own cost", 0.95)
    overhead = measurer.message_overhead(times, sum(cost.seconds for cost in optimizers), shared)
    stages = [
        StageProfile(
            layers=fact.layers,
            static_bytes=fact.static_bytes,
            batch_statistics=fact.batch_statistics,
            time_s=tuple(time_rows),
            memory=tuple(memory_rows),
            optimizer_s=cost.seconds,
            optimizer_transient_bytes=cost.transient_bytes,
        )
        for fact, time_rows, memory_rows, cost in zip(facts, times, memory, optimizers, strict=True)
    ]
    return Profile(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        workload=WorkloadFacts(**workload.model_dump()),
        stages=tuple(stages),
        links=tuple(links),
        message_bytes=tuple(MessageSize(micro_batch_size=s, bytes=measurer.message_bytes(s)) for s in measurer.sizes),
        shared=shared,
        message_overhead_s=overhead,
    )
