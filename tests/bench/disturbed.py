"""A busy loop on one core during a third of the run: is the pick still good, and does the report say so?"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from autotune.report.load import read_report
from tests.bench.truth import find_truth

WORKLOAD = "4 ranks"
THIRDS = ("first", "middle", "last")
UNDISTURBED, ROUNDS = 3, 3


def run_disturbed(folder: Path, truth_flags: list[str], third: int | None, usual_s: float) -> float:
    """Runs the search from nothing with one core kept busy in one third of the time that it usually measures for, from
    its first measurement to its end; returns these seconds."""
    command = [sys.executable, "-m", "autotune", "run", *truth_flags, "--fresh"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "measuring memory" not in process.stderr.readline():
        assert process.poll() is None
    begun = time.monotonic()
    if third is not None:
        time.sleep(third * usual_s / 3)
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=pin_to_one_core)
        time.sleep(usual_s / 3)
        busy.kill()
        busy.wait()
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - begun


def pin_to_one_core() -> None:
    """In the child: one core only."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    """Undisturbed runs tell how long a third is; then each third in turn, a few times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = find_truth(WORKLOAD, folder)
        work = truth.report.workload
        flags = [
            text
            for field in ("layers", "stages", "hidden", "seq_len", "vocab", "batch")
            for text in (f"--{field.replace('_', '-')}", str(getattr(work, field)))
        ]
        usual = median(run_disturbed(folder, [*flags, "--device", "cpu"], None, 0.0) for _ in range(UNDISTURBED))
        print(
            f"{WORKLOAD}: undisturbed {usual:.0f} s, best m = {truth.candidates[truth.best()].micro_batches},"
            f" repeating the measurement of all loses {truth.own_regret:.2%}"
        )
        for third, when in list(enumerate(THIRDS)) * ROUNDS:
            run_disturbed(folder, [*flags, "--device", "cpu"], third, usual)
            report = read_report(folder / "report.json")
            spot, drift = report.sweet_spot, report.search.drift
            assert spot is not None
            assert drift is not None
            said = [text for text in report.warnings if "drifted" in text or "another pace" in text]
            print(
                f"busy in the {when:6} third: pick m = {spot.micro_batches}, regret {truth.regret(spot.candidate):.2%}"
                f" (goal 3 %), sure {spot.certainty or 0:.0%}; pace changed by {drift.ratio:.2f}, profile"
                f" {report.profile.drift:.1%}; the report says: {'; '.join(said) or 'NOTHING'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
