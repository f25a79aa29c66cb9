"""``autotune run --dry-run``: what a run would cost, from searches on simulated machines. Nothing runs but a look at
the devices."""

from collections.abc import Mapping
from statistics import mean
from typing import NamedTuple

from autotune.backend.dry_run import Simulated
from autotune.config import Config
from autotune.errors import UsageError
from autotune.events import Events, Silent
from autotune.records.exclusion import Exclusion
from autotune.records.forecast import Forecast
from autotune.records.prediction import Candidate, Prediction
from autotune.search.belief.prior import STEP_NOISE
from autotune.search.goal import Limits, exhaustive_seconds
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.sampler import check_sampler
from autotune.search.study.study import MemoryStudy
from autotune.tuning.findings import Findings, foresee, goal_of
from autotune.tuning.job import prepared

PROFILING_STEPS = 7  # a profile takes about as long as so many steps of the largest micro-batch
STARTING_S = 8.0  # for torch, the ranks and the stages
SEARCHES = 3


class Cost(NamedTuple):
    """What a search takes: trials, real steps with the untimed first ones, seconds in these steps."""

    trials: float
    steps: float
    seconds: float


def forecast(config: Config, events: Events) -> Forecast:
    """Return the expected cost of ``tune`` with the same config. Starts no rank and writes nothing."""
    check_sampler(config.sampler)
    if config.rendezvous is not None:
        raise UsageError("--dry-run looks at this host alone; leave --rendezvous out")
    with prepared(config, events) as job:
        job.backend = machine = Simulated(job.backend, job.backend.on_paper(job.needs), STEP_NOISE)
        return cost_on(machine, foresee(job))


def cost_on(machine: Simulated, found: Findings) -> Forecast:
    """Return what the job would cost on such machines."""
    job, config = found.job, found.job.config
    of_candidate = dict(zip(job.candidates, found.predictions, strict=True))
    reasons = {c: reason for c, reason in zip(job.candidates, found.excluded, strict=True) if reason is not None}
    cost = expected_cost(machine, of_candidate, reasons, config)
    steps_s = cost.seconds if config.budget is None else min(config.budget, cost.seconds)
    profiling_s = 0.0
    if machine.paper.basis == "arithmetic":
        profiling_s = len(job.needs) * PROFILING_STEPS * max(one.step_time_s for one in found.predictions)
    exhaustive_s = exhaustive_seconds([one.step_time_s for c, one in of_candidate.items() if c not in reasons])
    return Forecast(
        basis=machine.paper.basis,
        ranks=job.devices,
        candidates=len(job.candidates),
        excluded=len(reasons),
        trials=cost.trials,
        real_steps=cost.steps,
        starting_s=STARTING_S,
        profiling_s=profiling_s,
        steps_s=steps_s,
        device_s=job.devices * (profiling_s + steps_s),
        exhaustive_device_s=job.devices * (profiling_s + exhaustive_s),
    )


def expected_cost(
    machine: Simulated,
    predictions: Mapping[Candidate, Prediction],
    excluded: Mapping[Candidate, Exclusion],
    config: Config,
) -> Cost:
    """Return the mean cost of a few searches on simulated machines, each in a study that is kept in memory alone."""
    costs = []
    for seed in range(SEARCHES):
        machine.restart(seed)
        runner = Runner(
            state=SearchState(dict(predictions), dict(excluded), goal_of(config)),
            study=MemoryStudy(list(predictions)),
            measure=machine.measure,
            limits=Limits(None, config.trials, config.exhaustive),
            events=Silent(),
            on_outcome=lambda runner: None,
            sampler=config.sampler,
            seed=seed,
            clock=lambda: machine.busy_s,
        )
        runner.run()
        costs.append(Cost(runner.state.trials, runner.state.real_steps, machine.busy_s))
    return Cost(*(mean(part) for part in zip(*costs, strict=True)))
