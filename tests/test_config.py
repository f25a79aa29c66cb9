"""Config: flags over TOML, units, the rules and who is to blame, and the scenarios that ship."""

from pathlib import Path
from typing import get_args

import pytest

from autotune.config import Config, ScheduleName, divisors, load_config, shipped
from autotune.errors import InputError, UsageError
from autotune.schedule_spec import SCHEDULES

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def toml(tmp_path):
    """Writes a config file and returns its path."""

    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_defaults():
    config = load_config(None, {})
    assert (config.layers, config.stages, config.batch, config.schedule) == (48, 4, 64, ("1F1B",))
    assert config.counts() == (1, 2, 4, 8, 16, 32, 64)
    assert (config.out, config.state_dir) == (Path("report.json"), Path(".autotune"))


def test_a_flag_wins_over_the_file_and_an_absent_flag_does_not(toml):
    config = load_config(toml("layers = 12\nstages = 3\n"), {"layers": 24, "stages": None})
    assert (config.layers, config.stages) == (24, 3)


def test_keys_may_be_written_like_flags(toml):
    assert load_config(toml("seq-len = 128\nmicro_batches = [4, 8]\n"), {}).model_dump(
        include={"seq_len", "micro_batches"}
    ) == {"seq_len": 128, "micro_batches": (4, 8)}


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("8GiB", 8 * 2**30),
        ("80GB", 80 * 10**9),
        ("1.5 MiB", 3 * 2**19),
        ("2g", 2 * 2**30),
        ("512b", 512),
        ("2097152", 2**21),
        (2**21, 2**21),
    ],
)
def test_bytes(given, number):
    assert load_config(None, {"memory_limit": given}).memory_limit == number


@pytest.mark.parametrize(
    ("given", "seconds"), [("120s", 120), ("2m", 120), ("1.5min", 90), ("1h", 3600), ("7", 7), (0.5, 0.5)]
)
def test_seconds(given, seconds):
    assert load_config(None, {"budget": given}).budget == seconds


@pytest.mark.parametrize(
    ("given", "counts"),
    [("8,4, 16", (4, 8, 16)), ("8,8", (8,)), (12, (12,)), ([2, 1], (1, 2))],
)
def test_micro_batches_are_sorted_without_repeats(given, counts):
    assert load_config(None, {"micro_batches": given}).counts() == counts


ALL = ("GPipe", "1F1B", "LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("all", ALL),
        ("All", ALL),
        ("GPipe,1F1B", ("GPipe", "1F1B")),
        (["DualPipeV"], ("DualPipeV",)),
        ("GPipe", ("GPipe",)),
        ("gpipe,1f1b", ("GPipe", "1F1B")),
    ],
)
def test_schedules(given, names):
    assert load_config(None, {"schedule": given}).schedule == names


def test_one_wrong_schedule_is_one_fault():
    with pytest.raises(UsageError) as caught:
        load_config(None, {"schedule": "2F2B"})
    assert "more" not in str(caught.value)
    with pytest.raises(UsageError, match=r"; and 1 more$"):
        load_config(None, {"schedule": "2F2B,3F3B"})


def test_all_schedules_are_those_with_a_rule():
    assert set(ALL) == set(SCHEDULES) == set(get_args(ScheduleName))


@pytest.mark.parametrize(("given", "numbers"), [("2,3", (2, 3)), (4, (4,)), ("1", (1,)), ([2, 1], (2, 1))])
def test_virtual_stages(given, numbers):
    assert load_config(None, {"virtual_stages": given}).virtual_stages == numbers


def test_replay_takes_a_profile():
    config = load_config(None, {"device": "replay", "profile": Path("profile.json")})
    assert (config.device, config.profile) == ("replay", Path("profile.json"))


def test_a_file_may_ask_for_replay(toml):
    assert load_config(toml('device = "replay"\nprofile = "profile.json"\n'), {}).profile == Path("profile.json")


def test_divisors():
    assert divisors(1) == (1,)
    assert divisors(12) == (1, 2, 3, 4, 6, 12)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"stages": 49}, ["--stages", "49", "48", "--layers"]),
        ({"layers": 3}, ["--stages", "4 stages", "3"]),
        ({"micro_batches": "65"}, ["--micro-batches", "65", "64", "--batch"]),
        ({"batch": 4, "micro_batches": "8"}, ["--micro-batches", "8", "4"]),
        ({"batch": 0}, ["--batch", "greater than 0", "0"]),
        ({"hidden": 10, "heads": 3}, ["--heads", "10", "3"]),
        ({"micro_batches": ""}, ["--micro-batches"]),
        ({"micro_batches": "four"}, ["--micro-batches", "four"]),
        ({"schedule": "2F2B"}, ["--schedule", "2F2B", "1F1B", "GPipe"]),
        ({"memory_limit": "8"}, ["--memory-limit", "8 bytes?", "give 8GB or 8GiB"]),
        ({"memory_limit": "80000"}, ["--memory-limit", "80000 bytes?"]),
        ({"precision": "fp8"}, ["--precision: it must be 'fp32', 'bf16' or 'fp16' (given: 'fp8')"]),
        ({"layers": "x"}, ["--layers: it must be a whole number (given: 'x')"]),
        ({"precision": "fp8"}, ["--precision", "fp8", "bf16"]),
        ({"device": "tpu"}, ["--device", "tpu", "cuda"]),
        ({"memory_limit": "8 potatoes"}, ["--memory-limit", "8 potatoes", "8GiB"]),
        ({"memory_limit": "0"}, ["--memory-limit"]),
        ({"budget": "soon"}, ["--budget", "soon", "120s"]),
        ({"schedule": "all,1F1B"}, ["--schedule", "all", "1F1B"]),
        ({"virtual_stages": 0}, ["--virtual-stages", "0"]),
        ({"virtual_stages": "two"}, ["--virtual-stages", "two"]),
        ({"virtual_stages": ""}, ["--virtual-stages"]),
        ({"device": "replay"}, ["--profile", "--device replay", "both"]),
        ({"profile": Path("profile.json")}, ["--profile", "--device replay", "both"]),
        ({"device": "cpu", "profile": Path("profile.json")}, ["--profile", "--device replay"]),
        ({"seed": -1}, ["--seed", "-1"]),
        ({"split": "13,13,12"}, ["--split", "13,13,12", "3 stages", "4 ranks", "--stages"]),
        ({"split": "thirteen"}, ["--split", "13,13,12,10", "Megatron", "thirteen"]),
        ({"split": "0,24,24"}, ["--split", "greater than 0"]),
    ],
)
def test_a_wrong_flag_is_a_usage_error(flags, words):
    with pytest.raises(UsageError) as caught:
        load_config(None, flags)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert message.startswith(words[0])
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layers = 2\n", ["4 stages", "layers is 2"]),
        ("batch = 0\n", ["batch", "greater than 0"]),
        ("batch = 8\nmicro_batches = [16]\n", ["m = 16", "8"]),
        ("hidden = 10\nheads = 4\n", ["10", "4"]),
        ("layerz = 2\n", ["unknown key 'layerz'; did you mean 'layers'?"]),
        ("micro-batchs = 2\n", ["did you mean 'micro_batches'?"]),
        ("memory_limit = 8\n", ["memory_limit: 8 bytes?", "8GiB"]),
        ("memory_limit = inf\n", ["memory_limit", "it must be a finite number"]),
        ("fresh = 7\n", ["fresh: it must be true or false (given: 7)"]),
        ("[model]\nlayers = 2\n", ["unknown key", "model"]),
        ("layers = \n", ["not TOML", "line 1"]),
        ("layers = 1\nlayers = 2\n", ["not TOML"]),
        ('memory_limit = "8 potatoes"\n', ["memory_limit", "8GiB"]),
        ("tolerance = 3.0\n", ["tolerance: it must be less than 1 (given: 3.0)"]),
        ("layers = true\n", ["layers"]),
        ("fresh = 7\n", ["fresh"]),
        ("virtual_stages = [2, 0]\n", ["virtual_stages"]),
        ('device = "replay"\n', ["profile", "both"]),
        ("split = [13, 13, 12]\n", ["split", "13,13,12", "3 stages"]),
        ('split = [["layers.1"], ["layers.0"]]\n', ["split", "in order"]),
        ('profile = "profile.json"\n', ["profile", "both"]),
    ],
)
def test_a_wrong_file_is_an_input_error(toml, text, words):
    path = toml(text)
    with pytest.raises(InputError) as caught:
        load_config(path, {})
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in message
    assert [word for word in [str(path), *words] if word not in message] == []


def test_a_flag_that_breaks_a_rule_with_the_file_is_a_usage_error(toml):
    path = toml("layers = 8\n")
    with pytest.raises(UsageError, match=r"^--stages: 9 stages"):
        load_config(path, {"stages": 9})


def test_a_wrong_file_stays_an_input_error_beside_a_right_flag(toml):
    with pytest.raises(InputError, match="unknown key 'layerz'"):
        load_config(toml("layerz = 8\n"), {"stages": 2})


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot read config .*nowhere.toml"):
        load_config(tmp_path / "nowhere.toml", {})


def test_a_directory_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read config"):
        load_config(tmp_path, {})


def test_bytes_that_are_no_text_are_an_input_error(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not TOML"):
        load_config(path, {})


def test_fixed_micro_batch_size_lifts_the_limit_on_m():
    config = load_config(None, {"batch": 4, "micro_batches": "8", "micro_batch_size": 4})
    assert config.counts() == (8,)


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().layers = 2


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_open_sizes_are_settled_by_the_device(kind):
    workload = Config().workload(kind)
    assert workload.hidden % workload.heads == 0
    assert workload.precision == {"cpu": "fp32", "cuda": "bf16"}[kind]


def test_given_sizes_stay():
    workload = Config(hidden=96, heads=3, seq_len=7, vocab=11, layers=5, stages=2, batch=6).workload("cpu")
    assert (workload.hidden, workload.heads, workload.seq_len, workload.vocab) == (96, 3, 7, 11)
    assert (workload.layers, workload.stages, workload.batch) == (5, 2, 6)


@pytest.mark.parametrize("hidden", [1, 7, 48, 100, 1024])
def test_heads_follow_hidden_where_only_hidden_is_given(hidden):
    assert hidden % Config(hidden=hidden).workload("cpu").heads == 0


def test_heads_alone_must_divide_the_default_hidden():
    with pytest.raises(UsageError, match="not divisible by heads 7"):
        Config(heads=7).workload("cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_runs_on_every_device(device, precision):
    assert Config(precision=precision).workload(device).precision == precision


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    config = load_config(path, {})
    workload = config.workload(config.device)
    assert (workload.layers, workload.stages) == (config.layers, config.stages)


def test_the_named_scenarios_ship():
    assert set(shipped()) == {"cpu", "a100", "ci"}  # networks lie in a folder of their own, and are no scenarios
    assert load_config(Path("ci"), {}) == load_config(CONFIGS / "ci.toml", {})


@pytest.mark.parametrize("name", ["nothing", "../cpu", "", "cpu.toml"])
def test_other_names_do_not_ship(name):
    assert name not in shipped()


def test_a100_is_the_scenario_of_the_source_document():
    config = load_config(Path("a100"), {})
    assert (config.layers, config.stages, config.batch, config.device) == (48, 4, 64, "cuda")
    assert config.memory_limit == 80 * 10**9
