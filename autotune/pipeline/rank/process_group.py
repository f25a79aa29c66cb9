"""The process groups of the ranks: torch's own stores, and the network interface that they talk over."""

import fcntl
import json
import os
import socket
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, Store, TCPStore

from autotune.pipeline.hosts.wire import Assignment

SIOCGIFADDR = 0x8915  # netdevice(7): the address of an interface


def use_interface(address: str | None) -> None:
    """Tie gloo and NCCL to the interface of ``address``, to loopback where that is None. Nothing listens on another.

    An interface that the user has named already, for ranks on several hosts, is left. NCCL takes a name for the
    beginning of one, unless = stands before it.
    """
    if address is None:
        os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"] = "lo", "=lo"
        return
    for name, mark in (("GLOO_SOCKET_IFNAME", ""), ("NCCL_SOCKET_IFNAME", "=")):
        if name not in os.environ:
            os.environ[name] = mark + interface_of(address)


def interface_of(address: str) -> str:
    """Return the name of the interface that has the IPv4 ``address``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(any_socket, SIOCGIFADDR, name.encode().ljust(40, b"\0"))
            except OSError:
                continue  # an interface without an address
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    raise OSError(f"no network interface has the address {address}; set GLOO_SOCKET_IFNAME (or NCCL_SOCKET_IFNAME)")


def open_store(assignment: Assignment, folder: str, connection: Connection) -> Store:
    """Return the store in which the ranks of a process group find each other.

    On one host it is a file. On several it is rank 0's, on its host's own address and on no other: rank 0 tells the
    controller the port, which tells the others.
    """
    if assignment.address is None:
        return FileStore(f"{folder}/rendezvous", assignment.ranks)
    if assignment.rank:
        host, port = json.loads(connection.recv_bytes())
        return TCPStore(host, port, assignment.ranks, is_master=False)
    listening = socket.create_server((assignment.address, 0))
    host, port = listening.getsockname()
    store = TCPStore(
        host, port, assignment.ranks, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    connection.send_bytes(json.dumps([host, port]).encode())
    return store


class Team(NamedTuple):
    """A rank's place among the replicas of a pipeline, and whom it talks to.

    ::

        replica 0   rank 0 --> rank 1 --> rank 2       pipeline: a row
                      |          |          |
        replica 1   rank 3 --> rank 4 --> rank 5       peers: a column, which hold the same stages and add up gradients
    """

    ranks: int
    """Ranks of one pipeline."""
    place: int
    """This rank's in its own."""
    replica: int = 0
    replicas: int = 1
    pipeline: dist.ProcessGroup | None = None
    """None: all ranks, who are one pipeline."""
    peers: dist.ProcessGroup | None = None


def team_of(rank: int, ranks: int, replicas: int, limit: timedelta) -> Team:
    """Return the rank's place, and make the groups where there are several replicas; every rank calls this."""
    if replicas == 1:
        return Team(ranks, rank)
    across = ranks // replicas
    rows = [list(range(first, first + across)) for first in range(0, ranks, across)]
    columns = [list(range(place, ranks, across)) for place in range(across)]
    groups = [dist.new_group(members, timeout=limit) for members in (*rows, *columns)]  # all ranks make every group
    replica, place = divmod(rank, across)
    return Team(across, place, replica, replicas, groups[replica], groups[replicas + place])
