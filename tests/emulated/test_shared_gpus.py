"""GPUs that others use too: what they hold is charged where it is held, and a full GPU is explained."""

import json

from tests.emulated.machine import MIB, model

ONE = ("--micro-batches", "4", "--schedule", "1F1B", "--budget", "60s")
SMALL = {"device_bytes": 150 * MIB, "context_bytes": 20 * MIB, "nccl_bytes": 4 * MIB}


def test_what_another_holds_of_one_gpu_is_charged_to_its_rank_alone(machines):
    machine = machines(**SMALL)
    held, context = 50 * MIB, SMALL["context_bytes"]
    with machine.hold(3, held):
        done = machine.autotune("run", *model(), *ONE)
    assert done.code == 0, done
    outside = json.loads((machine.folder / "report.json").read_text())["profile"]["outside_bytes"]
    assert outside[3] - outside[0] == held + context
    assert max(outside[:3]) < held


def test_a_full_gpu_is_explained(machines):
    machine = machines(**SMALL)
    with machine.hold(2, 124 * MIB):
        done = machine.autotune("run", *model(), *ONE)
    assert done.code == 4, done
    last = done.err.strip().splitlines()[-1]
    assert "cuda:2 cannot be used: CUDA error: out of memory; another process may hold its memory" in last


def test_a_gpu_too_full_for_nccl_is_explained(machines):
    machine = machines(**SMALL)
    with machine.hold(1, 102 * MIB):
        done = machine.autotune("run", *model(), *ONE)
    assert done.code == 5, done
    assert "rank 1" in done.err
    assert "Last error: Cuda failure 2 'out of memory'" in done.err


def test_doctor_tells_how_much_of_each_gpu_is_free(machine):
    with machine.hold(3, 2**35):
        done = machine.autotune("doctor")
    assert "GPU 0: NVIDIA A100-SXM4-80GB, 79.6 GiB of 80.0 GiB free" in done.out
    assert "problem  GPU 3: NVIDIA A100-SXM4-80GB, 47.1 GiB of 80.0 GiB free" in done.out
    assert "ok       two ranks over NCCL" in done.out


def test_doctor_finds_a_gpu_that_is_full(machines):
    machine = machines(**SMALL)
    with machine.hold(2, 124 * MIB):
        done = machine.autotune("doctor")
    assert "problem  GPU 2: NVIDIA A100-SXM4-80GB cannot be used now" in done.out
