"""A pipeline over several hosts, from a config: the rendezvous, and what its hosts have in common."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autotune import __version__
from autotune.config import Config
from autotune.errors import DeviceError
from autotune.events import Events
from autotune.pipeline.hosts.handshake import read_secret
from autotune.pipeline.hosts.rendezvous import Identity, Rendezvous
from autotune.pipeline.hosts.worker import NO_RUN
from autotune.records.job.environment import OF_EACH_GPU, Environment
from autotune.worker import address_of

Tell = Callable[[str], None]


@contextmanager
def rendezvous_of(config: Config, ranks: int, events: Events) -> Iterator[Rendezvous | None]:
    """Yield the rendezvous of a run of so many ``ranks``, all of which have come; None where they run here."""
    if config.rendezvous is None:
        yield None
        return
    run_id = config.run_id or os.environ.get("SLURM_JOB_ID", NO_RUN)
    identity = Identity(__version__, run_id, ranks)
    secret = read_secret(config.secret_file)
    address = address_of(config.rendezvous)
    limit_s = config.host_timeout
    with Rendezvous(address, secret, identity, limit_s, events.progress, events.warn) as found:
        found.gather()
        yield found


def common_environment(rendezvous: Rendezvous) -> Environment:
    """Return what all hosts have in common, the smallest where they differ in size; raise DeviceError where they
    differ in kind. ``devices`` has that of every rank, of CPUs every kind once."""
    seen = [Environment.model_validate(one) for one in rendezvous.environments]
    unseen = [(host, here.unseen_gpu) for here, host in zip(seen, rendezvous.hosts, strict=True) if here.unseen_gpu]
    for name in ("device", "torch_version", "cuda_version", "nccl_version"):
        values = {getattr(one, name): host for one, host in zip(seen, rendezvous.hosts, strict=True)}
        if len(values) > 1:
            told = ", ".join(f"{value} on {host}" for value, host in values.items())
            told += "".join(f" (host {host}: {why})" for host, why in unseen[:1])
            raise DeviceError(f"the hosts differ in {name}: {told}; give all of them the same")
    used: list[Environment] = []  # by rank: its host with its GPU alone
    local: Counter[str] = Counter()
    for here, host in zip(seen, rendezvous.hosts, strict=True):
        if here.device == "cuda":
            own = local[host] if len(here.devices) > 1 else 0  # a launcher may show each worker its own GPU only
            if own >= len(here.devices):
                raise DeviceError(
                    f"host {host} shows its workers {len(here.devices)} GPUs, but there are more workers; start one"
                    " worker for each GPU, and look at CUDA_VISIBLE_DEVICES"
                )
            used.append(here.with_gpus([own]))
            local[host] += 1
    return seen[0].model_copy(
        update={
            **{name: of_each_rank(used, name) for name in OF_EACH_GPU},
            "devices": tuple(name for here in used for name in here.devices)
            or tuple(sorted({name for here in seen for name in here.devices})),
            "gpu_links": (),  # which of them lie between hosts; those are measured
            "cores": min(here.cores or 1 for here in seen),
            "memory_bytes": min(here.memory_bytes or 0 for here in used or seen) or None,
            "unseen_gpu": next((f"host {host}: {why}" for host, why in unseen), None),
            "hosts": rendezvous.hosts,
        }
    )


def of_each_rank(used: list[Environment], name: str) -> tuple[object, ...]:
    """Return what the field says of each rank's GPU; nothing where some host cannot tell."""
    values = [getattr(here, name) for here in used]
    return tuple(value for (value,) in values) if all(values) else ()
