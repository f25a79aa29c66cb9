"""A round trip: a run, the script that ``export --to torch`` makes of its report, and that script under torchrun.

This machine's pace changes within seconds, so the sweet spot is also visited again right before and after the script.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median

from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.records.job.workload import WorkloadConfig
from autotune.records.outcome import Measurement
from autotune.records.report import Report
from autotune.report.export.export import export
from autotune.report.load import read_report

ROUNDS, STEPS = 5, 6
WORKLOAD = ["--layers", "12", "--hidden", "96", "--seq-len", "64", "--vocab", "512", "--device", "cpu", "--quiet"]


def visit(ranks: Ranks, report: Report) -> float:
    """Sequences per second of the sweet spot, by autotune's own ranks."""
    assert report.sweet_spot is not None
    row = report.candidates[report.sweet_spot.candidate]
    known = row.model_dump(include={"micro_batches", "micro_batch_size", "schedule", "virtual_stages"})
    plan = Prepare(sequences=row.sequences, **known)
    workload = WorkloadConfig(**{name: value for name, value in asdict(report.workload).items() if value is not None})
    found = measure_candidate(ranks, workload, plan, row.prediction.step_time_s, STEPS, lambda *_: True)
    assert isinstance(found, Measurement), found
    return found.throughput_seq_s


def torchrun(folder: str, stages: int) -> float:
    """What the script says of itself."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(stages)]
    local = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [*command, "pipeline.py"], cwd=folder, check=True, capture_output=True, text=True, env=local
    ).stdout
    found = re.search(r"([\d.]+) sequences/s", said)
    assert found is not None, said
    return float(found[1])


def one_round(stages: int) -> tuple[float, float]:
    """How far the script is from the report, and from the visits around it."""
    with tempfile.TemporaryDirectory() as folder:
        tune = [sys.executable, "-m", "autotune", "run", "--stages", str(stages), *WORKLOAD]
        subprocess.run(tune, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = read_report(Path(folder, "report.json"))
        assert report.sweet_spot is not None
        Path(folder, "pipeline.py").write_text(export(report, "torch").text)
        with Ranks(stages, "cpu") as ranks:
            before = visit(ranks, report)
            script = torchrun(folder, stages)
            after = visit(ranks, report)
    return script / report.sweet_spot.throughput_seq_s - 1, script / mean((before, after)) - 1


def main() -> None:
    """Two and four ranks, which share this machine's cores."""
    for stages in (2, 4):
        found = [one_round(stages) for _ in range(ROUNDS)]
        for told, off in zip(("the report", "visits right before and after"), zip(*found, strict=True), strict=True):
            print(
                f"{stages} ranks: script against {told}: {', '.join(f'{one:+.1%}' for one in off)};"
                f" median {median(off):+.1%} (goal within 10 %)",
                flush=True,
            )


if __name__ == "__main__":
    main()
