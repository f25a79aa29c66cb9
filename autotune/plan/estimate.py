"""A profile that nobody measured: stages of a layout on devices that are not here, by ``roofline`` and ``held``.

``predict`` runs it on paper as it runs a measured one, and ``scale`` puts either on a network: one engine for both.
"""

from typing import NamedTuple

from autotune.plan.held import stage_held, static_bytes
from autotune.plan.network import Network, Wire, connected
from autotune.plan.roofline import Machine, Pass, head_pass, layer_pass, optimizer_pass
from autotune.plan.shape import Shape
from autotune.profile.fragmentation import ASSUMED
from autotune.records.job.environment import Environment
from autotune.records.job.layout import Layout, Runtime
from autotune.records.job.workload import Optimizer, WorkloadFacts
from autotune.records.profile import MessageSize, PaperEstimate, Profile, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.workload.partition import layers_per_stage

COMMON, NOT_BACKTESTED = 0.09, 0.2
"""Relative standard deviation of a step, common to all micro-batch sizes: of devices for which plans were held against
published runs (each paper against constants that were fitted without it), and of others."""
OWN = 0.02  # of each micro-batch size beside that
OUTSIDE_BYTES = 1_200_000_000  # of a device: the CUDA context, NCCL's buffers, the workspaces of cuBLAS


class Job(NamedTuple):
    """What is trained on what. ``batch``: sequences per step of one replica; ``network``: None for the device's own
    host and fabric."""

    machine: Machine
    shape: Shape
    layout: Layout
    batch: int
    optimizer: Optimizer = "adamw"
    network: Network | None = None

    def laid(self, **changes: object) -> "Job":
        """Return the job with another layout."""
        return self._replace(layout=self.layout.model_copy(update=changes))


def stage_pass(job: Job, layers: int, is_last: bool, micro_batch_size: int) -> Pass:
    """Return forward and backward of a stage."""
    one = layer_pass(job.machine, job.shape, job.layout, micro_batch_size)
    total = [layers * seconds for seconds in one]
    if is_last:
        head = head_pass(job.machine, job.shape, job.layout, micro_batch_size)
        total = [mine + more for mine, more in zip(total, head, strict=True)]
    return Pass(*total)


def stage_weights(job: Job, layers: int, ends: tuple[bool, bool]) -> float:
    """Return the weights that one device of a stage holds; ``ends``: whether it has the embedding, and the head."""
    shape, t = job.shape, job.layout.tensor_parallel
    cut = layers * shape.layer_weights + sum(ends) * shape.vocab * shape.hidden
    return cut / t + layers * shape.vector_weights


def paper_profile(job: Job, sizes: tuple[int, ...]) -> Profile:
    """Return the profile of the job's pipeline at these micro-batch sizes, on its network."""
    layout, shape, machine = job.layout, job.shape, job.machine
    p, v = layout.pipeline_parallel, layout.virtual_stages
    counts = layers_per_stage(shape.layers, p * v)
    stages = []
    for index, count in enumerate(counts):
        ends = (index == 0, index == len(counts) - 1)
        weights = stage_weights(job, count, ends)
        stages.append(
            StageProfile(
                layers=count,
                static_bytes=static_bytes(weights, machine.precision, job.optimizer, layout),
                time_s=tuple(row(job, count, ends[1], size) for size in sizes),
                memory=tuple(stage_held(shape, layout, machine.precision, count, ends, size) for size in sizes),
                optimizer_s=optimizer_pass(machine, layout, weights) if job.optimizer != "none" else 0.0,
            )
        )
    message = shape.seq_len * shape.hidden * machine.element / layout.tensor_parallel
    made = Profile(
        environment=Environment(
            device="cuda", devices=(machine.device.name,) * p, memory_bytes=machine.device.memory_bytes
        ),
        workload=facts(job),
        virtual_stages=v,
        stages=tuple(stages),
        message_bytes=tuple(MessageSize(micro_batch_size=size, bytes=round(size * message)) for size in sizes),
        reserved_over_allocated=ASSUMED.times,
        outside_bytes=OUTSIDE_BYTES,
        estimate=PaperEstimate(
            device=machine.device.name,
            common=COMMON if machine.device.is_backtested else NOT_BACKTESTED,
            own=OWN,
            shared_buffers=layout.runtime is Runtime.MEGATRON,
        ),
    )
    return connected(made, network_of(job))


def row(job: Job, layers: int, is_last: bool, micro_batch_size: int) -> StageTime:
    """Return the times of one micro-batch size on a stage."""
    one = stage_pass(job, layers, is_last, micro_batch_size)
    return StageTime(
        micro_batch_size=micro_batch_size,
        t_f=one.forward,
        t_bw=one.backward,
        t_b=one.backward - one.weights,
        t_w=one.weights,
    )


def facts(job: Job) -> WorkloadFacts:
    """Return what is trained, as a profile states it."""
    shape = job.shape
    return WorkloadFacts(
        layers=shape.layers,
        stages=job.layout.pipeline_parallel,
        hidden=shape.hidden,
        heads=shape.heads,
        seq_len=shape.seq_len,
        vocab=shape.vocab,
        batch=job.batch,
        precision=job.machine.precision,
        optimizer=job.optimizer,
    )


def network_of(job: Job) -> Network:
    """Return the network with the ranks of one pipeline as Megatron-LM lays them: the devices of a layer beside each
    other on a host, then replicas, then the ranks of the pipeline."""
    device, layout, given = job.machine.device, job.layout, job.network
    per_host = given.ranks_per_host * given.pipelines if given else device.per_host
    beside = max(1, min(per_host, layout.tensor_parallel * layout.data_parallel))
    placed = {"ranks_per_host": max(1, per_host // beside), "pipelines": beside}
    own = Wire(latency_s=device.inside_latency_s, bandwidth_bytes_s=device.inside_bytes_s)
    if given is not None:
        return given.model_copy(update=placed | {"inside": given.inside or own})
    fabric = Wire(latency_s=device.between_latency_s, bandwidth_bytes_s=device.between_bytes_s)
    return Network(**placed, rails=device.per_host, inside=own, between=fabric)


def utilisation(job: Job, step_time_s: float) -> float:
    """Return the model's operations per second and device over the device's peak."""
    devices = job.layout.pipeline_parallel * job.layout.tensor_parallel
    peak = job.machine.device.operations_s[job.machine.precision]
    return job.shape.model_operations(job.batch) / (step_time_s * devices * peak)
