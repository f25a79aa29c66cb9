"""What the figures of a report depend on; reports that agree in all of it can be compared figure by figure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from autotune import __version__
from autotune.errors import InputError
from autotune.records.base import changed
from autotune.records.environment import Environment
from autotune.records.report import Report
from autotune.records.workload import WorkloadFacts

Facts = Mapping[str, Any]


def machine_facts(environment: Environment) -> Facts:
    """Return devices and software. Not the hosts' names nor their memory, nor the UUIDs of GPUs: hosts of one kind are
    alike, and a baseline that is compared on whichever host of a pool is free must not be refused there. What sets GPUs
    of one model apart (power limit, clocks, MIG, MPS, the way from one to the next) counts where it is known."""
    gpus = {
        "power limits (W)": environment.power_limits_w,
        "SM clocks (MHz)": environment.sm_clocks_mhz,
        "memory clocks (MHz)": environment.memory_clocks_mhz,
        "MIG": environment.mig,
        "ways between GPUs": environment.gpu_links,
    }
    known = {name: json.loads(json.dumps(value)) for name, value in gpus.items() if value}
    if environment.mps is not None:
        known["MPS"] = environment.mps
    python, hosts = environment.python_version, environment.hosts
    layout = {"ranks of hosts": [hosts.count(host) for host in dict.fromkeys(hosts)]} if hosts else {}
    return {
        **layout,
        **known,
        "device": environment.device,
        "devices": list(environment.devices),
        "cores": environment.cores,
        "driver": environment.driver_version,
        "torch": environment.torch_version,
        "CUDA": environment.cuda_version,
        "NCCL": environment.nccl_version,
        "python": ".".join(python.split(".")[:2]) if python else None,
    }


def workload_facts(workload: WorkloadFacts) -> Facts:
    """Return model, sequence length, batch. The seed is none of it."""
    return workload.model_dump(mode="json", exclude={"seed"})


def fingerprint(environment: Environment, workload: WorkloadFacts, version: str) -> str:
    """Return 16 hexadecimal digits; alike where everything that figures depend on is alike."""
    facts = {"autotune": version, **machine_facts(environment), "workload": workload_facts(workload)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def changes_of_workload(before: Report, now: Report) -> list[str]:
    """Return what tells the training jobs apart, in words."""
    return changed(workload_facts(before.workload), workload_facts(now.workload))


def changes_of_machine(before: Report, now: Report) -> list[str]:
    """Return what tells the machines and their software apart, in words."""
    mine = {"autotune": now.autotune_version, **machine_facts(now.environment)}
    return changed({"autotune": before.autotune_version, **machine_facts(before.environment)}, mine)


def verify_environment(surveyed: Environment, *reports: Report) -> None:
    """Raise InputError where a report is of another machine, or of other software, than was ``surveyed`` here.

    Of a replay only the software and the cores can be compared.
    """
    for report in reports:
        device, here = report.environment.device or "", surveyed
        if here.device == "cuda":  # of which the run used some, or none
            here = here.with_gpus(range(min(len(here.devices), len(report.environment.devices))))
        if device != "cuda" and here.device == "cuda":
            update = {"device": "cpu", "devices": report.environment.devices, "mps": None}
            here = here.with_gpus(()).model_copy(update=update)
        facts = machine_facts(here)
        if device.startswith("replay"):
            facts = {name: value for name, value in facts.items() if name not in ("device", "devices", "driver")}
        there = {"autotune": report.autotune_version, **machine_facts(report.environment)}
        if differences := changed(there, {"autotune": __version__, **facts}):
            raise InputError(
                f"the report is not of this machine as it is now: {', '.join(differences)}; run it again here"
            )
