"""Every candidate of a saved profile, predicted: what ``autotune predict`` does."""

from collections.abc import Mapping
from typing import Any

from autotune.config import load_config
from autotune.errors import UsageError
from autotune.predict.predict import candidates_for, predict
from autotune.predict.record import Candidate, Prediction
from autotune.profile.record import Profile


def sweep(profile: Profile, flags: Mapping[str, Any]) -> tuple[list[tuple[Candidate, Prediction]], list[str]]:
    """Predicts every candidate that ``flags`` ask for, in the order of m; and says what the profile left out.

    Raises UsageError for flags that do not agree. Without a batch in flags or profile the default of 64 holds.
    """
    stages = len(profile.stages)
    known = {"layers": max(stages, 1), "stages": stages, "batch": profile.workload.batch}
    config = load_config(None, known | {name: value for name, value in flags.items() if value is not None})
    if config.stages != stages:
        raise UsageError(f"the profile has {stages} stages (given: {config.stages})")
    limit = config.memory_limit or profile.environment.memory_bytes
    if config.memory_limit is None and profile.environment.device == "cpu" and limit:
        limit //= stages
    found = candidates_for(config.counts(), config.schedule, stages, config.batch, config.micro_batch_size)
    return [(candidate, predict(profile, candidate, limit)) for candidate in found], missing(profile)


def missing(profile: Profile) -> list[str]:
    """What a hand-written profile leaves out, and what is taken for it."""
    gaps = {
        "links: messages take no time": not profile.links and len(profile.stages) > 1,
        "stages[].memory: memory is not predicted": not all(stage.memory for stage in profile.stages),
        "message_bytes: messages are empty": not profile.message_bytes and len(profile.stages) > 1,
        "workload.seq_len: no tokens/s": profile.workload.seq_len is None,
        "stages[].optimizer_s: the optimizer takes no time": not any(stage.optimizer_s for stage in profile.stages),
    }
    absent = [text for text, is_absent in gaps.items() if is_absent]
    return [f"the profile does not give {'; '.join(absent)}"] if absent else []
