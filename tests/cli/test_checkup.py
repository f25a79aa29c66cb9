"""What doctor checks: each as a value, on hosts that are described by hand, and two real ranks of this one."""

import json
import os
import subprocess
import sys
from dataclasses import is_dataclass, replace

import pytest

from autotune.checkup import gpus, next_command, round_trip, shared_memory
from autotune.pipeline.control.starting import LEAST_SHARED_BYTES, not_started, remedy
from autotune.pipeline.control.survey import GpuState
from autotune.records.failure import Failure
from autotune.records.job.environment import Environment
from autotune.report.doctor import Check, Verdict
from tests.test_distribution import stranger

GIB = 2**30
TWO = Environment(
    device="cuda",
    devices=("A100", "A100"),
    gpu_memory_bytes=(80 * GIB, 80 * GIB),
    mig=(False, False),
    compute_modes=("default", "default"),
    gpu_links=((None, "NVLink"), ("NVLink", None)),
)
IDLE = GpuState(free_bytes=(79 * GIB, 79 * GIB), peers=((False, True), (True, False)))
CRASH = Failure(kind="crash", rank=0, message="NCCL error")


def found(environment=TWO, state=IDLE):
    return {check.name: check for check in gpus(environment, state)}


def changed(record, **update):
    return replace(record, **update) if is_dataclass(record) else record.model_copy(update=update)


def test_idle_gpus_that_reach_each_other_are_fine():
    assert {check.verdict for check in found().values()} == {Verdict.OK}
    assert found()["GPU 0"].found == "A100, 79.0 GiB of 80.0 GiB free"
    assert found()["GPU 0 to 1"].found == "NVLink, direct access"


@pytest.mark.parametrize(
    ("environment", "state", "words"),
    [
        (TWO, changed(IDLE, free_bytes=(79 * GIB, 20 * GIB)), "20.0 GiB of 80.0 GiB free: end what else runs"),
        (TWO, changed(IDLE, free_bytes=(79 * GIB, None)), "cannot be used now: end what runs on it"),
        (changed(TWO, compute_modes=("default", "prohibited")), IDLE, "nvidia-smi -i 1 -c DEFAULT"),
        (changed(TWO, mig=(False, True)), IDLE, "nvidia-smi -i 1 -mig 0"),
    ],
)
def test_what_keeps_a_rank_from_its_gpu_is_a_problem_of_that_gpu(environment, state, words):
    checks = found(environment, state)
    assert [check.name for check in checks.values() if check.verdict is Verdict.PROBLEM] == ["GPU 1"]
    assert words in checks["GPU 1"].found


def test_gpus_without_direct_access_work_all_the_same():
    checks = found(changed(TWO, gpu_links=()), changed(IDLE, peers=((False, False), (False, False))))
    assert checks["GPU 0 to 1"].verdict is Verdict.NOTE
    assert "through the host's memory" in checks["GPU 0 to 1"].found


def mounted(folder, size):
    """A file system of that size, as a container has it at /dev/shm."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    return folder


@pytest.fixture
def small(tmp_path):
    """Docker's default."""
    yield mounted(tmp_path / "small", 64 * 2**20)
    subprocess.run(["umount", tmp_path / "small"], check=True)


@pytest.fixture
def large(tmp_path):
    yield mounted(tmp_path / "large", LEAST_SHARED_BYTES)
    subprocess.run(["umount", tmp_path / "large"], check=True)


def test_little_shared_memory_is_a_problem_and_its_remedy_is_named(small, large, tmp_path):
    assert shared_memory(small).verdict is Verdict.PROBLEM
    assert shared_memory(small).found == "64.0 MiB free; NCCL may need 1 GiB: start the container with --shm-size=1g"
    assert shared_memory(large).verdict is Verdict.OK
    assert "--shm-size" in shared_memory(tmp_path / "missing").found


def test_ranks_that_do_not_start_name_the_remedy(small, large):
    assert "--shm-size=1g" in remedy("cuda", CRASH, small)
    assert "NCCL_P2P_DISABLE=1" in remedy("cuda", CRASH, large)
    short = replace(CRASH, kind="out_of_memory")
    assert remedy("cuda", short, small) == remedy("cpu", CRASH, small) == "see autotune doctor"
    assert str(not_started("cuda", CRASH, small)).startswith("the ranks did not start: NCCL error; ")


def test_two_real_ranks_talk():
    check = round_trip(Environment(device="cpu"))
    assert check.verdict is Verdict.OK, check
    assert check.name == "two ranks over gloo"


def test_one_gpu_cannot_have_two_ranks():
    assert round_trip(TWO.with_gpus([0])).verdict is Verdict.NOTE


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        (TWO, "autotune run --layers 48 --stages 2"),
        (TWO.with_gpus([0]), "autotune run --layers 48 --stages 4 --device cpu"),
        (Environment(device="cpu"), "autotune run --layers 48 --stages 4"),
        (Environment(device="cpu", unseen_gpu="an old driver"), "autotune run --layers 48 --stages 4 --device cpu"),
    ],
)
def test_the_command_that_is_named_is_one_that_runs_there(environment, command):
    assert next_command(environment) == command


def doctor(folder, *flags, **environment):
    command = [sys.executable, "-m", "autotune", "doctor", *flags]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_doctor_prints_every_check_and_ends_with_what_to_run(tmp_path):
    *_, last = doctor(tmp_path).splitlines()
    assert "autotune run --layers 48" in last


def test_a_strangers_package_of_our_name_is_a_problem(tmp_path):
    """Here ours comes first; where it does not, see tests/test_distribution.py."""
    printed = json.loads(doctor(tmp_path, "--json", PYTHONPATH=f"{os.getcwd()}:{stranger(tmp_path)}"))
    checks = [Check.model_validate(check) for check in printed["checks"]]
    (installation,) = (check for check in checks if check.name == "installation")
    assert installation.verdict is Verdict.PROBLEM
    assert "pip uninstall autotune, and install pipeline-autotune again" in installation.found
