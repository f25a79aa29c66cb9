"""Measuring a Profile on live ranks: each stage alone for its own cost, all together for what they do to each other."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain, pairwise
from statistics import mean, median, stdev
from typing import Any, NamedTuple, TypeVar

from autotune.errors import DeviceError, InputError, MemoryLimitError
from autotune.pipeline.control.commands import (
    FEWEST_SAMPLES,
    Command,
    MeasureLayers,
    MeasureMemory,
    OptimizerCost,
    Prepare,
    Primed,
    ReplayStage,
    StageFacts,
    Step,
    TimeOptimizer,
    TimeStages,
    step_seconds,
)
from autotune.pipeline.control.measure import build, by_stage, run_step
from autotune.pipeline.control.ranks import RankFailure, Ranks
from autotune.profile.fragmentation import ASSUMED, NONE, Fragmentation
from autotune.profile.links import measure_links
from autotune.profile.reduction import measure_reduction
from autotune.records.job.environment import Environment
from autotune.records.job.placement import Placement
from autotune.records.job.workload import AnyWorkload, ModelConfig
from autotune.records.plain import decode
from autotune.records.profile import ROUNDS, Calibration, Link, MessageSize, Profile, SharedCores, StageProfile
from autotune.records.stage_costs import LayerProfile, StageMemory, StageTime
from autotune.schedule_spec import default_schedule
from autotune.workload.partition import stage_ranks

WAIT_S = 0.005  # long enough to hide nothing of the runtime
CALIBRATION_STEPS = 2  # per round
HOST_TURNS, HOST_STEPS = 8, 5  # micro-batches per rank, and steps, in which stages do nothing
LARGE = 4  # sizes over a quarter of the largest
COMMAND_TIMEOUT_S, FLOOR_S = 600.0, 60.0  # before it is known how long passes take; at least, then
IDLE_S = 10.0  # that ranks may spend on nothing
PATIENCE = 20  # times as long as one pass of every size took

Notify = Callable[[str, float], None]
"""Called with what is measured now and the fraction already done."""
Warn = Callable[[str], None]
"""Called with what the user should know."""
T = TypeVar("T")


class Measurer:
    """Asks the ranks for one thing after the other and puts the answers into a Profile."""

    def __init__(
        self,
        ranks: Ranks,
        workload: AnyWorkload,
        placement: Placement,
        sizes: tuple[int, ...],
        split: bool,
        warn: Warn,
        *,
        output_bytes: int,
        is_shared: bool = False,
    ) -> None:
        self.ranks, self.workload, self.placement, self.sizes, self.split = ranks, workload, placement, sizes, split
        self.warn, self.is_shared = warn, is_shared  # whether ranks share cores
        self.runs_behind = ranks.device == "cuda"  # whether devices compute while the CPU goes on
        self.output_bytes = output_bytes  # that cross a boundary for one sequence
        self.everyone = tuple(range(workload.stages))  # of the first replica: the others do as it does
        self.timeout_s = COMMAND_TIMEOUT_S
        self.primed: list[Primed] = []  # of the calibration run
        self.stage_ranks = stage_ranks(workload.stages, placement.virtual_stages, placement.v_shaped)

    def ask(self, command: Command) -> list[Any]:
        return self.ranks.ask(command, self.timeout_s, IDLE_S)

    def retry_once(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; once more, with fresh ranks, where one failed: that may have been an accident,
        or a heap in pieces where memory is tight.

        Raises MemoryLimitError where there is no memory for it, InputError where a user's model fails,
        DeviceError for all else that goes wrong.
        """
        try:
            return work()
        except RankFailure as error:
            self.warn(f"profiling restarted its ranks and retries: {error.failure.message}")
        try:
            build(self.ranks, self.workload, self.placement)
            return work()
        except RankFailure as error:
            raise stopped(error, self.workload) from None

    def stage_times(self, sizes: tuple[int, ...], fewest: tuple[int, ...]) -> list[list[StageTime]]:
        """Time each stage while all others are idle, where ranks share cores; else one of every rank at once, because
        that is how they run, and what they share, from the air to the power supply, slows them then too."""
        found: dict[int, Any] = {}
        for together in self.turns():
            plan = TimeStages(
                stages=together, micro_batch_sizes=sizes, fewest=fewest, split=self.split, active=self.everyone
            )
            answers = [iter(answer) for answer in self.ask(plan)[: len(self.everyone)]]
            found |= {stage: next(answers[self.stage_ranks[stage]]) for stage in together}
        return decode(list[list[StageTime]], [found[stage] for stage in range(len(self.stage_ranks))])

    def turns(self) -> list[tuple[int, ...]]:
        """Return the stages that are timed at the same moment, one after the other."""
        stages, p = range(len(self.stage_ranks)), self.workload.stages
        if self.is_shared:
            return [(stage,) for stage in stages]
        return [tuple(stages[at : at + p]) for at in range(0, len(stages), p)]

    def round(self, number: int) -> "Round":
        """Measure one round of all that drifts.

        On shared cores the few large sizes take most of the time, and vary least: they are left out of every other
        round, and the largest, which a pipeline is hardly run with, is timed in the first alone.
        """
        if not self.is_shared:
            return Round(self.stage_times(self.sizes, (FEWEST_SAMPLES,) * len(self.sizes)), self.calibrations())
        sizes = tuple(size for size in self.sizes if self.is_due(size, number)) or self.sizes
        visits = [sum(self.is_due(size, one) for one in range(ROUNDS)) for size in sizes]
        fewest = tuple(-(-FEWEST_SAMPLES // max(1, count)) for count in visits)
        return Round(self.stage_times(sizes, fewest), self.calibrations())

    def is_due(self, size: int, number: int) -> bool:
        """Return whether a size is timed in a round where ranks share cores."""
        share = 1 if not number else LARGE if number % 2 else 2
        return share * size <= self.sizes[-1]

    def stage_memory(self) -> list[list[StageMemory]]:
        """Measure the memory of every size that all stages have room for; only these are measured further."""
        begun = time.monotonic()
        command = MeasureMemory(micro_batch_sizes=self.sizes, split=self.split, active=self.everyone)
        answers = self.ask(command)[: len(self.everyone)]
        self.timeout_s = min(COMMAND_TIMEOUT_S, max(FLOOR_S, PATIENCE * (time.monotonic() - begun)))
        found = decode(list[list[StageMemory]], by_stage(answers, self.placement))
        count = min(len(rows) for rows in found)
        if not count:
            raise DeviceError(
                f"not even {self.sizes[0]} sequences at a time fit on every device; use more --micro-batches, more"
                " --stages or a smaller model"
            )
        self.sizes = self.sizes[:count]
        return [rows[:count] for rows in found]

    def layers(self) -> tuple[LayerProfile, ...]:
        """Measure a layer of each kind by itself, on the first rank."""
        mode = self.placement.mode_of(0)
        command = MeasureLayers(active=(0,), micro_batch_sizes=self.sizes, split=self.split, mode=mode)
        return decode(tuple[LayerProfile, ...], self.ask(command)[0])

    def optimizers(self) -> list[OptimizerCost]:
        """Measure the optimizer steps, one rank at a time."""
        return [decode(OptimizerCost, self.ask(TimeOptimizer(active=(rank,)))[rank]) for rank in self.everyone]

    def message_bytes(self, size: int) -> int:
        """Return bytes of the activations (and of their gradients) of one micro-batch at a boundary."""
        return size * self.output_bytes

    def links(self, messages: Iterable[int]) -> list[Link]:
        """Return both directions between every two ranks whose stages are neighbours, with the times of ``messages``,
        bytes each."""
        pairs = {(a, b) for a, b in pairwise(self.stage_ranks) if a != b}
        both = sorted(pairs | {(b, a) for a, b in pairs})
        return measure_links(self.ask, both, messages, self.ranks.hosts, self.runs_behind)

    def pipeline(self, size: int, count: int, wait: ReplayStage | None) -> Prepare:
        """Return the plan of a pipeline of ``count`` micro-batches, whose stages ``wait`` or compute."""
        v = self.placement.virtual_stages
        return Prepare(
            schedule=default_schedule(v),
            micro_batches=count,
            micro_batch_size=size,
            sequences=count * size,
            virtual_stages=v,
            split=self.placement.split,
            recompute=self.placement.recompute,
            replay=(wait,) * len(self.stage_ranks) if wait else (),
        )

    def primed_with(self, plan: Prepare) -> list[Primed]:
        """Run the first step of a plan; return what each rank answered."""
        return decode(list[Primed], self.ask(plan))[: len(self.everyone)]

    def calibration(
        self, size: int, count: int, wait: ReplayStage | None, steps: int = CALIBRATION_STEPS
    ) -> Calibration:
        """Run a pipeline of ``count`` micro-batches of ``size``.

        ``wait``: of stages that only wait, where each rank has a device of its own; the real ones where they share. A
        GPU waits by counting cycles of a clock that drifts: there the waits are as recorded. On the CPU they are as
        asked for, and what an action takes beyond that is the runtime's.
        """
        plan = self.pipeline(size, count, wait)
        self.primed = self.primed_with(plan)
        walls: list[float] = []
        busy: list[float] = []
        gaps: list[float] = []
        actions = 0
        for _ in range(steps):
            step = run_step(self.ranks, Step(record=True), self.timeout_s, IDLE_S)
            walls.append(step_seconds(step))
            step = step[: len(self.everyone)]
            busy.append(sum(action.end_s - action.start_s for rank in step for action in rank.actions))
            actions += sum(len(rank.actions) for rank in step)
            between = [b.start_s - a.end_s for rank in step for a, b in pairwise(rank.actions)]
            gaps.append(max(0.0, sorted(between)[len(between) // 4]))
        wait_s = wait.t_f if wait else None
        if wait and self.runs_behind:
            wait_s = sum(busy) / actions
        return Calibration(
            schedule=plan.schedule,
            micro_batches=count,
            micro_batch_size=size,
            wait_s=wait_s,
            step_times_s=tuple(walls),
            busy_s=tuple(busy),
            gap_s=tuple(gaps),
        )

    def host_action(self) -> float:
        """Return the CPU seconds that torch's runtime takes for an action beside a GPU, from steps whose stages neither
        compute nor wait, so that nothing hides them; 0 where the CPU is the device.

        Many micro-batches are run, because what a step takes once and the filling of the pipeline are in there too.
        """
        if not self.runs_behind:
            return 0.0
        plan = self.pipeline(1, HOST_TURNS * len(self.everyone), ReplayStage())
        self.primed_with(plan)
        steps = [run_step(self.ranks, Step(), self.timeout_s, IDLE_S) for _ in range(HOST_STEPS)]
        return median(map(step_seconds, steps)) / (2 * plan.micro_batches * plan.virtual_stages)

    def calibrations(self) -> list[Calibration]:
        """Run pipelines at the smallest micro-batch size, where the runtime's own cost weighs most; on shared cores
        at a middle one too, where it hardly does, for what ranks do to each other beyond taking turns."""
        ranks, smallest = len(self.everyone), self.sizes[0]
        if not self.is_shared:
            return [self.calibration(smallest, 2 * ranks, waiting(self.message_bytes(smallest)))]
        found, middle = [self.calibration(smallest, 2 * ranks, None)], self.sizes[len(self.sizes) // 2]
        if middle > smallest:
            found.append(self.calibration(middle, ranks, None, steps=1))  # longer steps, that vary less
        return found

    def fragmentation(self, facts: list[StageFacts]) -> Fragmentation:
        """Return bytes that the allocator takes beyond those that it hands out, in a first step of the whole pipeline,
        of the smallest micro-batches. Stages alone do not show it.

        None where devices have no allocator that keeps memory for later; assumed where there is no room for that step.
        """
        try:
            primed = self.primed_with(self.pipeline(self.sizes[0], 2 * len(self.everyone), None))
        except RankFailure as error:
            if error.failure.kind != "out_of_memory":
                raise
            return ASSUMED
        static = [0] * len(primed)
        for rank, fact in zip(self.stage_ranks, facts, strict=True):
            static[rank] += fact.static_bytes
        return Fragmentation.of(primed, static)


def is_fault_of_model(error: RankFailure, workload: AnyWorkload) -> bool:
    """Return whether a model of the user's raised it, for him to mend; what the built-in one raises is no input's."""
    return error.failure.kind == "model_error" and isinstance(workload, ModelConfig)


def stopped(error: RankFailure, workload: AnyWorkload) -> DeviceError | InputError | MemoryLimitError:
    """Return what ends the profile."""
    if error.failure.kind == "out_of_memory":
        return MemoryLimitError(
            f"profiling ran out of memory: {error.failure.message}; use more --micro-batches, more --stages or a higher"
            " --memory-limit"
        )
    if is_fault_of_model(error, workload):
        return InputError(f"the model failed while it was profiled: {error.failure.message}")
    return DeviceError(f"profiling failed: {error.failure.message}")


def waiting(message_bytes: int) -> ReplayStage:
    """Return a stage for calibration where ranks have devices of their own."""
    return ReplayStage(t_f=WAIT_S, t_b=WAIT_S / 2, t_w=WAIT_S / 2, message_bytes=message_bytes)


def measure_profile(
    ranks: Ranks,
    workload: AnyWorkload,
    placement: Placement,
    facts: list[StageFacts],
    sizes: tuple[int, ...],
    environment: Environment,
    split: bool,
    notify: Notify,
    warn: Warn,
    with_layers: bool = False,
) -> Profile:
    """Measure what a prediction for micro-batches of ``sizes`` needs, for a model in this ``placement``; all but the
    runtime's cost per action, which ``predict.calibrate`` finds from the calibration run.

    ``facts``: what the ranks answered to Build. ``split``: time the two halves of the backward too; ``with_layers``:
    layers by themselves. Raises DeviceError where a rank fails again, MemoryLimitError where the smallest micro-batch
    does not fit.
    """
    cores = (environment.cores or 1) if environment.device == "cpu" else None
    most = max(fact.output_bytes for fact in facts)
    measurer = Measurer(
        ranks, workload, placement, tuple(sorted(sizes)), split, warn, is_shared=cores is not None, output_bytes=most
    )
    retry_once, messages = measurer.retry_once, [measurer.message_bytes(size) for size in measurer.sizes]
    links = retry_once(lambda: measurer.links(messages))  # first: NCCL takes what torch has not yet taken
    notify("measuring memory and links", 0.0)
    memory = retry_once(measurer.stage_memory)
    rounds = [one_round(measurer, number, notify) for number in range(ROUNDS)]
    notify("measuring optimizers", 0.9)
    layers = retry_once(measurer.layers) if with_layers else ()
    optimizers = retry_once(measurer.optimizers)
    host_action_s = retry_once(measurer.host_action)
    reduction = retry_once(lambda: measure_reduction(measurer.ask, workload.stages, facts))
    fragmentation = NONE if cores else retry_once(lambda: measurer.fragmentation(facts))
    times = [merged(list(chain.from_iterable(stage))) for stage in zip(*(r.times for r in rounds), strict=True)]
    return Profile(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        workload=workload.facts,
        virtual_stages=placement.virtual_stages,
        recompute=placement.recompute,
        stages=tuple(stage_profiles(measurer.stage_ranks, facts, times, memory, optimizers)),
        layers=layers,
        links=tuple(links),
        reduction=reduction,
        message_bytes=tuple(MessageSize(micro_batch_size=s, bytes=measurer.message_bytes(s)) for s in measurer.sizes),
        shared=SharedCores.on(environment, workload.stages * workload.replicas),
        drift=drift_of(rounds, times),
        reserved_over_allocated=fragmentation.times,
        segments_bytes=fragmentation.segments_bytes,
        no_room_for=next((size for size in sorted(sizes) if size not in measurer.sizes), None),
        outside_bytes=tuple(answer.outside_bytes or 0 for answer in measurer.primed) if not cores else 0,
        host_action_s=host_action_s,
        calibrations=tuple(Calibration.merged(runs) for runs in zip(*(r.calibrations for r in rounds), strict=True)),
    )


class Round(NamedTuple):
    """One measurement of all that drifts with the machine's speed: ``times[stage][size]`` and pipelined runs."""

    times: list[list[StageTime]]
    calibrations: list[Calibration]


def one_round(measurer: Measurer, number: int, notify: Notify) -> Round:
    """Measure what drifts, after saying so; a failure is tried once more."""
    notify(f"timing stages, round {number + 1} of {ROUNDS}", 0.1 + 0.8 * number / ROUNDS)
    return measurer.retry_once(partial(measurer.round, number))


def merged(rows: list[StageTime]) -> list[StageTime]:
    """Return one row for each micro-batch size, ascending."""
    sizes = sorted({row.micro_batch_size for row in rows})
    return [StageTime.merged([row for row in rows if row.micro_batch_size == size]) for size in sizes]


def drift_of(rounds: list[Round], times: list[list[StageTime]]) -> float:
    """Return relative standard deviation between rounds of the same passes: of the mean over all stages and sizes."""
    usual = [{row.micro_batch_size: row.t_f + row.backward for row in rows} for rows in times]
    paces = [
        mean(
            (row.t_f + row.backward) / known[row.micro_batch_size]
            for rows, known in zip(one.times, usual, strict=True)
            for row in rows
        )
        for one in rounds
    ]
    return stdev(paces)


def stage_profiles(
    ranks: tuple[int, ...],
    facts: list[StageFacts],
    times: list[list[StageTime]],
    memory: list[list[StageMemory]],
    optimizers: list[OptimizerCost],
) -> Iterator[StageProfile]:
    """Put together what was measured of each stage; of its rank's optimizer step it has the share of its weights."""
    weights = [0] * len(optimizers)
    for rank, fact in zip(ranks, facts, strict=True):
        weights[rank] += fact.parameters
    for rank, fact, time_rows, memory_rows in zip(ranks, facts, times, memory, strict=True):
        share = fact.parameters / (weights[rank] or 1)
        yield StageProfile(
            layers=fact.layers,
            static_bytes=fact.static_bytes,
            batch_statistics=fact.batch_statistics,
            kept_output_bytes=fact.kept_output_bytes,
            bucket_bytes=fact.bucket_bytes,
            time_s=tuple(time_rows),
            memory=tuple(memory_rows),
            optimizer_s=optimizers[rank].seconds * share,
            optimizer_transient_bytes=round(optimizers[rank].transient_bytes * share),
        )
