"""What the survey and doctor say of real GPUs."""

import pytest
import torch

from autotune.checkup import examine, round_trip
from autotune.pipeline.control.survey import collect_environment, gpu_state
from autotune.records.job.environment import OF_EACH_GPU, Environment
from autotune.report.doctor import Verdict


@pytest.fixture(scope="module")
def environment():
    return Environment.model_validate(collect_environment())


def test_every_gpu_is_told_from_every_other(environment):
    count = torch.cuda.device_count()
    assert len(environment.devices) == len(set(environment.gpu_uuids)) == len(environment.gpu_memory_bytes) == count
    assert {len(getattr(environment, name)) for name in OF_EACH_GPU} <= {0, count}
    assert environment.with_gpus([count - 1]).gpu_uuids == environment.gpu_uuids[-1:]


def test_the_state_of_each_gpu_is_within_what_it_has(environment):
    state = gpu_state()
    for free, whole in zip(state.free_bytes, environment.gpu_memory_bytes, strict=True):
        assert free is not None and 0 < free <= whole


def test_doctor_comes_to_a_verdict_on_each(environment):
    names = {check.name for check in examine().checks}
    assert {f"GPU {index}" for index in range(len(environment.devices))} <= names


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_ranks_talk_over_nccl(environment):
    check = round_trip(environment)
    assert check.verdict is Verdict.OK, check
    assert check.name == "two ranks over NCCL"
