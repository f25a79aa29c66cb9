"""The runtime's overheads and the contention with which the model takes as long as pipelined runs really took.

Crowding is how much longer a pass takes beside those of other ranks than its share of the cores explains. All are found
from whole pipelined steps: nothing else shows what ranks do to each other while they compute, wait and send.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from autotune.predict.predict import action_overheads, after_actions, stage_costs
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Seconds, action_seconds, simulate, tail_seconds
from autotune.records.profile import Calibration, Profile, SharedCores, StageProfile
from autotune.records.stage_costs import StageTime

NUDGE = {"message_overhead_s": 1e-4, "contention": 0.01}
LEAST = {"message_overhead_s": 0.0, "contention": 0.5}
MOST_CONTENTION = 3.0
RUN_ERROR, CONTENTION_PRIOR = 0.01, 0.5  # standard deviations: of a run, relative; of contention around 1
TURNS = 5


def calibrated(profile: Profile) -> Profile:
    """Return the profile with the overheads and the contention that explain its calibration runs.

    ``action_overhead_s`` is what lies at least between two actions. Crowding shows in the seconds that ranks spent
    inside actions, where these were recorded, and ``message_overhead_s`` is what the steps take beyond that. Without a
    recording two sizes of micro-batches tell the two apart, less well. A run that is faster than the model without
    overhead means none.
    """
    runs = profile.calibrations
    if not runs:
        return profile
    if gaps := [gap for run in runs for gap in run.gap_s]:
        profile = profile.model_copy(update={"action_overhead_s": median(gaps)})
    can_tell = profile.shared is not None and (len(runs) > 1 or any(run.busy_s for run in runs))
    names = ["message_overhead_s", "contention"][: 2 if can_tell else 1]
    found = fitted(profile, runs, names)
    if found.message_overhead_s == 0.0 and len(names) > 1:
        return fitted(found, runs, names[1:])
    return found


def fitted(profile: Profile, runs: Sequence[Calibration], names: list[str]) -> Profile:
    """Return the named figures of the profile, by Gauss and Newton's method, that explain the runs best,
    by least squares; they are almost linear in them. Crowding has a weak prior."""
    wanted = np.array([median(times) for run in runs for times in (run.step_times_s, run.busy_s) if times])
    for _ in range(TURNS):
        now = explained(profile, runs)
        slopes = [(explained(nudged(profile, name, NUDGE[name]), runs) - now) / NUDGE[name] for name in names]
        rows = np.array(slopes).T / (RUN_ERROR * wanted[:, None])
        missing = (wanted - now) / (RUN_ERROR * wanted)
        if "contention" in names and profile.shared is not None:
            prior = [(name == "contention") / CONTENTION_PRIOR for name in names]
            rows, missing = (
                np.vstack((rows, prior)),
                np.append(missing, (1 - profile.shared.contention) / CONTENTION_PRIOR),
            )
        changes = np.linalg.lstsq(rows, missing, rcond=None)[0]
        for name, change in zip(names, changes, strict=True):
            profile = nudged(profile, name, float(change))
    return profile


def nudged(profile: Profile, name: str, change: float) -> Profile:
    """Return the profile with one figure changed, within what makes sense."""
    if name == "message_overhead_s":
        return profile.model_copy(update={name: max(LEAST[name], profile.message_overhead_s + change)})
    assert profile.shared is not None
    contention = min(MOST_CONTENTION, max(LEAST[name], profile.shared.contention + change))
    together = len(profile.shared.slowdown)
    return profile.model_copy(update={"shared": SharedCores.of(profile.shared.resources, together, contention)})


def explained(profile: Profile, runs: Sequence[Calibration]) -> Seconds:
    """Return what the profile's figures make of each run: its step, and where it was recorded the time inside
    actions."""
    found: list[float] = []
    for run in runs:
        step_s, busy_s = run_seconds(profile, run)
        found += [step_s, busy_s] if run.busy_s else [step_s]
    return np.array(found)


def run_seconds(profile: Profile, run: Calibration) -> tuple[float, float]:
    """Return by the profile's figures the seconds of a step of the run, and what all ranks together spend inside
    actions."""
    model = profile if run.wait_s is None else waiting_profile(profile, run.wait_s)
    schedule = build_schedule(run.schedule, profile.ranks, run.micro_batches, profile.virtual_stages)
    costs = stage_costs(model, run.micro_batch_size, schedule)
    timeline = simulate(schedule, costs)
    tail = tail_seconds(timeline.rank_ends, after_actions(model, schedule).seconds)
    work = action_seconds(timeline.graph, costs)
    overhead = action_overheads(model, schedule)[timeline.graph.kind, timeline.graph.stage]
    inside = np.maximum(0.0, 1 - overhead / work)
    busy = float(((timeline.ends - timeline.starts) * inside).sum())
    return timeline.makespan + tail + profile.step_overhead_s, busy


def waiting_profile(profile: Profile, wait_s: float) -> Profile:
    """Return the same links between stages that only wait, whatever the micro-batch size."""
    row = StageTime(micro_batch_size=1, t_f=wait_s, t_bw=wait_s)
    rows = (row, replace(row, micro_batch_size=2))
    return profile.model_copy(update={"stages": (StageProfile(time_s=rows),) * len(profile.stages), "shared": None})
