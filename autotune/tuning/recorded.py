"""A step that the ranks recorded, as the report keeps it."""

from collections.abc import Sequence

from autotune.pipeline.control.commands import StepTimes, step_seconds
from autotune.predict.schedules import Action, Kind, Schedule
from autotune.records.report import RecordedStep

KINDS: dict[str, Kind] = {"forward": "F", "backward": "B", "input_gradient": "I", "weight_gradient": "W"}


def recorded_step(candidate: int, schedule: Schedule, steps: Sequence[Sequence[StepTimes]]) -> RecordedStep:
    """Return of ``steps``, by step and rank, the one of median length, its actions in the order of the schedule."""
    chosen = sorted(steps, key=step_seconds)[len(steps) // 2]
    begun = min(rank.start_s for rank in chosen)
    starts, ends = [], []
    for rank, times in enumerate(chosen):
        found = {Action(KINDS[one.name], one.stage, one.micro_batch): one for one in times.actions}
        row = [found[action] for action in schedule.actions(rank)]
        starts.append(tuple(one.start_s - begun for one in row))
        ends.append(tuple(one.end_s - begun for one in row))
    return RecordedStep(
        candidate=candidate, step_time_s=step_seconds(chosen), starts_s=tuple(starts), ends_s=tuple(ends)
    )
