"""What is said of GPUs where this host has none: a driver that torch cannot use, and the calls of NVIDIA's library."""

import ctypes

import pytest
import torch

from autotune.backend.ranks import choose_device
from autotune.config import load_config
from autotune.errors import DeviceError
from autotune.pipeline.device.collect_env import environment
from autotune.pipeline.device.gpus import has_gpu, is_mps_running, settings, unseen_gpu
from autotune.pipeline.device.nvml import Nvml
from autotune.records.job.environment import Environment

NOT_SUPPORTED, NOT_FOUND = 3, 6  # nvmlReturn_t


@pytest.fixture
def host(tmp_path):
    """The root of a host with one GPU, as its driver shows it."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    (tmp_path / "proc/driver/nvidia/gpus/0000:0b:00.0").mkdir(parents=True)
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(version)
    return tmp_path


def test_a_host_without_a_gpu_is_not_suspected(tmp_path):
    assert not has_gpu(tmp_path)
    assert unseen_gpu(tmp_path) is None
    (tmp_path / "proc/driver/nvidia/gpus").mkdir(parents=True)  # the driver without a GPU
    assert not has_gpu(tmp_path)


@pytest.mark.parametrize("sign", ["dev/nvidia0", "proc/driver/nvidia/gpus/0000:0b:00.0"])
def test_either_sign_of_a_gpu_counts(sign, tmp_path):
    path = tmp_path / sign
    path.parent.mkdir(parents=True)
    path.touch()
    assert has_gpu(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
class TestUnseen:
    def test_a_gpu_that_torch_cannot_see_ends_the_run_with_what_to_do(self, host):
        seen = Environment.model_validate(environment(host))
        assert seen.device == "cpu"
        for flags in ({}, {"device": "auto"}, {"device": "cuda"}):
            with pytest.raises(DeviceError, match="torch does not see the GPU of this host: ") as raised:
                choose_device(load_config(None, flags), seen)
            assert str(raised.value).endswith("; or give --device cpu")
            assert "install a build of torch for" in str(raised.value)

    def test_the_cpu_may_be_asked_for_beside_it(self, host):
        seen = Environment.model_validate(environment(host))
        chosen = choose_device(load_config(None, {"device": "cpu"}), seen)
        assert chosen == Environment.model_validate(environment(host / "nothing"))

    @pytest.mark.skipif(torch.version.cuda is not None, reason="a build with CUDA")
    def test_a_build_of_torch_without_cuda_is_named(self, host):
        assert "built without CUDA" in unseen_gpu(host, {})


@pytest.mark.skipif(torch.version.cuda is None, reason="a build without CUDA")
def test_hidden_gpus_are_told_from_an_old_driver(host):
    assert "CUDA_VISIBLE_DEVICES is ''" in unseen_gpu(host, {"CUDA_VISIBLE_DEVICES": ""})
    assert "the driver 470.57.02 does not run" in unseen_gpu(host, {})


def test_mps_is_known_by_its_control_pipe(tmp_path):
    assert not is_mps_running(tmp_path, {})
    (tmp_path / "tmp/nvidia-mps").mkdir(parents=True)
    (tmp_path / "tmp/nvidia-mps/control").touch()
    assert is_mps_running(tmp_path, {})
    assert not is_mps_running(tmp_path, {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "other")})


class Library:
    """Stands for libnvidia-ml: two GPUs with NVLink, a third behind the host bridge. Writes as the real one does."""

    UUIDS = (b"GPU-a", b"GPU-b", b"GPU-c")

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        if uuid not in self.UUIDS:
            return NOT_FOUND
        handle._obj.value = 1 + self.UUIDS.index(uuid)
        return 0

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu, value):
        value._obj.value = 400_000 if gpu.value < 3 else 300_000
        return 0

    def nvmlDeviceGetMaxClockInfo(self, gpu, kind, value):
        value._obj.value = {1: 1410, 2: 1593}[kind]
        return 0

    def nvmlDeviceGetMigMode(self, gpu, current, pending):
        return NOT_SUPPORTED

    def nvmlDeviceGetP2PStatus(self, gpu, other, index, value):
        assert index == 2
        value._obj.value = 0 if {gpu.value, other.value} == {1, 2} else 5
        return 0

    def nvmlDeviceGetTopologyCommonAncestor(self, gpu, other, value):
        value._obj.value = 30
        return 0


def test_settings_are_those_of_each_gpu_and_what_cannot_be_told_is_left_out():
    """No compute mode: a function that the library does not have. No MIG: the GPUs know none."""
    found = settings(["a", "b", "c"], Nvml(Library()))
    bridge = "PCIe host bridge"
    assert found == {
        "gpu_uuids": ["a", "b", "c"],
        "power_limits_w": [400.0, 400.0, 300.0],
        "sm_clocks_mhz": [1410] * 3,
        "memory_clocks_mhz": [1593] * 3,
        "gpu_links": [[None, "NVLink", bridge], ["NVLink", None, bridge], [bridge, bridge, None]],
    }
    assert settings(["a", "unknown"], Nvml(Library())) == {"gpu_uuids": ["a", "unknown"]}
    assert settings(["a"], None) == {"gpu_uuids": ["a"]}


def test_the_pointers_are_what_the_c_library_takes(tmp_path):
    """A prototype without types: ctypes hands on addresses and numbers as C does."""
    read = ctypes.CDLL(None).sscanf
    value = Nvml(type("Library", (), {"ask": lambda _, *given: 0 if read(*given) == 1 else NOT_FOUND})())
    assert value._asks("ask", b"250000", b"%u") == (250_000,)
