"""A study goes on where it was, also after ``kill -9``; and only one run at a time works on it."""

import random
import subprocess
import time

import pytest

from tests.killing import PHASES, command, finish, kill_at_random, kill_in

pytestmark = pytest.mark.slow  # runs that are killed


@pytest.mark.slow
def test_killed_runs_leave_no_process_and_no_file_and_lose_and_repeat_nothing(tmp_path):
    moments = random.Random(3)
    kill_in(PHASES[0], tmp_path, moments)  # in profiling: nothing is known yet
    history = [kill_in(phase, tmp_path, moments) for phase in PHASES[1:]]
    history += [kill_at_random(tmp_path, moments) for _ in range(2)]
    trials, candidates = finish(tmp_path, history)
    assert trials == candidates > 10


def test_a_second_run_of_the_same_study_is_refused_in_words(tmp_path):
    first = subprocess.Popen(command(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".autotune/*.lock")) and time.monotonic() < deadline:
            time.sleep(0.05)
        second = subprocess.run(command(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=100)
    finally:
        first.terminate()
        first.wait()
    assert second.returncode == 4
    *notes, said = second.stderr.strip().splitlines()
    assert f"another autotune (process {first.pid}) is working on this study" in said
    assert all("not tried" in note for note in notes)
