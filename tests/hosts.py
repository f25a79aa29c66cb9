"""Two hosts on one machine: two network namespaces with an address, a core and a torchrun each, and a cable between.

::

    +-- host alpha -----------------+           +-- host beta ------------------+
    | 10.77.0.1, the first core     |== veth ===| 10.77.0.2, the last core      |
    | autotune run, torchrun        |           | torchrun                      |
    +-------------------------------+           +-------------------------------+
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from autotune.records.job.workload import WorkloadFacts
from autotune.records.profile import MessageSize, Profile, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.report.load import read_report

SECRET = "a secret of these tests only"
HOSTS, ADDRESSES = ("alpha", "beta"), ("10.77.0.1", "10.77.0.2")
RENDEZVOUS, STORE = f"{ADDRESSES[0]}:29600", f"{ADDRESSES[0]}:29500"
KNOWN = "".join(
    f"{address} {host}\n" for address, host in zip(("127.0.0.1", *ADDRESSES), ("localhost", *HOSTS), strict=True)
)
AS_HOST = 'hostname "$0" && exec "$@"'  # a host's name is a namespace of its own
CORES = sorted(os.sched_getaffinity(0))


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True)


@cache
def why_not():
    """Why there can be no two hosts here; nothing where there can."""
    if os.geteuid():
        return "network namespaces need root"
    if len(CORES) < 2:
        return "two hosts need a core each"
    name = f"autotune-{os.getpid()}"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
            limit(name, "1mbit", "16kb")
            ip("netns", "exec", name, "unshare", "--uts", "taskset", "-c", CORES[0], "true")
        finally:
            ip("netns", "delete", name)
    except FileNotFoundError as error:
        return f"there is no {error.filename} command (Debian's iproute2)"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces with a limited cable can be made here: {error.stderr.strip()}"
    return ""


def limit(name, rate, burst):
    """Limits what leaves a namespace, as tc(8) says it."""
    words = ["tc", "-n", name, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", burst]
    subprocess.run([*words, "latency", "1s"], check=True, capture_output=True, text=True)


class TwoHosts:
    """A context manager: leaving it ends all that was started, and removes the namespaces.

    ``names``: further names that hosts know, and their addresses. ``is_pinned``: each host has a core of its own; where
    its ranks only wait, all cores do for both.
    """

    def __init__(self, folder, names=None, is_pinned=True):
        self.folder, self.known, self.is_pinned = Path(folder), names or {}, is_pinned
        self.names = [f"at{os.getpid()}{side}" for side in "ab"]
        self.started = []

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        for name in self.names:
            ip("netns", "add", name)
            files = Path("/etc/netns", name)  # which take the place of those in /etc (ip-netns(8))
            files.mkdir(parents=True)
            (files / "hosts").write_text(KNOWN + "".join(f"{at} {host}\n" for host, at in self.known.items()))
        a, b = self.names
        ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                ip("-n", name, "link", "set", interface, "up")

    def __exit__(self, *_):
        for process in self.started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for side, name in enumerate(self.names):
            with suppress(subprocess.CalledProcessError):  # it was not even made
                self.crash(side)
                ip("netns", "delete", name)
            shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)

    def slow(self, rate, burst="16kb"):
        """Limits the cable, each way: ``rate`` as tc(8) has it, such as 80mbit."""
        for name in self.names:
            limit(name, rate, burst)

    def plug(self, is_in):
        """Pulls the cable out of host b, or puts it back."""
        ip("-n", self.names[1], "link", "set", "eth0", "up" if is_in else "down")

    def inside(self, side):
        """What makes a command run on host 0 or 1."""
        return ["ip", "netns", "exec", self.names[side], "unshare", "--uts", "sh", "-c", AS_HOST, HOSTS[side]]

    def crash(self, side):
        """Ends every process of host 0 or 1 at once."""
        listed = subprocess.run(["ip", "netns", "pids", self.names[side]], capture_output=True, text=True, check=True)
        for pid in listed.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def start(self, side, words, name, **environment):
        """Runs a command on host 0 or 1, its stdout and stderr in files of that name."""
        cores = (CORES[:1], CORES[-1:])[side] if self.is_pinned else CORES
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_SOCKET_IFNAME")}
        out, err = (self.folder / f"{name}.{kind}" for kind in ("out", "err"))
        held = {"AUTOTUNE_SECRET": SECRET, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        held["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see the guide: hosts
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                [*self.inside(side), "taskset", "-c", ",".join(map(str, cores)), *map(str, words)],
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder,
                env=inherited | held | environment,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def torchrun(self, side, name=None, flags=(), ranks=2, **environment):
        """The launcher of a host, with ``ranks`` workers."""
        words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", ranks]
        words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", STORE, "--local-addr", ADDRESSES[side]]
        words += flags
        words += ["-m", "autotune", "worker", "--rendezvous", RENDEZVOUS, "--host-timeout", "90s"]
        return self.start(side, words, name or f"torchrun{side}", **environment)

    def run(self, flags, name="run", **environment):
        """The controller, on host 0."""
        words = [sys.executable, "-m", "autotune", "run", "--rendezvous", RENDEZVOUS, *flags]
        return self.start(0, words, name, **environment)

    def said(self, name, kind="err"):
        return (self.folder / f"{name}.{kind}").read_text()

    def wait_for(self, words, name="run", seconds=90, count=1):
        """Until a command has said that, so many times; the text."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.said(name).count(words) >= count:
                return self.said(name)
            time.sleep(0.05)
        raise AssertionError(f"{name} did not say {words!r}: {self.said(name)}")


def tuned(folder, rate, flags, is_pinned=True):
    """The report of a run over two hosts, over a cable of that ``rate`` (None: as fast as it is)."""
    with TwoHosts(folder, is_pinned=is_pinned) as hosts:
        if rate is not None:
            hosts.slow(rate)
        launchers = [hosts.torchrun(side) for side in (0, 1)]
        code = hosts.run(["--exhaustive", "--fresh", *flags]).wait(400)
        assert code == 0, hosts.said("run")
        assert [launcher.wait(60) for launcher in launchers] == [0, 0]
        return read_report(hosts.folder / "report.json")


def waiting_profile(batch=32, ranks=4, v=2, compute_s=0.05, each_s=0.0045, message_bytes=1.2e6):
    """A profile to replay: a stage takes ``compute_s`` for the batch, and ``each_s`` more for every micro-batch; the
    whole batch crosses a boundary in ``message_bytes``."""
    sizes = [size for size in range(1, batch + 1) if batch % size == 0]
    seconds = {size: each_s + compute_s * size / batch for size in sizes}
    rows = tuple(StageTime(micro_batch_size=size, t_f=one / 3, t_bw=one * 2 / 3) for size, one in seconds.items())
    return Profile(
        workload=WorkloadFacts(batch=batch),
        virtual_stages=v,
        stages=(StageProfile(time_s=rows),) * (ranks * v),
        message_bytes=tuple(
            MessageSize(micro_batch_size=size, bytes=round(message_bytes * size / batch)) for size in sizes
        ),
    )
