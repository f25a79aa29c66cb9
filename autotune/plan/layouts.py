"""The best (p, d, t, m, v) of a number of devices: every legal layout by a closed form, the best of them on paper.

The closed form is that of equal stages, (m + (p - 1) / v) (t_f + t_b) with the last stage's head, messages, and the
optimizer; thousands of layouts take a second or two. Those that come out best are then run as ``predict`` runs any
candidate, and what does not fit in memory falls out.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from autotune.config import divisors
from autotune.errors import MemoryLimitError, UsageError
from autotune.plan.estimate import OUTSIDE_BYTES, Job, network_of, paper_profile, stage_weights, utilisation
from autotune.plan.held import stage_held, static_bytes
from autotune.plan.roofline import Pass, head_pass, layer_pass, optimizer_pass
from autotune.predict.predict import predict
from autotune.profile.fragmentation import ASSUMED
from autotune.records.job.layout import Attention, Layout, PlannedLayout, Runtime
from autotune.records.job.recompute import Recompute
from autotune.records.prediction import Candidate, Prediction
from autotune.schedule_spec import ScheduleName, runnable, why_illegal
from autotune.workload.partition import layers_per_stage

MOST_SEQUENCES = 16
"""Sequences per micro-batch that are tried: larger ones gain nothing where a sequence has a thousand tokens."""
MOST_VIRTUAL = 8
FINALISTS, MOST_RUN = 16, 64  # layouts that are run on paper; candidates of them
SHOWN = 10


class Space(NamedTuple):
    """What is asked for; None: free. ``sequences``: of all replicas."""

    devices: int
    sequences: int
    memory_limit: int
    tensor_parallel: int | None = None
    data_parallel: int | None = None
    pipeline_parallel: int | None = None
    virtual_stages: tuple[int, ...] | None = None
    recompute: Recompute | None = None
    sequence_parallel: bool | None = None
    attention: Attention = Attention.FLASH
    runtime: Runtime = Runtime.TORCH
    shared_optimizer: bool = True


class Tried(NamedTuple):
    """One layout and micro-batch size, and seconds of its step by the closed form."""

    job: Job
    micro_batches: int
    micro_batch_size: int
    seconds: float

    @property
    def schedule(self) -> ScheduleName:
        """The schedule: interleaved where a rank has several stages."""
        name: ScheduleName = "Interleaved1F1B" if self.job.layout.virtual_stages > 1 else "1F1B"
        return runnable(name, self.job.layout.pipeline_parallel, self.micro_batches)


def layouts(job: Job, space: Space) -> Iterator[Layout]:
    """Yield every layout of the devices that the model and the batch can be cut by."""
    per_host, shape = job.machine.device.per_host, job.shape
    for t in [space.tensor_parallel] if space.tensor_parallel else divisors(per_host):
        if shape.heads % t or shape.ffn % t or space.devices % t:
            continue
        for p in divisors(space.devices // t):
            d = space.devices // t // p
            if space.pipeline_parallel not in (None, p) or space.data_parallel not in (None, d):
                continue
            if p > shape.layers or space.sequences % d:
                continue
            for v in virtual(space, shape.layers, p):
                for recompute in kinds(space):
                    yield Layout(
                        pipeline_parallel=p,
                        tensor_parallel=t,
                        data_parallel=d,
                        virtual_stages=v,
                        sequence_parallel=t > 1 if space.sequence_parallel is None else space.sequence_parallel,
                        recompute=recompute,
                        attention=space.attention,
                        runtime=space.runtime,
                        shared_optimizer=space.shared_optimizer and d > 1,
                    )


def virtual(space: Space, layers: int, ranks: int) -> Sequence[int]:
    """Return the numbers of stages per rank that cut the layers evenly."""
    wanted = space.virtual_stages or range(1, MOST_VIRTUAL + 1)
    return [v for v in wanted if v == 1 or (ranks > 1 and layers % (ranks * v) == 0)]


def kinds(space: Space) -> list[Recompute]:
    """Return what may be computed again: scores only where they are kept at all."""
    if space.recompute is not None:
        return [space.recompute]
    return [one for one in Recompute if one is not Recompute.SELECTIVE or space.attention is Attention.SCORES]


class Costs:
    """Passes and bytes by what they depend on, each computed once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.layer = cache(self._layer)
        self.head = cache(self._head)

    def _layer(self, layout: Layout, size: int) -> Pass:
        return layer_pass(self.job.machine, self.job.shape, layout, size)

    def _head(self, layout: Layout, size: int) -> Pass:
        return head_pass(self.job.machine, self.job.shape, layout, size)


def cut_alone(layout: Layout) -> Layout:
    """Return the layout as far as one layer's time depends on it."""
    return Layout(
        pipeline_parallel=1,
        tensor_parallel=layout.tensor_parallel,
        sequence_parallel=layout.sequence_parallel,
        recompute=layout.recompute,
        attention=layout.attention,
    )


def quick(costs: Costs, job: Job, size: int) -> float:
    """Return seconds of a step by the closed form."""
    layout, alone = job.layout, cut_alone(job.layout)
    p, v, m = layout.pipeline_parallel, layout.virtual_stages, job.batch // size
    layer, head = costs.layer(alone, size), costs.head(alone, size)
    counts = layers_per_stage(job.shape.layers, p * v)
    rank = sum(counts[::p]) * (layer.forward + layer.backward)
    last = sum(counts[p - 1 :: p]) * (layer.forward + layer.backward) + head.forward + head.backward
    wire = network_of(job).wire("inside" if p <= network_of(job).ranks_per_host else "between")
    message = size * job.shape.seq_len * job.shape.hidden * job.machine.element / layout.tensor_parallel
    hop = 0.0 if p == 1 else wire.latency_s + message / (wire.bandwidth_bytes_s or 1.0)
    weights = stage_weights(job, sum(counts[::p]), (True, p == 1))
    step = m * max(rank, last) + (p - 1) / v * (rank + 2 * v * hop) + 2 * v * m * hop
    return step + optimizer_pass(job.machine, layout, weights)


def quick_bytes(job: Job, size: int) -> float:
    """Return bytes of the first rank, or of the last where that has more, by the closed form."""
    layout, shape, machine = job.layout, job.shape, job.machine
    p, v, m = layout.pipeline_parallel, layout.virtual_stages, job.batch // size
    counts = layers_per_stage(shape.layers, p * v)
    most = 0.0
    for rank in {0, p - 1}:
        own = sum(counts[rank::p])
        ends = (rank == 0, rank == p - 1)
        static = static_bytes(stage_weights(job, own, ends), machine.precision, job.optimizer, layout)
        held = stage_held(shape, layout, machine.precision, counts[rank], ends, size)
        waiting = m if m < p else p - rank
        in_flight = waiting if v == 1 else min(m * v, 2 * (p - rank - 1) + (v - 1) * p + 1)
        alone = stage_held(shape, layout, machine.precision, counts[rank], (False, False), size).activation_bytes
        # Only one stage of a rank has embedding or head; interleaved, a backward follows each forward of the head.
        ends_of = (1 if v > 1 and ends[1] else waiting) * (held.activation_bytes - alone)
        moving = in_flight * alone + ends_of + held.transient_bytes
        most = max(most, static + ASSUMED.times * moving + OUTSIDE_BYTES)
    return most


def tried(job: Job, space: Space) -> list[Tried]:
    """Return every layout and micro-batch size that fits by the closed form, the quickest first."""
    costs, found = Costs(job), []
    for layout in layouts(job, space):
        batch = space.sequences // layout.data_parallel
        mine = job._replace(layout=layout, batch=batch)
        for size in divisors(batch):
            if size > MOST_SEQUENCES:
                break
            one = Tried(mine, batch // size, size, quick(costs, mine, size))
            p, v = layout.pipeline_parallel, layout.virtual_stages
            if why_illegal(one.schedule, p, v, one.micro_batches) is None:
                found.append(one)
    return sorted(found, key=lambda one: one.seconds)


def best_layouts(job: Job, space: Space) -> list[PlannedLayout]:
    """Return the best layouts, the quickest first; raise UsageError where there is none, MemoryLimitError where none
    fits."""
    every = tried(job, space)
    if not every:
        raise UsageError(
            f"--devices: no layout of {space.devices} cuts {job.shape.layers} layers of {job.shape.heads} heads and"
            f" {space.sequences} sequences; change --devices or --global-batch-size"
        )
    fitting = (one for one in every if quick_bytes(one.job, one.micro_batch_size) <= space.memory_limit)
    found: dict[Layout, PlannedLayout] = {}
    for count, one in enumerate(fitting):
        if len(found) >= FINALISTS or (count >= MOST_RUN and found):
            break
        made = planned(one, space.memory_limit)
        if made is not None and (one.job.layout not in found or made.step_time_s < found[one.job.layout].step_time_s):
            found[one.job.layout] = made
    if not found:
        raise MemoryLimitError(
            f"no layout of {space.devices} devices fits in {space.memory_limit / 1e9:.0f} GB each; give more --devices,"
            " a larger --device-spec, or --recompute full"
        )
    return sorted(found.values(), key=lambda one: one.step_time_s)[:SHOWN]


def planned(one: Tried, memory_limit: int) -> PlannedLayout | None:
    """Return a layout run on paper; None where it does not fit after all."""
    profile = paper_profile(one.job, (one.micro_batch_size,))
    candidate = Candidate(
        micro_batches=one.micro_batches,
        micro_batch_size=one.micro_batch_size,
        sequences=one.job.batch,
        schedule=one.schedule,
        virtual_stages=one.job.layout.virtual_stages,
    )
    made: Prediction = predict(profile, candidate, memory_limit)
    if made.fits is False:
        return None
    replicas = one.job.layout.data_parallel
    return PlannedLayout(
        layout=one.job.layout,
        micro_batches=one.micro_batches,
        micro_batch_size=one.micro_batch_size,
        schedule=one.schedule,
        step_time_s=made.step_time_s,
        step_time_low_s=made.step_time_low_s,
        step_time_high_s=made.step_time_high_s,
        throughput_seq_s=replicas * made.throughput_seq_s,
        throughput_tokens_s=replicas * one.job.shape.seq_len * made.throughput_seq_s,
        model_flops_utilisation=utilisation(one.job, made.step_time_s),
        device_memory_bytes=max(made.device_memory_bytes or (0,)),
    )
