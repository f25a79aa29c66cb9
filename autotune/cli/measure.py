"""The commands that start ranks: run, profile and worker. The heavy parts are imported inside them."""

import shlex
import sys
from pathlib import Path
from typing import Any

from autotune.cli.output import console, print_json, profile_template


def run(config: Path | None, dry_run: bool, json_output: bool, verbose: bool, quiet: bool, **settings: Any) -> None:
    """Profile, predict, confirm by real runs; print the table, write report.json, report.html and profile.json."""
    from autotune.config import load_config
    from autotune.pipeline.control.starting import start_early

    settled = load_config(config, settings)
    start_early(settled)
    from autotune.report.progress import Progress

    with Progress(console(stderr=True), quiet) as shown:
        from autotune.report.cost import forecast_lines
        from autotune.report.table import print_report
        from autotune.storage_url import without_credentials
        from autotune.tune import tune
        from autotune.tuning.forecast import forecast

        if dry_run:
            cost = forecast(settled, shown)
        else:
            report = tune(settled, shown, shlex.join(without_credentials(["autotune", *sys.argv[1:]])))
    if dry_run:
        print_json(cost) if json_output else sys.stdout.writelines(f"{line}\n" for line in forecast_lines(cost))
        return
    print_json(report) if json_output else print_report(report, console(), is_detailed=verbose)


def profile(config: Path | None, template: bool, json_output: bool, quiet: bool, **settings: Any) -> None:
    """Measure the stages and links only; write profile.json."""
    if template:
        sys.stdout.write(profile_template())
        return
    from autotune.config import load_config
    from autotune.report.progress import Progress
    from autotune.tune import profile_only

    settled = load_config(config, settings)
    with Progress(console(stderr=True), quiet) as shown:
        measured = profile_only(settled, shown)
    if json_output:
        print_json(measured)
    else:
        sys.stdout.write(f"{settled.out}: {len(measured.stages)} stages; autotune predict {settled.out} reads it\n")


def worker(rendezvous: str | None, secret_file: Path | None, host_timeout: str | None) -> None:
    """Keep one rank of a pipeline over several hosts, for the autotune run at the rendezvous."""
    from autotune.worker import work

    work(rendezvous, secret_file, host_timeout)
