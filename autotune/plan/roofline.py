"""Seconds of a transformer's layers on a device that is not here: operations and bytes against its data sheet.

::

    forward of a layer = matrix products + attention + what moves bytes alone + all-reduces of tensor parallelism
    backward           = twice the products, ... + the forward of what is computed again

A matrix product reaches ``products`` of the data sheet's rate where it fills the device: its tiles of 128 x 128 are
dealt to the multiprocessors, and the last round is half empty in the mean. What moves bytes alone (norms, residuals,
activation functions) goes by the memory's rate, so does softmax over written scores.

The constants are fitted to published runs on A100, and to which micro-batch size was the quickest in published sweeps
(``python -m tests.bench backtest`` fits them again without each paper in turn, and says how far that one is off):
Narayanan et al. 2021 (arXiv 2104.04473, Table 1 and Figure 7), Korthikanti et al. 2022 (arXiv 2205.05198, Table 5),
Qi et al. 2024 (arXiv 2401.10241, Table 4). The fit took the first for plain 1F1B; four of its ten runs are interleaved.
"""

from typing import NamedTuple

from autotune.plan.devices import DeviceSpec
from autotune.plan.shape import Shape
from autotune.records.job.layout import Attention, Layout
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import Precision

TILE = 128  # rows and columns of the output that one multiprocessor computes at a time
ALIGNED = 64  # elements: a width on a device that is no multiple of it leaves matrix units idle


class Constants(NamedTuple):
    """What kernels and links reach of a data sheet's rates."""

    products: float = 0.795
    """Share of the peak that a large matrix product reaches."""
    last_round: float = 1.19
    """Rounds of tiles that are lost at the end of a product."""
    launch_s: float = 3.73e-5
    """Seconds to start a matrix product and the kernels that go with it."""
    attention: float = 0.576
    """Share of the peak that the products of attention reach."""
    score_passes: float = 6.51
    """How often written scores are read or written in a forward."""
    passes: float = 8.8
    """How often the hidden states are read or written in a layer's forward beside matrix products."""
    collective: float = 0.8
    """Share of a link's rate that an all-reduce reaches."""
    collective_s: float = 1.74e-4
    """Seconds that an all-reduce takes however small it is."""
    misaligned: float = 1.89
    """How many times longer products take whose widths are not aligned."""
    optimizer_bytes: float = 38.0
    """Bytes read and written for each weight by its optimizer: gradient zeroed and read, three numbers updated, one
    cast."""


FITTED = Constants()
HEAD_PASSES = 6  # over logits in four bytes: cast, softmax, loss, and the gradient
ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}


class Pass(NamedTuple):
    """Seconds of one micro-batch; ``weights``: of the backward, those for the gradients of weights."""

    forward: float
    backward: float
    weights: float = 0.0


class Machine(NamedTuple):
    """A device, what kernels reach of it, and the number format."""

    device: DeviceSpec
    precision: Precision = "bf16"
    constants: Constants = FITTED

    @property
    def element(self) -> int:
        """Bytes of an element."""
        return ELEMENT[self.precision]

    def product(self, rows: float, inner: float, columns: float) -> float:
        """Return seconds of a matrix product (rows x inner) · (inner x columns)."""
        known = self.constants
        rounds = rows / TILE * columns / TILE / self.device.multiprocessors
        reached = known.products * rounds / (rounds + known.last_round)
        return 2 * rows * inner * columns / (self.device.operations_s[self.precision] * reached) + known.launch_s

    def moved(self, count: float) -> float:
        """Return seconds to read or write ``count`` bytes."""
        return count / self.device.memory_bytes_s

    def all_reduce(self, count: float, devices: int) -> float:
        """Return seconds of an all-reduce of ``count`` bytes among devices; of one host's, or over the fabric."""
        if devices == 1:
            return 0.0
        inside = devices <= self.device.per_host
        rate = self.device.inside_bytes_s if inside else self.device.between_bytes_s
        return 2 * (devices - 1) / devices * count / (rate * self.constants.collective) + self.constants.collective_s


def layer_pass(machine: Machine, shape: Shape, layout: Layout, micro_batch_size: int) -> Pass:
    """Return one layer's forward and backward on one of the t devices that share it."""
    t, h, known = layout.tensor_parallel, shape.hidden, machine.constants
    tokens = micro_batch_size * shape.seq_len
    products = (
        machine.product(tokens, h, (h + 2 * shape.kv_width) / t)
        + machine.product(tokens, h / t, h)
        + machine.product(tokens, h, shape.ffn * (2 if shape.gated else 1) / t)
        + machine.product(tokens, shape.ffn / t, h)
    )
    products *= 1.0 if h % (ALIGNED * t) == 0 else known.misaligned
    whole = tokens * h * machine.element * known.passes / (t if layout.sequence_parallel else 1)
    inside = tokens * shape.ffn / t * machine.element * known.passes / 2 * (1.5 if shape.gated else 1)
    moved = machine.moved(whole + inside)
    attention = attention_pass(machine, shape, layout, tokens)
    shared = 2 * machine.all_reduce(tokens * h * machine.element, t)
    forward = products + moved + attention.forward + shared
    again = {Recompute.NONE: 0.0, Recompute.SELECTIVE: attention.forward, Recompute.FULL: forward}[layout.recompute]
    return Pass(forward, 2 * products + 2 * moved + attention.backward + shared + again, products)


def attention_pass(machine: Machine, shape: Shape, layout: Layout, tokens: int) -> Pass:
    """Return the core of attention; in tiles only half of a causal mask is computed, and two and a half times that
    backward, because scores are computed again there."""
    operations = 4 * tokens * shape.seq_len * shape.hidden / layout.tensor_parallel
    seconds = operations / (machine.device.operations_s[machine.precision] * machine.constants.attention)
    if layout.attention is Attention.FLASH:
        return Pass(seconds / 2, 2.5 * seconds / 2)
    scores = shape.heads / layout.tensor_parallel * tokens * shape.seq_len * machine.element
    forward = seconds + machine.moved(scores * machine.constants.score_passes)
    return Pass(forward, 2 * forward)


def head_pass(machine: Machine, shape: Shape, layout: Layout, micro_batch_size: int) -> Pass:
    """Return the language-model head and its loss."""
    tokens, columns = micro_batch_size * shape.seq_len, shape.vocab / layout.tensor_parallel
    product = machine.product(tokens, shape.hidden, columns)
    moved = machine.moved(HEAD_PASSES * 4 * tokens * columns)
    return Pass(product + moved / 3, 2 * product + 2 * moved / 3, product)


def optimizer_pass(machine: Machine, layout: Layout, weights: float) -> float:
    """Return seconds after the last backward: gradients summed over the replicas, in four bytes each, and the
    optimizer's step over ``weights`` of one device."""
    replicas = layout.data_parallel
    step = machine.moved(machine.constants.optimizer_bytes * weights) / (replicas if layout.shared_optimizer else 1)
    if replicas == 1:
        return step
    beside = max(
        1, machine.device.per_host // layout.tensor_parallel
    )  # replicas on one host, each with NICs of its own
    rate = machine.device.inside_bytes_s
    if replicas > beside:
        rate = min(rate, machine.device.between_bytes_s * beside)
    return step + 2 * (replicas - 1) / replicas * 4 * weights / rate
