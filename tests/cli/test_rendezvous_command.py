"""``run --rendezvous`` and ``worker`` on one host: what users may get wrong, what hosts must have in common, Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from autotune.errors import DeviceError
from autotune.hosts import common_environment
from autotune.report.load import read_report

pytestmark = pytest.mark.slow  # several hosts

SECRET = "a secret of these tests only"
SMALL = ["--layers", "4", "--stages", "2", "--hidden", "16", "--heads", "2", "--seq-len", "8", "--vocab", "32"]
SMALL += ["--batch", "8", "--device", "cpu", "--exhaustive"]


def started(words, folder, **environment):
    held = os.environ | {"AUTOTUNE_SECRET": SECRET} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", *words], cwd=folder, env=held, **pipes)


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_ctrl_c_sends_the_workers_home_and_keeps_what_was_measured(tmp_path, address):
    run = started(["autotune", "run", *SMALL, "--rendezvous", address], tmp_path)
    launcher = [
        "torch.distributed.run",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        "--nproc-per-node",
        "2",
        "-m",
        "autotune",
        "worker",
    ]
    workers = started([*launcher, "--rendezvous", address], tmp_path)
    next(line for line in run.stderr if "best so far" in line)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    _, said = workers.communicate(timeout=30)
    assert workers.returncode == 0, said
    assert "Traceback" not in said
    report = read_report(tmp_path / "report.json")
    assert report.status == "partial"
    assert any(row.measurement for row in report.candidates)
    assert report.environment.hosts == (socket.gethostname(),) * 2
    assert SECRET not in (tmp_path / "report.json").read_text()


def test_a_worker_whose_run_does_not_come_says_so_and_ends(tmp_path, address):
    worker = started(
        ["autotune", "worker", "--rendezvous", address, "--host-timeout", "2s"], tmp_path, RANK="0", WORLD_SIZE="2"
    )
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 4
    assert f"no controller at {address} let this worker in within 2 s (Connection refused)" in said


@pytest.mark.parametrize(
    ("words", "environment", "code", "complaint"),
    [
        (["worker", "--rendezvous", "127.0.0.1"], {}, 2, "RANK and WORLD_SIZE are not set"),
        (["worker"], {"RANK": "0", "WORLD_SIZE": "2"}, 2, "--rendezvous auto: none of"),
        (["worker", "--rendezvous", "x:y"], {"RANK": "0", "WORLD_SIZE": "2"}, 2, "give HOST:PORT"),
        (["worker", "--rendezvous", "x"], {"RANK": "0", "WORLD_SIZE": "2", "AUTOTUNE_SECRET": ""}, 2, "holds none"),
        (["run", "--rendezvous", "192.0.2.1"], {}, 3, "cannot listen on 192.0.2.1:29600"),
        (["run", "--rendezvous", "127.0.0.1", "--secret-file", "none"], {}, 3, "cannot read the secret in none"),
        (["run", "--rendezvous", "127.0.0.1", "--host-timeout", "1s"], {}, 4, "worker 0, 1, 2, 3 of 4 did not come to"),
        (["run", "--rendezvous", "127.0.0.1", "--dry-run"], {}, 2, "--dry-run looks at this host alone"),
    ],
)
def test_what_users_may_get_wrong_is_one_line(tmp_path, words, environment, code, complaint):
    quiet = ["--quiet"] if words[0] == "run" else []
    _, said = (done := started(["autotune", *words, *quiet], tmp_path, **environment)).communicate(timeout=60)
    assert done.returncode == code, said
    (line,) = said.splitlines()
    assert complaint in line


def hosts(*seen):
    """As a rendezvous has them; two workers on each host."""
    return SimpleNamespace(
        environments=[one for one in seen for _ in range(2)],
        hosts=tuple(f"host{number // 2}" for number in range(2 * len(seen))),
    )


CPU = {"device": "cpu", "devices": ["EPYC"], "cores": 8, "memory_bytes": 2**34, "hostname": "host0"}
GPU = {"device": "cuda", "devices": ["A100", "A100"], "cores": 8, "memory_bytes": 2**36, "cuda_version": "13.0"}


def test_hosts_have_in_common_what_the_smallest_has():
    smaller = CPU | {"cores": 4, "memory_bytes": 2**33, "devices": ["Xeon"]}
    found = common_environment(hosts(CPU, smaller))
    assert (found.cores, found.memory_bytes, found.devices) == (4, 2**33, ("EPYC", "Xeon"))
    assert found.hosts == ("host0", "host0", "host1", "host1")


def test_every_rank_has_its_gpu():
    assert common_environment(hosts(GPU, GPU)).devices == ("A100",) * 4
    shown_one_each = GPU | {"devices": ["A100"]}
    assert common_environment(hosts(shown_one_each)).devices == ("A100",) * 2
    told = GPU | {"gpu_uuids": ["a", "b"], "power_limits_w": [400, 300]}
    assert common_environment(hosts(told, told)).gpu_uuids == ("a", "b") * 2
    partly = common_environment(hosts(told, GPU | {"gpu_uuids": ["c", "d"]}))
    assert (partly.gpu_uuids, partly.power_limits_w) == (("a", "b", "c", "d"), ())
    three = SimpleNamespace(environments=[GPU] * 3, hosts=("host0",) * 3)
    with pytest.raises(DeviceError, match="host host0 shows its workers 2 GPUs, but there are more workers"):
        common_environment(three)


def test_a_gpu_that_one_host_cannot_use_is_named_with_the_host():
    blind = CPU | {"unseen_gpu": "the driver is old"}
    with pytest.raises(DeviceError, match=r"differ in device: .*\(host host1: the driver is old\)"):
        common_environment(hosts(GPU, blind))
    assert common_environment(hosts(CPU, blind)).unseen_gpu == "host host1: the driver is old"


@pytest.mark.parametrize("other", [CPU, GPU | {"cuda_version": "12.8"}])
def test_hosts_of_unlike_kinds_are_refused(other):
    with pytest.raises(DeviceError, match=r"the hosts differ in (device|cuda_version): .* on host0, .* on host1"):
        common_environment(hosts(GPU, other))
