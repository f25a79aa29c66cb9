"""kill -9 of the controller at random moments: every restart resumes, nothing finished is lost or repeated."""

import random
import tempfile
from pathlib import Path

from tests.killing import PHASES, Killed, finish, kill_at_random, kill_in

KILLS = 20


def main() -> None:
    """One study of many candidates, killed over and over, then left to end."""
    with tempfile.TemporaryDirectory() as folder:
        moments = random.Random(0)
        history: list[Killed] = [kill_at_random(Path(folder), moments) for _ in range(KILLS)]
        for number, killed in enumerate(history):
            print(f"kill {number + 1:2} after {killed.after_s:4.1f} s: {len(killed.finished)} trials finished")
        trials, candidates = finish(Path(folder), history)
        print(f"the last run ended with {trials} trials for {candidates} candidates: none lost, none repeated")
    for phase in PHASES:
        with tempfile.TemporaryDirectory() as folder:
            moments = random.Random(1)
            history = [kill_in(phase, Path(folder), moments) for _ in range(KILLS)]
            kept = history if phase != "profiling" else history[-1:]
            trials, candidates = finish(Path(folder), kept)
            print(
                f"{KILLS} kills during {phase}, after {min(one.after_s for one in history):.1f} to"
                f" {max(one.after_s for one in history):.1f} s: no process and no file was left, all was readable, the"
                f" last run ended with {trials} trials for {candidates} candidates",
                flush=True,
            )


if __name__ == "__main__":
    main()
