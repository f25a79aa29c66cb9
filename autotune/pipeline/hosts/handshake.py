"""How a controller and a worker of another host come to trust each other: each shows that it knows their secret.

::

    controller                                   worker
        a random number c  ------------------------->
        <------------------------- a random number w, HMAC(secret, "worker", c, w)
        HMAC(secret, "controller", w, c) ----------->
        <------------------------- Hello
        Welcome ------------------------------------>

What one side shows is of no use to the other side, nor another time. What follows is neither encrypted nor signed, as
little as what torch's own sockets carry: the network between them is trusted.
"""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hmac import compare_digest, digest
from multiprocessing.connection import Connection
from pathlib import Path
from secrets import token_bytes

from autotune.errors import InputError, UsageError
from autotune.pipeline.hosts.wire import MOST_BYTES, Hello, Welcome, send
from autotune.records.plain import read

SECRET_NAME, SHORTEST = "AUTOTUNE_SECRET", 16
PORT = 29600
SILENCE_S = 10.0  # that the other side may take for the handshake, and the network to carry a word
BYTES = 32  # of a random number, and of a proof


class WrongSecret(Exception):
    """The other side does not know our secret."""


def read_secret(file: Path | None) -> bytes:
    """Return the secret that controller and workers share, from ``file`` or the environment, which it is removed from:
    no process that we start needs it. Never from a command line, which every user of the host can read."""
    secret, source = os.environ.pop(SECRET_NAME, "").encode(errors="surrogateescape"), SECRET_NAME
    if file is not None:
        try:
            secret, source = file.read_bytes(), f"the file {file}"
        except OSError as error:
            raise InputError(f"cannot read the secret in {file}: {error.strerror}; check --secret-file") from None
    secret = secret.strip()
    if not secret:
        raise UsageError(
            f"ranks on other hosts need a secret that only they know, and {source} holds none; set {SECRET_NAME} or"
            " --secret-file on every host to the same one, such as what openssl rand -hex 16 prints"
        )
    if len(secret) < SHORTEST:
        raise UsageError(f"the secret in {source} has {len(secret)} bytes; use {SHORTEST} at least")
    return secret


def parse_address(text: str) -> tuple[str, int]:
    """Return ``HOST:PORT``, or HOST alone; raise UsageError."""
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(PORT))
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--rendezvous: give HOST:PORT, such as 10.0.0.1:{PORT} (given: {text!r})")
    return host, int(port)


def as_connection(plain: socket.socket) -> Connection:
    """Return frames of bytes over a TCP socket. It fails where the other side's host takes no data for SILENCE_S, or
    says nothing for as long when it is listened to: who has more patience must look first whether there is anything."""
    plain.settimeout(None)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_S))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SILENCE_S), 0))
    return Connection(plain.detach())


def shut_down(connection: Connection, how: int = socket.SHUT_RDWR) -> None:
    """Shut down a connection, or one way of it, also for other threads that wait for it."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as again:
        again.shutdown(how)


@contextmanager
def in_time(connection: Connection) -> Iterator[None]:
    """Shut down the connection where what is done with it takes longer than SILENCE_S."""
    clock = threading.Timer(SILENCE_S, shut_down, (connection,))
    clock.daemon = True
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


def proof(secret: bytes, role: bytes, *numbers: bytes) -> bytes:
    """Return a proof that whoever plays this role knows the secret."""
    return digest(secret, role + b"".join(numbers), "sha256")


def receive_hello(connection: Connection, secret: bytes) -> Hello:
    """Go through the controller's side up to Hello; raise WrongSecret, or OSError, EOFError or ValueError where the
    other side is no worker."""
    with in_time(connection):
        mine = token_bytes(BYTES)
        connection.send_bytes(mine)
        answer = connection.recv_bytes(2 * BYTES)
        if len(answer) != 2 * BYTES:
            raise ValueError("no answer to a challenge")
        theirs, shown = answer[:BYTES], answer[BYTES:]
        if not compare_digest(shown, proof(secret, b"worker", mine, theirs)):
            connection.send_bytes(bytes(BYTES))  # so that it knows
            raise WrongSecret
        connection.send_bytes(proof(secret, b"controller", theirs, mine))
        return read(Hello, connection.recv_bytes(MOST_BYTES))


def send_hello(connection: Connection, secret: bytes, hello: Hello) -> Welcome:
    """Go through the worker's side of the handshake; raise likewise."""
    with in_time(connection):
        theirs, mine = connection.recv_bytes(BYTES), token_bytes(BYTES)
        if len(theirs) != BYTES:
            raise ValueError("who listens there is no autotune run")
        connection.send_bytes(mine + proof(secret, b"worker", theirs, mine))
        if not compare_digest(connection.recv_bytes(BYTES), proof(secret, b"controller", mine, theirs)):
            raise WrongSecret
        send(connection, hello)
        return read(Welcome, connection.recv_bytes(MOST_BYTES))


def refuse(connection: Connection, reason: str, is_final: bool = True) -> None:
    """Tell a worker why it may not stay."""
    with suppress(OSError):
        send(connection, Welcome(refusal=reason, is_final=is_final))
    connection.close()
