"""A report to export: candidates as predicted from made-up stage times, one of them measured."""

from autotune.predict.predict import candidates_for, predict
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.profile import Profile
from autotune.records.report import Report, SweetSpot, candidate_report
from autotune.records.verdict import SearchReport

ROWS = [{"micro_batch_size": 1, "t_f": 0.01, "t_bw": 0.02}, {"micro_batch_size": 64, "t_f": 0.32, "t_bw": 0.64}]
WORKLOAD = {
    "layers": 48,
    "hidden": 64,
    "heads": 4,
    "seq_len": 32,
    "vocab": 512,
    "batch": 64,
    "precision": "fp32",
    "optimizer": "adamw",
}


def make_report(
    winner=(8, "1F1B"),
    counts=(1, 2, 4, 6, 8, 16),
    ranks=4,
    virtual_stages=1,
    failed=(),
    split=None,
    recompute=None,
    **workload,
):
    """Every count under GPipe and 1F1B, or under the schedules of several stages per rank; the winner is measured."""
    facts = WORKLOAD | {"stages": ranks} | workload
    stages = [{"time_s": ROWS}] * (ranks * virtual_stages)
    profile = Profile.model_validate({"stages": stages, "virtual_stages": virtual_stages, "workload": facts})
    names = ("GPipe", "1F1B") if virtual_stages == 1 else ("Interleaved1F1B", "ZBVZeroBubble")
    candidates, _ = candidates_for(
        counts, names, (virtual_stages,), ranks, facts["layers"], facts["batch"], split=split
    )
    candidates = [one.model_copy(update={"recompute": recompute}) for one in candidates]
    rows = []
    for one in candidates:
        name, outcome = (one.micro_batches, one.schedule), None
        if name == winner:
            outcome = Measurement.of((0.5, 0.5), sequences=one.sequences, seq_len=32, peak_memory_bytes=(1,) * ranks)
        elif name in failed:
            outcome = Failure(kind="out_of_memory", rank=0, message="no")
        rows.append(candidate_report(one, predict(profile, one, None), outcome, None))
    index = next((i for i, one in enumerate(candidates) if (one.micro_batches, one.schedule) == winner), None)
    spot = None
    if index is not None:
        spot = SweetSpot(
            candidate=index,
            **candidates[index].model_dump(
                include={"micro_batches", "micro_batch_size", "schedule", "virtual_stages", "split", "recompute"}
            ),
            throughput_seq_s=128.0,
            speedup_over_naive=None,
            memory_headroom_bytes=None,
            reason="fastest",
            confirmed=True,
        )
    return Report(
        created="2026-01-01",
        autotune_version="0",
        status="complete" if spot else "partial",
        environment={},
        workload=facts,
        profile=profile,
        candidates=tuple(rows),
        sweet_spot=spot,
        search=SearchReport(sampler="cost-model", trials=1, real_steps=1, wall_s=1, stopped_because="done"),
    )
