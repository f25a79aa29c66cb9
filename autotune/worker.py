"""``autotune worker``: keeps one rank until the run is over, where there may be nothing but torch and the standard
library. ``python -m autotune worker`` comes here without the libraries of the other commands."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from autotune.errors import AutotuneError, UsageError
from autotune.pipeline.hosts.handshake import PORT, parse_address, read_secret
from autotune.pipeline.hosts.worker import Worker, launched_as
from autotune.quantities import parse_seconds
from autotune.settings import SETTINGS

FIRST_HOST = ("SLURM_LAUNCH_NODE_IPADDR", "SLURMD_NODENAME", "MASTER_ADDR")
"""Who tells the first host of an allocation: srun and Slurm's batch script, where the controller runs; torchrun."""


def first_host(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return where ``--rendezvous auto`` is; raises UsageError where nothing tells."""
    found = next((environment[name] for name in FIRST_HOST if environment.get(name)), None)
    if found is None:
        raise UsageError(
            f"--rendezvous auto: none of {', '.join(FIRST_HOST)} is set; give HOST:PORT, such as 10.0.0.1:{PORT}"
        )
    return found, PORT


def address_of(rendezvous: str) -> tuple[str, int]:
    """Return the address that ``HOST:PORT``, or ``auto``, names."""
    return first_host(os.environ) if rendezvous == "auto" else parse_address(rendezvous)


def seconds_of(text: str | float | None) -> float:
    """Return the seconds of ``300``, ``120s`` or ``5m``, more than none; raise UsageError."""
    given = SETTINGS["host_timeout"].default if text is None else text
    try:
        seconds = float(parse_seconds(given))
    except ValueError as error:
        raise UsageError(f"--host-timeout: {error} (given: {text!r})") from None
    if not seconds:
        raise UsageError(f"--host-timeout: it must be more than 0 seconds, such as 120s (given: {text!r})")
    return seconds


def work(rendezvous: str | None, secret_file: Path | None, host_timeout: str | None) -> None:
    """Keep a rank for the autotune run at the rendezvous, and say on stderr how that goes."""
    place, timeout_s = launched_as(os.environ), seconds_of(host_timeout)

    def say(line: str) -> None:
        print(f"autotune: {line}", file=sys.stderr, flush=True)

    Worker(address_of(rendezvous or "auto"), read_secret(secret_file), place, timeout_s, say).run()


def stop(*_: object) -> None:
    """Unwind, so that the rank and its files go."""
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Be the command; return its exit code."""
    parser = argparse.ArgumentParser("autotune worker", description="Keep one rank of a pipeline over several hosts.")
    for name, kind in (("rendezvous", str), ("secret_file", Path), ("host_timeout", str)):
        row = SETTINGS[name]
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help=row.help, metavar=row.metavar)
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        work(given.rendezvous, given.secret_file, given.host_timeout)
    except AutotuneError as error:
        print(f"autotune: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("autotune: interrupted", file=sys.stderr)
        return 130
    return 0
