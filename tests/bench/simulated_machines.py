"""Simulated machines: candidates with predictions, the truth about them, and what goes on beside a search.

For one seed the truth, the path of the drift and the neighbour are the same whatever a search does.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.prediction import Candidate, Prediction, Uncertainty
from tests.search.machine import CANDIDATES, PREDICTIONS

WAYS = (("1F1B", 1, 0.02), ("Interleaved1F1B", 2, 0.01), ("InterleavedZeroBubble", 2, 0.0), ("ZBVZeroBubble", 2, 0.004))
COUNTS = (4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
PROFILED_S = 400.0  # a search begins after so long
GRID_S, DRIFT_LASTS_S = 20.0, 600.0  # of the drift's path: between its points, correlation time
LENGTH_S = {7: 500.0, 52: 1500.0}  # about how long a search takes, by the number of candidates


@dataclass(frozen=True)
class Scenario:
    """What a machine does. ``digit`` seeds its random numbers, as in the prototype.

    ``step_noise`` and ``visit_noise`` are relative, ``moment`` is how far moments differed while it was profiled;
    ``wrong``: the model is so many times as wrong as it says; ``odd``: one candidate is so far off beside that.
    ``neighbour``: candidates take 1.3 to 1.6 times as long for a third of the time; a weak one a third of that.
    ``memory``: the objective. ``ready``: seconds to make a candidate ready, in steps of the best. ``controllers``: how
    many share the study, each on a machine of its own.
    """

    name: str
    digit: int
    step_noise: float = 0.006
    visit_noise: float = 0.0
    moment: float = 0.0
    wrong: float = 1.0
    odd: float = 0.0
    drifts: bool = False
    neighbour: float = 0.0
    slow_visits: float = 0.0
    spikes: float = 0.0
    slower: float = 0.0
    jumps: bool = False
    memory: bool = False
    ready: float = 0.0
    controllers: int = 1


SCENARIOS = (
    Scenario("1 steady", 1),
    Scenario("2 steps and visits 6 % noisy", 2, step_noise=0.06, visit_noise=0.06, moment=0.06),
    Scenario("3 drift of 6 to 10 %", 3, moment=0.06, drifts=True),
    Scenario("4 a neighbour for a third of the time", 4, neighbour=1.0),
    Scenario("5 the model is twice as wrong as it says", 5, wrong=2.0),
    Scenario("6 one candidate is 20 % off", 6, odd=0.2),
    Scenario("7 one visit in ten is 1.5 times as slow", 7, slow_visits=0.1),
    Scenario("8 a weak neighbour", 8, neighbour=1 / 3),
    Scenario("9 all take 30 % longer than predicted", 9, slower=0.3),
    Scenario("A one step in twenty is 1.3 times as slow", 10, spikes=0.05),
    Scenario("B the speed changes for good", 11, jumps=True),
    Scenario("M memory is the objective", 12, memory=True),
    Scenario("N memory is the objective, noisy", 13, step_noise=0.03, visit_noise=0.03, moment=0.03, memory=True),
    Scenario("P making ready takes ten steps", 14, ready=10.0),
    Scenario("S two controllers share the study", 15, controllers=2),
)
BASIC = 7  # the first so many are those whose mean is compared with earlier searches


@cache
def case(size: int, moment: float, knows_memory: bool) -> dict[Candidate, Prediction]:
    """Return candidates with their predictions; where memory is not known the fastest wins."""
    if size == 7:
        pairs = [(candidate, one.step_time_s) for candidate, one in zip(CANDIDATES, PREDICTIONS, strict=True)]
    else:
        pairs = [
            (
                Candidate(
                    micro_batches=m, micro_batch_size=-(-64 // m), sequences=64, schedule=name, virtual_stages=stages
                ),
                33.0 * (1 + extra + 0.045 * (np.log2(m) - 3.5 + 8 * extra) ** 2),
            )
            for m in COUNTS
            for name, stages, extra in WAYS
        ]
    found = {}
    for candidate, step_s in pairs:
        unsure = Uncertainty(
            common=0.04,
            overhead=0.03 * (candidate.micro_batches * candidate.virtual_stages / 128) ** 0.5,
            placement=0.02 if size > 7 else 0.0,
            own=0.03,
            moment=moment,
        )
        peak = 2**30 + candidate.micro_batch_size * candidate.virtual_stages * 2**24
        change = {
            "step_time_s": step_s,
            "throughput_seq_s": candidate.sequences / step_s,
            "uncertainty": unsure,
            "peak_memory_bytes": (peak,) if knows_memory else None,
            "device_memory_bytes": None,
            "fits": None,
        }
        found[candidate] = PREDICTIONS[0].model_copy(update=change)
    return found


class SimulatedMachine:
    """One machine that a search times candidates on; ``now_s`` is its clock, ``timed`` and ``primed`` count steps."""

    def __init__(self, scenario: Scenario, size: int, seed: int, controller: int = 0) -> None:
        self.scenario = scenario
        self.predictions = case(size, scenario.moment, scenario.memory)
        self.candidates = list(self.predictions)
        self.row = {candidate: row for row, candidate in enumerate(self.candidates)}
        draw = np.random.default_rng([seed, scenario.digit, size])
        self.log_true = self._truth(draw)
        self.now_s = PROFILED_S
        self._disturb(draw, seed, LENGTH_S[size])
        self.random = np.random.default_rng([seed, scenario.digit, size, 1 + controller])
        self.offset = 0.2 * self.random.standard_normal() if controller else 0.0
        self.timed = self.primed = 0
        self.ready_s = scenario.ready * min(one.step_time_s for one in self.predictions.values())

    def _truth(self, draw: np.random.Generator) -> NDArray[np.float64]:
        """Draw the log step of every candidate."""
        unsure = [one.uncertainty for one in self.predictions.values()]
        z = draw.standard_normal(2)
        places: dict[tuple[int, bool], float] = {}
        shared = [
            one.common * z[0]
            + one.overhead * z[1]
            + one.placement * places.setdefault(candidate.placement, draw.standard_normal())
            for one, candidate in zip(unsure, self.candidates, strict=True)
        ]
        error = np.array(shared) + np.array([one.own for one in unsure]) * draw.standard_normal(len(unsure))
        steps = np.array([one.step_time_s for one in self.predictions.values()])
        if self.scenario.odd:  # one among the better half, faster or slower
            order = np.argsort(steps)[: max(4, len(steps) // 3)]
            error[draw.choice(order)] += self.scenario.odd * draw.choice([-1, 1])
        return np.asarray(np.log(steps) + self.scenario.wrong * error + self.scenario.slower)

    def _disturb(self, draw: np.random.Generator, seed: int, length_s: float) -> None:
        """Draw what goes on beside the search, and when."""
        scenario, count = self.scenario, len(self.candidates)
        self.slowdown = draw.uniform(1.3, 1.6, count)
        third = (PROFILED_S + length_s) / 3
        begin = third if seed % 2 else 2 * third
        self.busy = (begin, begin + third) if scenario.neighbour else (-1.0, -1.0)
        if 0 < scenario.neighbour < 1:
            self.slowdown = 1 + (self.slowdown - 1.15) * scenario.neighbour
        if scenario.jumps:  # for good, all alike
            self.slowdown = np.full(count, draw.choice([0.8, 1.25]))
            self.busy = (third + draw.random() * third, 1e9)
        sd = draw.uniform(0.06, 0.10) if scenario.drifts else 0.0
        keeps = np.exp(-GRID_S / DRIFT_LASTS_S)
        steps = draw.standard_normal(4000)
        path = [steps[0]]
        for step in steps[1:]:
            path.append(keeps * path[-1] + (1 - keeps**2) ** 0.5 * step)
        self.path = sd * np.array(path)

    def __call__(self, candidate: Candidate, expected_step_s: float, steps: int, keep_going: KeepGoing) -> Measurement:
        """Make a visit: an untimed step, then timed ones."""
        row = self.row[candidate]
        self.now_s += self.ready_s
        self.effect = self.scenario.visit_noise * self.random.standard_normal()
        if self.scenario.slow_visits and self.random.random() < self.scenario.slow_visits:
            self.effect += np.log(1.5)
        self.primed += 1
        self._step(row)
        times: list[float] = []
        for number in range(steps):
            self.timed += 1
            times.append(self._step(row))
            if not keep_going(number, times[-1]):
                break
        return Measurement.of(
            tuple(times), candidate.sequences, None, peak_memory_bytes=self.predictions[candidate].peak_memory_bytes
        )

    def _step(self, row: int) -> float:
        """Run a step; return its seconds."""
        scenario = self.scenario
        slow = float(np.log(self.slowdown[row])) if self.busy[0] <= self.now_s < self.busy[1] else 0.0
        if scenario.spikes and self.random.random() < scenario.spikes:
            slow += float(np.log(1.3))
        drift = self.path[min(len(self.path) - 1, int(self.now_s / GRID_S))]
        noise = scenario.step_noise * self.random.standard_normal()
        seconds = float(np.exp(self.log_true[row] + self.offset + drift + self.effect + slow + noise))
        self.now_s += seconds
        return seconds

    def regret(self, candidate: Candidate) -> float:
        """Return the share of the best throughput that the candidate loses."""
        rate = np.array([one.sequences for one in self.candidates]) / np.exp(self.log_true)
        return float(1 - rate[self.row[candidate]] / rate.max())

    def is_leanest(self, candidate: Candidate, tolerance: float) -> bool:
        """Return whether the candidate is fast enough, and none that is needs less memory."""
        enough = [one for one in self.candidates if self.regret(one) <= tolerance]
        peak = {one: max(self.predictions[one].peak_memory_bytes or (0,)) for one in enough}
        return candidate in peak and peak[candidate] == min(peak.values())
