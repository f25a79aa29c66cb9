"""A short real pipeline run of one candidate, from the controller's side: a Measurement or a Failure comes back."""

from collections.abc import Callable
from datetime import UTC, datetime

from autotune.config import Workload
from autotune.pipeline.commands import Build, Prepare, Primed, StageFacts, Step, StepTimes
from autotune.pipeline.outcome import Failure, Measurement
from autotune.pipeline.ranks import RankFailure, Ranks

FLOOR_S = 60.0  # no command is given less time than this
BUILD_TIMEOUT_S = 600.0

KeepGoing = Callable[[int, float], bool]
"""Called after each timed step with its number and seconds; says whether another one is wanted."""


def build(ranks: Ranks, workload: Workload) -> list[StageFacts]:
    """Starts the ranks if need be, and builds every stage; raises RankFailure."""
    if not ranks.alive:
        ranks.start()
    return [StageFacts.model_validate(fact) for fact in ranks.ask(Build(workload=workload), BUILD_TIMEOUT_S)]


def measure_candidate(
    ranks: Ranks, workload: Workload, plan: Prepare, expected_step_s: float, steps: int, keep_going: KeepGoing
) -> Measurement | Failure:
    """Runs one untimed step and then up to ``steps`` timed ones. ``expected_step_s`` sets the time limit: 20 steps.

    Ranks that died in an earlier candidate are replaced first.
    """
    timeout_s = max(FLOOR_S, 20 * expected_step_s)
    times: list[float] = []
    loss = None
    try:
        if not ranks.alive:
            build(ranks, workload)
        primed = [Primed.model_validate(answer) for answer in ranks.ask(plan, timeout_s)]
        for number in range(steps):
            answers = [StepTimes.model_validate(answer) for answer in ranks.ask(Step(), timeout_s)]
            times.append(max(answer.end_s for answer in answers) - min(answer.start_s for answer in answers))
            loss = answers[-1].loss
            if not keep_going(number, times[-1]):
                break
    except RankFailure as error:
        return error.failure
    return Measurement.of(
        tuple(times),
        plan.sequences,
        workload.seq_len,
        peak_memory_bytes=tuple(answer.peak_memory_bytes for answer in primed),
        loss=loss,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        pruned=len(times) < steps,
    )
