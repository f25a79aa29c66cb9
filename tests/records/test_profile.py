"""The Profile: hand-written ones, what is refused and how, and the curve between measured sizes."""

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from autotune.errors import InputError
from autotune.identity import digest_of_times
from autotune.profile.cache import cached_profile, keep_profile, profile_path
from autotune.records.base import write_record
from autotune.records.job.environment import Environment
from autotune.records.job.workload import WorkloadConfig
from autotune.records.profile import Calibration, Link, Profile, interpolate, read_profile
from autotune.records.stage_costs import StageTime

ROW = {"micro_batch_size": 4, "t_f": 0.01, "t_bw": 0.02}
LEAST = {"schema_version": 1, "kind": "autotune.profile", "stages": [{"time_s": [ROW]}, {"time_s": [ROW]}]}


def written(tmp_path, document):
    path = tmp_path / "profile.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_only_stage_times_are_required(tmp_path):
    profile = read_profile(written(tmp_path, LEAST))
    assert profile.stages[1].time_s[0].backward == 0.02
    assert profile.shared is None


def test_a_link_may_give_only_its_latency(tmp_path):
    links = [{"from": 0, "to": 1, "latency_s": 0.001}]
    profile = read_profile(written(tmp_path, LEAST | {"links": links}))
    assert profile.links[0].seconds(10**9) == 0.001


def test_a_profile_survives_a_round_trip(tmp_path):
    links = [{"from": 0, "to": 1, "latency_s": 0.001, "bandwidth_bytes_s": 1e9}]
    first = read_profile(written(tmp_path, LEAST | {"links": links}))
    write_record(tmp_path / "again.json", first)
    assert read_profile(tmp_path / "again.json") == first
    assert '"from": 0' in (tmp_path / "again.json").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": None, "stges": [{"time_s": [ROW]}]}, "unknown key 'stges'; did you mean 'stages'?"),
        ({"link": []}, "unknown key 'link'; did you mean 'links'?"),
        ({"links": [{"form": 0, "to": 1}]}, "unknown key 'links.0.form'; did you mean 'from'?"),
        ({"stages": [{"time_s": [ROW | {"t_fw": 1}]}]}, "unknown key 'stages.0.time_s.0.t_fw'; did you mean 't_"),
        ({"stages": [{"times": [ROW]}]}, "unknown key 'stages.0.times'; did you mean 'time_s'?"),
        ({"workload": {"bach": 4}}, "unknown key 'workload.bach'; did you mean 'batch'?"),
    ],
)
def test_a_misspelt_key_is_told_with_the_one_that_was_meant(tmp_path, change, words):
    """Before the key that is missing for it."""
    given = {name: value for name, value in (LEAST | change).items() if value is not None}
    with pytest.raises(InputError) as caught:
        read_profile(written(tmp_path, given))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outside_bytes": "x"}, ": outside_bytes: it must be a whole number (given: 'x')"),
        ({"workload": {"arguments": {"dim": []}}}, ": workload.arguments.dim: it must be true or false"),
        ({"workload": {"optimizer": "AdamW"}}, "(given: 'AdamW'); did you mean 'adamw'?"),
        ({"stages": [{"time_s": [ROW], "memory": [{"x": 1, "micro_batch_size": 1, "activation_bytes": 1}]}]}, None),
    ],
)
def test_a_value_of_several_types_is_one_fault_and_no_word_of_pydantic_is_told(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        read_profile(written(tmp_path, LEAST | change))
    told = str(caught.value)
    assert told.endswith(
        words
        or "the keys are activation_bytes, input_transient_bytes, micro_batch_size,"
        " split_held_bytes, transient_bytes, weight_transient_bytes"
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"stages": []}, "stages"),
        ({"stages": [{"time_s": [{"micro_batch_size": 4, "t_f": 1}]}]}, "t_bw"),
        ({"stages": [{"time_s": [ROW | {"t_b": 1.0}]}]}, "t_b with t_w"),
        ({"stages": [{"time_s": [{"micro_batch_size": 4, "t_f": 1, "t_w": 1}]}]}, "t_b with t_w"),
        ({"stages": [{"time_s": [ROW | {"t_f": -1}]}]}, "t_f: it must be 0 or more"),
        ({"stages": [{"time_s": [ROW, ROW]}]}, "ascend"),
        ({"links": [{"from": 0, "to": 2}]}, "does not join neighbours among 2 ranks"),
        ({"links": [{"from": 1, "to": 1}]}, "does not join neighbours"),
        ({"virtual_stages": 2, "links": [{"from": 0, "to": 1}]}, "does not join neighbours among 1 ranks"),
        ({"virtual_stages": 3}, "2 stages cannot lie 3 to a rank; give a divisor"),
        ({"virtual_stages": 0}, "virtual_stages"),
        ({"kind": "autotune.report"}, 'must be "autotune.profile"'),
        ({"schema_version": 7}, "upgrade autotune"),
        ({"stage": 1}, "unknown key"),
    ],
)
def test_a_wrong_profile_is_refused_with_path_and_rule(tmp_path, change, complaint):
    path = written(tmp_path, LEAST | change)
    with pytest.raises(InputError, match=complaint) as caught:
        read_profile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", '{"kind": NaN}', "[" * 100_000])
def test_what_is_no_profile_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        read_profile(written(tmp_path, text))


def test_a_fused_backward_may_be_known_beside_its_halves():
    """t_bw is the fused one, t_b + t_w may be longer; where only one is known it stands for the other."""

    def times(**row):
        return StageTime(micro_batch_size=1, t_f=1.0, **row)

    all_three, halves, fused = times(t_bw=2.0, t_b=1.5, t_w=1.0), times(t_b=1.5, t_w=1.0), times(t_bw=2.0)
    known = [(row.backward, row.input_gradient, row.weight_gradient) for row in (all_three, halves, fused)]
    assert known == [(2.0, 1.5, 1.0), (2.5, 1.5, 1.0), (2.0, 1.0, 1.0)]


@pytest.mark.parametrize(("stages", "virtual_stages", "ranks"), [(2, 1, 2), (4, 2, 2), (6, 3, 2), (6, 2, 3), (2, 2, 1)])
def test_stages_lie_on_as_many_ranks_as_hold_them(stages, virtual_stages, ranks):
    document = LEAST | {"stages": [{"time_s": [ROW]}] * stages, "virtual_stages": virtual_stages}
    assert Profile.model_validate(document).ranks == ranks


def test_links_are_between_ranks_and_may_close_the_ring():
    """Stage 2 of 6 is on rank 2, stage 3 back on rank 0."""
    links = [{"from": here, "to": there} for here in range(3) for there in range(3) if here != there]
    document = LEAST | {"stages": [{"time_s": [ROW]}] * 6, "virtual_stages": 2, "links": links}
    assert len(Profile.model_validate(document).links) == 6


def test_interpolation_meets_the_points_and_goes_on_beyond_them():
    sizes, values = [1, 2, 4], [1.0, 3.0, 4.0]
    assert [interpolate(sizes, values, size) for size in (1, 2, 3, 4, 8)] == [1.0, 3.0, 3.5, 4.0, 6.0]
    assert interpolate([4], [2.0], 8) == 4.0
    assert interpolate([2, 4], [1.0, 3.0], 1) == 0.0


WORK = WorkloadConfig(
    layers=2, stages=2, hidden=8, heads=2, seq_len=4, vocab=16, batch=4, precision="fp32", optimizer="none"
)


def test_a_kept_profile_is_found_again_only_for_sizes_it_covers(tmp_path):
    path = profile_path(tmp_path, WORK, Environment(device="cpu"), 1)
    keep_profile(path, Profile.model_validate(LEAST))
    assert cached_profile(path, (4,), split=False) is not None
    assert cached_profile(path, (2, 4), split=False) is None
    path.write_text("{")
    assert cached_profile(path, (4,), split=False) is None


def test_a_kept_profile_without_the_split_backward_does_not_serve_schedules_that_split_it(tmp_path):
    path = profile_path(tmp_path, WORK, Environment(device="cpu"), 2)
    keep_profile(path, Profile.model_validate(LEAST))
    assert cached_profile(path, (4,), split=True) is None
    halves = ROW | {"t_b": 0.01, "t_w": 0.01}
    keep_profile(path, Profile.model_validate(LEAST | {"stages": [{"time_s": [halves]}] * 2}))
    assert cached_profile(path, (4,), split=True) is not None
    assert cached_profile(path, (4,), split=False) is not None


def test_sizes_that_had_no_room_while_profiled_are_not_asked_for_again(tmp_path):
    path = profile_path(tmp_path, WORK, Environment(device="cuda"), 1)
    keep_profile(path, Profile.model_validate(LEAST | {"no_room_for": 8}))
    assert cached_profile(path, (4, 8, 16), split=False) is not None
    assert cached_profile(path, (2, 4), split=False) is None


def test_a_few_pages_of_memory_more_or_less_are_the_same_machine():
    def at(memory):
        return digest_of_times(WORK, Environment(device="cpu", memory_bytes=memory))

    assert at(24 * 2**30) == at(24 * 2**30 - 4096) != at(23 * 2**30)


def test_every_number_of_stages_per_rank_has_a_profile_of_its_own(tmp_path):
    here = Environment(device="cpu")
    assert len({profile_path(tmp_path, WORK, here, v) for v in (1, 2, 3)}) == 3


def test_another_workload_or_torch_is_another_digest():
    here = Environment(device="cpu", torch_version="2.13.0")
    marks = {
        digest_of_times(WORK, here),
        digest_of_times(replace(WORK, hidden=16), here),
        digest_of_times(WORK, here.model_copy(update={"torch_version": "2.14.0"})),
        digest_of_times(WORK, here, "other candidates"),
    }
    assert len(marks) == 4


@pytest.mark.parametrize(
    ("times", "apart"), [((1.0, 1.1, 1.5, 1.6, 1.0, 1.0), 1.55), ((1.0, 2.0, 1.0), 2.0), ((1.0, 9.0), 1.0)]
)
def test_rounds_of_a_calibration_tell_how_uneven_the_machine_was(times, apart):
    run = Calibration(schedule="1F1B", micro_batches=4, micro_batch_size=1, step_times_s=times)
    assert run.apart == pytest.approx(apart)


def link(source, target, together=None):
    return {"from": source, "to": target, "bandwidth_bytes_s": 12e6, "together_bytes_s": together}


def timed(*rows, **more):
    return Link.model_validate({"from": 0, "to": 1, "latency_s": 0.001, "times": rows} | more)


def test_a_message_takes_what_lies_between_those_timed():
    """From the latency on; beyond the largest the last slope goes on, not the bandwidth."""
    rows = ({"bytes": 100, "seconds": 0.003}, {"bytes": 200, "seconds": 0.007})
    link = timed(*rows, bandwidth_bytes_s=1.0)
    found = [link.seconds(message) for message in (0, 50, 100, 150, 200, 300)]
    assert found == pytest.approx([0.001, 0.002, 0.003, 0.005, 0.007, 0.011])
    assert timed(rows[0]).seconds(200) == pytest.approx(0.005)


def test_beside_others_a_message_takes_at_least_as_long_as_alone():
    row = {"bytes": 100, "seconds": 0.003}
    assert timed(row).seconds_together(100) == 0.003
    assert timed(row, together_bytes_s=1e4).seconds_together(100) == pytest.approx(0.011)
    assert timed(row, together_bytes_s=1e9).seconds_together(100) == 0.003


def test_timed_messages_ascend():
    rows = [{"bytes": size, "seconds": 0.1} for size in (200, 100)]
    with pytest.raises(ValidationError, match="times: rows must ascend in bytes, each once"):
        timed(*rows)


def on_hosts(*links, hosts=("alpha", "alpha", "beta", "beta")):
    stages = [{"time_s": [ROW]}] * len(hosts)
    return Profile.model_validate({"stages": stages, "links": links, "environment": {"hosts": hosts}})


def test_links_that_leave_a_host_alone_do_not_slow_each_other():
    assert on_hosts(link(1, 2, 6e6), link(2, 1, 6e6)).link_contention == ()
    assert on_hosts(link(0, 1), link(1, 0)).link_contention == ()


def test_links_within_a_host_do_not_slow_its_way_out():
    within = [link(a, b, 2e6) for a, b in ((0, 1), (1, 0))]
    assert on_hosts(*within, hosts=("alpha", "alpha")).link_contention == ()
    loop = [link(1, 2, 6e6), link(2, 1, 4e6), link(3, 0, 6e6), link(0, 3, 4e6)]
    assert on_hosts(*within, *loop).link_contention == on_hosts(*loop).link_contention


def test_links_that_leave_a_host_together_share_its_way_out():
    loop = [link(1, 2, 6e6), link(2, 1, 4e6), link(3, 0, 6e6), link(0, 3, 4e6)]
    assert on_hosts(*loop).link_contention == pytest.approx((1.0, 2.5))
    middle = on_hosts(link(0, 1, 11.9e6), link(1, 0, 4e6), link(1, 2, 4e6), link(2, 1, 11.9e6), hosts=("a", "b", "c"))
    assert middle.link_contention == pytest.approx((1.0, 3.0))  # of b, which has two links out
    assert on_hosts(*(one | {"together_bytes_s": 11.9e6} for one in loop)).link_contention == ()  # noise


def test_every_rank_has_a_host_or_none_has():
    with pytest.raises(ValueError, match=r"name the host of each of the 2 ranks, or none \(given: 3 names\)"):
        Profile.model_validate(LEAST | {"environment": {"hosts": ["a", "a", "b"]}})
    profile = on_hosts(hosts=("beta", "alpha", "alpha"))
    assert profile.hosts == (0, 1, 1)
    assert profile.environment.most_on_a_host(3) == 2
    assert profile.environment.nameless.hosts == ("host 0", "host 1", "host 1")
    assert Profile.model_validate(LEAST).hosts == (0, 0)
    assert Environment().most_on_a_host(4) == 4
