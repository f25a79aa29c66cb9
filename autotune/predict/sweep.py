"""Every candidate of a saved profile, predicted: what ``autotune predict`` does."""

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.config import Config, load_config
from autotune.errors import UsageError
from autotune.predict.predict import candidates_for, predict
from autotune.records.prediction import Candidate, Prediction
from autotune.records.profile import Profile
from autotune.schedule_spec import SCHEDULES, default_schedule


def sweep(profile: Profile, flags: Mapping[str, Any]) -> tuple[list[tuple[Candidate, Prediction]], list[str]]:
    """Predict every candidate that ``flags`` ask for, in the order of m; and say what the profile left out.

    Raises UsageError for flags that do not agree. Without a batch in flags or profile the default of 64 holds.
    """
    config = settled(profile, flags)
    limit = limit_of(profile, config)
    found, notes = profile_candidates(profile, config, config.batch)
    rows = [(candidate, predict(profile, candidate, limit)) for candidate in found]
    return rows, missing(profile, found) + notes


def settled(profile: Profile, flags: Mapping[str, Any]) -> Config:
    """Return the config of flags, of which those that are not given follow from the profile."""
    known = {"layers": len(profile.stages), "stages": profile.ranks, "batch": profile.workload.batch}
    return load_config(None, known | {name: value for name, value in flags.items() if value is not None})


def limit_of(profile: Profile, config: Config) -> int | None:
    """Return bytes that a rank may use: as the user says, or else the profile."""
    return config.memory_limit or memory_per_rank(profile)


def memory_per_rank(profile: Profile) -> int | None:
    """Return bytes that a rank may use by the profile's own account: ranks on a CPU share the host's memory."""
    memory = profile.environment.memory_bytes
    return memory // profile.devices if memory and profile.environment.device == "cpu" else memory


def profile_candidates(profile: Profile, config: Config, batch: int) -> tuple[list[Candidate], list[str]]:
    """Return the candidates of ``config`` that run on the profile's own stages, and what is left out.

    What the config does not set follows from the profile. Raises UsageError where they do not agree.
    """
    v, given = profile.virtual_stages, config.model_fields_set
    if "virtual_stages" in given and config.virtual_stages != (v,):
        raise UsageError(f"--virtual-stages: the profile was measured with {v} (given: {config.virtual_stages[0]})")
    wanted = config.schedule if "schedule" in given else (default_schedule(v),)
    schedules = [name for name in wanted if v == 1 or not SCHEDULES[name].has_one_stage]
    if not schedules:
        raise UsageError(f"--schedule: the profile has {v} stages per rank, {' and '.join(wanted)} one")
    layers = len(profile.stages)
    replicas = profile.workload.replicas
    found, notes = candidates_for(
        config.counts(), schedules, (v,), profile.ranks, layers, batch, config.micro_batch_size, replicas=replicas
    )
    return [one.model_copy(update={"recompute": profile.recompute}) for one in found], notes


def missing(profile: Profile, candidates: Sequence[Candidate]) -> list[str]:
    """Return what a hand-written profile leaves out, and what is taken for it."""
    is_split = any(SCHEDULES[candidate.schedule].backward == "split" for candidate in candidates)
    gaps = {
        "stages[].time_s[].t_b and t_w: each is half of t_bw": is_split
        and not all(row.t_b is not None for stage in profile.stages for row in stage.time_s),
        "links: messages take no time": not profile.links and len(profile.stages) > 1,
        "stages[].memory: memory is not predicted": not all(stage.memory for stage in profile.stages),
        "message_bytes: messages are empty": not profile.message_bytes and len(profile.stages) > 1,
        "workload.seq_len: no tokens/s": profile.workload.seq_len is None,
        "stages[].optimizer_s: the optimizer takes no time": not any(stage.optimizer_s for stage in profile.stages),
    }
    absent = [text for text, is_absent in gaps.items() if is_absent]
    return [f"the profile does not give {'; '.join(absent)}"] if absent else []
