"""Whole runs that meet a fault, in profiling or in a trial: each ends with the right sweet spot."""

import shutil

import pytest

from autotune.config import load_config
from autotune.errors import DeviceError, MemoryLimitError
from autotune.events import Silent
from autotune.pipeline.control.ranks import RankFailure, Ranks
from autotune.profile.measure import Measurer
from autotune.records.failure import Failure
from autotune.report.load import read_report
from autotune.tune import profile_and_search
from autotune.tuning.job import prepare_job
from tests.pipeline.faults import FAULTS, faulty_rank
from tests.pipeline.test_faults import EXPECTED, LIMIT, P

FLAGS = {"layers": 6, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "device": "cpu", "stages": P}
FLAGS |= {"batch": 16, "micro_batches": [1, 4, 8], "exhaustive": True, "memory_limit": LIMIT}
BAD = 4  # sequences, where m = 4
ACCIDENTS = ("SIGKILL", "SIGSEGV", "SIGSTOP", "exit")
IN_PROFILING = (*ACCIDENTS, "stuck receive", "exception in forward", "exception in backward", "exception in optimizer")
"""All but those that profiling takes as an answer (out of memory: smaller sizes only) or does not see (NaN)."""
pytestmark = [pytest.mark.slow, pytest.mark.alone]  # the winner is among the fastest that ran
ONCE = [*((fault, "a trial") for fault in ACCIDENTS), *((fault, "profiling") for fault in IN_PROFILING)]


def job_in(folder, ranks=None, **more):
    """A job whose warnings are kept in ``job.warnings``."""
    flags = FLAGS | {"out": folder / "report.json", "state_dir": folder / "state"} | more
    job = prepare_job(load_config(None, flags), Silent())
    if ranks is not None:
        job.backend.live = Ranks(P, "cpu", ranks, LIMIT)
    return job


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """What a healthy run leaves, but for its study."""
    folder = tmp_path_factory.mktemp("healthy")
    profile_and_search(job_in(folder))
    (folder / "state" / "study.db").unlink()
    return folder / "state"


def is_best(report):
    """Whether the sweet spot is the fastest that ran, or as good."""
    rates = {index: row.measurement.throughput_seq_s for index, row in enumerate(report.candidates) if row.measurement}
    return rates[report.sweet_spot.candidate] >= 0.8 * max(rates.values())


@pytest.mark.parametrize(("number", "fault"), list(enumerate(FAULTS)), ids=FAULTS)
def test_a_fault_in_a_trial(profiled, tmp_path, number, fault):
    """Of one candidate, whenever it is tried; the rank varies."""
    shutil.copytree(profiled, tmp_path / "state")
    profile_and_search(job_in(tmp_path, faulty_rank(fault, number % P, BAD)))
    report = read_report(tmp_path / "report.json")
    assert report.status == "complete"
    failed = [row for row in report.candidates if row.failure]
    assert [row.micro_batch_size for row in failed] == [BAD]
    assert failed[0].failure.kind == EXPECTED[fault][0]
    assert is_best(report)
    assert report.candidates[report.sweet_spot.candidate].micro_batch_size != BAD


@pytest.mark.parametrize(("number", "fault", "place"), [(n, *one) for n, one in enumerate(ONCE)], ids=map(str, ONCE))
def test_an_accident_is_no_candidates_fault(profiled, tmp_path, number, fault, place):
    """It happens once, in profiling or in a trial: nothing is missing in the end, and the accident is told."""
    if place == "a trial":
        shutil.copytree(profiled, tmp_path / "state")
    report = profile_and_search(job_in(tmp_path, faulty_rank(fault, number % P, BAD, tmp_path / "happened")))
    assert (tmp_path / "happened").exists()
    assert all(row.measurement for row in report.candidates)
    assert is_best(report)
    begun = (
        "profiling restarted its ranks and retries"
        if place == "profiling"
        else "m = 4 1F1B failed and may be retried once"
    )
    (told,) = [text for text in report.warnings if text.startswith(begun)]
    assert f"rank {number % P}" in told
    assert EXPECTED[fault][2] in told


@pytest.mark.parametrize("fault", ["exception in forward", "exception in backward", "exception in optimizer"])
def test_what_goes_wrong_in_profiling_for_good_ends_the_run_in_words(tmp_path, fault):
    with pytest.raises(DeviceError) as caught:
        profile_and_search(job_in(tmp_path, faulty_rank(fault, 1, BAD)))
    assert "profiling failed: rank 1, " in str(caught.value)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_memory_that_runs_short_in_profiling_is_asked_for_once_more(tmp_path, monkeypatch, times):
    """A heap falls into pieces, so a size that fitted may fit no longer; on fresh ranks it does."""
    short, time_round = ["rank 1, timing a stage: no memory"] * times, Measurer.round

    def round_short_of_memory(measurer, *arguments):
        if short:
            raise RankFailure(Failure(kind="out_of_memory", rank=1, message=short.pop()))
        return time_round(measurer, *arguments)

    monkeypatch.setattr(Measurer, "round", round_short_of_memory)
    job = job_in(tmp_path)
    if times == 2:
        with pytest.raises(
            MemoryLimitError, match="profiling ran out of memory: rank 1, timing a stage: no memory; use"
        ):
            profile_and_search(job)
        return
    assert is_best(profile_and_search(job))
    assert "profiling restarted its ranks and retries: rank 1, timing a stage: no memory" in job.warnings
