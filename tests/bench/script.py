"""A round trip: a run, the script that ``export --to torch`` makes of its report, and that script under torchrun."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from autotune.report.export.export import export
from autotune.report.record import read_report

ROUNDS = 5
WORKLOAD = ["--layers", "12", "--hidden", "96", "--seq-len", "64", "--vocab", "512", "--device", "cpu", "--quiet"]


def one_round(stages: int) -> tuple[float, float]:
    """Sequences per second, by the report and by the script, one right after the other."""
    with tempfile.TemporaryDirectory() as folder:
        tune = [sys.executable, "-m", "autotune", "run", "--stages", str(stages), *WORKLOAD]
        subprocess.run(tune, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = read_report(Path(folder, "report.json"))
        Path(folder, "pipeline.py").write_text(export(report, "torch").text)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(stages)]
        local = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        said = subprocess.run(
            [*torchrun, "pipeline.py"], cwd=folder, check=True, capture_output=True, text=True, env=local
        ).stdout
    found = re.search(r"([\d.]+) sequences/s", said)
    assert found is not None and report.sweet_spot is not None, said
    return report.sweet_spot.throughput_seq_s, float(found[1])


def main() -> None:
    """Two and four ranks, which share this machine's cores."""
    for stages in (2, 4):
        pairs = [one_round(stages) for _ in range(ROUNDS)]
        off = [script / told - 1 for told, script in pairs]
        print(
            f"{stages} ranks: script against report {', '.join(f'{one:+.1%}' for one in off)};"
            f" median {median(off):+.1%} (goal within 10 %)",
            flush=True,
        )


if __name__ == "__main__":
    main()
