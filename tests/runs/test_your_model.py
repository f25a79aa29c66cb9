"""``autotune run --model`` on real ranks, as the guide's page walks through it, and what is said of mistakes."""

import json
import shlex
import subprocess
import sys

import pytest

from autotune.report.load import read_report
from tests.guide.manual import FOLDER, blocks
from tests.workload.models import FOLDER as MODELS

pytestmark = pytest.mark.slow  # whole runs

PAGE = FOLDER / "your-model.md"
QUICK = ["--device", "cpu", "--stages", "2", "--batch", "8"]


def autotune(*words, cwd):
    command = [sys.executable, "-m", "autotune", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


@pytest.mark.timeout(300)
def test_the_example_of_the_guide_runs_as_it_is_written(tmp_path):
    code, *_ = blocks(PAGE, "python")
    (tmp_path / "mlp.py").write_text(code)
    typed = shlex.split(blocks(PAGE, "console")[0])
    done = autotune(*typed[1:], "--trials", 2, "--peak-flops", "1T", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    work = report.workload
    assert (work.model, work.arguments, work.layers) == ("mlp.py:build", {"width": 128}, 10)
    assert work.parameters == 17 * 128 + 8 * (129 * 128 + 2 * 128) + 129 * 4
    assert "Sweet spot: " in done.stdout and " samples/s" in done.stdout
    spot = report.sweet_spot
    assert report.model_flops_utilisation == pytest.approx(
        3 * 2 * (16 * 128 + 8 * 128**2 + 4 * 128) * spot.throughput_seq_s / (2 * 1e12)
    )
    assert report.soundness.findings == ()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["two_tensors", "encoder"])
def test_a_model_with_several_tensors_or_masks_is_tuned_under_a_split_backward_too(name, tmp_path):
    done = autotune(
        *("run", "--model", f"{MODELS / name}.py:build", *QUICK, "--schedule", "1F1B,ZBVZeroBubble", "--exhaustive"),
        *("--micro-batches", "4"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    ran = [row for row in report.candidates if row.measurement]
    assert {row.schedule for row in ran} == {"GPipe", "1F1B", "ZBVZeroBubble"}
    assert not [row for row in report.candidates if row.failure], report.candidates
    assert report.soundness.findings == ()
    for row in ran:
        told = [split.total for split in row.prediction.memory_split_bytes]
        for predicted, measured in zip(told, row.measurement.peak_memory_bytes, strict=True):
            # Gradients that come back are taken to be as large as what was sent, integers too; and in a model as small
            # as this one it matters how soon a message that has been sent is let go of.
            assert predicted == pytest.approx(measured, rel=0.2 if row.virtual_stages > 1 else 0.05), row.name


def test_mistakes_end_with_exit_3_in_one_line_and_leave_nothing(tmp_path):
    (tmp_path / "wrong.py").write_text("print('noise')\n\ndef build():\n    raise ValueError('too wide')\n")
    done = autotune("run", "--model", "wrong.py:build", *QUICK, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    last = done.stderr.strip().splitlines()[-1]
    assert "--model wrong.py:build" in last and "ValueError: too wide" in last
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["wrong.py"]


def test_a_file_may_not_name_code_and_sizes_of_the_gpt_are_refused(tmp_path):
    (tmp_path / "mine.toml").write_text("model = 'x.py:build'\n")
    done = autotune("run", "--config", "mine.toml", cwd=tmp_path)
    assert done.returncode == 3 and "no file may name code" in done.stderr
    done = autotune("run", "--model", "x.py:build", "--layers", 4, cwd=tmp_path)
    assert done.returncode == 2 and "has its own" in done.stderr
    done = autotune("run", "--model", "nothing", cwd=tmp_path)
    assert done.returncode == 2 and "FILE.py:FUNCTION" in done.stderr
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["mine.toml"]'


@pytest.fixture(scope="module")
def cut_and_recomputed(tmp_path_factory):
    """A model with a heavy head: its even cut and the one that is proposed, keeping everything or nothing."""
    folder = tmp_path_factory.mktemp("cut")
    done = autotune(
        *("run", "--model", f"{MODELS / 'heavy_head.py'}:build", *QUICK, "--schedule", "1F1B"),
        *("--micro-batches", "2,4", "--balance", "--recompute", "auto", "--exhaustive"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return read_report(folder / "report.json")


@pytest.mark.timeout(300)
def test_a_cut_is_found_and_layers_recompute_in_a_model_of_the_users(cut_and_recomputed):
    report = cut_and_recomputed
    assert report.soundness.findings == ()  # one loss, and the same gradients, however it is cut
    ran = {(row.micro_batches, row.split, row.recompute): row for row in report.candidates if row.measurement}
    cuts = {split for _, split, modes in ran if split and not modes}
    assert cuts and all(sum(split) == 12 and split[0] > split[1] for split in cuts)
    assert {modes for _, _, modes in ran if modes} == {("selective",) * 2, ("full",) * 2}
    for row in ran.values():
        told = [split.total for split in row.prediction.memory_split_bytes]
        # What a stage of another cut holds while an action runs is taken to be as it was.
        assert told == pytest.approx(row.measurement.peak_memory_bytes, rel=0.1 if row.split else 0.01), row.label


@pytest.mark.timeout(300)
def test_layers_that_recompute_keep_less_of_a_model_of_the_users(cut_and_recomputed):
    held = {
        profile.recompute[0] if profile.recompute else "none": [
            row.activation_bytes for row in profile.stages[0].memory
        ]
        for profile in (cut_and_recomputed.profile, *cut_and_recomputed.virtual_profiles)
    }
    of_sizes = zip(held["none"], held["selective"], held["full"], strict=True)
    assert all(none > selective > full for none, selective, full in of_sizes), held


def test_who_cuts_the_model_himself_cannot_have_it_cut_otherwise(tmp_path):
    for flags in (["--balance"], ["--split", "1,1"]):
        done = autotune("run", "--model", f"{MODELS / 'own_stages.py'}:build", *QUICK, *flags, cwd=tmp_path)
        assert done.returncode == 2 and "cuts the model itself" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
