"""Prediction against measurement on this machine: every divisor of 64, two and four ranks, a fresh profile each.

The figures come from the reports of real runs, as a user would get them with ``--exhaustive --fresh``.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from autotune.report.record import Report, read_report


def measured_report(stages: int, folder: Path) -> Report:
    """Runs the default workload on ``stages`` ranks, confirming every candidate."""
    flags = ["--stages", str(stages), "--exhaustive", "--fresh", "--quiet"]
    subprocess.run([sys.executable, "-m", "autotune", "run", *flags], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return read_report(folder / "report.json")


def print_errors(report: Report) -> None:
    """One line per candidate: step time and every rank's peak memory, predicted against measured."""
    print(f"\n{report.workload.stages} ranks on {report.environment.cores} cores")
    print(f"{'m':>4} {'schedule':8} {'predicted':>10} {'measured':>10} {'error':>7}   peak memory error by rank")
    step_errors, memory_errors = [], []
    for row in report.candidates:
        real = row.measurement
        assert real is not None
        assert real.peak_memory_bytes is not None
        assert row.prediction.peak_memory_bytes is not None
        pairs = zip(row.prediction.peak_memory_bytes, real.peak_memory_bytes, strict=True)
        memory = [mine / theirs - 1 for mine, theirs in pairs]
        step = row.prediction.step_time_s / real.step_time_s - 1
        step_errors.append(abs(step))
        memory_errors.extend(abs(error) for error in memory)
        print(
            f"{row.micro_batches:4} {row.schedule:8} {row.prediction.step_time_s:8.3f} s {real.step_time_s:8.3f} s"
            f" {step:+7.1%}   {' '.join(f'{error:+.2%}' for error in memory)}"
        )
    print(f"step time: median |error| {median(step_errors):.1%}, worst {max(step_errors):.1%}")
    print(f"peak memory: median |error| {median(memory_errors):.2%}, worst {max(memory_errors):.2%}")


if __name__ == "__main__":
    for stages in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            print_errors(measured_report(stages, Path(folder)))
