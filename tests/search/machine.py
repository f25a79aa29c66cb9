"""A scripted machine for tests: steps as long as predicted, times whatever the test says."""

import random

from autotune.events import Remembered, Silent
from autotune.predict.predict import candidates_for, predict
from autotune.records.exclusion import Exclusion, ExclusionReason
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.profile import Profile
from autotune.search.goal import Goal, Limits
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.study import Study
from autotune.search.timing import wall_clock

ROWS = [{"micro_batch_size": b, "t_f": 0.2 + 0.1 * b, "t_bw": 0.4 + 0.2 * b} for b in (1, 2, 4, 8, 16, 32, 64)]
MEMORY = [{"micro_batch_size": b, "activation_bytes": b * 2**20} for b in (1, 64)]
# As measured: times that were typed are less sure.
PROFILE = Profile.model_validate({"environment": {"device": "cpu"}, "stages": [{"time_s": ROWS, "memory": MEMORY}] * 4})
CANDIDATES = candidates_for((1, 2, 4, 8, 16, 32, 64), ("1F1B",), (1,), 4, 48, 64)[0]
PREDICTIONS = [predict(PROFILE, candidate, None) for candidate in CANDIDATES]
BEST = max(CANDIDATES, key=lambda c: PREDICTIONS[CANDIDATES.index(c)].throughput_seq_s).micro_batches


class Machine:
    """Runs a candidate in ``factor(m)`` times its predicted step, times ``pace(steps so far)``, with relative noise."""

    def __init__(self, factor=lambda m: 1.0, fails=(), noise=0.0, pace=lambda step: 1.0, seed=0, dies_at=None):
        self.factor, self.fails, self.noise, self.pace = factor, fails, noise, pace
        self.random, self.asked, self.steps, self.dies_at = random.Random(seed), [], 0, dies_at
        self.now_s = 0.0

    def __call__(self, candidate, expected_step_s, steps, keep_going):
        self.asked.append(candidate.micro_batches)
        if candidate.micro_batches in self.fails:
            return Failure(kind="out_of_memory", rank=1, message="no memory")
        self.now_s += expected_step_s  # the untimed step
        times = []
        for number in range(steps):
            self.steps += 1
            if self.steps == self.dies_at:
                raise KeyboardInterrupt
            times.append(self.seconds(candidate, expected_step_s))
            self.now_s += times[-1]
            if not keep_going(number, times[-1]):
                break
        peaks = PREDICTIONS[CANDIDATES.index(candidate)].peak_memory_bytes
        return Measurement.of(tuple(times), candidate.sequences, 1, peak_memory_bytes=peaks, pruned=len(times) < steps)

    def seconds(self, candidate, expected_step_s):
        """How long the candidate's next step takes."""
        usual = expected_step_s * self.factor(candidate.micro_batches) * self.pace(self.steps)
        return usual * self.random.lognormvariate(0.0, self.noise)


def make_search(
    tmp_path, machine, fresh=False, allowed=None, goal=None, identity=None, name="scripted", study=None, **options
):
    """A search over all candidates, or over those in the rows ``allowed``; ``saved`` and ``warned`` hold what it told.

    ``study``: another than a local one; ``unsure``: the model's own error, for all; ``memory_limit``: bytes of a rank.
    """
    options.setdefault("clock", scripted_clock(machine))
    limits = Limits(**{key: options.pop(key) for key in ("budget_s", "trials", "exhaustive") if key in options})
    unsure = options.pop("unsure", None)
    excluded = {
        c: Exclusion(reason=ExclusionReason.MEMORY)
        for index, c in enumerate(CANDIDATES)
        if allowed is not None and index not in allowed
    }
    saved, warned = [], []
    found = Runner(
        state=SearchState(
            predictions=dict(zip(CANDIDATES, [less_sure(one, unsure) for one in PREDICTIONS], strict=True)),
            excluded=excluded,
            goal=goal or Goal(),
            memory_limit=options.pop("memory_limit", None),
        ),
        study=study or Study(tmp_path / "state", name, CANDIDATES, fresh, identity),
        measure=machine,
        limits=limits,
        events=Remembered(options.pop("events", Silent()), warned),
        on_outcome=lambda search: saved.append(dict(search.state.outcomes)),
        **options,
    )
    found.saved, found.warned = saved, warned
    return found


def scripted_clock(machine):
    """The wall clock, on which the machine's steps take as long as they say."""
    real = wall_clock()
    return lambda: real() + machine.now_s


def less_sure(prediction, own):
    """The prediction with another error of the candidate's own; None: as it is."""
    if own is None:
        return prediction
    return prediction.model_copy(update={"uncertainty": prediction.uncertainty.model_copy(update={"own": own})})


def search(tmp_path, machine, **options):
    """The same, run to its end."""
    found = make_search(tmp_path, machine, **options)
    found.run()
    return found
