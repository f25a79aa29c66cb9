"""Profiles of earlier runs, kept under the state directory by what they depend on."""

from pathlib import Path

from autotune.errors import InputError
from autotune.identity import digest_of_times
from autotune.records.base import STATE_DIR, not_written, write_record
from autotune.records.job.environment import Environment
from autotune.records.job.recompute import Recompute
from autotune.records.job.split import Split, show_split
from autotune.records.job.workload import AnyWorkload
from autotune.records.profile import Profile, read_profile


def profile_path(
    state_dir: Path,
    workload: AnyWorkload,
    environment: Environment,
    virtual_stages: int,
    split: Split | None = None,
    recompute: Recompute = Recompute.NONE,
) -> Path:
    """Return where the profile of this workload on this machine is kept, one for every number of stages per rank and
    for every cut and recomputation that was asked for."""
    more: list[object] = [virtual_stages, *([show_split(split)] if split else [])]
    more += [recompute] if recompute is not Recompute.NONE else []
    return state_dir / "profiles" / f"{digest_of_times(workload, environment, *more)}.json"


def cached_profile(path: Path, sizes: tuple[int, ...], split: bool, with_layers: bool = False) -> Profile | None:
    """Return the profile kept at ``path`` if it covers every micro-batch size, and the ``split`` backward and layers by
    themselves where asked for.

    An unreadable one counts as none.
    """
    try:
        profile = read_profile(path)
    except InputError:
        return None
    if with_layers and not profile.layers:
        return None
    rows = profile.stages[0].time_s
    wanted = {size for size in sizes if profile.no_room_for is None or size < profile.no_room_for}
    covers = wanted <= {row.micro_batch_size for row in rows}
    return profile if covers and (not split or all(row.t_b is not None for row in rows)) else None


def keep_profile(path: Path, profile: Profile) -> None:
    """Writes the profile where ``cached_profile`` finds it."""
    try:
        for folder in (path.parents[1], path.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise not_written(path, error, STATE_DIR) from None
    write_record(path, profile, STATE_DIR)
