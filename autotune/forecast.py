"""``autotune run --dry-run``: what a run would cost, before anything runs but a look at the devices."""

from typing import NamedTuple

from autotune.config import Config
from autotune.errors import UsageError
from autotune.findings import exclusions, goal_of
from autotune.job import Events, Job, prepare_job
from autotune.pipeline.control.process import matrix_rate
from autotune.predict.predict import predict
from autotune.profile.analytic import assumed_profile
from autotune.profile.cache import cached_profile, profile_path
from autotune.records.profile import Profile
from autotune.report.cost import Basis, Forecast
from autotune.search.dry_run import exhaustive_seconds, expected_cost
from autotune.search.goal import Limits
from autotune.search.study.sampler import check_sampler

PROFILING_STEPS = 7  # a profile takes about as long as so many steps of the largest micro-batch
STARTING_S = 8.0  # for torch, the ranks and the stages


class Basics(NamedTuple):
    """The profiles that a forecast is made from, one for every number of stages per rank, and where they are from."""

    profiles: dict[int, Profile]
    basis: Basis


def forecast(config: Config, events: Events) -> Forecast:
    """Return the expected cost of ``tune`` with the same config. Starts no rank and writes nothing."""
    check_sampler(config.sampler)
    if config.rendezvous is not None:
        raise UsageError("--dry-run looks at this host alone; leave --rendezvous out")
    job = prepare_job(config, events)
    known = basics(job)
    predictions = [predict(known.profiles[c.virtual_stages], c, job.memory_limit) for c in job.candidates]
    excluded = exclusions(job, list(known.profiles.values()), predictions)
    of_candidate = dict(zip(job.candidates, predictions, strict=True))
    reasons = {c: reason for c, reason in zip(job.candidates, excluded, strict=True) if reason is not None}
    limits = Limits(config.budget, config.trials, config.exhaustive)
    cost = expected_cost(of_candidate, reasons, limits, goal_of(config), config.sampler)
    steps_s = cost.seconds if config.budget is None else min(config.budget, cost.seconds)
    profiling_s = 0.0
    if known.basis == "arithmetic":
        profiling_s = len(job.cuts) * PROFILING_STEPS * max(one.step_time_s for one in predictions)
    exhaustive_s = exhaustive_seconds([one.step_time_s for c, one in of_candidate.items() if c not in reasons])
    ranks = job.ranks.ranks
    return Forecast(
        basis=known.basis,
        ranks=ranks,
        candidates=len(job.candidates),
        excluded=len(reasons),
        trials=cost.trials,
        real_steps=cost.steps,
        starting_s=STARTING_S,
        profiling_s=profiling_s,
        steps_s=steps_s,
        device_s=ranks * (profiling_s + steps_s),
        exhaustive_device_s=ranks * (profiling_s + exhaustive_s),
    )


def basics(job: Job) -> Basics:
    """Return the recorded profile, or those kept from an earlier run, or ones on paper."""
    if job.recorded is not None:
        return Basics(dict.fromkeys(job.cuts, job.recorded), "recorded profile")
    kept = {}
    for cut in job.cuts if not job.config.fresh else ():
        path = profile_path(job.config.state_dir, job.workload, job.environment, cut)
        if profile := cached_profile(path, job.sizes(cut), split=False):
            kept[cut] = profile
    if len(kept) == len(job.cuts):
        return Basics(kept, "profile of an earlier run")
    rate = matrix_rate(job.ranks.device, job.ranks.ranks, job.workload.precision)
    found = {cut: assumed_profile(job.workload, cut, job.sizes(cut), rate, job.environment) for cut in job.cuts}
    return Basics(found, "arithmetic")
