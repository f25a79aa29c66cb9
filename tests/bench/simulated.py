"""The real search on simulated machines, whose truth is known: what its pick loses, what it costs, how true its claims
are. ``python -m tests.bench simulated --seeds 0:100 --candidates 52 --json``.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.storages import BaseStorage
from optuna.trial import Trial

from autotune.events import Silent
from autotune.records.prediction import Candidate
from autotune.search.choose import certainty
from autotune.search.goal import Goal, Limits
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.study import MemoryStudy
from tests.bench.simulated_machines import BASIC, PROFILED_S, SCENARIOS, Scenario, SimulatedMachine

LEAN = Goal("memory", 0.05)


@dataclass(frozen=True)
class Run:
    """One search: what its pick loses, the probability it claimed and whether it was right, and what it cost."""

    regret: float
    claimed: float
    is_right: bool
    timed: int
    primed: int
    device_s: float

    @property
    def steps(self) -> int:
        """Timed steps and untimed ones."""
        return self.timed + self.primed


def run_one(scenario: Scenario, size: int, seed: int, has_baseline: bool) -> Run:
    """Run the search once; where controllers share a study, the second joins when the first has ended."""
    goal = LEAN if scenario.memory else Goal()
    machines = [SimulatedMachine(scenario, size, seed, number) for number in range(scenario.controllers)]
    runner: Runner | None = None
    for number, machine in enumerate(machines):
        runner = search_on(machine, goal, seed, has_baseline, runner, None if number == len(machines) - 1 else 3)
    assert runner is not None
    state, winner = runner.state, runner.pick()
    assert winner is not None
    sure = certainty(runner.belief, winner, state)
    regret = machine.regret(winner)
    return Run(
        regret=max(0.0, regret - goal.tolerance) if scenario.memory else regret,
        claimed=sure.probability,
        is_right=machine.is_leanest(winner, goal.tolerance) if scenario.memory else regret <= goal.tolerance,
        timed=sum(one.timed for one in machines),
        primed=sum(one.primed for one in machines),
        device_s=sum(one.now_s - PROFILED_S for one in machines),
    )


class JoinedStudy(MemoryStudy):
    """A study in memory that several controllers use, one after the other."""

    def __init__(self, candidates: list[Candidate], storage: BaseStorage | None, controller: str) -> None:
        self.controller = controller
        super().__init__(candidates, storage)

    def begin(self, candidate: Candidate | None, memory_limit: int | None = None) -> tuple[Candidate, Trial] | None:
        begun = super().begin(candidate, memory_limit)
        assert begun is not None
        begun[1].set_user_attr("controller", self.controller)
        return begun


def search_on(
    machine: SimulatedMachine, goal: Goal, seed: int, has_baseline: bool, earlier: Runner | None, trials: int | None
) -> Runner:
    """Run a search to its end, in the study of an ``earlier`` one if there was one."""
    study = MemoryStudy(machine.candidates)
    if machine.scenario.controllers > 1:
        storage = earlier.study.storage if earlier and isinstance(earlier.study, MemoryStudy) else None
        study = JoinedStudy(machine.candidates, storage, "second" if earlier else "first")
    runner = Runner(
        state=SearchState(dict(machine.predictions), goal=goal),
        study=study,
        measure=machine,
        limits=Limits(trials=trials),
        events=Silent(),
        on_outcome=lambda runner: None,
        has_baseline=has_baseline,
        seed=seed,
        clock=lambda: machine.now_s,
    )
    runner.run()
    return runner


def summary(runs: Sequence[Run]) -> dict[str, float]:
    """Return the figures of one scenario; shares and probabilities as fractions."""
    regret = np.array([run.regret for run in runs])
    claimed = np.array([run.claimed for run in runs])
    right = np.array([run.is_right for run in runs], float)
    return {
        "regret": float(regret.mean()),
        "regret_error": float(regret.std() / len(regret) ** 0.5),
        "regret_over_1_percent": float((regret > 0.01).mean()),
        "regret_over_3_percent": float((regret > 0.03).mean()),
        "steps": float(np.mean([run.steps for run in runs])),
        "visits": float(np.mean([run.primed for run in runs])),
        "device_s": float(np.mean([run.device_s for run in runs])),
        "claimed": float(claimed.mean()),
        "right": float(right.mean()),
        "brier": float(((claimed - right) ** 2).mean()),
    }


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over scenarios of what they have in common."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "regret_error"}


def seeds_of(text: str) -> range:
    """Return the seeds of ``first:end``."""
    first, _, end = text.partition(":")
    return range(int(first), int(end))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench simulated", description=__doc__)
    parser.add_argument("--seeds", type=seeds_of, default=range(20), metavar="A:B")
    parser.add_argument("--candidates", type=int, choices=(7, 52), default=7)
    parser.add_argument("--scenarios", default="", help="first letters of those to run, as in 24M; default: all")
    parser.add_argument("--baseline", action="store_true", help="measure m = 1 in any case, as a real run does")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every scenario with every seed, and print what came of it."""
    options = parsed(arguments)
    found: dict[str, dict[str, float]] = {}
    for scenario in SCENARIOS:
        if options.scenarios and scenario.name[0] not in options.scenarios:
            continue
        found[scenario.name] = summary(
            [run_one(scenario, options.candidates, seed, options.baseline) for seed in options.seeds]
        )
        if not options.json:
            print(line(scenario.name, found[scenario.name]), flush=True)
    basic = [row for name, row in found.items() if name in {one.name for one in SCENARIOS[:BASIC]}]
    mean = mean_of(basic or list(found.values()))
    if options.json:
        document: dict[str, Any] = {
            "seeds": [options.seeds.start, options.seeds.stop],
            "candidates": options.candidates,
            "baseline": options.baseline,
            "scenarios": found,
            "mean": mean,
            "mean_of_all": mean_of(list(found.values())),
        }
        print(json.dumps(document, indent=2))
    else:
        print(line("mean of scenarios 1 to 7", mean))


def line(name: str, row: dict[str, float]) -> str:
    """Return one line of the table."""
    error = f" ±{row['regret_error']:.2%}" if "regret_error" in row else ""
    return (
        f"{name:42} regret {row['regret']:6.2%}{error}  over 1 % {row['regret_over_1_percent']:4.0%}"
        f"  steps {row['steps']:5.1f}  visits {row['visits']:5.1f}  device {row['device_s']:6.0f} s"
        f"  claimed {row['claimed']:4.0%}  right {row['right']:4.0%}  Brier {row['brier']:.3f}"
    )


if __name__ == "__main__":
    main()
