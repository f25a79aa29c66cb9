"""Before workers are let in: the secret, its proof, the address, and what a launcher says."""

import os
import socket
import threading

import pytest

from autotune.errors import InputError, UsageError
from autotune.pipeline.hosts.handshake import WrongSecret, as_connection, parse_address, read_secret, send_hello
from autotune.pipeline.hosts.worker import Launched, launched_as
from autotune.pipeline.rank.process_group import interface_of, use_interface
from autotune.worker import first_host
from tests.pipeline.workers import (
    SECRET,
    hello,
)


def test_what_one_worker_shows_does_not_open_another():
    """Somebody without the secret stands between two workers, and hands the challenge of one to the other."""
    answers = {}
    with socket.create_server(("127.0.0.1", 0)) as false:

        def work(number):
            connection = as_connection(socket.create_connection(false.getsockname()))
            try:
                answers[number] = send_hello(connection, SECRET, hello(number))
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
