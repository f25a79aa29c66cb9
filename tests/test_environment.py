"""Only the GPUs in use are in header, environment and fingerprints; which facts make figures comparable."""

from autotune.backend.ranks import choose_device
from autotune.config import load_config
from autotune.identity import digest_of_report, machine_facts
from autotune.profile.cache import profile_path
from autotune.records.job.environment import Environment
from autotune.records.job.workload import WorkloadFacts

GPUS = 8
EIGHT = Environment(
    device="cuda",
    devices=("A100",) * GPUS,
    memory_bytes=40,
    gpu_uuids=tuple(f"uuid-{index}" for index in range(GPUS)),
    gpu_memory_bytes=(80,) * 7 + (40,),
    power_limits_w=(400.0,) * 4 + (300.0,) * 4,
    mig=(False,) * GPUS,
    gpu_links=tuple(tuple(f"{i}-{j}" if i != j else None for j in range(GPUS)) for i in range(GPUS)),
    mps=False,
)
FACTS = WorkloadFacts(layers=4, stages=4, batch=8)


def report_mark(environment):
    return digest_of_report(environment, FACTS, "0.1.0")


def cache_path(tmp_path, environment):
    return profile_path(tmp_path, load_config(None, {}).workload("cuda"), environment, 1)


def test_a_run_on_four_of_eight_gpus_is_of_four():
    used = choose_device(load_config(None, {"stages": 4}), EIGHT)
    assert used.devices == ("A100",) * 4
    assert used.gpu_uuids == ("uuid-0", "uuid-1", "uuid-2", "uuid-3")
    assert used.power_limits_w == (400.0,) * 4
    assert used.gpu_links[3] == ("3-0", "3-1", "3-2", None)
    assert used.memory_bytes == 80  # the card of 40 is not used


def test_the_cpu_beside_gpus_is_of_none():
    used = choose_device(load_config(None, {"device": "cpu"}), EIGHT)
    assert (used.device, used.devices, used.gpu_uuids, used.gpu_links, used.mps) == ("cpu", (), (), (), None)


def test_a_profile_is_of_these_gpus_and_reports_of_their_kind(tmp_path):
    first, others = EIGHT.with_gpus(range(4)), EIGHT.with_gpus(range(4, 8))
    same_kind = first.model_copy(update={"gpu_uuids": others.gpu_uuids})
    slower = first.model_copy(update={"power_limits_w": (300.0,) * 4})
    assert len({cache_path(tmp_path, used) for used in (first, others, same_kind, slower)}) == 4
    assert report_mark(first) == report_mark(same_kind)
    assert report_mark(first) != report_mark(slower)


def test_a_study_that_hosts_share_does_not_know_gpus_by_name():
    assert EIGHT.nameless.gpu_uuids == ()
    assert EIGHT.nameless.power_limits_w == EIGHT.power_limits_w


def test_records_from_before_are_read_and_keep_their_marks():
    """Nothing that a host without GPUs says has changed, so what was compared before still is."""
    old = Environment.model_validate({"device": "cpu", "devices": ["Xeon"], "cores": 2})
    assert old.gpu_uuids == () and old.mps is None
    assert set(machine_facts(old)) == {"device", "devices", "cores", "driver", "torch", "CUDA", "NCCL", "python"}
