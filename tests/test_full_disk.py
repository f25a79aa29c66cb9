"""A disk that is really full: one clear line, the right exit code, nothing half-written."""

import subprocess
import sys

import pytest

from autotune.report.record import read_report
from tests.test_security import FLAGS

KIB = 1024


@pytest.fixture
def disk(tmp_path):
    """Makes a file system of so many bytes, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()

    def make(size):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        return place

    yield make
    subprocess.run(["umount", place], capture_output=True)


def fill(place):
    """Leaves no room at all."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4 * KIB))
        except OSError:
            pass


def run(folder, *more):
    command = [sys.executable, "-m", "autotune", "run", *FLAGS, "--quiet", *map(str, more)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def check_refused(done, words):
    assert done.returncode == 3, done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("autotune: cannot ")
    assert "No space left on device" in last or "disk is full" in last, last
    assert words in last
    assert "Traceback" not in done.stderr


def test_no_room_for_the_report(disk, tmp_path):
    place = disk(64 * KIB)
    fill(place)
    check_refused(run(tmp_path, "--out", place / "report.json"), "give another path with --out")
    assert [path.name for path in place.iterdir()] == ["filler"]


def test_no_room_for_the_state(disk, tmp_path):
    place = disk(64 * KIB)
    fill(place)
    check_refused(run(tmp_path, "--state-dir", place / "state"), "--state-dir")


@pytest.mark.parametrize("size", [112, 128, 144])
def test_room_that_ends_while_the_study_grows(disk, tmp_path, size):
    """SQLite needs room for its journal too; wherever it ends, what was measured by then is in the report."""
    place = disk(size * KIB)
    done = run(tmp_path, "--state-dir", place / "state")
    check_refused(done, "--state-dir")
    if "what was measured is in" in done.stderr:
        assert read_report(tmp_path / "report.json").status == "partial"
