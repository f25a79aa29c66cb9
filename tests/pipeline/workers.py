"""Workers without ranks, for tests of the controller's side: they come, say what they are told to, and leave."""

import socket
import threading
import time
from contextlib import suppress

from autotune.pipeline.hosts.handshake import as_connection, send_hello
from autotune.pipeline.hosts.remote import RemoteRank
from autotune.pipeline.hosts.rendezvous import Identity, Rendezvous
from autotune.pipeline.hosts.wire import (
    READY,
    Answer,
    Assignment,
    Exited,
    Heartbeat,
    Hello,
    Leave,
    Order,
    ProcessStatus,
    Start,
    send,
)
from autotune.records.failure import Failure
from autotune.records.plain import read

SECRET = b"0123456789abcdef"
MINE = Identity("1.0", "none", 2)
ASSIGNMENT = Assignment(rank=0, ranks=2, local_rank=0, local_ranks=2, device="cpu", address="127.0.0.1")


def hello(number, address="10.0.0.1", hostname="alpha", **other):
    known = {"version": MINE.version, "run_id": MINE.run_id, "count": MINE.ranks}
    return Hello(number=number, address=address, environment={"hostname": hostname}, **known | other)


def opened(told):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Rendezvous(("127.0.0.1", port), SECRET, MINE, 30.0, lambda text: None, told.append)


def arrive(rendezvous, said, secret=SECRET):
    """A worker that comes, in a thread; what it is told, and its connection, when it has been answered."""
    answer = {}

    def come():
        answer["connection"] = as_connection(socket.create_connection(rendezvous.address))
        try:
            answer["welcome"] = send_hello(answer["connection"], secret, said)
        except Exception as error:
            answer["error"] = error

    thread = threading.Thread(target=come)
    thread.start()
    return thread, answer


def all_here(rendezvous, *said):
    """Every worker, and both sides' view of them."""
    coming = [arrive(rendezvous, one) for one in said]
    workers = rendezvous.gather()
    for thread, _ in coming:
        thread.join()
    return workers, [answer for _, answer in coming]


def pair(said=None):
    """A RemoteRank, and the worker's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    return RemoteRank(as_connection(ours), said or hello(0)), as_connection(theirs)


def suppressed(work, *arguments):
    with suppress(OSError, EOFError, ValueError):
        work(*arguments)


class FakeWorker(threading.Thread):
    """Comes, and at every Start does what ``at_start`` says, at last to join: "join", "die" or "leave"."""

    def __init__(self, rendezvous, said, at_start):
        super().__init__(daemon=True)
        self.rendezvous, self.said, self.at_start, self.orders = rendezvous, said, list(at_start), []
        self.start()

    def run(self):
        with suppress(OSError, EOFError, ValueError):  # the rendezvous has closed
            self.come_again()

    def come_again(self):
        while True:
            connection = as_connection(socket.create_connection(self.rendezvous.address))
            if send_hello(connection, SECRET, self.said).refusal is None:
                with suppress(OSError, EOFError):
                    if self.execute(connection):
                        return
            connection.close()
            time.sleep(0.1)

    def execute(self, connection):
        """Whether it was sent home."""
        generation = 0
        while True:
            send(connection, Heartbeat(generation=generation, status=ProcessStatus()))
            if not connection.poll(0.2):
                continue
            order = read(Order, connection.recv_bytes())
            self.orders.append(order)
            if isinstance(order, Leave):
                return True
            generation = getattr(order, "generation", generation)
            if not isinstance(order, Start):
                continue
            does = self.at_start.pop(0) if self.at_start else "join"
            if does == "leave":
                return False
            if does == "die":
                failure = Failure(
                    kind="crash", rank=order.assignment.rank, message=f"rank {order.assignment.rank}: exited"
                )
                send(connection, Exited(generation=generation, failure=failure))
            if does == "join":
                if order.assignment.rank == 0:
                    send(connection, Answer(generation=generation, message='["127.0.0.1", 1]'))
                send(connection, Answer(generation=generation, message=READY.decode()))
