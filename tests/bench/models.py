"""A user's models on this machine's cores: gradients, steps and memory against predictions; the cut; recomputation.

Every figure of a run is that of its report. Machines drift, so each is the median of the rounds, which alternate.
"""

import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch

from autotune.config import load_config
from autotune.events import Silent
from autotune.records.job.recompute import show_modes
from autotune.records.profile import Profile
from autotune.records.report import CandidateReport, Report
from autotune.tune import tune
from tests.workload.models import (
    CONFIGS,
    FILES,
    FOLDER,
    in_one_piece,
    of_config,
    of_file,
    opened,
    stage_by_stage,
)

ROUNDS = 3
SMALL: dict[str, object] = {"stages": 2, "batch": 24, "exhaustive": True, "device": "cpu", "fresh": True}
HEAVY_HEAD: dict[str, object] = SMALL | {"layers": 12, "hidden": 96, "seq_len": 64, "vocab": 8192}
DEEP: dict[str, object] = SMALL | {"layers": 12, "hidden": 128, "seq_len": 128, "vocab": 512}


def run(flags: dict[str, object]) -> Report:
    """The report of a run in which every candidate that fits is timed."""
    with tempfile.TemporaryDirectory() as folder:
        return tune(load_config(None, flags | {"state_dir": folder, "out": Path(folder) / "report.json"}), Silent())


def errors(rows: list[CandidateReport]) -> tuple[float, float]:
    """Relative errors of the first prediction, of a candidate in every round: of the step (median), of the peak
    (worst)."""
    found = [row.relative_error for row in rows if row.relative_error is not None]
    return median(one.step_time for one in found), max((one.peak_memory or 0.0 for one in found), key=abs)


def by_candidate(reports: list[Report]) -> dict[str, list[CandidateReport]]:
    """The rows of each candidate that ran, by its label."""
    rows = defaultdict(list)
    for report in reports:
        for row in report.candidates:
            if row.measurement is not None:
                rows[row.label].append(row)
    return dict(rows)


def worst_gradient(name: str) -> float:
    """The largest difference of a gradient from that of the model in one piece, over that gradient's largest value."""
    record = of_file(name) if name in FILES else of_config(name)
    parts = 1 if name == "images" else 3  # statistics over each micro-batch
    _, whole = in_one_piece(record, 6)
    half = record.layers // 2
    _, cut = stage_by_stage(opened(record), [range(half), range(half, record.layers)], 6, parts)
    pairs = [(mine, theirs) for mine, theirs in zip(cut.values(), whole.values(), strict=True) if theirs is not None]
    return max(float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in pairs if theirs.any())


def models() -> None:
    """Every model of tests/models, over all m."""
    flags = {name: SMALL | {"model": f"{FOLDER / name}.py:build"} for name in FILES}
    flags |= {f"hf {name}": SMALL | {"model": f"hf:{FOLDER / 'hf' / name}.json", "seq_len": 32} for name in CONFIGS}
    reports: dict[str, list[Report]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name, mine in flags.items():
            reports[name].append(run(mine))
    print(f"  {'':14} gradients off   m   median |step| error   worst   worst peak error")
    for name, found in reports.items():
        pairs = [errors(rows) for rows in by_candidate(found).values()]
        steps = [abs(step) for step, _ in pairs]
        peak = max((peak for _, peak in pairs), key=abs)
        print(
            f"  {name:14} {worst_gradient(name.removeprefix('hf ')):13.1e} {len(pairs):3} {median(steps):21.1%}"
            f" {max(steps):7.1%} {peak:+18.2%}",
            flush=True,
        )


def balance() -> None:
    """A heavy last stage: the cut that is proposed, against the even one."""
    rows = by_candidate([run(HEAVY_HEAD | {"balance": True}) for _ in range(ROUNDS)])
    print(f"\n  balance: GPT with a heavy head, {ROUNDS} rounds; seconds of a step, medians")
    for label, mine in rows.items():
        predicted = median(row.prediction.step_time_s for row in mine)
        measured = median(row.measurement.step_time_s for row in mine if row.measurement)
        print(f"  {label:32} predicted {predicted:.3f}  measured {measured:.3f}  {errors(mine)[0]:+.1%}")


def stage_costs(profile: Profile, size: int) -> str:
    """Backward and activations of the first stage at one micro-batch size."""
    stage = profile.stages[0]
    time = next(row for row in stage.time_s if row.micro_batch_size == size)
    held = next(row for row in stage.memory if row.micro_batch_size == size)
    backward = time.t_bw if time.t_bw is not None else (time.t_b or 0.0) + (time.t_w or 0.0)
    return (
        f"t_f {time.t_f * 1e3:.1f} ms, t_bw {backward * 1e3:.1f} ms, activations {held.activation_bytes / 1e6:.2f} MB"
    )


def recompute() -> None:
    """None, selective and full, and what ``auto`` picks."""
    reports = [run(DEEP | {"recompute": "auto"}) for _ in range(ROUNDS)]
    print(f"\n  recomputation: GPT, {ROUNDS} rounds; medians")
    last = reports[-1]
    for profile in (last.profile, *last.virtual_profiles):
        size = profile.stages[0].time_s[-1].micro_batch_size
        mode = show_modes(profile.recompute) if profile.recompute else "none"
        print(f"  {mode:10} stage 0, b = {size}: {stage_costs(profile, size)}")
    for label, mine in by_candidate(reports).items():
        predicted = median(row.prediction.step_time_s for row in mine)
        measured = median(row.measurement.step_time_s for row in mine if row.measurement)
        step, peak = errors(mine)
        print(f"  {label:32} predicted {predicted:.3f}  measured {measured:.3f}  step {step:+.1%}  peak {peak:+.2%}")
    for report in reports:
        spot = report.sweet_spot
        print(f"  auto picks {spot.label if spot else None}; certainty {spot.certainty if spot else 0:.0%}")


def main() -> None:
    """Every table."""
    torch.manual_seed(0)
    models()
    balance()
    recompute()


if __name__ == "__main__":
    main()
