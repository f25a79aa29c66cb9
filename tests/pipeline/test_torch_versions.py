"""What each version of torch runs, in words; and ranks in an environment that has torch and nothing else."""

import json
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

from autotune.errors import DeviceError, UsageError
from autotune.pipeline.control.commands import Prepare, ReplayStage, Step
from autotune.pipeline.control.ranks import Ranks
from autotune.records.prediction import Candidate
from autotune.report.load import read_report
from autotune.torch_range import check_torch, refusal, release_of, runnable_by
from autotune.workload.user.refusal import CARRIES_WHOLE_NUMBERS

TORCH = ("torch", "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe")
MORE = ("fsspec", "filelock", "nvidia", "triton")  # of which a build for the CPU needs the first two
MODELS = Path(__file__).parents[1] / "models"
LOOKED_FOR = ("torch", "pydantic", "numpy", "typer", "autotune")
SMALL = ("--layers", 4, "--hidden", 16, "--heads", 2, "--seq-len", 8, "--vocab", 32, "--batch", 4, "--device", "cpu")


def candidate(schedule, m, v=1):
    return Candidate(micro_batches=m, micro_batch_size=1, sequences=m, schedule=schedule, virtual_stages=v)


@pytest.mark.parametrize(
    ("torch_version", "release"),
    [
        ("2.6.0a0+ecf3bae40a.nv25.01", (2, 6)),
        ("2.13.0+cpu", (2, 13)),
        ("2.14.1", (2, 14)),
        (None, None),
        ("from source", None),
    ],
)
def test_the_release_of_a_version(torch_version, release):
    assert release_of(torch_version) == release


@pytest.mark.parametrize(
    ("release", "tried", "words"),
    [
        ((2, 8), candidate("DualPipeV", 4, 2), "DualPipeV runs in torch 2.9 and newer"),
        ((2, 9), candidate("DualPipeV", 4, 2), None),
        ((2, 9), candidate("ZBVZeroBubble", 4, 2), "ZBVZeroBubble runs in torch 2.10 and newer"),
        ((2, 8), candidate("GPipe", 1), "GPipe with fewer micro-batches than ranks runs in torch 2.11 and newer"),
        ((2, 8), candidate("GPipe", 2), None),
        ((2, 6), candidate("GPipe", 1), None),
        ((2, 9), candidate("LoopedBFS", 1, 2), "fewer micro-batches than ranks runs in torch 2.10 and newer"),
        ((2, 10), candidate("LoopedBFS", 1, 2), None),
    ],
)
def test_what_an_old_torch_lacks_is_said(release, tried, words):
    found = refusal(release, tried, 2)
    assert found is None if words is None else words in found


def test_candidates_that_an_old_torch_lacks_are_left_out_and_named():
    tried = [candidate("1F1B", 2), candidate("DualPipeV", 4, 2), candidate("DualPipeV", 8, 2)]
    left, notes = runnable_by("2.8.0", tried, 2)
    assert left == tried[:1]
    assert notes == ["not tried: m = 4, 8: DualPipeV runs in torch 2.9 and newer (here: 2.8.0)"]
    with pytest.raises(UsageError, match=r"DualPipeV runs in torch 2\.9 .*; choose another --schedule, or update"):
        runnable_by("2.8.0", tried[1:], 2)


def test_a_torch_that_is_too_old_is_refused():
    with pytest.raises(DeviceError, match=r"torch 2\.5\.1 is too old: .*; update torch there, or name another Python"):
        check_torch("2.5.1", "fp32")
    with pytest.raises(DeviceError, match=r"gradients of bf16 weights in fp32, .* 2\.10; give --precision fp32"):
        check_torch("2.8.0", "bf16")
    check_torch("2.6.0", "fp32")
    check_torch("2.10.0", "bf16")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python that has torch and what torch needs, and neither pydantic nor numpy nor autotune."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    theirs = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ours = Path(sysconfig.get_path("purelib"))
    for name in (*TORCH, *MORE):
        for path in (ours / name, ours / f"{name}.py"):
            if path.exists():
                (theirs / path.name).symlink_to(path)
    for info in ours.glob("torch-*.dist-info"):
        (theirs / info.name).symlink_to(info)
    python = str(folder / "bin" / "python")
    asked = f"from importlib.util import find_spec; print([name for name in {LOOKED_FOR} if find_spec(name)])"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True, cwd=folder)
    assert done.stdout == "['torch']\n", done.stderr
    return python


def autotune(*words, cwd):
    command = [str(word) for word in (sys.executable, "-m", "autotune", *words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=cwd)


@pytest.mark.slow
def test_ranks_run_where_there_is_torch_and_nothing_else(bare, tmp_path):
    flags = (
        "--stages",
        2,
        "--micro-batches",
        "2",
        "--schedule",
        "1F1B,Interleaved1F1B",
        "--exhaustive",
        "--python",
        bare,
    )
    done = autotune("run", *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    assert report.environment.torch_version.split("+")[0] == version("torch").split("+")[0]
    measured = [row.measurement for row in report.candidates if row.micro_batches == 2]
    assert len(measured) == 2
    assert all(one is not None and one.peak_memory_bytes is not None for one in measured), done.stderr


@pytest.mark.slow
def test_a_model_of_the_users_runs_where_there_is_torch_and_nothing_else(bare, tmp_path):
    flags = ("--stages", 2, "--batch", 4, "--micro-batches", "2", "--exhaustive", "--device", "cpu", "--python", bare)
    done = autotune("run", "--model", f"{MODELS / 'two_tensors.py'}:build", *flags, cwd=tmp_path)
    if not CARRIES_WHOLE_NUMBERS:
        assert done.returncode == 3
        assert "wants a gradient of all that it sends between stages" in done.stderr.splitlines()[-1]
        return
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    assert report.workload.model == "two_tensors.py:build"
    assert {row.micro_batches for row in report.candidates if row.measurement} == {1, 2}


def test_a_model_of_transformers_is_refused_where_there_is_none(bare, tmp_path):
    flags = ("--stages", 2, "--device", "cpu", "--python", bare)
    done = autotune("run", "--model", f"hf:{MODELS / 'hf' / 'gpt2.json'}", *flags, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "autotune: --model hf:gpt2.json: it needs transformers where the ranks run, and there is none;"
        f" {bare} -m pip install transformers"
    )


@pytest.mark.parametrize(("schedule", "v"), [("GPipe", 1), ("1F1B", 1), ("Interleaved1F1B", 2)])
def test_stages_that_wait_run_under_this_torch(schedule, v):
    plan = Prepare(
        schedule=schedule,
        micro_batches=4,
        micro_batch_size=1,
        sequences=4,
        virtual_stages=v,
        replay=(ReplayStage(t_f=0.001, t_b=0.001, message_bytes=2048),) * (2 * v),
    )
    with Ranks(2, "cpu") as ranks:
        ranks.ask(plan, 60.0)
        assert len(ranks.ask(Step(), 60.0)) == 2


def test_doctor_looks_at_the_environment_of_the_ranks(bare, tmp_path):
    done = autotune("doctor", "--python", bare, "--json", cwd=tmp_path)
    printed = json.loads(done.stdout)
    assert [check["verdict"] for check in printed["checks"] if check["name"].startswith("two ranks")] == ["ok"]


def test_a_python_without_torch_is_named_with_the_remedy(tmp_path):
    venv.create(tmp_path / "empty", symlinks=True)
    python = tmp_path / "empty" / "bin" / "python"
    done = autotune("run", *SMALL, "--stages", 2, "--python", python, cwd=tmp_path)
    assert done.returncode == 4
    assert f"ranks cannot be started under {python}: ModuleNotFoundError: No module named 'torch'" in done.stderr
    assert "--python" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("python", "words"), [("no/python", "cannot run no/python: No such file"), ("/bin/true", "under /bin/true: ")]
)
def test_what_is_no_python_is_refused(python, words, tmp_path):
    done = autotune("run", *SMALL, "--stages", 2, "--python", python, cwd=tmp_path)
    assert done.returncode in (2, 4)
    assert words in done.stderr and "Traceback" not in done.stderr


def test_no_config_file_names_a_program_to_run(tmp_path):
    (tmp_path / "mine.toml").write_text('python = "/bin/sh"\n')
    done = autotune("run", "--config", "mine.toml", "--stages", 2, cwd=tmp_path)
    assert done.returncode == 3
    assert (
        "unknown key 'python': no file may name code or a program; give it on the command line, with --python"
        in done.stderr
    )


def test_a_worker_needs_torch_and_nothing_else(bare, tmp_path):
    """As under torchrun: it parses its flags, loads torch, and looks for its controller."""
    package = tmp_path / "site"
    package.mkdir()
    (package / "autotune").symlink_to(Path(__file__).parents[2] / "autotune")
    environment = {"RANK": "0", "WORLD_SIZE": "1", "AUTOTUNE_SECRET": "s" * 32, "PYTHONPATH": str(package)}
    flags = ["worker", "--rendezvous", "127.0.0.1:9", "--host-timeout", "1s"]
    done = subprocess.run(
        [bare, "-m", "autotune", *flags], capture_output=True, text=True, env=environment, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 4, done.stderr
    assert "no controller at 127.0.0.1:9 let this worker in within 1 s" in done.stderr
    assert "Traceback" not in done.stderr
