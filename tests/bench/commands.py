"""The scripts under tests/commands, each by its own command: every m, and tuned; what the pick loses, what it costs.

Rounds of both alternate, so that a machine that drifts drifts for both. A candidate's step is the median of the rounds.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from autotune.records.report import Report
from autotune.report.load import read_report
from tests.commands.launched import ENVIRONMENT, LAUNCHED, Launched

BATCH, ROUNDS = 64, int(os.environ.get("ROUNDS", "3"))


def tuned(launched: Launched, *more: str) -> Report:
    """The report of one run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        launched.write_file(Path(folder))
        command = launched.run(BATCH, "--quiet", *more)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
        assert done.returncode == 0, done.stderr[-2000:]
        return read_report(Path(folder) / "report.json")


def bench(launched: Launched) -> None:
    """The rounds of one script, and its figures."""
    steps: dict[int, list[float]] = {}
    shares, picks, trials = [], [], []
    for _ in range(ROUNDS):
        everything, found = tuned(launched, "--exhaustive"), tuned(launched)
        for row in everything.candidates:
            if row.measurement is not None:
                steps.setdefault(row.micro_batches, []).append(row.measurement.step_time_s)
        assert found.sweet_spot and found.search.device_s and everything.search.device_s
        picks.append(found.sweet_spot.micro_batches)
        trials.append(found.search.trials)
        shares.append(found.search.device_s / everything.search.device_s)
    usual = {m: median(several) for m, several in steps.items()}
    best = min(usual.values())
    losses = [usual[pick] / best - 1 for pick in picks]
    curve = ", ".join(f"m = {m}: {1e3 * step:.0f} ms" for m, step in usual.items())
    print(f"  {launched.name}: {curve}")
    print(
        f"    picks m = {', '.join(map(str, picks))}: lose {', '.join(f'{loss:.1%}' for loss in losses)} (goal 3 %)"
        f"; {', '.join(map(str, trials))} trials; device time {', '.join(f'{share:.0%}' for share in shares)},"
        f" median {median(shares):.0%} (goal 60 %)",
        flush=True,
    )


def main() -> None:
    """Every script whose launcher is installed here."""
    for launched in LAUNCHED:
        done = subprocess.run(
            [launched.words[0], "-c", f"import {launched.needs}"], capture_output=True, env=os.environ | ENVIRONMENT
        )
        if done.returncode:
            print(f"  {launched.name}: {launched.needs} cannot be imported here")
            continue
        bench(launched)
