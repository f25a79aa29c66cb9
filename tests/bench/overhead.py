"""Of the wall time of the main job: what is neither a profiling pass nor a pipeline step."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autotune.report.load import read_report

RUNS = 3


def main() -> None:
    """Runs ``autotune run --layers 48 --stages 4`` from nothing, a few times."""
    shares = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            command = [sys.executable, "-m", "autotune", "run", "--layers", "48", "--stages", "4", "--quiet"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            wall = time.monotonic() - begun
            found = read_report(Path(folder, "report.json")).search
        rest = wall - found.profiling_s - found.steps_s
        shares.append(rest / wall)
        print(
            f"wall {wall:.1f} s = profiling {found.profiling_s:.1f} s + {found.real_steps} steps {found.steps_s:.1f} s"
            f" + {rest:.1f} s of imports, processes, Optuna, reports = {rest / wall:.1%} (goal 15 %)"
        )


if __name__ == "__main__":
    main()
