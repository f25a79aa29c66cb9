"""The main job on real ranks: small models, the same code as the large ones."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from autotune.config import load_config
from autotune.events import Remembered, Silent
from autotune.pipeline.control.ranks import Ranks
from autotune.report.correctness import GROWTH_BYTES
from autotune.report.load import read_report
from autotune.report.table import print_report
from autotune.tune import profile_and_search
from autotune.tuning.job import prepare_job
from tests.killing import family, wait_until
from tests.pipeline.faults import wrong_rank
from tests.report.printed import contradictions

SMALL = ["--layers", 6, "--hidden", 16, "--heads", 2, "--seq-len", 8, "--vocab", 32, "--device", "cpu"]


def command(*arguments):
    return [sys.executable, "-m", "autotune", *map(str, arguments)]


def autotune(*arguments, cwd):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=250)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = autotune("run", *SMALL, "--stages", 2, "--batch", 16, "--exhaustive", "-v", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_prints_the_table_and_a_confirmed_sweet_spot(first_run):
    _, done = first_run
    assert re.search(r"Sweet spot: (undecided between )?m = ", done.stdout)
    assert "confirmed" in done.stdout
    assert "device    cpu" in done.stderr
    assert "timing stages, round 1 of 3" in done.stderr
    assert "Warning" not in done.stderr


def test_what_a_run_prints_follows_from_its_table(first_run):
    assert contradictions(read_report(first_run[0] / "report.json")) == []


def test_the_report_and_profile_validate_against_their_schemas(first_run):
    folder, _ = first_run
    for what in ("report", "profile"):
        schema = json.loads(autotune("schema", what, cwd=folder).stdout)
        jsonschema.validate(json.loads((folder / f"{what}.json").read_text()), schema)


@pytest.mark.alone
def test_the_report_holds_what_was_measured(first_run):
    report = read_report(first_run[0] / "report.json")
    assert report.status == "complete"
    assert [row.micro_batches for row in report.candidates] == [1, 2, 4, 8, 16]
    spot = report.candidates[report.sweet_spot.candidate]
    assert len(spot.measurement.step_times_s) >= 5
    assert spot.measurement.loss == pytest.approx(3.5, abs=0.5)  # about ln 32, the loss of a guess
    naive = report.candidates[0]
    assert naive.measurement is not None
    assert report.sweet_spot.speedup_over_naive == pytest.approx(spot.rate / naive.rate)
    assert report.sweet_spot.throughput_seq_s == spot.rate == spot.estimate.throughput_seq_s
    for row in report.candidates:
        if row.measurement:
            assert row.relative_error.peak_memory == pytest.approx(0, abs=0.05)


def test_all_losses_of_the_same_untrained_model_are_alike(first_run):
    losses = [row.measurement.loss for row in read_report(first_run[0] / "report.json").candidates if row.measurement]
    assert len(losses) == 5
    assert max(losses) - min(losses) < 0.5


def test_every_candidate_is_found_to_compute_the_same_and_to_keep_nothing(first_run):
    folder, done = first_run
    found = read_report(folder / "report.json").soundness
    assert (found.findings, found.not_compared, found.compared) == ((), None, 4)
    assert max(found.loss_difference, found.gradient_difference) < 1e-6
    assert found.growth_bytes < GROWTH_BYTES
    assert abs(found.peak_slope.share_of_peak) < 0.01
    assert "Checked: loss and gradient norm of the first step agree " in done.stdout
    assert "DOUBTFUL" not in done.stdout
    assert "warning: m = " not in done.stderr


def test_a_run_whose_micro_batches_are_summed_goes_on_and_says_so(tmp_path):
    """The whole job, on ranks that train with a loss that is wrong."""
    flags = {"layers": 6, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "device": "cpu", "stages": 2}
    flags |= {"batch": 16, "micro_batches": [1, 4, 8], "exhaustive": True}
    flags |= {"out": tmp_path / "report.json", "state_dir": tmp_path / "state"}
    said = []
    job = prepare_job(load_config(None, flags), Remembered(Silent(), said))
    job.backend.live = Ranks(2, "cpu", wrong_rank("summed"))
    report = profile_and_search(job)
    assert report.soundness == read_report(tmp_path / "report.json").soundness
    assert report.status == "complete" and report.sweet_spot is not None
    (words,) = report.soundness.findings
    assert words in said and words in report.warnings
    assert "m = 8 1F1B does not compute what m = 1 GPipe computes" in words
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    assert "DOUBTFUL: other loss and gradients than m = 1" in out.getvalue()
    if report.sweet_spot.micro_batches > 1:
        assert "Do not use it before its doubts are settled" in out.getvalue()


def test_what_a_run_leaves_is_private_to_the_user(first_run):
    folder, _ = first_run
    assert (folder / ".autotune").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [".autotune", "profile.json", "report.html", "report.json"]


def test_a_repeated_run_measures_nothing_again_and_says_so(first_run):
    folder, _ = first_run
    before = read_report(folder / "report.json")
    done = autotune("run", *SMALL, "--stages", 2, "--batch", 16, "--out", "again.json", cwd=folder)
    (folder / "again.json").rename(folder.parent / "again.json")
    after = read_report(folder.parent / "again.json")
    assert "(earlier run)" in done.stdout
    assert after.profile_from_earlier_run
    assert after.search.trials == 0
    assert after.sweet_spot.micro_batches == before.sweet_spot.micro_batches
    assert "timing stages" not in done.stderr


def test_show_prints_the_same_table(first_run):
    folder, done = first_run
    shown = autotune("show", "report.json", cwd=folder).stdout
    assert shown.startswith(done.stdout)
    assert shown.removeprefix(done.stdout).startswith("throughput (sequences/s), and peak memory")


def test_the_profile_predicts_without_the_devices(first_run):
    folder, _ = first_run
    printed = json.loads(autotune("predict", "profile.json", "--json", cwd=folder).stdout)
    report = read_report(folder / "report.json")
    predicted = [row["prediction"]["step_time_s"] for row in printed["candidates"]]
    assert predicted == pytest.approx([row.prediction.step_time_s for row in report.candidates])


@pytest.mark.slow
def test_counts_that_do_not_divide_are_padded(tmp_path):
    flags = ["--stages", 2, "--batch", 64, "--micro-batches", "8,12,16,20", "--exhaustive", "--json"]
    done = autotune("run", *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["candidates"]
    assert [(row["micro_batches"], row["micro_batch_size"], row["padding"]) for row in rows] == [
        (1, 64, 0),  # the naive m = 1 is always there
        (8, 8, 0),
        (12, 6, 8),
        (16, 4, 0),
        (20, 4, 16),
    ]
    assert all(row["measurement"] for row in rows)


@pytest.mark.slow
def test_one_stage_runs(tmp_path):
    flags = ["--stages", 1, "--batch", 8, "--micro-batches", "1,8", "--trials", 2]
    done = autotune("run", *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [stage.layers for stage in read_report(tmp_path / "report.json").profile.stages] == [6]


def test_a_fixed_micro_batch_size_grows_the_batch_on_three_stages(tmp_path):
    flags = ["--stages", 3, "--micro-batch-size", 4, "--micro-batches", "2,8", "--exhaustive"]
    done = autotune("run", *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    assert [stage.layers for stage in report.profile.stages] == [2, 2, 2]
    rows = report.candidates
    assert [row.micro_batch_size for row in rows] == [4, 4]
    measured = [row.measurement for row in rows]
    sequences = [m.throughput_seq_s * m.step_time_s for m in measured]
    assert sequences == pytest.approx([8, 32])


@pytest.mark.slow
def test_batch_statistics_exclude_small_micro_batches_with_a_warning_on_five_stages(tmp_path):
    flags = ["--stages", 5, "--batch", 16, "--norm", "batch", "--micro-batches", "1,2,4"]
    done = autotune("run", *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning: the model normalises over the batch" in done.stderr
    assert "--min-micro-batch-size" in done.stderr
    report = read_report(tmp_path / "report.json")
    assert [stage.layers for stage in report.profile.stages] == [1, 2, 1, 1, 1]
    assert [row.excluded is None for row in report.candidates] == [True, True, False]
    assert report.candidates[2].measurement is None
    assert report.warnings


def test_a_limit_below_the_weights_names_stage_and_bytes_and_leaves_nothing(tmp_path):
    done = autotune("run", *SMALL, "--stages", 2, "--memory-limit", "64KiB", cwd=tmp_path)
    assert done.returncode == 5
    assert "rank 0 needs " in done.stderr
    assert "65536 bytes" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_limit_below_every_candidate_leaves_the_predictions(tmp_path):
    flags = ["--stages", 2, "--batch", 16, "--micro-batches", "1,2", "--memory-limit", "300KiB"]
    done = autotune("run", *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    report = read_report(tmp_path / "report.json")
    assert report.status == "infeasible"
    assert all(row.prediction.fits is False for row in report.candidates)


def test_the_name_of_the_temporary_folder_may_be_longer_than_that_of_a_socket(tmp_path):
    """A socket's name has at most 107 bytes: one that lay in that folder could have none."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    before = set(Path("/tmp").glob("autotune-*"))
    done = subprocess.run(
        command("run", "--layers", 4, "--stages", 2, "--device", "cpu", "--dry-run"),
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert wait_until(lambda: not any(folder.iterdir()), 10)
    assert wait_until(lambda: set(Path("/tmp").glob("autotune-*")) <= before, 10)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """Whatever the first one set off is not waited for; ranks and temporary files go all the same."""
    name, value = "AUTOTUNE_TEST_RUN", f"{os.getpid()}-twice"
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        command("run", "--layers", 48, "--stages", 4, "--device", "cpu"),
        cwd=tmp_path,
        env=os.environ | {name: value, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = list(takewhile(lambda line: "timing stages" not in line, process.stderr))
    assert process.poll() is None, said
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert wait_until(lambda: not family(f"{name}={value}"), 10)
    assert wait_until(lambda: not any((tmp_path / "tmp").iterdir()), 10)


@pytest.mark.parametrize(
    ("moment", "sent"),
    [
        ("timing stages", signal.SIGINT),
        pytest.param("first step", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("first step", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_and_sigterm_leave_no_process_and_exit_130(moment, sent, tmp_path):
    marker = f"AUTOTUNE_TEST_RUN={os.getpid()}-{moment.replace(' ', '-')}-{sent}"
    arguments = command("run", "--layers", 48, "--stages", 4, "--out", "report.json", "--device", "cpu")
    name, value = marker.split("=")
    process = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=os.environ | {name: value},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if moment in line:
            break
    assert len(family(marker)) > 4
    time.sleep(0.5)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # what a terminal sends: to every process of the group
    else:
        process.terminate()  # what Slurm and Kubernetes send
    process.stderr.read()
    assert process.wait(timeout=20) == 130
    process.stderr.close()
    assert wait_until(lambda: not family(marker), 10)
    if moment == "first step":
        assert read_report(tmp_path / "report.json").status == "partial"


def test_a_run_writes_a_page_beside_the_report_with_the_command_that_made_it(first_run):
    folder, _ = first_run
    text = (folder / "report.html").read_text()
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o600
    command = read_report(folder / "report.json").command
    assert command.startswith("autotune run --layers 6 ")
    assert f"<td>{command}</td>" in text
    assert re.search(r"Sweet spot: (undecided between )?m = ", text)
