"""What a saved profile is predicted for: its own stages per rank, the schedules that run them, and legal m."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import UsageError
from autotune.predict.predict import candidates_for
from autotune.predict.sweep import sweep
from autotune.records.profile import Profile
from autotune.schedule_spec import SCHEDULES

ONE_EACH = ("GPipe", "1F1B")
SEVERAL = tuple(name for name in SCHEDULES if name not in ONE_EACH)


def profile(stages, virtual_stages=1, **more):
    """Equal stages: 1 s forward, 1 s for either half of the backward, per sequence."""
    rows = [{"micro_batch_size": b, "t_f": 1.0 * b, "t_b": 1.0 * b, "t_w": 1.0 * b} for b in (1, 16)]
    document = {"stages": [{"time_s": rows}] * stages, "virtual_stages": virtual_stages, "workload": {"batch": 16}}
    return Profile.model_validate(document | more)


def ways(pairs):
    return {(candidate.schedule, candidate.virtual_stages) for candidate, _ in pairs}


def test_one_stage_per_rank_means_1f1b_and_several_mean_interleaved():
    assert ways(sweep(profile(4), {})[0]) == {("1F1B", 1), ("GPipe", 1)}  # GPipe where m < 4
    assert ways(sweep(profile(4, 2), {})[0]) == {("Interleaved1F1B", 2)}
    assert ways(sweep(profile(6, 3), {})[0]) == {("Interleaved1F1B", 3)}


def test_all_schedules_are_those_that_run_the_profiles_stages():
    pairs, _ = sweep(profile(4, 2), {"schedule": "all"})
    assert ways(pairs) == {(name, 2) for name in SEVERAL}
    pairs, _ = sweep(profile(6, 3), {"schedule": "all"})
    assert ways(pairs) == {("LoopedBFS", 3), ("Interleaved1F1B", 3), ("InterleavedZeroBubble", 3)}
    pairs, _ = sweep(profile(4), {"schedule": "all"})
    assert ways(pairs) == {(name, 1) for name in (*ONE_EACH, "LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble")}


def test_what_was_left_out_is_said():
    _, notes = sweep(profile(6, 3), {"schedule": "all"})
    assert any("ZBVZeroBubble runs exactly 2 stage(s) per rank (given: 3)" in note for note in notes)
    assert any("DualPipeV runs exactly 2 stage(s) per rank (given: 3)" in note for note in notes)


@pytest.mark.parametrize("schedule", ["1F1B", "GPipe", "GPipe,1F1B"])
def test_stages_of_several_to_a_rank_do_not_run_under_a_schedule_of_one(schedule):
    with pytest.raises(UsageError, match=r"^--schedule: the profile has 2 stages per rank, "):
        sweep(profile(4, 2), {"schedule": schedule})


@pytest.mark.parametrize("given", ["1", "3", "2,3"])
def test_the_profile_settles_the_stages_per_rank(given):
    with pytest.raises(UsageError, match=r"^--virtual-stages: the profile was measured with 2"):
        sweep(profile(4, 2), {"virtual_stages": given})
    assert ways(sweep(profile(4, 2), {"virtual_stages": "2"})[0]) == {("Interleaved1F1B", 2)}


@pytest.mark.parametrize("m", [2, 4, 8, 16])
def test_interleaving_two_equal_stages_per_rank_halves_the_bubble(m):
    """p = 2: the ramps of half as long stages. bubble / work = (p-1)/(v·m)."""
    ((_, plain),) = sweep(profile(2), {"schedule": "1F1B", "micro_batches": m})[0]
    # The same model, in four stages of half the time.
    rows = [{"micro_batch_size": b, "t_f": 0.5 * b, "t_b": 0.5 * b, "t_w": 0.5 * b} for b in (1, 16)]
    halves = Profile.model_validate({"stages": [{"time_s": rows}] * 4, "virtual_stages": 2, "workload": {"batch": 16}})
    ((_, interleaved),) = sweep(halves, {"micro_batches": m})[0]
    work = 16 * 3.0
    assert plain.step_time_s == pytest.approx(work * (1 + 1 / m))
    assert interleaved.step_time_s == pytest.approx(work * (1 + 1 / (2 * m)))


@pytest.mark.parametrize("name", SEVERAL)
def test_every_rank_is_busy_with_all_of_its_stages(name):
    """Unequal stages: in a V rank 0 has the first and the last, in a loop the first and the third."""
    rows = [[{"micro_batch_size": 1, "t_f": 1.0 * n, "t_b": 1.0 * n, "t_w": 1.0 * n}] for n in (1, 2, 3, 4)]
    made = Profile.model_validate({"stages": [{"time_s": row} for row in rows], "virtual_stages": 2})
    ((_, prediction),) = sweep(made, {"schedule": name, "micro_batches": 16, "batch": 16})[0]
    weights = (1 + 4, 2 + 3) if name in ("ZBVZeroBubble", "DualPipeV") else (1 + 3, 2 + 4)
    busy = [split.compute + split.padding + split.granularity for split in prediction.rank_time_split_s]
    assert busy == pytest.approx([16 * 3.0 * weight for weight in weights])
    assert prediction.step_time_s >= max(busy)
    for split in prediction.rank_time_split_s:
        assert sum(split.model_dump().values()) == pytest.approx(prediction.step_time_s)


def test_links_between_the_last_and_the_first_rank_count_in_a_loop_but_not_in_a_v():
    links = [{"from": 2, "to": 0, "latency_s": 9.0}, {"from": 0, "to": 2, "latency_s": 9.0}]
    for name, counts in (("Interleaved1F1B", True), ("ZBVZeroBubble", False)):
        times = []
        for more in ({}, {"links": links}):
            ((_, prediction),) = sweep(profile(6, 2, **more), {"schedule": name, "micro_batches": 8})[0]
            times.append(prediction.step_time_s)
        assert (times[1] > times[0]) is counts


def test_a_fused_backward_and_its_halves_are_each_used_where_they_run():
    """The halves together take longer than the fused backward: only schedules that split it pay for that."""
    row = {"micro_batch_size": 1, "t_f": 1.0, "t_bw": 2.0, "t_b": 2.0, "t_w": 2.0}
    made = Profile.model_validate({"stages": [{"time_s": [row]}] * 4, "virtual_stages": 2})
    flags = {"micro_batches": 16, "batch": 16}
    for name, work in (("LoopedBFS", 3.0), ("Interleaved1F1B", 3.0), ("InterleavedZeroBubble", 5.0)):
        ((_, prediction),) = sweep(made, flags | {"schedule": name})[0]
        last = prediction.rank_time_split_s[1]
        assert last.compute + last.granularity == pytest.approx(2 * 16 * work)


def test_the_first_stage_leaves_its_whole_backward_to_the_weights():
    """torch computes no gradient for token ids, and so the first stage's fused backward runs in the place of W."""
    row = {"micro_batch_size": 1, "t_f": 1.0, "t_bw": 2.0, "t_b": 2.0, "t_w": 2.0}
    made = Profile.model_validate({"stages": [{"time_s": [row]}] * 4, "virtual_stages": 2})
    flags = {"micro_batches": 16, "batch": 16, "schedule": "InterleavedZeroBubble"}
    ((_, prediction),) = sweep(made, flags)[0]
    first = prediction.rank_time_split_s[0]
    assert first.compute + first.granularity == pytest.approx(16 * (3.0 + 5.0))


def test_missing_halves_are_told_only_where_they_matter():
    rows = [{"micro_batch_size": 1, "t_f": 1.0, "t_bw": 2.0}]
    made = Profile.model_validate({"stages": [{"time_s": rows}] * 4, "virtual_stages": 2})
    assert "each is half of t_bw" in sweep(made, {"batch": 4, "schedule": "ZBVZeroBubble"})[1][0]
    assert "half of t_bw" not in sweep(made, {"batch": 4})[1][0]


def test_memory_is_limited_per_rank_where_ranks_share_a_host():
    memory = [{"micro_batch_size": 1, "activation_bytes": 100}]
    rows = [{"micro_batch_size": 1, "t_f": 1.0, "t_bw": 2.0}]
    stages = [{"time_s": rows, "memory": memory, "static_bytes": 10_000}] * 2
    for device, fits in (("cpu", False), ("cuda", True)):
        environment = {"device": device, "memory_bytes": 15_000}
        made = Profile.model_validate({"stages": stages, "environment": environment})
        pairs, _ = sweep(made, {"batch": 2})
        assert {prediction.fits for _, prediction in pairs} == {fits}


# What torch would refuse is not tried, and the note tells the nearest m.


def left_out(counts, schedules, v=(2,), ranks=2, layers=48, batch=16):
    return candidates_for(counts, schedules, v, ranks, layers, batch)


def test_notes_name_the_nearest_legal_m():
    found, notes = left_out((1, 2, 4), ("DualPipeV",))
    assert [candidate.micro_batches for candidate in found] == [4]
    assert notes == [
        "not tried: m = 1: DualPipeV on 2 ranks needs at least as many micro-batches as stages (4) (given: 1);"
        " the nearest it takes is 4",
        "not tried: m = 2: DualPipeV on 2 ranks needs at least as many micro-batches as stages (4) (given: 2);"
        " the nearest it takes is 4",
    ]


@pytest.mark.parametrize(("given", "nearest"), [(5, 4), (7, 6), (9, 8)])
def test_rounds_must_be_whole(given, nearest):
    for name in ("Interleaved1F1B", "InterleavedZeroBubble"):
        found, (note,) = left_out((given, 16), (name,))
        assert [candidate.micro_batches for candidate in found] == [16]
        assert f"m = {given}: {name} on 2 ranks" in note
        assert note.endswith(f"the nearest it takes is {nearest}")


def test_a_lone_candidate_that_cannot_run_is_a_usage_error_with_the_advice():
    with pytest.raises(UsageError, match=r"DualPipeV on 4 ranks .*\(8\) \(given: 1\); the nearest it takes is 8$"):
        left_out((1,), ("DualPipeV",), ranks=4)
    with pytest.raises(UsageError, match="the nearest it takes is 4"):
        sweep(profile(4, 2), {"schedule": "DualPipeV", "micro_batches": "1"})


def test_the_command_says_so_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profile.json").write_text(
        json.dumps({"schema_version": 1, "kind": "autotune.profile"} | json.loads(profile(4, 2).model_dump_json()))
    )
    flags = ["predict", "profile.json", "--schedule", "DualPipeV", "--micro-batches", "1"]
    error = CliRunner().invoke(app, flags).exception
    assert isinstance(error, UsageError)
    assert "the nearest it takes is 4" in str(error)


def test_stages_need_layers():
    found, (note,) = left_out((4,), ("1F1B", "LoopedBFS"), v=(2, 3), ranks=4, layers=8)
    assert [(c.schedule, c.virtual_stages) for c in found] == [("1F1B", 1), ("LoopedBFS", 2)]
    assert "LoopedBFS with 3 stages on each of 4 ranks needs as many layers (given: 8)" in note


def test_every_number_of_stages_per_rank_is_tried_where_the_schedule_leaves_the_choice():
    found, notes = left_out((8,), tuple(SCHEDULES), v=(3, 2, 2))
    assert {(c.schedule, c.virtual_stages) for c in found} == {
        ("GPipe", 1),
        ("1F1B", 1),
        *((name, v) for name in ("LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble") for v in (2, 3)),
        ("ZBVZeroBubble", 2),
        ("DualPipeV", 2),
    }
    assert len(notes) == 2  # that the V-shaped ones do not run three


def test_a_candidate_that_stands_in_for_another_is_there_once():
    found, notes = left_out((1,), ("GPipe", "1F1B"), v=(2,))
    assert [(c.micro_batches, c.schedule, c.virtual_stages) for c in found] == [(1, "GPipe", 1)]
    assert notes == []
