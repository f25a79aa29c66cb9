"""Peak memory of each rank: static + in flight x activations + transient + what torch's runtime keeps for messages."""

from autotune.predict.record import Candidate
from autotune.predict.schedules import Schedule
from autotune.profile.record import Profile, StageProfile, interpolate


def message_size(profile: Profile, micro_batch_size: int) -> int:
    """Bytes that cross a boundary for one micro-batch; 0 where the profile does not say."""
    rows = profile.message_bytes
    if not rows:
        return 0
    return round(interpolate([r.micro_batch_size for r in rows], [float(r.bytes) for r in rows], micro_batch_size))


def communication_bytes(profile: Profile, candidate: Candidate, stage: int) -> int:
    """torch's PipelineStage allocates a receive buffer per micro-batch for each neighbour it hears from."""
    neighbours = (stage > 0) + (stage < len(profile.stages) - 1)
    return neighbours * candidate.micro_batches * message_size(profile, candidate.micro_batch_size)


def working_bytes(stage: StageProfile, micro_batch_size: int, in_flight: int) -> int:
    """Activations of ``in_flight`` micro-batches and the transient of the one that runs."""
    sizes = [row.micro_batch_size for row in stage.memory]
    activation = interpolate(sizes, [float(row.activation_bytes) for row in stage.memory], micro_batch_size)
    transient = interpolate(sizes, [float(row.transient_bytes) for row in stage.memory], micro_batch_size)
    return round(in_flight * activation + transient)


def batch_bytes(profile: Profile, candidate: Candidate, stage: int) -> int:
    """Token ids and targets, eight bytes each, that every rank holds for the batch."""
    tokens = profile.workload.seq_len or 0
    return 2 * 8 * candidate.micro_batches * candidate.micro_batch_size * tokens


def peak_memory(profile: Profile, candidate: Candidate, schedule: Schedule) -> tuple[int, ...] | None:
    """The most bytes each rank holds at once; None where the profile holds no memory rows.

    The peak lies in a forward or backward with all micro-batches in flight, or in the optimizer step.
    """
    if not all(stage.memory for stage in profile.stages):
        return None
    peaks = []
    for index, stage in enumerate(profile.stages):
        working = working_bytes(stage, candidate.micro_batch_size, schedule.stage_in_flight(index))
        held = stage.static_bytes + communication_bytes(profile, candidate, index)
        held += batch_bytes(profile, candidate, index)
        peaks.append(held + max(working, stage.optimizer_transient_bytes))
    return tuple(peaks)
