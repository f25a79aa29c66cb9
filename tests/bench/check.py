"""``autotune check``: is a true regression of 5 % found, and how often do runs of the same thing raise an alarm?"""

import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from math import log1p
from pathlib import Path
from statistics import NormalDist, mean, stdev

from autotune.records.base import write_record
from autotune.records.profile import Profile, StageProfile
from autotune.records.report import Report
from autotune.records.stage_costs import StageTime
from autotune.report.check.judge import SURE, check
from autotune.report.load import read_report

REPEATS = 20
SLOWER = 1.05
MAX_REGRESSION = 0.03
CONFIG = Path(__file__).parents[2] / "configs" / "ci.toml"


def tuned(*flags: str) -> Report:
    """The report of a run from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "autotune", "run", "--quiet", *flags]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return read_report(Path(folder, "report.json"))


def recorded(path: Path, factor: float) -> None:
    """Two stages whose forward takes 4 ms a sequence, times ``factor``; their backward twice that."""
    rows = tuple(
        StageTime(micro_batch_size=size, t_f=factor * (0.002 + 0.004 * size), t_bw=factor * (0.004 + 0.008 * size))
        for size in (1, 2, 4, 8, 16)
    )
    write_record(path, Profile(stages=(StageProfile(time_s=rows),) * 2, workload={"batch": 16}))  # type: ignore[arg-type]


def verdicts(what: str, pairs: list[tuple[Report, Report]], goal: str) -> None:
    """Compares each (new, baseline): how many alarms, how far throughputs were apart, what the check took for it."""
    found = [check([new], [old], MAX_REGRESSION) for new, old in pairs]
    rows = [one.comparisons[0] for one in found]
    changes = [row.change for row in rows]
    taken = mean(log1p(row.change_high) - log1p(row.change) for row in rows) / NormalDist().inv_cdf(SURE)
    counts = Counter(one.verdict for one in found)
    print(
        f"{what}: {counts['regression']} of {len(found)} are called a regression (goal {goal}); all verdicts"
        f" {dict(counts)}\n  throughput changed by {min(changes):+.1%} to {max(changes):+.1%}, standard deviation"
        f" {stdev(changes):.1%}, which the check took to be {taken:.1%}",
        flush=True,
    )


def main() -> None:
    """Repeats of each kind, a new run of both sides every time."""
    with tempfile.TemporaryDirectory() as name:
        usual, slower = Path(name, "usual.json"), Path(name, "slower.json")
        recorded(usual, 1.0)
        recorded(slower, SLOWER)
        flags = [("--device", "replay", "--profile", str(path)) for path in (slower, usual)]
        pairs = [(tuned(*flags[0]), tuned(*flags[1])) for _ in range(REPEATS)]
    verdicts(f"replay, stages {SLOWER - 1:.0%} slower", pairs, "19 of 20")
    verdicts("replay, identical", list(pairwise(usual for _, usual in pairs)), "at most 1 of 20")
    runs = [tuned("--config", str(CONFIG)) for _ in range(REPEATS + 1)]
    verdicts("computing ranks, identical", list(pairwise(runs)), "at most 1 of 20")
    several = check(runs[: REPEATS // 2], runs[REPEATS // 2 :], MAX_REGRESSION).comparisons[0]
    print(
        f"computing ranks, {REPEATS // 2} runs against {REPEATS - REPEATS // 2 + 1}: {several.verdict},"
        f" changed by {several.change_low:+.1%} to {several.change_high:+.1%}"
    )


if __name__ == "__main__":
    main()
