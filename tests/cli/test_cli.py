"""The commands as a user types them: help, bad input, exit codes, what is imported, what is left behind."""

import json
import os
import subprocess
import sys
import time
from statistics import median

import pytest

ROW = {"micro_batch_size": 4, "t_f": 0.01, "t_bw": 0.02}
PROFILE = {"schema_version": 1, "kind": "autotune.profile", "stages": [{"time_s": [ROW]}, {"time_s": [ROW]}]}


def autotune(*arguments, cwd, **more):
    command = [sys.executable, "-m", "autotune", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, **more)


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["profile"],
        ["predict"],
        ["show"],
        ["export"],
        ["check"],
        ["ramp"],
        ["scale"],
        ["worker"],
        ["timeline"],
        ["guide"],
        ["schema"],
        ["doctor"],
    ],
)
def test_every_command_has_help(command, tmp_path):
    done = autotune(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: " in done.stdout


def test_version(tmp_path):
    assert autotune("--version", cwd=tmp_path).stdout.startswith("autotune 0.")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--stages", "49"], 2, "49 stages need at least one layer each"),
        (["--micro-batches", "8,65"], 2, "m = 65 is more than the batch of 64"),
        (["--batch", "0"], 2, "greater than 0"),
        (["--hidden", "10", "--heads", "3"], 2, "hidden 10 is not divisible by heads 3"),
        (["--device", "tpu"], 2, "'tpu'"),
        (["--schedule", "2F2B"], 2, "'2F2B'"),
        (["--schedule", "1F1B,Gpip"], 2, "--schedule: it must be 'GPipe'"),
        (["--schedule", "gpip"], 2, "(given: 'gpip'); did you mean 'GPipe'?"),
        (["--micro-batches", "a,b"], 2, "--micro-batches: it must be a whole number (given: 'a'); and 1 more"),
        (["--memory-limit", "8 parsecs"], 2, "such as 8GiB"),
        (["--budget", "-3"], 2, "--budget"),
        (["--nonsense"], 2, "--nonsense"),
        (["--config", "absent.toml"], 3, "absent.toml"),
        (["--out", "no/such/folder/report.json"], 3, "there is no directory"),
        (["--out", "."], 3, "is a directory"),
    ],
)
def test_bad_flags_end_in_one_clear_line_and_leave_nothing(flags, code, words, tmp_path):
    done = autotune("run", *flags, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("laeyrs = 3", "unknown key 'laeyrs'"),
        ("batch = ", "is not TOML"),
        ("batch = 0", "batch"),
        ("stages = 49", "49"),
    ],
)
def test_a_bad_config_file_is_named(text, words, tmp_path):
    (tmp_path / "bad.toml").write_text(text)
    done = autotune("run", "--config", "bad.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "bad.toml" in done.stderr
    assert words in done.stderr
    assert len(lines(done.stderr)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


@pytest.mark.parametrize("command", ["show", "predict"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("not JSON", "is not JSON"),
        ('{"kind": "something"}', 'its "kind" must be'),
    ],
)
def test_an_unreadable_file_is_refused(command, content, words, tmp_path):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    done = autotune(command, path, cwd=tmp_path)
    assert done.returncode == 3
    assert words in done.stderr
    assert len(lines(done.stderr)) == 1


def test_a_report_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"kind": "autotune.report", "schema_version": 2}))
    done = autotune("show", path, cwd=tmp_path)
    assert done.returncode == 3
    assert "schema_version 2" in done.stderr
    assert "upgrade autotune" in done.stderr


def test_predict_prints_the_candidates_of_a_hand_written_profile(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    done = autotune("predict", "profile.json", "--batch", "8", "--json", cwd=tmp_path)
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    assert printed["kind"] == "autotune.prediction"
    assert [row["micro_batches"] for row in printed["candidates"]] == [1, 2, 4, 8]
    assert "the profile does not give" in done.stderr
    table = autotune("predict", "profile.json", "--batch", "8", cwd=tmp_path)
    assert "Best prediction: m = " in table.stdout


def test_a_schedule_is_known_in_any_case(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    done = autotune("predict", "profile.json", "--batch", "8", "--schedule", "gpipe", "--json", cwd=tmp_path)
    assert {row["schedule"] for row in json.loads(done.stdout)["candidates"]} == {"GPipe"}
    done = autotune("timeline", "--stages", "2", "-m", "2", "--schedule", "interleaved1f1b", cwd=tmp_path)
    assert (done.returncode, "Interleaved1F1B" in done.stdout) == (0, True)


def test_a_memory_limit_without_a_unit_is_refused(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    for limit in ("8", "8,16"):
        done = autotune("predict", "profile.json", "--batch", "8", "--memory-limit", limit, cwd=tmp_path)
        assert done.returncode == 2
        (line,) = lines(done.stderr)
        assert line.startswith("autotune: --memory-limit: 8 bytes? No device has so little; give 8GB or 8GiB")


def test_schemas_are_json_schemas(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    for what in ("config", "profile", "report", "scale"):
        jsonschema.Draft202012Validator.check_schema(json.loads(autotune("schema", what, cwd=tmp_path).stdout))
    assert autotune("schema", "nothing", cwd=tmp_path).returncode == 2


def imported(code, cwd):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    return {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--help"], {"torch", "optuna", "numpy"}),
        (["run", "--help"], {"torch", "optuna", "numpy"}),
        (["predict", "profile.json", "--batch", "8"], {"torch", "optuna"}),
        (["show", "profile.json"], {"torch", "optuna"}),
        (["schema", "report"], {"torch", "optuna"}),
    ],
)
def test_light_commands_import_nothing_heavy(arguments, never, tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    code = f"import sys; sys.argv = ['autotune', *{arguments!r}]; from autotune.cli import main; main()"
    assert never.isdisjoint(imported(code, tmp_path))


@pytest.mark.alone
def test_help_costs_no_more_than_twice_an_empty_typer_app(tmp_path):
    """Side by side, in turn, so that a slow moment of the machine meets both."""
    empty = "import typer\napp = typer.Typer()\n@app.command()\ndef one(): pass\n@app.command()\ndef two(): pass\napp()"
    (tmp_path / "empty.py").write_text(empty)
    commands = ([sys.executable, "empty.py", "--help"], [sys.executable, "-m", "autotune", "--help"])
    ratios = []
    for _ in range(7):
        seconds = []
        for command in commands:
            start = time.perf_counter()
            subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, env=os.environ)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    assert median(ratios) <= 2.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--nonsense"], ["no such option: --nonsense", "autotune run --help"]),
        (["run", "--layers", "many"], ["'--layers': it must be a whole number (given: 'many')", "autotune run --help"]),
        (["tell", "r", "-m", "0", "--step-time", "1s"], ["it must be 1 or more (given: '0')", "autotune tell --help"]),
        (["timeline", "--stages", "2", "-m", "4", "--schedule", "gpip"], ["there is no schedule 'gpip'"]),
        (["run", "--layers"], ["--layers", "requires an argument", "autotune --help"]),
        (["show"], ["missing argument", "REPORT", "autotune show --help"]),
        (["nonsense"], ["no such command 'nonsense'", "autotune --help"]),
        (["guide", "nonsense"], ["'nonsense'", "glossary"]),
        (["schema", "nonsense"], ["'nonsense'", "config, profile, report or scale"]),
    ],
)
def test_wrong_usage_is_one_line(arguments, words, tmp_path):
    done = autotune(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = lines(done.stderr)
    assert line.startswith("autotune: ")
    assert [word for word in words if word not in line] == []


def end_of(arguments, cwd, **streams):
    """What the command ends with where nobody takes its output, and what it says on stderr where that is open."""
    command = [sys.executable, "-m", "autotune", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(command, cwd=cwd, text=True, timeout=120, **streams)


@pytest.fixture
def gone():
    """A pipe whose reader has gone, as after ``| head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["schema", "report"], ["guide", "start"], ["timeline", "-m", "8", "--stages", "2"]],
)
def test_a_closed_pipe_ends_the_command_quietly(arguments, gone, tmp_path):
    done = end_of(arguments, tmp_path, stdout=gone)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_keeps_its_code_where_nobody_reads_it(gone, tmp_path):
    assert end_of(["show", "absent.json"], tmp_path, stderr=gone).returncode == 3
    with open("/dev/full", "w") as full:
        assert end_of(["show", "absent.json"], tmp_path, stderr=full).returncode == 3
        assert end_of(["nonsense"], tmp_path, stderr=full).returncode == 2


def test_closed_streams_are_no_error(tmp_path):
    """As a daemon starts a program: with neither of them."""
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        command = f"{sys.executable} -m autotune timeline -m 4 --stages 2 {closed}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
