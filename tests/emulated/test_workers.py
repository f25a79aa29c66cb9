"""Workers that a launcher starts, one per GPU: each sees all GPUs of the host or its own alone."""

import random

import pytest

from tests.emulated.machine import model

ONE = ("--micro-batches", "4", "--schedule", "1F1B", "--budget", "60s", "--host-timeout", "60")
ALL = "0,1,2,3"


def launch(machine, visible, controllers):
    """Four workers, each of which sees what ``visible`` says, and a controller. Returns how that ended."""
    machine.environment["AUTOTUNE_SECRET"] = "0123456789abcdef0123"
    place = f"127.0.0.1:{random.randrange(20000, 40000)}"
    workers = []
    for rank, devices in enumerate(visible):
        variables = {"CUDA_VISIBLE_DEVICES": devices, "RANK": str(rank), "WORLD_SIZE": "4"}
        command = ("-m", "autotune", "worker", "--rendezvous", place, "--host-timeout", "60")
        workers.append(machine.start(*command, env=machine.environment | variables))
    variables = {"CUDA_VISIBLE_DEVICES": controllers}
    done = machine.autotune("run", "--rendezvous", place, *model(), *ONE, environment=variables)
    for worker in workers:
        if done.code:
            worker.kill()
        worker.communicate(timeout=60)
    return done


@pytest.mark.parametrize(("visible", "controllers"), [([ALL] * 4, ALL), (list("0123"), "0")], ids=["all", "own"])
def test_every_rank_has_a_gpu_of_its_own(machine, visible, controllers):
    done = launch(machine, visible, controllers)
    assert done.code == 0, done
    assert "Stopped after" in done.out
    assert {line for line in machine.lines("note") if line.startswith("context")} == {
        f"context on device {device}" for device in range(4)
    }


@pytest.mark.parametrize("devices", ["0,1,2", "0"], ids=["too few", "the same"])
def test_ranks_without_a_gpu_of_their_own_are_refused(machine, devices):
    done = launch(machine, [devices] * 4, devices)
    assert done.code in (2, 4), done
    last = done.err.strip().splitlines()[-1]
    assert "GPU" in last, last
