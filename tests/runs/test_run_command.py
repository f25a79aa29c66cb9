"""autotune run -- COMMAND as its users run it, on commands whose truth is known."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.config import load_config
from autotune.errors import DeviceError, InputError, UsageError
from autotune.records.profile import read_profile
from autotune.report.load import read_report
from tests.commands.sleeping import step_s
from tests.guide.manual import ROOT, typed

pytestmark = pytest.mark.slow  # whole runs of commands

SLEEPING = Path(__file__).parents[1] / "commands" / "sleeping.py"
COMMAND = (sys.executable, SLEEPING, "0.3")
SIZES = ("--stages", 4, "--batch", 64, "--no-probe", "--quiet")
COUNTS = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words, command=COMMAND):
    return CliRunner().invoke(app, ["run", *map(str, words), "--", *map(str, command)])


def rate(m):
    return 64 / step_s(m, 64 // m)


def test_the_pick_is_the_best_for_less_than_measuring_everything(folder):
    done = run(*SIZES)
    assert done.exit_code == 0, done.exception
    report = read_report(folder / "report.json")
    pick = report.sweet_spot.micro_batches
    assert rate(pick) >= 0.97 * max(map(rate, COUNTS))
    ran = [row for row in report.candidates if row.measurement]
    assert 3 <= len(ran) <= 5
    for row in ran:
        assert row.measurement.throughput_seq_s == pytest.approx(rate(row.micro_batches), rel=0.02)
    assert report.search.device_s <= 0.8 * report.search.exhaustive_device_s
    assert report.environment.device == "a command"
    assert "2 stages" not in done.stdout
    assert len(list((folder / ".autotune" / "trials").iterdir())) == report.search.trials


def test_predictions_and_profile_are_fitted_to_what_ran(folder):
    run(*SIZES)
    report = read_report(folder / "report.json")
    for row in report.candidates:
        basis = row.prediction.basis
        assert (basis == "measured") == (row.measurement is not None)
        assert row.prediction.throughput_seq_s == pytest.approx(rate(row.micro_batches), rel=0.12)
    assert read_profile(folder / "profile.json").ranks == 4
    assert report.profile == read_profile(folder / "profile.json")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("--present", 2), COMMAND),
        (("--set", "ds.json:micro={micro_batch_size}"), COMMAND),
        ((), (*COMMAND, "{micro_batches=2}")),
    ],
    ids=["stated", "file", "placeholder"],
)
def test_what_the_command_runs_with_now_is_measured_and_compared(folder, words, command):
    (folder / "ds.json").write_text('{"micro": 32}')
    done = run(*SIZES, "--trials", 3, *words, command=command)
    assert done.exit_code == 0, done.exception
    report = read_report(folder / "report.json")
    spot, now = report.sweet_spot, report.candidates[report.sweet_spot.present]
    assert (now.micro_batches, report.training_command.micro_batches) == (2, 2)
    assert now.measurement is not None
    assert spot.speedup_over_present == pytest.approx(rate(spot.micro_batches) / rate(2), rel=0.02)
    assert f"{spot.speedup_over_present:.2f}x the present m = 2" in done.stdout
    assert (folder / "ds.json").read_text() == '{"micro": 32}'


def test_the_cut_and_the_replicas_reach_the_command(folder):
    script = folder / "train.sh"
    script.write_text(f'echo "$@" > told; exec {sys.executable} {SLEEPING} 0.1\n')
    words = ("{layout}", "{layers_per_stage}", "{global_batch}", "{data_parallel}")
    flags = ("--trials", 1, "--layers", 26, "--split", "7,7,6,6")
    done = run(*SIZES, *flags, "--data-parallel", 2, command=("sh", script, *words))
    assert done.exit_code == 0, done.exception
    assert (folder / "told").read_text() == "Et*7|t*7|t*6|t*6L 7,7,6,6 128 2\n"
    (row,) = [row for row in read_report(folder / "report.json").candidates if row.measurement]
    assert row.measurement.throughput_seq_s == pytest.approx(rate(row.micro_batches), rel=0.02)
    assert run(*SIZES, *flags, command=("sh", script, *words)).exit_code == 0
    assert read_report(folder / "report.json").search.earlier_trials == 0  # other replicas, another study
    assert (folder / "told").read_text().endswith(" 64 1\n")


def test_a_step_that_is_told_is_fitted_with_those_that_ran(folder):
    run(*SIZES, "--trials", 2)
    before = {row.micro_batches: row for row in read_report(folder / "report.json").candidates}
    untried = next(m for m, row in before.items() if row.measurement is None and m > 1)
    done = CliRunner().invoke(
        app, ["tell", "report.json", "-m", str(untried), "--step-time", str(step_s(untried, 64 // untried))]
    )
    assert done.exit_code == 0, done.exception
    report = read_report(folder / "report.json")
    row = next(row for row in report.candidates if row.micro_batches == untried)
    assert row.prediction.basis == "measured"
    assert row.rate == pytest.approx(rate(untried), rel=0.02)
    assert report.profile == read_profile(folder / "report-profile.json") != read_profile(folder / "profile.json")
    assert report.environment.device == "a command"


def expected_of(folder, machine=1.0, ranks=4):
    """A profile of the command on a machine on which steps take ``machine`` times as long."""
    rows = [f"{m},{64 // m},{machine * step_s(m, 64 // m)},{(10 + 64 // m) * 2**30}" for m in COUNTS if m >= 4]
    (folder / "runs.csv").write_text("\n".join(["micro_batches,micro_batch_size,step_time_s,peak_memory_bytes", *rows]))
    done = CliRunner().invoke(app, ["fit", "runs.csv", "--stages", str(ranks), "--batch", "64", "--quiet"])
    assert done.exit_code == 0, done.exception
    return "fit-profile.json"


def test_a_profile_is_the_prior_whatever_the_machine_that_it_is_of(folder):
    done = run(*SIZES, "--profile", expected_of(folder, machine=20.0))
    assert done.exit_code == 0, done.exception
    report = read_report(folder / "report.json")
    ran = {row.micro_batches for row in report.candidates if row.measurement}
    best = max(COUNTS, key=rate)
    assert rate(report.sweet_spot.micro_batches) >= 0.99 * rate(best)
    assert {1, best} <= ran
    assert len(ran) <= 4
    for row in report.candidates:
        if row.micro_batches >= 4:
            assert row.prediction.throughput_seq_s == pytest.approx(rate(row.micro_batches), rel=0.06)


def test_what_a_profile_says_does_not_fit_is_not_tried(folder):
    done = run(*SIZES, "--trials", 2, "--memory-limit", "20GiB", "--profile", expected_of(folder))
    assert done.exit_code == 0, done.exception
    excluded = {row.micro_batches for row in read_report(folder / "report.json").candidates if row.excluded}
    assert 4 in excluded
    assert not excluded & {16, 32, 64}


def test_a_profile_of_another_pipeline_is_refused(folder):
    profile = expected_of(folder, ranks=2)
    done = run(*SIZES, "--profile", profile)
    assert isinstance(done.exception, UsageError)
    assert f"--profile: {profile} has 2 ranks, --stages says 4" in str(done.exception)
    done = run("--stages", 2, "--batch", 64, "--schedule", "Interleaved1F1B", "--profile", profile)
    assert "has 1 stages per rank, the candidates have 2" in str(done.exception)


def test_the_next_run_goes_on_from_what_was_measured(folder):
    run(*SIZES, "--trials", 2)
    again = run(*SIZES)
    assert again.exit_code == 0
    report = read_report(folder / "report.json")
    assert report.search.earlier_trials == 2
    assert rate(report.sweet_spot.micro_batches) >= 0.97 * max(map(rate, COUNTS))


def test_a_command_of_a_config_file_that_the_user_names(folder):
    words = json.dumps([*map(str, COMMAND)])
    (folder / "mine.toml").write_text(f"stages = 4\nbatch = 64\ntrials = 1\nno-probe = true\ncommand = {words}\n")
    done = CliRunner().invoke(app, ["run", "--config", "mine.toml", "--quiet"])
    assert done.exit_code == 0, done.exception
    assert load_config(None, {"command": "a 'b c'"}).command == ("a", "b c")


def test_setup_prepare_and_cleanup(folder):
    notes = {name: f"echo {name} $AUTOTUNE_MICRO_BATCHES >> notes" for name in ("setup", "prepare", "cleanup")}
    options = [word for name, text in notes.items() for word in (f"--{name}", text)]
    assert run(*SIZES, "--trials", 2, *options).exit_code == 0
    found = [line.split() for line in (folder / "notes").read_text().splitlines()]
    assert [line[0] for line in found] == ["setup", "prepare", "prepare", "cleanup"]
    assert found[1][1] != found[2][1]


def test_a_preparation_that_fails_ends_the_run(folder):
    done = run(*SIZES, "--prepare", "echo no such data >&2; exit 3")
    assert isinstance(done.exception, DeviceError)
    assert "--prepare exited with 3: no such data" in str(done.exception)


def test_a_candidate_that_runs_out_of_memory_is_an_outcome(folder):
    script = folder / "train.py"
    script.write_text(
        "import os, runpy, sys\n"
        "if int(os.environ['AUTOTUNE_MICRO_BATCH_SIZE']) >= 16:\n"
        "    sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.')\n"
        f"runpy.run_path({str(SLEEPING)!r}, run_name='__main__')\n"
    )
    done = run(*SIZES, command=(sys.executable, script, "0.1"))
    assert done.exit_code == 0, done.exception
    rows = {row.micro_batches: row for row in read_report(folder / "report.json").candidates}
    failed = [row for row in rows.values() if row.failure]
    assert failed
    assert {row.failure.kind for row in failed} == {"out_of_memory"}
    assert all(row.micro_batch_size >= 16 for row in failed)


@pytest.mark.parametrize(
    ("words", "command", "error", "message"),
    [
        (SIZES, ("/no/such/program",), UsageError, "there is no such program"),
        (SIZES, ("echo", "{micro_batchs}"), UsageError, "did you mean {micro_batches}"),
        ((*SIZES, "--read", "megatron"), COMMAND, UsageError, "there is no format 'megatron'"),
        ((*SIZES, "--set", "x"), COMMAND, UsageError, "--set: 'x' is not FILE:KEY=VALUE"),
        ((*SIZES, "--set", "none.json:a=1"), COMMAND, InputError, "--set: cannot read none.json"),
        ((*SIZES, "--split", "2,2,2,2"), COMMAND, UsageError, "--split: a command cuts and keeps its layers itself"),
        (SIZES, (*COMMAND, "{layout}"), UsageError, "{layout}: nothing says how many layers there are"),
        ((*SIZES, "--layers", 3), (*COMMAND, "{layout}"), UsageError, "3 layers cannot be cut into 4 stages"),
        ((*SIZES, "--layers", 9, "--split", "2,2,2,2"), (*COMMAND, "{layout}"), UsageError, "holds 8 layers"),
        ((*SIZES, "--dry-run"), COMMAND, UsageError, "nothing is known of a command's steps"),
        ((*SIZES, "--read", "hf"), ("true",), DeviceError, "exited with 0 before its first step"),
    ],
)
def test_what_is_wrong_is_said(folder, words, command, error, message):
    done = run(*words, command=command)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)


def test_the_guides_last_example_does_what_it_says(folder):
    """As a reader would: the words of the guide, a train.sh that prints a time, and a look at the report."""
    (words,) = [one.words for one in typed() if one.page == "command" and "./train.sh" in one.words]
    script = folder / "train.sh"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {folder / 'train.py'} $1\n")
    (folder / "train.py").write_text(
        f"import sys, time\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.commands.sleeping import step_s\n"
        "m = int(sys.argv[1])\nfor step in range(9):\n    time.sleep(0.02)\n"
        "    print(f'step {step} took {1e3 * step_s(m, 64 // m):.4f} ms', flush=True)\n"
    )
    script.chmod(0o755)
    done = CliRunner().invoke(app, [*words[:1], "--quiet", *words[1:]])
    assert done.exit_code == 0, done.exception
    report = read_report(folder / "report.json")
    assert rate(report.sweet_spot.micro_batches) >= 0.97 * max(map(rate, COUNTS))
    for row in report.candidates:
        if row.measurement:
            assert row.measurement.throughput_seq_s == pytest.approx(rate(row.micro_batches), rel=0.001)
    assert CliRunner().invoke(app, ["show", "report.json"]).exit_code == 0


def test_one_process_that_accumulates_gradients_is_a_pipeline_of_one_stage(folder):
    done = run("--stages", 1, "--batch", 16, "--no-probe", "--quiet")
    assert done.exit_code == 0, done.exception
    assert read_report(folder / "report.json").workload.stages == 1


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_ranks_of_torchrun_are_timed_and_their_memory_is_seen(folder):
    """torch's own pipelining under torchrun, with a log that no format knows: the probe sees every rank."""
    script = Path(__file__).parents[1] / "commands" / "pipelining.py"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    command = (*torchrun, script, "--micro-batches", "{micro_batches}", "--batch", "{batch}")
    done = run("--stages", 2, "--batch", 32, "--trials", 2, "--quiet", command=command)
    assert done.exit_code == 0, done.exception
    ran = [row for row in read_report(folder / "report.json").candidates if row.measurement]
    assert len(ran) == 2
    assert all(len(row.measurement.peak_memory_bytes) == 2 for row in ran)
