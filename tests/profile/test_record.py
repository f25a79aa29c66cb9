"""The Profile: hand-written ones, what is refused and how, and the curve between measured sizes."""

import json

import pytest

from autotune.config import Workload
from autotune.errors import InputError
from autotune.profile.cache import cached_profile, fingerprint, keep_profile, profile_path
from autotune.profile.record import Environment, Profile, interpolate, read_profile
from autotune.records import write_record

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
    ("change", "complaint"),
    [
        ({"stages": []}, "stages"),
        ({"stages": [{"time_s": [{"micro_batch_size": 4, "t_f": 1}]}]}, "t_bw"),
        ({"stages": [{"time_s": [ROW | {"t_b": 1.0}]}]}, "not both"),
        ({"stages": [{"time_s": [ROW | {"t_f": -1}]}]}, "greater than or equal to 0"),
        ({"stages": [{"time_s": [ROW, ROW]}]}, "ascend"),
        ({"links": [{"from": 0, "to": 2}]}, "does not join neighbours"),
        ({"kind": "autotune.report"}, 'must be "autotune.profile"'),
        ({"schema_version": 7}, "upgrade autotune"),
        ({"stage": 1}, "Extra inputs"),
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


def test_interpolation_meets_the_points_and_goes_on_beyond_them():
    sizes, values = [1, 2, 4], [1.0, 3.0, 4.0]
    assert [interpolate(sizes, values, size) for size in (1, 2, 3, 4, 8)] == [1.0, 3.0, 3.5, 4.0, 6.0]
    assert interpolate([4], [2.0], 8) == 4.0
    assert interpolate([2, 4], [1.0, 3.0], 1) == 0.0


WORK = Workload(layers=2, stages=2, hidden=8, heads=2, seq_len=4, vocab=16, batch=4, precision="fp32", optimizer="none")


def test_a_kept_profile_is_found_again_only_for_sizes_it_covers(tmp_path):
    path = profile_path(tmp_path, WORK, Environment(device="cpu"))
    keep_profile(path, Profile.model_validate(LEAST))
    assert cached_profile(path, (4,)) is not None
    assert cached_profile(path, (2, 4)) is None
    path.write_text("{")
    assert cached_profile(path, (4,)) is None


def test_another_workload_or_torch_is_another_fingerprint():
    here = Environment(device="cpu", torch_version="2.13.0")
    marks = {
        fingerprint(WORK, here),
        fingerprint(WORK.model_copy(update={"hidden": 16}), here),
        fingerprint(WORK, here.model_copy(update={"torch_version": "2.14.0"})),
        fingerprint(WORK, here, "other candidates"),
    }
    assert len(marks) == 4
