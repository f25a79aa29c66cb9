"""The timer of a user's stages waits for the GPU, which goes on computing when the CPU has asked for it."""

import pytest
import torch

import autotune

CYCLES = 100_000_000  # tens of milliseconds


@pytest.mark.speed
def test_passes_are_timed_to_their_end_on_the_gpu():
    torch.zeros(1, device="cuda")
    torch.cuda._sleep(CYCLES)
    torch.cuda.synchronize()
    with autotune.StageTimer(batch=2) as timer:
        for _ in range(3):
            with timer.forward(0, 1):
                torch.cuda._sleep(CYCLES)
            with timer.backward(0, 1):
                torch.cuda._sleep(2 * CYCLES)
    (row,) = timer.profile.stages[0].time_s
    assert timer.profile.environment.device == "cuda"
    assert row.t_f > 0.01
    assert 1.8 < row.t_bw / row.t_f < 2.2
