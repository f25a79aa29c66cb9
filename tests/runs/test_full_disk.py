"""A disk that is really full: one clear line, the right exit code, nothing half-written."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, redirect_stderr, suppress

import pytest

from autotune.errors import InputError
from autotune.pipeline.control.activity import ActivityWriter
from autotune.pipeline.control.commands import Step
from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.process_group import Team
from autotune.pipeline.rank.rank import RankProcess, answer
from autotune.profile.cache import keep_profile
from autotune.records.plain import encode
from autotune.report.load import read_report
from autotune.search.study.study import Study
from autotune.search.timing import Timing
from tests.runs.test_security import FLAGS
from tests.search.machine import CANDIDATES, PROFILE

pytestmark = pytest.mark.slow  # disks that fill up

KIB = 1024


@pytest.fixture
def disk(tmp_path):
    """Makes a file system of so many bytes, where this process may mount one."""
    places = []

    def make(size):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "--lazy", place], capture_output=True)  # a study may still be open there


def enlarge(place, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


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
    assert "remove" not in last
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


def test_no_room_for_temporary_files(disk, tmp_path):
    """Ranks die there without a word, because their words go to a log."""
    place = disk(4 * KIB)
    done = subprocess.run(
        [sys.executable, "-m", "autotune", "run", *FLAGS, "--quiet"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    said = f"cannot write in {place}: No space left on device; make room there or give another folder with TMPDIR"
    assert done.stderr.strip().splitlines() == [f"autotune: the ranks did not start: {said}"]


def test_no_room_for_a_database_that_is_a_file(disk, tmp_path):
    place = disk(64 * KIB)
    done = run(tmp_path, "--storage", f"sqlite:///{place}/shared.db")
    check_refused(done, f"No space left on device in {place}; check --storage")


def test_no_room_for_a_profile_in_the_state_directory(disk):
    """The option that is named is the one that chooses the place."""
    place = disk(64 * KIB)
    fill(place)
    with pytest.raises(InputError, match=r"No space left on device; make room there or give another --state-dir$"):
        keep_profile(place / "profiles" / "x.json", PROFILE)
    (place / "filler").unlink()
    (place / "profiles").mkdir(exist_ok=True)
    fill(place)
    with pytest.raises(InputError, match=r"No space left on device; make room there or give another --state-dir$"):
        keep_profile(place / "profiles" / "x.json", PROFILE)
    assert list((place / "profiles").iterdir()) == []


@pytest.mark.parametrize("command", ["schema report", "doctor", "timeline -m 4 --stages 2"])
def test_no_room_for_what_is_printed(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "autotune", *command.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    assert done.stderr == "autotune: cannot write the output: No space left on device; make room there\n"


def test_no_room_for_a_ranks_log_leaves_its_answer(tmp_path):
    """What it says of a candidate that failed must not become a death of which nobody knows the reason."""
    rank = RankProcess(0, Team(1, 0), CpuDevice(1), ActivityWriter(tmp_path / "doing"))
    with suppress(OSError), open("/dev/full", "w", buffering=1) as full, redirect_stderr(full):
        reply = answer(rank, encode(Step()))
    assert reply.failure is not None
    assert "prepare comes first" in reply.failure.message


def check_whole(path):
    """SQLite finds nothing wrong with the file, after it has rolled back what was not finished."""
    with closing(sqlite3.connect(path)) as study:
        assert study.execute("pragma integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("size", [112, *(pytest.param(size, marks=pytest.mark.slow) for size in (128, 144, 148, 152))])
def test_room_that_ends_while_the_study_grows(disk, tmp_path, size):
    """SQLite needs room for its journal too; wherever it ends, what was measured by then is in the report."""
    place = disk(size * KIB)
    done = run(tmp_path, "--state-dir", place / "state")
    check_refused(done, "--state-dir")
    check_whole(place / "state" / "study.db")
    if "what was measured is in" in done.stderr:
        assert read_report(tmp_path / "report.json").status == "partial"


def grow(study):
    """Stores visits until the file system takes no more; returns what is said of that, and how many were stored."""
    for number in range(10_000):
        try:
            study.keep(Timing(number, CANDIDATES[0], (1.0,) * 50, 0.0))
        except Exception as error:
            return study.trouble(error), number
    raise AssertionError("it never filled the disk")


def test_wherever_the_room_ends_the_study_is_kept_and_the_disk_is_named(disk):
    """In the tables, in a commit, in the journal or in a visit: Optuna and SQLAlchemy have other words for each."""
    opened = 0
    for size in range(8, 240, 12):
        state, kept = disk(size * KIB) / "state", 0
        try:
            study = Study(state, "name", CANDIDATES, fresh=False)
            said, kept = grow(study)
            opened += 1
        except InputError as error:
            said = str(error)
        assert said.startswith(f"cannot write the study {state}") and "remove" not in said, (size, said)
        assert said.endswith("No space left on device; make room there or give another --state-dir"), (size, said)
        if (state / "study.db").exists():
            check_whole(state / "study.db")
        enlarge(state.parent, 8 * 2**20)
        assert len(Study(state, "name", CANDIDATES, fresh=False).timings()) == kept
    assert opened > 5
