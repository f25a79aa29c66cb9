"""Reports of searches on the scripted machine, put together as a real run's are."""

from types import SimpleNamespace

from autotune.config import Config
from autotune.records.exclusion import Exclusion, ExclusionReason
from autotune.records.job.environment import Environment
from autotune.records.job.workload import WorkloadFacts
from autotune.tuning.findings import Findings
from tests.search.machine import CANDIDATES, PREDICTIONS, PROFILE

DOES_NOT_FIT = Exclusion(reason=ExclusionReason.MEMORY)


def report_of(found, limit=None, excluded=None, stop=None):
    """The report of a search that has ended, as ``autotune run`` would write it under the memory ``limit``."""
    job = SimpleNamespace(
        candidates=CANDIDATES,
        backend=SimpleNamespace(
            memory_limit=limit,
            environment=Environment(device="scripted"),
            facts=WorkloadFacts(layers=48, stages=4, batch=64, precision="fp32"),
            busy_s=100.0,
            training_command=None,
            prior_profile=None,
            ranks=4,
        ),
        config=Config(objective=found.state.goal.objective, tolerance=found.state.goal.tolerance),
        profiling_s=10.0,
        devices=4,
        warnings=[],
        command="autotune run",
    )
    outside = [DOES_NOT_FIT if candidate in found.state.excluded else None for candidate in CANDIDATES]
    findings = Findings(job, [PROFILE], False, PREDICTIONS, excluded or outside)
    return findings.report(found, "complete", stop)
