"""The rendezvous from both sides, without ranks: who is let in, who is turned away, in what order, and who is lost."""

import socket
import threading
import time
from contextlib import suppress

import pytest

from autotune.errors import DeviceError, InputError, UsageError
from autotune.hosts import first_host
from autotune.pipeline import remote
from autotune.pipeline.handshake import as_connection, parse_address, read_secret, say_hello
from autotune.pipeline.host import Launched, launched_as
from autotune.pipeline.outcome import Failure
from autotune.pipeline.remote import RemoteRank, by_host
from autotune.pipeline.rendezvous import Identity, Rendezvous
from autotune.pipeline.wire import ORDER, Answer, Died, Hello, Leave, Look, Seat, Start

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
        (b"\x80" * 4096, "it knows another secret"),  # to multiprocessing a frame of no bytes
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
    _, (first, _) = all_here(rendezvous, hello(0), hello(1))
    thread, second = arrive(rendezvous, hello(0))
    while thread.is_alive():
        rendezvous.gather()
        time.sleep(0.02)
    assert "worker 0 is here already" in second["welcome"].refusal
    assert not second["welcome"].is_final
    first["connection"].close()
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
    say(worker, Look(cpu_s=3.0))
    say(worker, Answer(generation=2, message="new"))
    assert [rank.hear() for _ in range(4)] == [None, None, None, b"new"]
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
    assert "its host has gone, or its worker" in rank.hear().message
    assert not rank.is_alive
    silent, _worker = pair()
    assert silent.lost(60.0) is None
    silent.heard -= 61.0
    assert "its host is lost: nothing was heard of it for 61 s" in silent.lost(60.0).message


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
    with pytest.raises(UsageError, match=r"the secret in AUTOTUNE_SECRET has 5 characters; use 16 at least"):
        read_secret(None)
    monkeypatch.delenv("AUTOTUNE_SECRET")
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
