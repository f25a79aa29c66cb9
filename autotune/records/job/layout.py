"""The layout of a model over many devices, as a Megatron-LM user names it."""

from enum import StrEnum

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autotune.records.base import Record
from autotune.records.job.recompute import Recompute
from autotune.schedule_spec import ScheduleName


class Attention(StrEnum):
    """How attention is computed."""

    FLASH = "flash"  # in tiles: no scores are written to memory
    SCORES = "scores"  # softmax over written scores, as before FlashAttention


class Runtime(StrEnum):
    """The software that runs a pipeline, as far as memory depends on it."""

    TORCH = "torch"  # a receive buffer for every micro-batch; gradients in fp32
    MEGATRON = "megatron-lm"  # a receive buffer for each neighbour; gradients of fp16 weights in fp16


class Layout(Record):
    """Devices of one training job: p x t x d of them, and what each of them holds."""

    pipeline_parallel: PositiveInt
    """Ranks of one pipeline (p)."""
    tensor_parallel: PositiveInt = 1
    """Devices that share each layer (t)."""
    data_parallel: PositiveInt = 1
    """Replicas of the pipeline (d)."""
    virtual_stages: PositiveInt = 1
    """Stages per rank (v)."""
    sequence_parallel: bool = False
    """Whether what tensor parallelism leaves whole is cut along the sequence."""
    recompute: Recompute = Recompute.NONE
    """What a backward computes again; selective is Megatron-LM's: the scores of attention."""
    attention: Attention = Attention.FLASH
    """Kernel of attention: in tiles, or over written scores."""
    runtime: Runtime = Runtime.TORCH
    """Software that runs the pipeline, as far as memory depends on it."""
    shared_optimizer: bool = False
    """Whether replicas share the optimizer's state, each a part of it."""

    @property
    def devices(self) -> int:
        """All devices."""
        return self.pipeline_parallel * self.tensor_parallel * self.data_parallel

    @property
    def words(self) -> str:
        """``p = 4, t = 2, d = 8``, and what else is not as usual."""
        parts = [f"p = {self.pipeline_parallel}, t = {self.tensor_parallel}, d = {self.data_parallel}"]
        parts += [f"v = {self.virtual_stages}"] if self.virtual_stages > 1 else []
        parts += ["sequence parallel"] if self.sequence_parallel else []
        parts += [f"{self.recompute.value} recomputation"] if self.recompute is not Recompute.NONE else []
        return ", ".join(parts)


class PlannedLayout(Record):
    """One layout of a number of devices, with its best micro-batch size; rates are of all replicas together."""

    layout: Layout
    """The layout."""
    micro_batches: PositiveInt
    """Micro-batches per step and replica (m)."""
    micro_batch_size: PositiveInt
    """Sequences per micro-batch (b)."""
    schedule: ScheduleName
    """Schedule, by torch's name."""
    step_time_s: PositiveFloat
    """Estimated seconds of a step."""
    step_time_low_s: PositiveFloat
    """Lower end of the 90 % interval, seconds."""
    step_time_high_s: PositiveFloat
    """Upper end of the 90 % interval, seconds."""
    throughput_seq_s: PositiveFloat
    """Throughput of all replicas, sequences per second."""
    throughput_tokens_s: PositiveFloat
    """Throughput of all replicas, tokens per second."""
    model_flops_utilisation: NonNegativeFloat
    """Operations of the model per second and device, as a share of what the device can do."""
    device_memory_bytes: NonNegativeInt
    """Bytes that the fullest device has to give."""
