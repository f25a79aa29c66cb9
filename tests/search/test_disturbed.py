"""A busy neighbour during a third of a run: the pick must stay good. Many runs on a scripted machine with a clock."""

import random

import pytest

from autotune.records.prediction import Uncertainty
from autotune.search.belief.belief import Belief
from autotune.search.study.study import MemoryStudy
from tests.search.machine import CANDIDATES, PREDICTIONS, Machine, make_search

PROFILED_S, TRIALS_S = 400.0, 500.0  # a run is usually so long; a step takes 33 to 79 s
NOISE, MODEL_ERROR = 0.006, 0.03
SLOWER = (1.3, 1.6)  # a candidate takes so many times as long beside the neighbour, each its own


class Disturbed(Machine):
    """A machine with a busy neighbour from ``begin_s`` to ``end_s`` of a run that begins with profiling."""

    def __init__(self, true_s, begin_s, end_s, seed):
        super().__init__(noise=NOISE, seed=seed)
        self.true_s, self.busy, self.now_s = true_s, (begin_s, end_s), PROFILED_S
        self.slower = [self.random.uniform(*SLOWER) for _ in true_s]

    def seconds(self, candidate, expected_step_s):
        index = CANDIDATES.index(candidate)
        slower = self.slower[index] if self.busy[0] <= self.now_s < self.busy[1] else 1.0
        seconds = self.true_s[index] * slower * self.random.lognormvariate(0.0, self.noise)
        return seconds


def model(seed):
    """Predictions that are a little wrong, and how long the steps really take."""
    draw = random.Random(seed)
    sure = Uncertainty(common=0.04, overhead=0.03, placement=0.0, own=MODEL_ERROR)
    wrong = [prediction.model_copy(update={"uncertainty": sure}) for prediction in PREDICTIONS]
    return wrong, [one.step_time_s * draw.lognormvariate(0.0, MODEL_ERROR) for one in wrong]


@pytest.mark.parametrize("third", ["middle", "last"])
def test_the_pick_is_good_whatever_third_is_disturbed(third, tmp_path):
    length = (PROFILED_S + TRIALS_S) / 3
    begin = length if third == "middle" else 2 * length
    said = 0
    for seed in range(40):
        predictions, true_s = model(seed)
        machine = Disturbed(true_s, begin, begin + length, seed)
        found = make_search(tmp_path, machine, study=MemoryStudy(CANDIDATES), seed=seed)
        found.state.predictions = dict(zip(CANDIDATES, predictions, strict=True))
        found.belief = Belief(found.state.predictions)
        found.run()
        rates = [candidate.sequences / seconds for candidate, seconds in zip(CANDIDATES, true_s, strict=True)]
        assert rates[CANDIDATES.index(found.pick())] > 0.97 * max(rates), f"seed {seed}"
        said += any("the machine drifted" in text for text in found.warned)
    assert said > 10  # not every run is long enough to see it
