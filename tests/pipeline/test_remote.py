"""What the controller holds of a rank on another host: what it hears of it, when it gives it up, where it stands."""

import time

import pytest

from autotune.pipeline.hosts import remote
from autotune.pipeline.hosts.remote import RemoteRank, by_host
from autotune.pipeline.hosts.wire import Answer, Exited, Heartbeat, Order, ProcessStatus, Start, send
from autotune.records.failure import Failure
from autotune.records.plain import read
from tests.pipeline.workers import ASSIGNMENT, hello, pair


def test_what_an_earlier_rank_said_too_late_is_not_heard():
    rank, worker = pair()
    rank.begin(ASSIGNMENT)
    rank.begin(ASSIGNMENT)
    assert [read(Order, worker.recv_bytes()) for _ in range(2)] == [
        Start(assignment=ASSIGNMENT, generation=1),
        Start(assignment=ASSIGNMENT, generation=2),
    ]
    death = Failure(kind="crash", rank=0, message="rank 0: killed by signal 9")
    send(worker, Answer(generation=1, message="old"))
    send(worker, Exited(generation=1, failure=death))
    send(worker, Heartbeat(generation=1, status=ProcessStatus(cpu_s=99.0)))
    send(worker, Heartbeat(generation=2, status=ProcessStatus(cpu_s=3.0)))
    send(worker, Answer(generation=2, message="new"))
    assert [rank.hear() for _ in range(5)] == [None, None, None, None, b"new"]
    assert rank.status().cpu_s == 3.0
    assert rank.is_alive
    send(worker, Exited(generation=2, failure=death))
    while rank.is_alive:
        time.sleep(0.01)
    with pytest.raises(OSError, match="the rank has gone"):
        rank.send(b"{}")
    assert rank.diagnose_exit() == death
    rank.begin(ASSIGNMENT)  # the worker is still there
    assert rank.is_alive


def test_a_worker_that_leaves_or_falls_silent_is_lost():
    rank, worker = pair()
    worker.close()
    assert "its host has gone, or its worker: the connection has ended" in rank.hear().message
    assert not rank.is_alive
    silent, _worker = pair()
    assert silent.give_up(60.0) is None
    silent.heard -= 61.0
    lost = "rank 0 on 10.0.0.1: its host is lost: nothing was heard of it for 61 s"
    assert silent.give_up(60.0).message == lost
    assert silent.give_up(60.0) is None  # once


def test_ranks_that_do_not_meet_are_a_failure():
    rank, worker = pair()
    rank.begin(ASSIGNMENT)
    send(worker, Exited(generation=1, failure=Failure(kind="crash", rank=0, message="no such interface")))
    assert remote.wait_until_joined([rank]).message == "no such interface"


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
