"""A port that is free now."""

import socket


def free_port() -> int:
    """Return a TCP port that nobody listens on; another process may take it before it is used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
