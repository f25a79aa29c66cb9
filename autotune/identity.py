"""What makes figures comparable, said in one place: the facts they depend on, their digest, and what has changed.

Figures are compared in two ways, and so there are two sets of facts:

* *on machines of one kind* (``machine_facts``): two reports, on whichever hosts of a pool they were made. Names of
  hosts, UUIDs of GPUs and the seed are none of it.
* *on one machine* (``digest_of_times``): a profile or a study holds absolute times, and is continued only where
  nothing has changed.

A digest, once given, stays: it names what earlier versions have kept (tests/test_identity.py).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from autotune import __version__
from autotune.errors import InputError
from autotune.records.job.environment import Environment
from autotune.records.job.recompute import show_modes
from autotune.records.job.split import show_split
from autotune.records.job.workload import GPT, AnyWorkload, WorkloadFacts
from autotune.records.prediction import Candidate
from autotune.records.report import Report

Facts = Mapping[str, Any]
"""Values by what they are called in a message."""


def digest(facts: Any) -> str:
    """Return sixteen hexadecimal digits that are alike where all of these JSON values are."""
    return digest_of_text(json.dumps(facts, sort_keys=True))


def digest_of_text(text: str) -> str:
    """Return sixteen hexadecimal digits that are alike where the text is."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(before: Facts, now: Facts) -> list[str]:
    """Return ``torch was 2.12.0, is 2.13.0`` for each value that is not as it was."""
    return [f"{name} was {before.get(name)}, is {value}" for name, value in now.items() if before.get(name) != value]


# -- on machines of one kind ------------------------------------------------------------------------------------------

KIND = ("device", "devices", "cores", "cuda_version", "nccl_version", "driver_version")
"""The facts of its environment in which a host must equal the one whose place it takes."""


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


OF_A_MODEL = (
    *("model", "arguments", "source_digest", "parameters", "sample", "sample_bytes", "forward_operations"),
    "draws_random_numbers",
)
"""What tells models apart; of the built-in GPT it follows from its sizes, and earlier versions did not keep it."""


def counted(workload: WorkloadFacts) -> dict[str, Any]:
    """Return what figures depend on of a workload, as JSON values."""
    left_out = {*OF_A_MODEL} if workload.model in (None, GPT) else set()
    left_out |= {"data_parallel"} if workload.data_parallel is None else set()  # so that digests are as they were
    return {name: value for name, value in asdict(workload).items() if name not in left_out}


def known(value: Any) -> Any:
    """Return a JSON value without the fields that nothing is known of, at any depth."""
    if not isinstance(value, dict):
        return value
    return {name: known(part) for name, part in value.items() if part is not None}


def workload_facts(workload: WorkloadFacts) -> Facts:
    """Return model, sequence length, batch. The seed is none of it."""
    return {name: value for name, value in counted(workload).items() if name != "seed"}


def digest_of_report(environment: Environment, workload: WorkloadFacts, version: str) -> str:
    """Return the digest of everything that the figures of a report depend on."""
    return digest({"autotune": version, **machine_facts(environment), "workload": workload_facts(workload)})


def changes_of_workload(before: Report, now: Report) -> list[str]:
    """Return a line for each difference between the training jobs."""
    one, other = ({**workload_facts(work), "data_parallel": work.replicas} for work in (before.workload, now.workload))
    return changed(one, other)


def changes_of_machine(before: Report, now: Report) -> list[str]:
    """Return a line for each difference between the machines and their software."""
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


# -- on one machine ---------------------------------------------------------------------------------------------------


def digest_of_times(workload: AnyWorkload, environment: Environment, *more: object) -> str:
    """Return a digest that changes when the workload, the device, torch or the host does; on GPUs also when others of
    the host are used (by their UUIDs), or the same at another power limit: absolute times hold for these alone.

    Memory counts in GiB: a kernel may keep some pages more or less for itself after a reboot.
    """
    here = environment.model_dump(mode="json", exclude_defaults=True) | {
        "memory_bytes": round((environment.memory_bytes or 0) / 2**30)
    }
    return digest([known(counted(workload)), here, *map(str, more)])


@dataclass(frozen=True)
class StudyIdentity:
    """What the figures of a study depend on; two runs that agree in all of it share one.

    ``workload``: what really runs, ``facts``: what reports say of it. ``environment``: without names where hosts of one
    kind share the study. ``search``: which candidates there are, and what else figures depend on.
    """

    workload: AnyWorkload
    facts: WorkloadFacts
    environment: Environment
    search: Facts

    @classmethod
    def of(
        cls,
        workload: AnyWorkload,
        facts: WorkloadFacts,
        environment: Environment,
        candidates: Sequence[Candidate],
        micro_batch_size: int | None,
        depends_on: Facts,
    ) -> Self:
        """Return the identity of a study of these candidates. ``micro_batch_size``: where the user fixes it;
        ``depends_on``: what else its figures depend on.

        Optuna fixes the words of a dimension when a study begins, so other cuts and modes of recomputation are another
        study.
        """
        cuts = sorted({show_split(candidate.split) for candidate in candidates if candidate.split})
        modes = sorted({show_modes(candidate.recompute) for candidate in candidates if candidate.recompute})
        search = {
            "micro_batch_size": micro_batch_size,
            "schedules": sorted({candidate.schedule for candidate in candidates}),
            **({"cuts": cuts} if cuts else {}),
            **({"recompute": modes} if modes else {}),
            "recorded_profile": None,
        }
        return cls(workload, facts, environment, search | {**depends_on})

    @property
    def parts(self) -> dict[str, Facts]:
        """The facts by part, as a study keeps them."""
        return {
            "workload": counted(self.facts),
            "environment": self.environment.model_dump(mode="json", exclude_defaults=True),
            "search": self.search,
        }

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        return digest_of_times(self.workload, self.environment, sorted(self.search.items(), key=str))

    @property
    def name(self) -> str:
        """The study's name: the workload in words, and the digest of all that makes figures comparable."""
        work = self.facts
        model = f"{work.model}, " if work.model not in (None, GPT) else ""
        words = f"{model}{work.layers} layers, {work.stages} stages, batch {work.batch}, {self.environment.device}"
        return f"{words} [{self.digest}]"
