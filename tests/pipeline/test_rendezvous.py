"""The rendezvous from both sides, without ranks: who is let in, who is turned away, in what order, and who is lost."""

import os
import resource
import socket
import threading
import time
from contextlib import suppress

import pytest

from autotune.errors import DeviceError, InputError, UsageError
from autotune.hosts import first_host
from autotune.pipeline import handshake, remote
from autotune.pipeline.handshake import WrongSecret, as_connection, cut, parse_address, read_secret, say_hello
from autotune.pipeline.host import Launched, launched_as
from autotune.pipeline.meeting import interface_of, use_interface
from autotune.pipeline.outcome import Failure
from autotune.pipeline.remote import RemoteRank, by_host
from autotune.pipeline.rendezvous import AT_ONCE, Identity, Rendezvous
from autotune.pipeline.wire import MET, ORDER, Answer, Died, Hello, Leave, Look, Seat, Sign, Start

SECRET = b"0123456789abcdef"
MINE = Identity("1.0", "2.13.0", "none", 2)
SEAT = Seat(rank=0, ranks=2, local_rank=0, local_ranks=2, device="cpu", address="127.0.0.1")


def hello(number, address="10.0.0.1", hostname="alpha", **other):
    known = {"version": MINE.version, "torch_version": MINE.torch_version, "run_id": MINE.run_id, "count": MINE.ranks}
    return Hello(number=number, address=address, environment={"hostname": hostname}, **known | other)


@pytest.fixture
def told():
    return []


def opened(told):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Rendezvous(("127.0.0.1", port), SECRET, MINE, 5.0, lambda text: None, told.append)


@pytest.fixture
def rendezvous(told):
    with opened(told) as found:
        yield found


def arrive(rendezvous, said, secret=SECRET):
    """A worker that comes, in a thread; what it is told, and its connection, when it has been answered."""
    answer = {}

    def come():
        answer["connection"] = as_connection(socket.create_connection(rendezvous.address))
        try:
            answer["welcome"] = say_hello(answer["connection"], secret, said)
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


def test_workers_are_gathered_in_any_order_and_sent_home(told):
    with opened(told) as rendezvous:
        workers, answers = all_here(rendezvous, hello(1), hello(0))
        assert [worker.hello.number for worker in workers] == [0, 1]
        assert [answer["welcome"].refusal for answer in answers] == [None, None]
        assert rendezvous.hosts == ("alpha", "alpha")
    for answer in answers:
        assert ORDER.validate_json(answer["connection"].recv_bytes()) == Leave()


@pytest.mark.parametrize(
    ("said", "secret", "words"),
    [
        (hello(0), b"another secret...", "it knows another secret"),
        (hello(0, version="0.9"), SECRET, "it is autotune 0.9, the controller 1.0"),
        (hello(0, torch_version="2.12.0"), SECRET, "its torch is 2.12.0, the controller's 2.13.0"),
        (hello(0, run_id="7"), SECRET, "it belongs to run '7', the controller to 'none'"),
        (hello(0, count=3), SECRET, "it is one of 3 workers, but the run has 2 stages"),
        (hello(2), SECRET, "its number is 2, of 2 workers"),
    ],
)
def test_who_does_not_belong_is_turned_away_and_named_once(rendezvous, told, said, secret, words):
    for _ in range(2):
        thread, answer = arrive(rendezvous, said, secret)
        thread.join()
        assert "error" in answer or words in answer["welcome"].refusal
        assert "error" in answer or answer["welcome"].is_final
    all_here(rendezvous, hello(0), hello(1))
    assert [warning for warning in told if words in warning] == rendezvous.turned_away
    assert len(told) == 1
    assert told[0].startswith("turned away at the rendezvous: 127.0.0.1, for it")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "it is no worker: it did not say what a worker says"),
        (b"\0", "it is no worker: it did not say what a worker says"),
        (b"GET / HTTP/1.1\r\n\r\n", "it is no worker: it did not say what a worker says"),
        (b"\xff" * 4096, "it is no worker: it did not say what a worker says"),
        (b"\x80" * 4096, "it is no worker: it did not say what a worker says"),
        (b"\0\0\0\x40" + bytes(64), "it knows another secret"),
    ],
)
def test_a_stray_client_does_no_harm(rendezvous, told, sent, words):
    with socket.create_connection(rendezvous.address) as stray:
        stray.sendall(sent)
        with suppress(OSError):  # it may have been cut off already
            stray.shutdown(socket.SHUT_WR)
        workers, _ = all_here(rendezvous, hello(0), hello(1))
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        rendezvous.tell()
        time.sleep(0.05)
    assert told == [f"turned away at the rendezvous: 127.0.0.1, for {words}"]


def test_silent_strays_keep_nobody_waiting(told):
    begun = time.monotonic()
    with opened(told) as rendezvous:
        strays = [socket.create_connection(rendezvous.address) for _ in range(8)]
        all_here(rendezvous, hello(0), hello(1))
    assert time.monotonic() - begun < 5
    for stray in strays:
        stray.close()


def test_a_place_that_is_taken_is_refused_for_now_and_free_when_its_worker_has_gone(rendezvous):
    _, here = all_here(rendezvous, hello(0), hello(1))
    thread, second = arrive(rendezvous, hello(0))
    while thread.is_alive():
        rendezvous.gather()
        time.sleep(0.02)
    assert "worker 0 is here already" in second["welcome"].refusal
    assert not second["welcome"].is_final
    here[0]["connection"].close()
    thread, third = arrive(rendezvous, hello(0))
    while thread.is_alive():
        rendezvous.gather()
    assert third["welcome"].refusal is None


def test_who_does_not_come_is_named(rendezvous, told):
    rendezvous.host_timeout_s = 0.3
    thread, _ = arrive(rendezvous, hello(1))
    with pytest.raises(DeviceError, match=r"worker 0 of 2 did not come to 127\.0\.0\.1:\d+ within 0\.3 s"):
        rendezvous.gather()
    thread.join()


def test_an_address_that_is_not_ours_is_refused():
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1:29600"):
        Rendezvous(("192.0.2.1", 29600), SECRET, MINE, 1.0, print, print)


def test_what_one_worker_shows_does_not_open_another(rendezvous):
    """Somebody without the secret stands between two workers, and hands the challenge of one to the other."""
    answers = {}
    with socket.create_server(("127.0.0.1", 0)) as false:

        def work(number):
            connection = as_connection(socket.create_connection(false.getsockname()))
            try:
                answers[number] = say_hello(connection, SECRET, hello(number))
            except (WrongSecret, OSError, EOFError, ValueError) as error:
                answers[number] = error

        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        first, second = (as_connection(false.accept()[0]) for _ in threads)
    first.send_bytes(bytes(32))
    number = first.recv_bytes()[:32]  # the challenge that comes with its answer
    second.send_bytes(number)
    first.send_bytes(second.recv_bytes()[32:])  # which is no controller's answer
    for connection in (first, second):
        connection.close()
    for thread in threads:
        thread.join()
    assert any(isinstance(answer, WrongSecret) for answer in answers.values())
    assert all(isinstance(answer, Exception) for answer in answers.values())


def test_a_handshake_has_an_end_however_slowly_it_is_talked(rendezvous, monkeypatch):
    monkeypatch.setattr(handshake, "SILENCE_S", 0.5)
    with socket.create_connection(rendezvous.address) as dripping:
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while time.monotonic() - begun < 10:
                dripping.sendall(b"\0")
                time.sleep(0.1)
        assert time.monotonic() - begun < 3


def test_many_silent_strays_are_cut_off_and_keep_no_worker_out(rendezvous):
    strays = [socket.create_connection(rendezvous.address) for _ in range(3 * AT_ONCE)]
    begun = time.monotonic()
    all_here(rendezvous, hello(0), hello(1))
    assert time.monotonic() - begun < 5
    for stray in strays:
        stray.close()


def test_the_door_stays_open_after_an_error(told):
    """Of files there are no more for a moment."""
    with opened(told) as rendezvous:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        client = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        try:
            client.connect(rendezvous.address)
            time.sleep(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.close()
        all_here(rendezvous, hello(0), hello(1))
    assert any("Too many open files" in words for words in told)


def test_who_was_not_answered_in_time_may_come_again(rendezvous):
    """Before anybody is let in, worker 0 gives up twice; only its third call is taken in."""
    for _ in range(2):
        connection = as_connection(socket.create_connection(rendezvous.address))
        thread = threading.Thread(target=lambda one=connection: suppressed(say_hello, one, SECRET, hello(0)))
        thread.start()
        time.sleep(0.2)
        cut(connection)
        thread.join()
        connection.close()
    workers, answers = all_here(rendezvous, hello(0), hello(1))
    assert all(worker.is_alive for worker in workers)
    assert [answer["welcome"].refusal for answer in answers] == [None, None]


def suppressed(work, *arguments):
    with suppress(OSError, EOFError, ValueError):
        work(*arguments)


class FakeWorker(threading.Thread):
    """Comes, and at every Start does what ``at_start`` says, at last to meet: "meet", "die" or "leave"."""

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
            if say_hello(connection, SECRET, self.said).refusal is None:
                with suppress(OSError, EOFError):
                    if self.obey(connection):
                        return
            connection.close()
            time.sleep(0.1)

    def obey(self, connection):
        """Whether it was sent home."""
        generation = 0
        while True:
            say(connection, Sign(generation=generation, look=Look()))
            if not connection.poll(0.2):
                continue
            order = ORDER.validate_json(connection.recv_bytes())
            self.orders.append(order)
            if isinstance(order, Leave):
                return True
            generation = getattr(order, "generation", generation)
            if not isinstance(order, Start):
                continue
            does = self.at_start.pop(0) if self.at_start else "meet"
            if does == "leave":
                return False
            if does == "die":
                failure = Failure(kind="crash", rank=order.seat.rank, message=f"rank {order.seat.rank}: exited")
                say(connection, Died(generation=generation, failure=failure))
            if does == "meet":
                if order.seat.rank == 0:
                    say(connection, Answer(generation=generation, message='["127.0.0.1", 1]'))
                say(connection, Answer(generation=generation, message=MET.decode()))


def test_ranks_of_all_hosts_start_and_are_told_where_to_meet(rendezvous):
    first, second = (FakeWorker(rendezvous, hello(number), ["meet"]) for number in (0, 1))
    ranks = rendezvous.start("cpu", 2**30)
    assert [rank.is_alive for rank in ranks] == [True, True]
    assert (first.orders[0].seat.local_rank, second.orders[0].seat.local_rank) == (0, 1)
    assert second.orders[0].seat.memory_limit == 2**30
    deadline = time.monotonic() + 5
    while len(second.orders) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert second.orders[1].message == '["127.0.0.1", 1]'


@pytest.mark.parametrize("second", [["die", "meet"], ["leave", "meet"], ["leave", "leave", "meet"]])
def test_a_host_that_is_lost_while_ranks_start_and_one_accident_are_outlasted(rendezvous, second):
    """The other rank sees its neighbour go, and dies first."""
    FakeWorker(rendezvous, hello(0), ["die" if one == "leave" else "meet" for one in second])
    FakeWorker(rendezvous, hello(1), second)
    assert len(rendezvous.start("cpu", None)) == 2


def test_ranks_that_never_start_are_an_error_that_names_the_host(rendezvous):
    FakeWorker(rendezvous, hello(0), ["meet"] * 9)
    FakeWorker(rendezvous, hello(1, "10.0.0.2", "beta"), ["die"] * 9)
    with pytest.raises(DeviceError, match=r"the ranks did not start: rank 1: exited; see autotune doctor on host beta"):
        rendezvous.start("cpu", None)


def test_a_host_that_comes_and_goes_does_not_hold_the_run_for_ever(rendezvous):
    rendezvous.host_timeout_s = 2.0
    FakeWorker(rendezvous, hello(0), ["die"] * 99)
    FakeWorker(rendezvous, hello(1), ["leave"] * 99)
    begun = time.monotonic()
    with pytest.raises(DeviceError):
        rendezvous.start("cpu", None)
    assert time.monotonic() - begun < 10


def test_another_kind_of_host_cannot_take_a_place(rendezvous):
    _, answers = all_here(rendezvous, hello(0), hello(1))
    answers[0]["connection"].close()
    other = hello(0).model_copy(update={"environment": {"hostname": "gamma", "cores": 96}, "address": "10.0.0.9"})
    thread, _ = arrive(rendezvous, other)
    with pytest.raises(DeviceError, match="host gamma came in place of alpha, and has another cores"):
        rendezvous.gather()
    thread.join()


def test_an_address_that_only_one_host_reaches_is_refused(rendezvous):
    arrive(rendezvous, hello(0, "127.0.0.1"))
    arrive(rendezvous, hello(1, "10.0.0.2", "beta"))
    with pytest.raises(DeviceError, match="the workers of host alpha came by a loopback address"):
        rendezvous.gather()


def pair(said=None):
    """A RemoteRank, and the worker's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    return RemoteRank(as_connection(ours), said or hello(0)), as_connection(theirs)


def say(connection, record):
    connection.send_bytes(record.model_dump_json().encode())


def test_what_an_earlier_rank_said_too_late_is_not_heard():
    rank, worker = pair()
    rank.begin(SEAT)
    rank.begin(SEAT)
    assert [ORDER.validate_json(worker.recv_bytes()) for _ in range(2)] == [
        Start(seat=SEAT, generation=1),
        Start(seat=SEAT, generation=2),
    ]
    death = Failure(kind="crash", rank=0, message="rank 0: killed by signal 9")
    say(worker, Answer(generation=1, message="old"))
    say(worker, Died(generation=1, failure=death))
    say(worker, Sign(generation=1, look=Look(cpu_s=99.0)))
    say(worker, Sign(generation=2, look=Look(cpu_s=3.0)))
    say(worker, Answer(generation=2, message="new"))
    assert [rank.hear() for _ in range(5)] == [None, None, None, None, b"new"]
    assert rank.look().cpu_s == 3.0
    assert rank.is_alive
    say(worker, Died(generation=2, failure=death))
    while rank.is_alive:
        time.sleep(0.01)
    with pytest.raises(OSError, match="the rank has gone"):
        rank.send(b"{}")
    assert rank.death() == death
    rank.begin(SEAT)  # the worker is still there
    assert rank.is_alive


def test_a_worker_that_leaves_or_falls_silent_is_lost():
    rank, worker = pair()
    worker.close()
    assert "its host has gone, or its worker: the connection has ended" in rank.hear().message
    assert not rank.is_alive
    silent, _worker = pair()
    assert silent.give_up(60.0) is None
    silent.heard -= 61.0
    assert "its host is lost: nothing was heard of it for 61 s" in silent.give_up(60.0).message
    assert silent.give_up(60.0) is None  # once


def test_ranks_that_do_not_meet_are_a_failure():
    rank, worker = pair()
    rank.begin(SEAT)
    say(worker, Died(generation=1, failure=Failure(kind="crash", rank=0, message="no such interface")))
    assert remote.meet([rank]).message == "no such interface"


def test_ranks_of_a_host_stand_together_and_keep_their_place():
    """Numbered in turns, as srun does with --distribution=cyclic."""
    said = [hello(0), hello(1, "10.0.0.2", "beta"), hello(2), hello(3, "10.0.0.2", "beta")]
    workers = by_host([RemoteRank(None, one) for one in said])
    assert [worker.hello.number for worker in workers] == [0, 2, 1, 3]
    assert [worker.host for worker in workers] == ["alpha", "alpha", "beta", "beta"]
    anew = [hello(0, "10.0.0.2", "beta"), hello(1), hello(2), hello(3, "10.0.0.2", "beta")]
    again = by_host([RemoteRank(None, one) for one in anew], workers)
    assert [worker.host for worker in again] == ["alpha", "alpha", "beta", "beta"]
    assert [worker.hello.number for worker in again] == [1, 2, 0, 3]


def test_a_new_host_takes_the_place_of_one_that_is_here_no_more():
    before = by_host([RemoteRank(None, hello(0)), RemoteRank(None, hello(1, "10.0.0.2", "beta"))])
    now = [hello(0, "10.0.0.3", "gamma"), hello(1, "10.0.0.2", "beta")]
    assert [worker.host for worker in by_host([RemoteRank(None, one) for one in now], before)] == ["gamma", "beta"]


def test_hosts_of_one_name_are_told_apart_by_their_addresses():
    workers = by_host([RemoteRank(None, hello(number, f"10.0.0.{number}", "node")) for number in (1, 2)])
    assert [worker.host for worker in workers] == ["node (10.0.0.1)", "node (10.0.0.2)"]


@pytest.mark.parametrize("text", ["", ":29600", "alpha:", "alpha:x", "alpha:0", "alpha:65536"])
def test_an_address_is_a_host_and_a_port(text):
    with pytest.raises(UsageError, match=r"give HOST:PORT"):
        parse_address(text)
    assert parse_address("alpha:1234") == ("alpha", 1234)
    assert parse_address("alpha") == ("alpha", 29600)


def test_the_secret_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    file = tmp_path / "secret"
    with pytest.raises(InputError, match="cannot read the secret in"):
        read_secret(file)
    file.write_text("0123456789abcdef\n")
    assert read_secret(file) == SECRET
    monkeypatch.setenv("AUTOTUNE_SECRET", "short")
    with pytest.raises(UsageError, match=r"the secret in AUTOTUNE_SECRET has 5 bytes; use 16 at least"):
        read_secret(None)
    assert "AUTOTUNE_SECRET" not in os.environ  # so that no rank inherits it
    with pytest.raises(UsageError, match=r"AUTOTUNE_SECRET holds none"):
        read_secret(None)


def test_a_launcher_says_which_worker_this_is():
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "77"}
    torchrun = {"RANK": "1", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"}
    assert launched_as(slurm) == Launched(3, 8, "77")
    assert launched_as(slurm | torchrun) == Launched(1, 4, "none")
    assert launched_as({"RANK": "1", "WORLD_SIZE": "4"}) == Launched(1, 4, "none")
    with pytest.raises(UsageError, match="started by a launcher"):
        launched_as({"RANK": "1"})
    with pytest.raises(UsageError, match="RANK is 'x'"):
        launched_as({"RANK": "x", "WORLD_SIZE": "4"})


def test_the_first_host_of_an_allocation():
    assert first_host({"SLURMD_NODENAME": "n7", "MASTER_ADDR": "n1"}) == ("n7", 29600)
    assert first_host({"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1", "SLURMD_NODENAME": "n7"}) == ("10.0.0.1", 29600)
    assert first_host({"MASTER_ADDR": "n1"}) == ("n1", 29600)
    with pytest.raises(UsageError, match="--rendezvous auto: none of"):
        first_host({})


def test_ranks_talk_over_the_interface_of_their_address(monkeypatch):
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in names})
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(OSError, match=r"no network interface has the address 192\.0\.2\.1; set GLOO_SOCKET_IFNAME"):
        interface_of("192.0.2.1")
    use_interface("127.0.0.1")
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "=lo")
    os.environ["GLOO_SOCKET_IFNAME"] = "eth7"
    use_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    use_interface(None)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
