"""A scripted machine for tests: steps as long as predicted, times whatever the test says."""

import random

from autotune.outcome import Failure, Measurement
from autotune.predict.predict import candidates_for, predict
from autotune.profile.record import Profile
from autotune.search.prospects import Goal
from autotune.search.search import Limits, Search
from autotune.search.study import Study

ROWS = [{"micro_batch_size": b, "t_f": 0.2 + 0.1 * b, "t_bw": 0.4 + 0.2 * b} for b in (1, 2, 4, 8, 16, 32, 64)]
MEMORY = [{"micro_batch_size": b, "activation_bytes": b * 2**20} for b in (1, 64)]
PROFILE = Profile.model_validate({"stages": [{"time_s": ROWS, "memory": MEMORY}] * 4})
CANDIDATES = candidates_for((1, 2, 4, 8, 16, 32, 64), ("1F1B",), (1,), 4, 48, 64)[0]
PREDICTIONS = [predict(PROFILE, candidate, None) for candidate in CANDIDATES]
BEST = max(CANDIDATES, key=lambda c: PREDICTIONS[CANDIDATES.index(c)].throughput_seq_s).micro_batches


class Machine:
    """Runs a candidate in ``factor(m)`` times its predicted step, times ``pace(steps so far)``, with relative noise."""

    def __init__(self, factor=lambda m: 1.0, fails=(), noise=0.0, pace=lambda step: 1.0, seed=0, dies_at=None):
        self.factor, self.fails, self.noise, self.pace = factor, fails, noise, pace
        self.random, self.asked, self.steps, self.dies_at = random.Random(seed), [], 0, dies_at

    def __call__(self, candidate, prediction, steps, keep_going):
        self.asked.append(candidate.micro_batches)
        if candidate.micro_batches in self.fails:
            return Failure(kind="out_of_memory", rank=1, message="no memory")
        times = []
        for number in range(steps):
            self.steps += 1
            if self.steps == self.dies_at:
                raise KeyboardInterrupt
            times.append(self.seconds(candidate, prediction))
            if not keep_going(number, times[-1]):
                break
        peaks = prediction.peak_memory_bytes
        return Measurement.of(tuple(times), candidate.sequences, 1, peak_memory_bytes=peaks, pruned=len(times) < steps)

    def seconds(self, candidate, prediction):
        """How long the candidate's next step takes."""
        usual = prediction.step_time_s * self.factor(candidate.micro_batches) * self.pace(self.steps)
        return usual * self.random.lognormvariate(0.0, self.noise)


def make_search(
    tmp_path, machine, fresh=False, allowed=None, goal=None, identity=None, name="scripted", study=None, **options
):
    """A search over all candidates; ``saved`` and ``warned`` hold what it told. ``study``: another than a local one."""
    limits = Limits(**{key: options.pop(key) for key in ("budget_s", "trials", "exhaustive") if key in options})
    saved, warned = [], []
    found = Search(
        candidates=CANDIDATES,
        predictions=PREDICTIONS,
        allowed=list(range(len(CANDIDATES))) if allowed is None else allowed,
        study=study or Study(tmp_path / "state", name, CANDIDATES, fresh, identity),
        measure=machine,
        limits=limits,
        on_progress=lambda text: None,
        on_outcome=lambda search: saved.append(dict(search.outcomes)),
        on_warning=warned.append,
        goal=goal or Goal(),
        **options,
    )
    found.saved, found.warned = saved, warned
    return found


def search(tmp_path, machine, **options):
    """The same, run to its end."""
    found = make_search(tmp_path, machine, **options)
    found.run()
    return found
