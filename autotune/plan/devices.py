"""Devices as their data sheets have them: TOML files with their sources, by name or by path."""

from pathlib import Path

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from autotune.config import read_toml
from autotune.errors import InputError
from autotune.records.base import Record
from autotune.records.complaint import explain
from autotune.records.job.workload import Precision

FOLDER = "devices"


class DeviceSpec(Record):
    """One kind of device, and the host that it is sold in."""

    name: str
    """Name, as in tables."""
    operations_s: dict[Precision, PositiveFloat]
    """Dense matrix operations per second, by number format."""
    memory_bytes: PositiveInt
    """Memory of the device."""
    memory_bytes_s: PositiveFloat
    """Bytes that it reads or writes in a second."""
    multiprocessors: PositiveInt
    """Multiprocessors, which tiles of a matrix product are dealt to."""
    per_host: PositiveInt
    """Devices of a host."""
    inside_bytes_s: PositiveFloat
    """Bytes per second and direction between devices of a host."""
    inside_latency_s: NonNegativeFloat
    """Seconds of an empty message inside a host."""
    between_bytes_s: PositiveFloat
    """Bytes per second and direction that each device has to other hosts."""
    between_latency_s: NonNegativeFloat
    """Seconds of an empty message between hosts."""
    is_backtested: bool
    """Whether plans for it were held against published runs."""


def read_device(path: Path) -> DeviceSpec:
    """Read a device from a TOML file or by the name of one that ships; raise InputError with path and key."""
    try:
        return DeviceSpec.model_validate(read_toml(path, FOLDER))
    except ValidationError as error:
        raise InputError(f"device {path}: {explain(error, DeviceSpec)}") from None
