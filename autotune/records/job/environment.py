"""The Environment: the machine and the software that figures were measured on."""

from collections import Counter
from collections.abc import Sequence

from pydantic import PositiveInt

from autotune.records.base import Record

OF_EACH_GPU = (
    "devices",
    "gpu_uuids",
    "gpu_memory_bytes",
    "power_limits_w",
    "sm_clocks_mhz",
    "memory_clocks_mhz",
    "mig",
    "compute_modes",
)
"""Fields of an Environment that list a value for each GPU."""


COMMAND = "a command"
"""The device of runs of somebody's own command: what it runs on is not known."""


class Environment(Record):
    """The machine and software behind the figures. Fields on GPUs are of those in use, in the order of ``devices``, as
    far as torch and the driver tell."""

    device: str | None = None
    """cpu or cuda."""
    devices: tuple[str, ...] = ()
    """Names of the devices."""
    cores: PositiveInt | None = None
    """Cores of the host, of the smallest where there are several."""
    memory_bytes: PositiveInt | None = None
    """Memory of the smallest device, or of the host."""
    torch_version: str | None = None
    """Version of torch."""
    python_version: str | None = None
    """Version of Python."""
    hostname: str | None = None
    """Name of the host."""
    platform: str | None = None
    """Operating system and architecture."""
    cuda_version: str | None = None
    """Version of CUDA that torch is built with."""
    nccl_version: str | None = None
    """Version of NCCL."""
    driver_version: str | None = None
    """Version of the GPU driver."""
    hosts: tuple[str, ...] = ()
    """By rank, the name of its host; empty where there is only one host."""
    unseen_gpu: str | None = None
    """Why torch sees no GPU although the host has one."""
    gpu_uuids: tuple[str, ...] = ()
    """By GPU, its identity."""
    gpu_memory_bytes: tuple[PositiveInt, ...] = ()
    """By GPU, its memory."""
    power_limits_w: tuple[float | None, ...] = ()
    """By GPU, the watts that it may draw."""
    sm_clocks_mhz: tuple[int | None, ...] = ()
    """By GPU, the highest clock of its multiprocessors that it reaches, MHz."""
    memory_clocks_mhz: tuple[int | None, ...] = ()
    """By GPU, the highest clock of its memory that it reaches, MHz."""
    mig: tuple[bool | None, ...] = ()
    """By GPU, whether it is split into instances."""
    compute_modes: tuple[str | None, ...] = ()
    """By GPU, the driver's compute mode: whether it admits several processes."""
    gpu_links: tuple[tuple[str | None, ...], ...] = ()
    """By GPU, the way to each other one."""
    mps: bool | None = None
    """True where NVIDIA's Multi-Process Service runs."""

    def with_gpus(self, indices: Sequence[int]) -> "Environment":
        """Return the same host with these GPUs alone, in this order; all that is said of each goes with it."""
        update: dict[str, object] = {}
        for name in OF_EACH_GPU:
            values = getattr(self, name)
            update[name] = tuple(values[index] for index in indices) if values else ()
        update["gpu_links"] = tuple(tuple(self.gpu_links[i][j] for j in indices) for i in indices if self.gpu_links)
        memory = update["gpu_memory_bytes"]
        update["memory_bytes"] = min(memory) if isinstance(memory, tuple) and memory else self.memory_bytes
        return self.model_copy(update=update)

    @property
    def nameless(self) -> "Environment":
        """The environment without the names of hosts and GPUs: which ranks share a host still shows."""
        hosts = tuple(f"host {number}" for number in group_numbers(self.hosts))
        return self.model_copy(update={"hostname": None, "hosts": hosts, "gpu_uuids": ()})

    def most_on_a_host(self, ranks: int) -> int:
        """Return how many of ``ranks`` ranks are on the fullest host."""
        return max(Counter(self.hosts).values(), default=ranks)


def group_numbers(names: Sequence[str]) -> tuple[int, ...]:
    """Return a number for each name, in the order in which they come first: equal ones have the same."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return tuple(numbers[name] for name in names)
