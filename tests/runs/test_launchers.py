"""The guide's examples for launchers, run as they are but for their sizes: in a real Slurm, and as a JobSet's pods."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autotune.report.load import read_report
from tests.hosts import ADDRESSES, HOSTS, SECRET, TwoHosts, why_not
from tests.killing import wait_until

PAGE = (Path(__file__).parents[2] / "autotune" / "guide" / "hosts.md").read_text()
SMALL = (
    "--layers 8 --stages 4 --hidden 32 --heads 2 --seq-len 16 --vocab 64 --batch 32 --micro-batches 1,4 --device cpu"
)
BIN = Path(sys.executable).parent
pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.slow,
    pytest.mark.alone,  # hosts have a core each, and are given up when they are silent
]


def example(language, sign):
    """The guide's block of that language with that sign in it, cut down to two ranks on each of two hosts."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [block for block in blocks if sign in block]
    assert "--layers 48 --stages 8" in found
    assert "--nproc-per-node 4" in found
    small = found.replace("--layers 48 --stages 8", SMALL).replace("--nproc-per-node 4", "--nproc-per-node 2")
    return small.replace(" --gpus-per-node=4", "")


def check(folder):
    report = read_report(folder / "report.json")
    assert report.status == "complete"
    assert report.environment.hosts == ("alpha", "alpha", "beta", "beta")


SLURM = """\
ClusterName=test
SlurmctldHost=alpha({0})
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
NodeName=alpha NodeAddr={0} CPUs=1
NodeName=beta NodeAddr={1} CPUs=1
PartitionName=all Nodes=alpha,beta Default=YES State=UP
"""


@pytest.fixture
def munge(tmp_path):
    """The daemon that vouches for Slurm's users, with a key and a socket of its own."""
    if not all(map(shutil.which, ("slurmd", "slurmctld", "munged"))):
        pytest.skip("no Slurm is installed (Debian's slurm-wlm)")
    folder = tmp_path / "munge"
    folder.mkdir(mode=0o711)
    key, socket = folder / "key", folder / "socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    flags = [f"--key-file={key}", f"--socket={socket}", "--force", "--foreground"]
    flags += [f"--{kind}-file={folder / kind}" for kind in ("pid", "log", "seed")]
    process = subprocess.Popen(["munged", *flags], stderr=subprocess.DEVNULL)
    assert wait_until(socket.exists, 10)
    yield socket
    process.kill()
    process.wait()


def test_slurm(tmp_path, munge):
    conf = tmp_path / "slurm.conf"
    conf.write_text(SLURM.format(*ADDRESSES, folder=tmp_path) + f"AuthInfo=socket={munge}\n")
    (tmp_path / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # which nobody asks for anything here
    for folder in ("state", *(f"spool-{host}" for host in HOSTS)):
        (tmp_path / folder).mkdir()
    job = tmp_path / "job.sh"
    job.write_text(example("bash", "#SBATCH"))
    here = {"SLURM_CONF": str(conf), "PATH": f"{BIN}:{os.environ['PATH']}"}
    with TwoHosts(tmp_path) as hosts:
        hosts.start(0, ["slurmctld", "-D", "-f", conf], "slurmctld", **here)
        for side in (0, 1):
            hosts.start(side, ["slurmd", "-D", "-f", conf], f"slurmd{side}", **here)
        asked = ["sbatch", "--wait", "--chdir", tmp_path, "--output", tmp_path / "job.out", job]
        hosts.start(
            0, ["sh", "-c", 'until sinfo -h | grep -q idle; do sleep 0.2; done; exec "$@"', "sh", *asked], "job", **here
        )
        code = hosts.started[-1].wait(120)
        assert code == 0, hosts.said("job") + (tmp_path / "job.out").read_text()
    check(tmp_path)


def test_the_pods_of_a_jobset(tmp_path):
    """Their commands with their environment, on a host each; the names of pods are those that JobSet gives them."""
    jobs = {
        job["name"]: job["template"]["spec"]
        for job in yaml.safe_load(example("yaml", "kind: JobSet"))["spec"]["replicatedJobs"]
    }
    assert jobs["hosts"]["parallelism"] == jobs["hosts"]["completions"] == 2
    names = {"tune-controller-0-0.tune": ADDRESSES[0]} | {
        f"tune-hosts-0-{side}.tune": ADDRESSES[side] for side in (0, 1)
    }
    with TwoHosts(tmp_path, names) as hosts:
        pods = [start_pod(hosts, jobs["controller"], 0, "controller")]
        pods += [start_pod(hosts, jobs["hosts"], side, f"hosts{side}") for side in (0, 1)]
        assert [pod.wait(120) for pod in pods] == [0, 0, 0], hosts.said("controller") + hosts.said("hosts0")
    check(tmp_path)


def start_pod(hosts, job, side, name):
    (container,) = job["template"]["spec"]["containers"]
    values = {"status.podIP": ADDRESSES[side], ("autotune", "secret"): SECRET}

    def value(entry):
        if "value" in entry:
            return entry["value"]
        source = entry["valueFrom"]
        key = source.get("secretKeyRef")
        return values[(key["name"], key["key"]) if key else source["fieldRef"]["fieldPath"]]

    environment = {entry["name"]: value(entry) for entry in container["env"]}
    return hosts.start(side, container["command"], name, PATH=f"{BIN}:{os.environ['PATH']}", **environment)
