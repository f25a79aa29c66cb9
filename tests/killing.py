"""Killing the controller of a run outright, and looking at what it leaves; for a test and for the benchmark."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import optuna

from autotune.report.load import read_report

FLAGS = ["--layers", "4", "--stages", "2", "--hidden", "16", "--heads", "2", "--seq-len", "8", "--vocab", "32"]
FLAGS += ["--batch", "12", "--schedule", "all", "--device", "cpu", "--exhaustive", "--quiet"]
START_S, LONGEST_S = 1.0, 9.0  # when the kill may come: from loading torch to well into the trials

Trial = tuple[int, int | str, str, int]
"""Number in the study; the candidate's parameters."""


class Killed(NamedTuple):
    """What there was after a kill: every trial that has a measurement."""

    after_s: float
    finished: dict[int, tuple[object, ...]]


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "autotune", "run", *FLAGS, "--out", str(folder / "report.json")]


def finished_trials(folder: Path) -> dict[int, tuple[object, ...]]:
    """Opens the study as optuna-dashboard would; number of the trial -> its candidate and its raw steps."""
    path = folder / ".autotune" / "study.db"
    if not path.exists():
        return {}
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        found = {}
        for name in optuna.get_all_study_names(storage):
            for trial in optuna.load_study(study_name=name, storage=storage).get_trials():
                if "measurement" in trial.user_attrs:
                    steps = tuple(trial.user_attrs["measurement"]["step_times_s"])
                    found[trial.number] = (*trial.params.values(), steps)
        return found
    finally:
        storage.engine.dispose()


def family(marker):
    """Living processes whose environment holds ``marker``: the controller, its fork server, its ranks."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            held = entry.name.isdigit() and marker.encode() in (entry / "environ").read_bytes()
            alive = held and "\nState:\tZ" not in (entry / "status").read_text()
        except OSError:
            continue
        if alive:
            found.append(int(entry.name))
    return found


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def kill_at_random(folder: Path, moments: random.Random) -> Killed:
    """Starts the run and kills its controller; whatever is on disk must be readable."""
    after = moments.uniform(START_S, LONGEST_S)
    process = subprocess.Popen(command(folder), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < after:
        time.sleep(0.02)
    process.kill()
    process.wait()
    return Killed(after, readable(folder))


def readable(folder: Path) -> dict[int, tuple[object, ...]]:
    """The finished trials; raises where the study or the report cannot be read."""
    report = folder / "report.json"
    if report.exists():
        read_report(report)
    return finished_trials(folder)


PHASES = ("profiling", "a trial", "writing the report")


def kill_in(phase: str, folder: Path, moments: random.Random) -> Killed:
    """The same at a random moment of a phase; in ten seconds nothing may be left but what is in ``folder``."""
    if phase == "profiling":
        shutil.rmtree(folder / ".autotune", ignore_errors=True)
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    marker = f"AUTOTUNE_TEST_KILL={os.getpid()}-{moments.random()}"
    name, value = marker.split("=")
    words = [word for word in command(folder) if word != "--quiet"]
    begun = time.monotonic()
    process = subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {name: value, "TMPDIR": str(temporary)},
    )
    assert process.stderr is not None
    sign = {"profiling": "starting the ranks", "a trial": "first step"}.get(phase, "first step")
    next((line for line in process.stderr if sign in line), None)
    if phase == "writing the report":
        wait_for_writing(folder, process, moments.randrange(6))
    else:
        time.sleep(moments.uniform(0.0, 1.5))
    process.kill()
    process.communicate()
    after = time.monotonic() - begun
    assert wait_until(lambda: not family(marker), 10), f"processes {family(marker)} are left"
    assert wait_until(lambda: not any(temporary.iterdir()), 10), f"{list(temporary.iterdir())} are left"
    return Killed(after, readable(folder))


def wait_for_writing(folder: Path, process: "subprocess.Popen[str]", skipped: int) -> None:
    """Until the report is being written, after so many times."""
    seen = ""
    while process.poll() is None:
        found = next((name for name in os.listdir(folder) if name.startswith(".report.json.")), "")
        if found and found != seen:
            if not skipped:
                return
            skipped, seen = skipped - 1, found


def finish(folder: Path, history: list[Killed]) -> tuple[int, int]:
    """Lets a last run end; returns its trials and its candidates. Every trial of the history must still be there, as
    it was, and no candidate may have two."""
    done = subprocess.run(command(folder), cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    trials = finished_trials(folder)
    for killed in history:
        assert killed.finished.items() <= trials.items(), "a finished trial is gone or has changed"
    candidates = [values[:-1] for values in trials.values()]
    assert len(candidates) == len(set(candidates)), "a candidate was tried twice"
    assert not list(folder.glob(".report.json.*")), "a file that was being written is left"
    report = read_report(folder / "report.json")
    assert report.status == "complete"
    measured = [row for row in report.candidates if row.measurement]
    assert len(measured) == len(trials)
    return len(trials), len(measured)
