"""Peak memory of each rank: what torch's runtime holds at every moment of a step, from the schedule's own order.

::

    static      weights, gradients, optimizer state: from the beginning to the end
    batch       inputs and targets
    messages    a receive buffer per micro-batch and neighbouring stage; what was sent and is not yet let go
    activations from a forward to its backward; of a split backward a part until the weight gradient
    transient   while one action runs
    outputs     of the last stage, where torch is older than 2.10: until the step ends, when they are merged
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import BACKWARD, FORWARD, INPUT_GRADIENT, KINDS, WEIGHT_GRADIENT
from autotune.predict.schedules import Schedule
from autotune.records.prediction import Candidate, MemorySplit
from autotune.records.profile import Profile
from autotune.records.stage_costs import StageMemory

Bytes = NDArray[np.float64]
LOSS_BYTES = 4  # of each micro-batch, kept by torch's schedule until the step ends


class Held(NamedTuple):
    """Bytes per kind of action and stage, float64[4, S] each: ``change`` of what is held when the action has ended,
    ``transient`` above what was held when it began. Activations (in ``change``) without ``kept``, what messages add."""

    change: Bytes
    kept: Bytes
    transient: Bytes


def held_bytes(profile: Profile, candidate: Candidate, schedule: Schedule) -> Held:
    """Return what every action of a micro-batch takes and gives back."""
    size = candidate.micro_batch_size

    def rows(part: Callable[[StageMemory], int]) -> Bytes:
        return np.array([stage.bytes(size, part) for stage in profile.stages])

    activation = rows(lambda row: row.activation_bytes)
    between = rows(lambda row: row.activation_bytes if row.split_held_bytes is None else row.split_held_bytes)
    transient = rows(lambda row: row.transient_bytes)
    change = np.array([activation, -activation, between - activation, -between])
    # Outputs that are kept are among the activations until the backward, or its first half, has used them.
    outputs = np.array([stage.kept_output_bytes * float(size) for stage in profile.stages])
    change[[BACKWARD, INPUT_GRADIENT]] += outputs
    during = np.array(
        [
            activation + transient,
            transient,
            rows(lambda row: row.transient_bytes if row.input_transient_bytes is None else row.input_transient_bytes),
            rows(lambda row: row.transient_bytes if row.weight_transient_bytes is None else row.weight_transient_bytes),
        ]
    )
    return Held(change, kept_messages(schedule, profile.message_size(size)), during)


def kept_messages(schedule: Schedule, message: int) -> Bytes:
    """Return float64[4, S]: bytes that an action leaves behind because torch's runtime holds on to a message.

    GPipe waits for the sends of its backwards when all are done, the multi-stage runtime for all sends: until then
    the sent tensors live. Between two stages of one rank nothing is sent; there the output, and the gradient that comes
    back, take the place of the receive buffer and stay in it until the next step.
    """
    placed = schedule.stage_ranks
    kept = np.zeros((4, schedule.stages))
    if schedule.runtime == "exchanges":
        return kept  # lets go of the last message with the next; see kept_by_1f1b
    for stage in range(schedule.stages):
        gradient = message * (stage > 0 and placed[stage - 1] != placed[stage])
        if schedule.runtime == "waits":
            kept[BACKWARD, stage] = gradient
            continue
        has_next = stage < schedule.stages - 1
        is_local = has_next and placed[stage + 1] == placed[stage]
        output = message * has_next
        kept[FORWARD, stage] = -output if is_local else 0
        kept[BACKWARD, stage] = output + gradient
        # A split backward holds the gradient (part of split_held_bytes) from its first half on.
        kept[INPUT_GRADIENT, stage] = gradient - message * (stage > 0)
        kept[WEIGHT_GRADIENT, stage] = output + message * (stage > 0)
    return kept


def kept_by_1f1b(schedule: Schedule, rank: int) -> int:
    """Return messages that torch's 1F1B holds on to at its fullest moment; 0 under other schedules.

    The gradient sent last, and the last output sent while warming up: F1 here, from its backward to the cool-down ::

        rank 1 of 4   F0 F1 F2 B0 F3 B1 F4 B2 ...      so m = 4 never has both F1 and a fourth forward to hold
    """
    if schedule.runtime != "exchanges":
        return 0
    warm_up = min(schedule.micro_batches, schedule.ranks - rank)
    gradient = rank > 0 and schedule.micro_batches > warm_up
    output = rank < schedule.ranks - 1 and schedule.micro_batches >= 2 * warm_up - 1
    return gradient + output


def left_gradients(schedule: Schedule, rank: int) -> int:
    """Return messages that a rank still holds in the optimizer step, when all sends are done: the gradients that split
    backwards leave at their receive buffers until the next step."""
    kind, stage, _ = schedule.order(rank)
    placed = schedule.stage_ranks
    is_sent = np.array([index > 0 and placed[index - 1] != rank for index in range(schedule.stages)])
    return int(np.count_nonzero((kind == WEIGHT_GRADIENT) & is_sent[stage]))


def buffers(schedule: Schedule, rank: int, message: int, is_shared: bool) -> int:
    """Receive buffers, a message per micro-batch and neighbouring stage, or one for all micro-batches; and the losses,
    which stay beside them."""
    own = [stage for stage, owner in enumerate(schedule.stage_ranks) if owner == rank]
    neighbours = sum((stage > 0) + (stage < schedule.stages - 1) for stage in own)
    losses = LOSS_BYTES * schedule.micro_batches if schedule.stages - 1 in own else 0
    return neighbours * (1 if is_shared else schedule.micro_batches) * message + losses


def batch_bytes(profile: Profile, candidate: Candidate) -> int:
    """Return inputs and targets that every rank holds for the batch."""
    return candidate.micro_batches * candidate.micro_batch_size * profile.workload.held_bytes_per_sample


def peak_memory(profile: Profile, candidate: Candidate, schedule: Schedule) -> tuple[MemorySplit, ...] | None:
    """Return what each rank holds at its fullest moment; None where the profile holds no memory rows."""
    if not all(stage.memory for stage in profile.stages):
        return None
    held = held_bytes(profile, candidate, schedule)
    message = profile.message_size(candidate.micro_batch_size)
    return tuple(_rank_peak(profile, candidate, schedule, rank, held, message) for rank in range(schedule.ranks))


def _rank_peak(
    profile: Profile, candidate: Candidate, schedule: Schedule, rank: int, held: Held, message: int
) -> MemorySplit:
    """The fullest moment of one rank: in one of its actions, or in the optimizer step."""
    kind, stage, micro_batch = schedule.order(rank)
    activations, kept = (before(part[kind, stage]) for part in (held.change, held.kept))
    kept = kept + message * kept_by_1f1b(schedule, rank)
    during = activations + kept + held.transient[kind, stage]
    fullest = int(during.argmax())
    own = [profile.stages[index] for index, owner in enumerate(schedule.stage_ranks) if owner == rank]
    outputs = candidate.micro_batches * candidate.micro_batch_size * sum(part.kept_output_bytes for part in own)
    # Outputs that were kept are merged when all backwards are done, and stay until the next step.
    optimizer = max(outputs, sum(part.optimizer_transient_bytes for part in own))
    after = message * left_gradients(schedule, rank)
    in_optimizer = optimizer + after + outputs > during[fullest]
    moment = f"{KINDS[kind[fullest]]}{micro_batch[fullest]} of stage {stage[fullest]}"
    last_moment = "merging the outputs" if optimizer == outputs > 0 else "the optimizer step"
    taken = held.change[FORWARD, stage[fullest]] if kind[fullest] == FORWARD else 0.0
    is_shared = profile.estimate is not None and profile.estimate.shared_buffers
    return MemorySplit(
        static=sum(part.static_bytes for part in own),
        batch=batch_bytes(profile, candidate),
        messages=round(buffers(schedule, rank, message, is_shared) + (after if in_optimizer else kept[fullest])),
        activations=outputs if in_optimizer else round(activations[fullest] + taken),
        transient=optimizer if in_optimizer else round(held.transient[kind[fullest], stage[fullest]] - taken),
        moment=last_moment if in_optimizer else moment,
    )


def before(changes: Bytes) -> Bytes:
    """Return what is held when each action begins, from what each changes."""
    level: Bytes = np.concatenate(([0.0], changes.cumsum()[:-1]))
    return level


def device_bytes(profile: Profile, peaks: Sequence[MemorySplit]) -> tuple[int, ...]:
    """Return the bytes of each device that will not be free: the allocator's, with fragmentation, and those outside of
    torch. What is static is allocated once and leaves no holes."""
    moving = [round((peak.total - peak.static) * profile.reserved_over_allocated) for peak in peaks]
    return tuple(
        peak.static + moving[rank] + profile.segments_bytes + profile.outside_of(rank)
        for rank, peak in enumerate(peaks)
    )
