"""Bytes of a transformer's stages that nobody built, in closed form.

Of a layer a backward needs, in elements: its input, the output of either norm and the sum between them (4 h); queries,
keys, values and the output of attention; what goes into the activation
function and what comes out. Tensor parallelism cuts all but the first four, sequence parallelism those too. That is
Korthikanti et al. 2022 (arXiv 2205.05198, Table 2) without dropout, and what fake tensors of the built-in GPT add up to
(a test holds both within 3 %).
"""

from autotune.plan.shape import Shape
from autotune.records.job.layout import Attention, Layout, Runtime
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import Optimizer, Precision
from autotune.records.stage_costs import StageMemory

ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}
MOMENTS = {"adamw": 2, "sgd": 0, "none": 0}
SCORES = 5  # bytes a score: softmax and dropout in two each, and the mask of dropout


def static_bytes(weights: float, precision: Precision, optimizer: Optimizer, layout: Layout) -> int:
    """Return what a device holds of so many weights from the beginning to the end.

    That is weights, gradients in four bytes (Megatron-LM's of fp16 weights in two), masters of weights in lower
    precision and the optimizer's numbers, which replicas may share.
    """
    master = 4 if precision != "fp32" and optimizer != "none" else 0
    shared = master + 4 * MOMENTS[optimizer]
    gradient = 2 if layout.runtime is Runtime.MEGATRON and precision == "fp16" else 4
    return round(
        weights * (ELEMENT[precision] + gradient + shared / (layout.data_parallel if layout.shared_optimizer else 1))
    )


def layer_elements(shape: Shape, layout: Layout) -> float:
    """Return elements per token that a layer keeps on one device for its backward."""
    t = layout.tensor_parallel
    if layout.recompute is Recompute.FULL:
        return shape.hidden / (t if layout.sequence_parallel else 1)
    return all_elements(shape, layout)


def all_elements(shape: Shape, layout: Layout) -> float:
    """Return elements per token that a layer's forward makes and its backward needs."""
    t = layout.tensor_parallel
    whole = 4 * shape.hidden / (t if layout.sequence_parallel else 1)
    return whole + (2 * shape.hidden + 2 * shape.kv_width + (3 if shape.gated else 2) * shape.ffn) / t


def other_bytes(shape: Shape, layout: Layout) -> float:
    """Return bytes per token beside these: two numbers for each norm; the sum of each row of scores, or the scores."""
    t = layout.tensor_parallel
    norms = 16.0 / (t if layout.sequence_parallel else 1)
    if layout.attention is Attention.FLASH or layout.recompute is Recompute.SELECTIVE:
        return norms + 4 * shape.heads / t
    return norms + SCORES * shape.heads * shape.seq_len / t


def stage_held(
    shape: Shape, layout: Layout, precision: Precision, layers: int, ends: tuple[bool, bool], micro_batch_size: int
) -> StageMemory:
    """Return what one micro-batch takes on a stage; ``ends``: whether it has the embedding, and the head."""
    element, t = ELEMENT[precision], layout.tensor_parallel
    tokens = micro_batch_size * shape.seq_len
    is_full = layout.recompute is Recompute.FULL
    layer = tokens * (element * layer_elements(shape, layout) + (0 if is_full else other_bytes(shape, layout)))
    again = tokens * (element * all_elements(shape, layout) + other_bytes(shape, layout)) if is_full else 0.0
    wide = shape.ffn * (2 if shape.gated else 1) / t
    transient = element * wide * (tokens + shape.hidden) + again
    first, last = ends
    hidden = tokens * element * shape.hidden
    logits, table = tokens * shape.vocab / t, element * shape.vocab * shape.hidden / t
    held = layers * layer + hidden * (first + last) + logits * (element + 4) * last
    if first:  # the embedding's gradient comes last, when the layers have let go of theirs
        transient = max(transient, table + 2 * hidden - held)
    if last:
        transient = max(8 * logits, element * logits + table, transient - logits * (element + 4))
    return StageMemory(
        micro_batch_size=micro_batch_size, activation_bytes=round(held), transient_bytes=round(transient)
    )
