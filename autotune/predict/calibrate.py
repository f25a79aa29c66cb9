"""What makes the model take as long as pipelined runs really took: the runtime's cost per action, and crowding.

Crowding is how much longer a pass takes beside those of other ranks than its share of the cores explains. Both are
found from whole pipelined steps: nothing else shows what ranks do to each other while they compute, wait and send.
"""

from statistics import median

import numpy as np

from autotune.pipeline.commands import StageTime
from autotune.predict.predict import optimizer_seconds, stage_costs
from autotune.predict.schedules import build_schedule
from autotune.predict.simulate import optimizer_tail
from autotune.predict.wavefront import step_time
from autotune.profile.record import Calibration, Profile, Shared, StageProfile

NUDGE = {"message_overhead_s": 1e-4, "crowding": 0.01}
LEAST = {"message_overhead_s": 0.0, "crowding": 0.5}
MOST_CROWDING = 3.0
RUN_ERROR, CROWDING_PRIOR = 0.01, 0.5  # standard deviations: of a run, relative; of crowding around 1
TURNS = 5


def calibrated(profile: Profile) -> Profile:
    """The profile with the ``message_overhead_s`` and the crowding that explain its calibration runs.

    The run with the smallest micro-batches shows the overhead; another one, where there is one, the crowding. A run
    that is faster than the model without overhead means none.
    """
    runs = sorted(profile.calibrations, key=lambda run: run.micro_batch_size)
    if not runs:
        return profile
    names = ["message_overhead_s", "crowding"][: len(runs)]
    found = fitted(profile, runs, names)
    if found.message_overhead_s == 0.0 and len(runs) > 1:
        return fitted(found, runs[1:], names[1:])
    return found


def fitted(profile: Profile, runs: list[Calibration], names: list[str]) -> Profile:
    """Gauss and Newton's method for as many figures of the profile as there are runs; steps are almost linear in them.

    Crowding has a prior, for runs of which both take little but overhead hardly tell it from that.
    """
    for _ in range(TURNS):
        now = np.array([run_seconds(profile, run) for run in runs])
        wanted = np.array([median(run.step_times_s) for run in runs])
        slopes = [
            [(run_seconds(nudged(profile, name, NUDGE[name]), run) - now[row]) / NUDGE[name] for name in names]
            for row, run in enumerate(runs)
        ]
        rows = np.array(slopes) / (RUN_ERROR * wanted[:, None])
        missing = (wanted - now) / (RUN_ERROR * wanted)
        if "crowding" in names and profile.shared is not None:
            prior = [(name == "crowding") / CROWDING_PRIOR for name in names]
            rows, missing = np.vstack((rows, prior)), np.append(missing, (1 - profile.shared.crowding) / CROWDING_PRIOR)
        changes = np.linalg.lstsq(rows, missing, rcond=None)[0]
        for name, change in zip(names, changes, strict=True):
            profile = nudged(profile, name, float(change))
    return profile


def nudged(profile: Profile, name: str, change: float) -> Profile:
    """The profile with one figure changed, within what makes sense."""
    if name == "message_overhead_s":
        return profile.model_copy(update={name: max(LEAST[name], profile.message_overhead_s + change)})
    assert profile.shared is not None
    crowding = min(MOST_CROWDING, max(LEAST[name], profile.shared.crowding + change))
    return profile.model_copy(update={"shared": Shared.of(profile.shared.resources, profile.ranks, crowding)})


def run_seconds(profile: Profile, run: Calibration) -> float:
    """Seconds of a step of the calibration run by the profile's figures."""
    model = profile if run.wait_s is None else waiting_profile(profile, run.wait_s)
    schedule = build_schedule(run.schedule, profile.ranks, run.micro_batches, profile.virtual_stages)
    totals = step_time(schedule, stage_costs(model, run.micro_batch_size, schedule))
    tail = optimizer_tail(totals.rank_ends, optimizer_seconds(model, schedule))
    return totals.makespan + tail + profile.step_overhead_s


def waiting_profile(profile: Profile, wait_s: float) -> Profile:
    """The same links between stages that only wait, whatever the micro-batch size."""
    row = StageTime(micro_batch_size=1, t_f=wait_s, t_bw=wait_s)
    rows = (row, row.model_copy(update={"micro_batch_size": 2}))
    return profile.model_copy(update={"stages": (StageProfile(time_s=rows),) * len(profile.stages), "shared": None})
