"""Two hosts, which are network namespaces with a core each, over a fast cable and a slow one: predictions against runs.

First ranks that compute, then ranks that wait. Of the former two share each core, where gloo's own threads may keep a
message waiting for a slice of it (2 ms each way): small micro-batches show that as an error.
"""

import tempfile
from pathlib import Path
from statistics import median

from autotune.records.base import write_record
from autotune.records.report import Report
from autotune.report.hosts import host_lines
from tests.hosts import tuned, waiting_profile, why_not

COMPUTING = ["--layers", 8, "--stages", 4, "--hidden", 256, "--seq-len", 64, "--vocab", 256, "--batch", 32]
COMPUTING += ["--micro-batches", "1,2,4,8,16"]
WAITING = ["--device", "replay", "--schedule", "Interleaved1F1B", "--micro-batches", "1,4,8,16,32"]
RATES = (None, "100mbit")
GOAL = 0.10


def show(name: str, rate: str | None, report: Report) -> None:
    print(
        f"{name}, cable {rate or 'as fast as it is'}: best m = {report.sweet_spot and report.sweet_spot.micro_batches}"
    )
    for line in host_lines(report.profile):
        print(f"  {line}")
    off = []
    for row in report.candidates:
        assert row.measurement is not None
        assert row.relative_error is not None
        off.append(row.relative_error.step_time)
        predicted, measured = row.prediction.step_time_s, row.measurement.step_time_s
        print(f"  m {row.micro_batches:3}  predicted {predicted:6.3f} s  measured {measured:6.3f} s  {off[-1]:+6.1%}")
    within = sum(abs(one) <= GOAL for one in off)
    print(f"  median {median(map(abs, off)):.1%}, {within} of {len(off)} within {GOAL:.0%}")


def main() -> None:
    if reason := why_not():
        print(f"left out: {reason}")
        return
    for rate in RATES:
        with tempfile.TemporaryDirectory() as folder:
            show("ranks that compute", rate, tuned(folder, rate, COMPUTING))
    for rate in RATES:
        with tempfile.TemporaryDirectory() as folder:
            recorded = Path(folder, "recorded.json")
            write_record(recorded, waiting_profile())
            flags = [*WAITING, "--profile", recorded]
            show("ranks that wait", rate, tuned(folder, rate, flags, is_pinned=False))
