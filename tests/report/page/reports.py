"""Reports of each kind, for what their pages must say and must not."""

import json
from pathlib import Path

from typer.testing import CliRunner

from autotune.cli import app
from autotune.records.job.environment import COMMAND, Environment
from autotune.records.report import RecordedStep, Report
from autotune.report.load import read_report
from autotune.report.timeline.step import Request, simulate_step
from tests.report.export.reports import make_report
from tests.report.test_predicted import PROFILE

DATA = Path(__file__).parents[1] / "data"


def recorded_report(folder: Path) -> Report:
    """A run whose winner was recorded, 10 % slower than predicted."""
    report = make_report()
    path = folder / "plain.json"
    path.write_text(report.model_dump_json(by_alias=True))
    timeline = simulate_step(Request(path)).timeline
    ranks = range(timeline.schedule.ranks)
    found = RecordedStep(
        candidate=report.sweet_spot.candidate,
        step_time_s=1.2 * timeline.makespan,
        starts_s=tuple(tuple(1.1 * timeline.start(rank)) for rank in ranks),
        ends_s=tuple(tuple(1.1 * timeline.end(rank)) for rank in ranks),
    )
    return report.model_copy(update={"recorded_step": found})


def small_m_report() -> Report:
    """A run that m = 1 won."""
    report = read_report(DATA / "four_stages.json")
    assert report.sweet_spot.micro_batches == 1
    return report


def command_report() -> Report:
    """The run of a command of one's own: what is called prediction there was fitted to the steps."""
    return make_report().model_copy(update={"environment": Environment(device=COMMAND)})


def written(folder: Path, *words: object) -> Report:
    """The report that a command writes into ``folder``."""
    path = folder / "found.json"
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(path)])
    assert done.exit_code == 0, done.output or done.exception
    return read_report(path)


def predicted_report(folder: Path) -> Report:
    """A prediction from a table of times."""
    (folder / "profile.json").write_text(json.dumps(PROFILE))
    return written(folder, "predict", folder / "profile.json", "--memory-limit", "40GiB")


def fitted_report(folder: Path) -> Report:
    """What four runs made elsewhere teach."""
    steps = {16: 5.0, 32: 4.4, 64: 4.3, 128: 4.9}
    rows = [f"{m},{256 // m},{seconds}" for m, seconds in steps.items()]
    (folder / "runs.csv").write_text("\n".join(["micro_batches,micro_batch_size,step_time_s", *rows]))
    return written(folder, "fit", folder / "runs.csv", "--stages", 8, "--batch", 256)
