"""The messages between a controller and the workers of other hosts: JSON records, so that nothing is ever unpickled.

::

    controller  --Start, Ask, Stop, Leave-->  worker  --pipe-->  rank      one worker and one rank per stage
                <--Hello, Heartbeat, Answer, Exited--        <--pipe--
"""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from autotune.pipeline.control.activity import Action
from autotune.records.failure import Failure
from autotune.records.plain import NonNegativeFloat, NonNegativeInt, Plain, PositiveInt, encode


@dataclass(frozen=True, kw_only=True)
class Assignment(Plain):
    """A rank's place: ``rank`` of ``ranks``, and ``local_rank`` of the ``local_ranks`` that share its host.

    The ranks are ``replicas`` pipelines, one after the other: rank = replica x ranks of a pipeline + place in it.

    ``address``: its host's own, over which the ranks reach each other; None: all of them are on one host, and nothing
    but the loopback interface is used. ``host``: the name that messages call its host by; None: they name none.
    ``memory_limit``: bytes that it may take.
    """

    rank: NonNegativeInt
    ranks: PositiveInt
    local_rank: NonNegativeInt
    local_ranks: PositiveInt
    device: str
    memory_limit: PositiveInt | None = None
    address: str | None = None
    host: str | None = None
    replicas: PositiveInt = 1

    @property
    def name(self) -> str:
        """``rank 1``, or ``rank 1 on alpha``."""
        return rank_name(self.rank, self.host)


def rank_name(rank: int, host: str | None) -> str:
    """Return ``rank 1``, or ``rank 1 on alpha`` where its host is named."""
    return f"rank {rank}" + (f" on {host}" if host else "")


@dataclass(frozen=True, kw_only=True)
class ProcessStatus(Plain):
    """A rank's process as seen from outside: the CPU seconds it has used, whether a signal has stopped it, its action,
    the action to which its CPU is ``ahead`` of the device (None where that is the same), the last lines that it wrote
    to its stderr, and the exception that ended it, if one did."""

    cpu_s: NonNegativeFloat = 0.0
    is_stopped: bool = False
    action: Action | None = None
    ahead: Action | None = None
    stderr_tail: tuple[str, ...] = ()
    exception: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hello(Plain):
    """The first that a worker says. ``number`` of ``count`` workers, as its launcher counts them; its host's own
    ``address`` towards the controller, and what it sees there (the fields of an Environment)."""

    kind: Literal["hello"] = "hello"
    version: str
    run_id: str
    number: NonNegativeInt
    count: PositiveInt
    address: str
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Welcome(Plain):
    """The answer to Hello; ``refusal`` says why the worker may not stay, for good or (``is_final`` false) now."""

    kind: Literal["welcome"] = "welcome"
    refusal: str | None = None
    is_final: bool = True


@dataclass(frozen=True, kw_only=True)
class Start(Plain):
    """Start a fresh rank; one that still runs is ended first. ``generation``: what comes of it carries this number."""

    kind: Literal["start"] = "start"
    generation: NonNegativeInt
    assignment: Assignment


@dataclass(frozen=True, kw_only=True)
class Ask(Plain):
    """Hand this on to the rank."""

    kind: Literal["ask"] = "ask"
    message: str


@dataclass(frozen=True, kw_only=True)
class Stop(Plain):
    """End the rank; heartbeats carry this number from then on."""

    kind: Literal["stop"] = "stop"
    generation: NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class Leave(Plain):
    """End the rank and the worker: the run is over."""

    kind: Literal["leave"] = "leave"


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Plain):
    """Says every second that the worker lives, with the status of its rank."""

    kind: Literal["heartbeat"] = "heartbeat"
    generation: NonNegativeInt
    status: ProcessStatus


@dataclass(frozen=True, kw_only=True)
class Answer(Plain):
    """A message of the rank."""

    kind: Literal["answer"] = "answer"
    generation: NonNegativeInt
    message: str


@dataclass(frozen=True, kw_only=True)
class Exited(Plain):
    """The rank's process has ended."""

    kind: Literal["exited"] = "exited"
    generation: NonNegativeInt
    failure: Failure


Order = Start | Ask | Stop | Leave
News = Heartbeat | Answer | Exited
MOST_BYTES = 2**26  # of one record


def send(connection: Connection, record: Plain) -> None:
    """Send one record; raise OSError where the other side has gone."""
    connection.send_bytes(encode(record))


READY = b"null"
"""A rank on one of several hosts sends this once it has joined the others. Before, rank 0 sends where its store is."""
