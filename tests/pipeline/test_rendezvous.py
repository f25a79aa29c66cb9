"""The rendezvous from both sides, without ranks: who is let in, who is turned away, in what order, and who is lost."""

import os
import resource
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from autotune.errors import DeviceError, InputError
from autotune.pipeline.hosts import handshake
from autotune.pipeline.hosts.handshake import as_connection, send_hello, shut_down
from autotune.pipeline.hosts.rendezvous import AT_ONCE, Rendezvous
from autotune.pipeline.hosts.wire import Leave, Order
from autotune.records.plain import read
from tests.pipeline.workers import (
    MINE,
    SECRET,
    FakeWorker,
    all_here,
    arrive,
    hello,
    opened,
    suppressed,
)


@pytest.fixture
def told():
    return []


@pytest.fixture
def rendezvous(told):
    with opened(told) as found:
        yield found


def test_workers_are_gathered_in_any_order_and_sent_home(told):
    with opened(told) as rendezvous:
        workers, answers = all_here(rendezvous, hello(1), hello(0))
        assert [worker.hello.number for worker in workers] == [0, 1]
        assert [answer["welcome"].refusal for answer in answers] == [None, None]
        assert rendezvous.hosts == ("alpha", "alpha")
    for answer in answers:
        assert read(Order, answer["connection"].recv_bytes()) == Leave()


@pytest.mark.parametrize(
    ("said", "secret", "words"),
    [
        (hello(0), b"another secret...", "it knows another secret"),
        (hello(0, version="0.9"), SECRET, "it is autotune 0.9, the controller 1.0"),
        (hello(0, run_id="7"), SECRET, "it belongs to run '7', the controller to 'none'"),
        (hello(0, count=3), SECRET, "it is one of 3 workers, but the run has 2 ranks"),
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
    assert told[0].startswith("rendezvous: turned 127.0.0.1 away: it")


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
    assert told == [f"rendezvous: turned 127.0.0.1 away: {words}"]


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
        thread = threading.Thread(target=lambda one=connection: suppressed(send_hello, one, SECRET, hello(0)))
        thread.start()
        time.sleep(0.2)
        shut_down(connection)
        thread.join()
        connection.close()
    workers, answers = all_here(rendezvous, hello(0), hello(1))
    assert all(worker.is_alive for worker in workers)
    assert [answer["welcome"].refusal for answer in answers] == [None, None]


def test_ranks_of_all_hosts_start_and_are_told_where_to_meet(rendezvous):
    first, second = (FakeWorker(rendezvous, hello(number), ["join"]) for number in (0, 1))
    ranks = rendezvous.start("cpu", 2**30)
    assert [rank.is_alive for rank in ranks] == [True, True]
    assert (first.orders[0].assignment.local_rank, second.orders[0].assignment.local_rank) == (0, 1)
    assert second.orders[0].assignment.memory_limit == 2**30
    deadline = time.monotonic() + 5
    while len(second.orders) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert second.orders[1].message == '["127.0.0.1", 1]'


@pytest.mark.parametrize("second", [["die", "join"], ["leave", "join"], ["leave", "leave", "join"]])
def test_a_host_that_is_lost_while_ranks_start_and_one_accident_are_outlasted(rendezvous, second):
    """The other rank sees its neighbour go, and dies first."""
    FakeWorker(rendezvous, hello(0), ["die" if one == "leave" else "join" for one in second])
    FakeWorker(rendezvous, hello(1), second)
    assert len(rendezvous.start("cpu", None)) == 2


def test_ranks_that_never_start_are_an_error_that_names_the_host(rendezvous):
    FakeWorker(rendezvous, hello(0), ["join"] * 9)
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
    other = replace(hello(0), environment={"hostname": "gamma", "cores": 96}, address="10.0.0.9")
    thread, _ = arrive(rendezvous, other)
    with pytest.raises(DeviceError, match="host gamma came in place of alpha, and has another cores"):
        rendezvous.gather()
    thread.join()


def test_an_address_that_only_one_host_reaches_is_refused(rendezvous):
    arrive(rendezvous, hello(0, "127.0.0.1"))
    arrive(rendezvous, hello(1, "10.0.0.2", "beta"))
    with pytest.raises(DeviceError, match="the workers of host alpha came by a loopback address"):
        rendezvous.gather()
