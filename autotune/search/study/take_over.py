"""Outcomes from elsewhere: earlier runs of the study, and the other controllers that share it."""

from collections.abc import Mapping, Sequence

from autotune.records.failure import Failure
from autotune.records.outcome import Measurement, Outcome
from autotune.records.prediction import Candidate
from autotune.search.belief.belief import Belief
from autotune.search.state import SearchState
from autotune.search.study.study import Study
from autotune.search.timing import Timing


def take_over(state: SearchState, belief: Belief, study: Study) -> None:
    """Take over what earlier runs of this study have stored, and other controllers; begin a new session."""
    timings = study.timings()
    state.session = 1 + max((one.session for one in timings if one.machine == state.here), default=-1)
    adopt(state, belief, study.finished(state.memory_limit), timings)


def catch_up(state: SearchState, belief: Belief, study: Study) -> bool:
    """Take over what other controllers have measured since, and free what dead ones were running; return whether there
    are new outcomes."""
    if not study.controller:
        return False
    study.recover()
    state.elsewhere = study.running_elsewhere()  # read first: one that ends now is in both, not in neither
    found = study.finished(state.memory_limit)
    known = {(one.machine, one.number) for one in state.timings}
    timings = [one for one in study.timings() if (one.machine, one.number) not in known]
    new = {candidate: outcome for candidate, outcome in found.items() if is_newer(state, candidate, outcome)}
    adopt(state, belief, new, [one for one in timings if one.machine != state.here])
    return bool(new)


def is_newer(state: SearchState, candidate: Candidate, outcome: Outcome) -> bool:
    """Return whether another controller's outcome says more than what is known of the candidate."""
    known = state.outcomes.get(candidate)
    is_open = known is None or candidate in state.second_chance
    return is_open or (isinstance(known, Failure) and isinstance(outcome, Measurement))


def adopt(state: SearchState, belief: Belief, outcomes: Mapping[Candidate, Outcome], timings: Sequence[Timing]) -> None:
    """Take over these outcomes and timings."""
    state.earlier_trials += len(outcomes)
    for candidate, outcome in outcomes.items():
        state.add(candidate, outcome)
        state.second_chance.discard(candidate)  # it has had that
    for timing in timings:
        belief.add(timing)
        state.add(timing.candidate, None, timing)
    predict_again(state, belief)


def predict_again(state: SearchState, belief: Belief) -> None:
    """Predict what has not run with what has."""
    for candidate, revision in belief.revisions().items():
        if candidate not in state.outcomes:
            state.last_predictions[candidate] = revision
