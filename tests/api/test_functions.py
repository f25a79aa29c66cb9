"""The Python interface: what it loads, what it raises, and that it says what the commands say."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import autotune
from autotune.cli import app
from autotune.cli.options import COMMANDS
from autotune.settings import REQUIRED, SETTINGS

ROW = {"micro_batch_size": 8, "t_f": 0.01, "t_bw": 0.02}
PROFILE = {
    "schema_version": 1,
    "kind": "autotune.profile",
    "stages": [{"layers": 2, "time_s": [{**ROW, "micro_batch_size": 2}, ROW]}] * 2,
    "workload": {"batch": 32},
}
RUNS = "micro_batches,micro_batch_size,step_time_s\n8,8,5.2\n16,4,4.6\n32,2,4.9\n"
SCRIPT = """
import json, sys
import autotune

config = autotune.Config(
    layers=4, stages=2, hidden=16, heads=2, seq_len=8, vocab=32, batch=8, micro_batches=(1, 2, 4), device="cpu",
    trials=2,
)
events = []
report = autotune.run(config, on_event=events.append)
again = autotune.run(config)
assert autotune.load("report.json") == again
print(json.dumps({
    "torch": "torch" in sys.modules,
    "recommended": report.sweet_spot.micro_batches,
    "candidates": len(report.rows()),
    "earlier_trials": again.search.earlier_trials,
    "kinds": sorted({str(event.kind) for event in events}),
    "steps": [event.seconds for event in events if event.kind is autotune.EventKind.STEP],
    "header": [str(event) for event in events if event.kind is autotune.EventKind.HEADER],
    "profile": autotune.load_profile("profile.json") == report.profile,
}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a profile and a table of runs are, as the working folder."""
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    (tmp_path / "runs.csv").write_text(RUNS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(script, folder):
    """What a script prints; it must print nothing on stderr."""
    (folder / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_a_plain_script_tunes_on_real_ranks_and_prints_nothing_of_its_own(tmp_path):
    """Without ``if __name__ == "__main__"``: ranks are not made by starting the script again."""
    found = json.loads(python(SCRIPT, tmp_path))
    assert found["recommended"] in (1, 2, 4)
    assert (found["torch"], found["candidates"], found["profile"]) == (False, 3, True)
    assert found["earlier_trials"] >= 1  # the second run goes on from the first
    assert set(found["kinds"]) >= {"header", "progress", "step", "known"}
    assert min(found["steps"]) > 0
    assert found["header"][0].startswith("device    cpu")
    assert {path.name for path in tmp_path.iterdir()} >= {"report.json", "report.html", "profile.json"}


def test_nothing_heavy_is_loaded_before_it_is_needed(folder):
    watched = "print(*sorted({'torch', 'optuna', 'pydantic', 'numpy', 'typer', 'rich'} & set(sys.modules)))"
    assert python(f"import sys, autotune; dir(autotune); autotune.errors; {watched}", folder).split() == []
    calls = [
        "autotune.load_profile('profile.json')",
        "autotune.predict('profile.json').save('predicted.json')",
        "report = autotune.load('predicted.json')",
        "autotune.export(report, 'megatron-lm')",
        "autotune.fit('runs.csv', stages=4)",
        "autotune.plan('h100', autotune.Config(stages=4))",
        "report._repr_html_()",
    ]
    loaded = python("\n".join(["import sys, autotune", *calls, watched]), folder).split()
    assert {"torch", "typer"}.isdisjoint(loaded)


def test_every_name_is_there_and_stays_what_it_is():
    """Folders are called predict and plan as well, and Python would put them in the functions' place."""
    import autotune.plan.scale
    import autotune.predict.sweep

    assert set(autotune.__all__) == {*autotune.HOMES, "errors"}
    assert set(autotune.__all__) <= set(dir(autotune))
    assert [
        name for name in ("run", "predict", "fit", "plan", "export", "load") if not callable(getattr(autotune, name))
    ] == []
    assert autotune.predict.__module__ == "autotune.api.functions"
    assert issubclass(autotune.InputError, autotune.errors.AutotuneError)
    with pytest.raises(AttributeError, match="no attribute 'tune_it'"):
        autotune.tune_it  # noqa: B018


def test_type_checkers_see_every_name_where_it_is_found():
    tree = ast.parse(Path(autotune.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == autotune.HOMES | {"errors": "autotune"}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: autotune.Config(layer=8), "InputError", "unknown key 'layer'; did you mean 'layers'?"),
        (lambda: autotune.Config(stages=99), "InputError", "Config: stages: 99 stages need at least one layer each"),
        (lambda: autotune.Config(memory_limit=8), "InputError", "give 8GB or 8GiB"),
        (lambda: autotune.run("absent.toml"), "InputError", "absent.toml"),
        (lambda: autotune.load("absent.json"), "InputError", "cannot read absent.json"),
        (lambda: autotune.load("profile.json"), "InputError", "is not an autotune report"),
        (lambda: autotune.load_profile("runs.csv"), "InputError", "runs.csv is not JSON"),
        (lambda: autotune.predict("profile.json", micro_batches=[64]), "UsageError", "m = 64 is more than the batch"),
        (lambda: autotune.predict("profile.json", speed_up=-1), "UsageError", "--speed-up"),
        (lambda: autotune.predict("profile.json", schedule="2F2B"), "UsageError", "2F2B"),
        (lambda: autotune.predict("profile.json", link="1GB/s,2GB/s"), "UsageError", "one value of each"),
        (lambda: autotune.fit("absent.csv", stages=4), "InputError", "absent.csv"),
        (lambda: autotune.fit("runs.csv"), "UsageError", "--stages"),
        (lambda: autotune.plan("h1000"), "InputError", "h1000"),
        (lambda: autotune.export(autotune.predict("profile.json"), "slurm"), "UsageError", "'slurm' is not known"),
        (
            lambda: autotune.Profile(stages=[{"time_s": [autotune.StageTime(micro_batch_size=0, t_f=1, t_bw=1)]}]),
            "InputError",
            "Profile: stages.0.time_s.0.micro_batch_size: it must be greater than 0",
        ),
        (lambda: autotune.StageProfile(time_s=[]), "InputError", "StageProfile: time_s: it needs 1 or more"),
    ],
)
def test_what_is_wrong_is_said_by_an_error_of_ours(call, error, words, folder):
    with pytest.raises(getattr(autotune, error)) as raised:
        call()
    assert words in str(raised.value)
    assert "pydantic" not in str(raised.value)


def printed(*words):
    """The JSON that a command prints, but for when and how it was made."""
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return told(json.loads(done.stdout))


def told(document):
    return {name: value for name, value in document.items() if name not in ("created", "command")}


def plain(report):
    return told(report.model_dump(mode="json", by_alias=True))


def test_functions_say_what_the_commands_say(folder):
    flags = ["--micro-batches", "4,8", "--link", "1GB/s", "--memory-limit", "40GB"]
    found = autotune.predict("profile.json", micro_batches=[4, 8], link=1e9, memory_limit="40GB")
    assert plain(found) == printed("predict", "profile.json", *flags)
    assert plain(autotune.fit("runs.csv", stages=4)) == printed("fit", "runs.csv", "--stages", 4)
    planned = autotune.plan("h100", autotune.Config(batch=32), model="llama-2-7b", devices=16)
    assert plain(planned) == printed(
        *("plan", "--device-spec", "h100", "--model", "llama-2-7b", "--devices", 16, "--batch", 32)
    )


OF_COMMANDS = {"out", "html", "json_output", "quiet", "verify_environment", "python"}
READ = {"predict": "path", "fit": "paths", "plan": "device_spec", "export": "path"}


@pytest.mark.parametrize("name", READ)
def test_functions_take_what_their_commands_take(name):
    """But what is about output; the first is what is read. What ``plan`` takes of a config is in the Config."""
    rows = {row.name: row for row in COMMANDS[name] if row.name not in OF_COMMANDS}
    given = dict(list(inspect.signature(getattr(autotune, name)).parameters.items())[1:])
    in_config = {row for row in rows if SETTINGS.get(row) is rows[row]} if name == "plan" else set()
    assert set(given) == set(rows) - {READ[name], *in_config} - ({"memory_limit"} if name == "plan" else set())
    for parameter in given.values():
        default = rows[parameter.name].default
        assert parameter.default in (default, None) or default is REQUIRED


def test_an_export_is_what_the_command_prints(folder):
    report = autotune.predict("profile.json")
    report.save("predicted.json")
    made = autotune.export("predicted.json", "deepspeed", data_parallel=2)
    done = CliRunner().invoke(app, ["export", "predicted.json", "--to", "deepspeed", "--data-parallel", "2"])
    assert made.text == done.stdout
    assert [f"autotune: {note}" for note in made.notes] == done.stderr.splitlines()


def test_a_profile_can_be_typed_in_python(folder):
    rows = (autotune.StageTime(micro_batch_size=2, t_f=0.01, t_bw=0.02), autotune.StageTime(**ROW))
    profile = autotune.Profile(stages=(autotune.StageProfile(layers=2, time_s=rows),) * 2, workload={"batch": 32})
    assert autotune.predict(profile).candidates == autotune.predict("profile.json").candidates
    profile.save("typed.json")
    assert autotune.load_profile("typed.json") == profile
    assert repr(profile) == "Profile(stages=2, ranks=2, micro_batch_sizes=(2, 8))"


USER = """
from pathlib import Path

import autotune


def best(folder: Path) -> int | None:
    row = autotune.StageTime(micro_batch_size=4, t_f=0.01, t_bw=0.02)
    profile = autotune.Profile(stages=(autotune.StageProfile(time_s=(row,)),))
    report: autotune.Report = autotune.predict(profile, micro_batches=[1, 2], memory_limit="8GiB")
    report = autotune.run(autotune.Config(layers=4, stages=2), on_event=print)
    text: str = autotune.export(report, "shell").text
    try:
        report = autotune.load(folder / text)
    except autotune.errors.InputError:
        return None
    return report.sweet_spot.micro_batches if report.sweet_spot else None
"""


@pytest.mark.slow
def test_a_script_of_a_user_is_checked_by_mypy(tmp_path):
    def mypy(text):
        (tmp_path / "user.py").write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "user.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600).stdout

    assert mypy(USER).startswith("Success")
    assert 'has incompatible type "str"; expected "int"' in mypy(USER.replace("layers=4", "layers='4'"))
    assert '"Report" has no attribute "best"' in mypy(USER.replace("report.sweet_spot else", "report.best else"))
