"""How a controller and a worker of another host come to trust each other: both show that they know one secret.

The challenge and its keyed digest are those of ``multiprocessing.connection``; nothing is ever unpickled. What follows
is neither encrypted nor signed, as little as what torch's own sockets carry: the network between them is trusted.
"""

import os
import socket
import struct
from contextlib import suppress
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

from autotune.errors import InputError, UsageError
from autotune.pipeline.wire import MOST_BYTES, Hello, Welcome

SECRET_NAME, SHORTEST = "AUTOTUNE_SECRET", 16
PORT = 29600
SILENCE_S = 10.0  # that either side may take for a word, and the network to carry it


def read_secret(file: Path | None) -> bytes:
    """The secret that controller and workers share, from ``file`` or the environment; never from a command line, which
    every user of the host can read."""
    if file is not None:
        try:
            words, source = file.read_text().strip(), f"the file {file}"
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the secret in {file}: {getattr(error, 'strerror', None) or error}") from None
    else:
        words, source = os.environ.get(SECRET_NAME, "").strip(), SECRET_NAME
    if not words:
        raise UsageError(
            f"ranks on other hosts need a secret that only they know, and {source} holds none; set {SECRET_NAME} or"
            " --secret-file on every host to the same one, such as what openssl rand -hex 16 prints"
        )
    if len(words) < SHORTEST:
        raise UsageError(f"the secret in {source} has {len(words)} characters; use {SHORTEST} at least")
    return words.encode()


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, or HOST alone; raises UsageError."""
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(PORT))
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--rendezvous: give HOST:PORT, such as 10.0.0.1:{PORT} (given: {text!r})")
    return host, int(port)


def as_connection(plain: socket.socket) -> Connection:
    """Frames of bytes over a TCP socket. It fails where the other side's host takes no data for SILENCE_S, or says
    nothing for as long when it is listened to: who has more patience must look first whether there is anything."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_S))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SILENCE_S), 0))
    return Connection(plain.detach())


def receive_hello(connection: Connection, secret: bytes) -> Hello:
    """The controller's side up to the worker's Hello; raises AuthenticationError, OSError, EOFError or ValueError."""
    deliver_challenge(connection, secret)
    answer_challenge(connection, secret)
    return Hello.model_validate_json(connection.recv_bytes(MOST_BYTES))


def say_hello(connection: Connection, secret: bytes, hello: Hello) -> Welcome:
    """The worker's side; raises AuthenticationError where the secrets differ."""
    answer_challenge(connection, secret)
    deliver_challenge(connection, secret)
    connection.send_bytes(hello.model_dump_json().encode())
    return Welcome.model_validate_json(connection.recv_bytes(MOST_BYTES))


def refuse(connection: Connection, words: str, is_final: bool = True) -> None:
    """Tells a worker why it may not stay."""
    with suppress(OSError):
        connection.send_bytes(Welcome(refusal=words, is_final=is_final).model_dump_json().encode())
    connection.close()
