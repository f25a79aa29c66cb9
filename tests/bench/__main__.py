"""Runs the parts of the benchmark that are named, or all of them: ``python -m tests.bench published speed``."""

import sys
from importlib import import_module

PARTS = {
    "defaults": "which m and schedule of the default workload fit on GPUs, on paper",
    "published": "bubble rates and throughput printed in a paper, against the simulator's",
    "backtest": "steps, memory and sizes on paper, by plan and predict, against published runs",
    "speed": "what a simulated action costs, against a plain loop and against torch's own dry run",
    "fit": "what autotune fit says of published runs that it was not given",
    "far": "what it costs to predict 64 to 1024 ranks; stages on paper against measured ones",
    "replay": "predictions against real ranks that wait as long as a recorded stage computed",
    "timeline": "when actions really begin, against when they were predicted to, on ranks that wait",
    "commands": "training scripts under their launchers, tuned by their commands, against measuring every m",
    "real": "predictions against real runs on this machine",
    "models": "a user's models here: gradients, steps and memory against predictions; the cut; recomputation",
    "hosts": "predictions against real runs on two hosts, over a fast cable and a slow one",
    "simulated": "the search on simulated machines, whose truth is known",
    "search": "what the search's pick loses and what it costs, against measuring every candidate; other samplers",
    "overhead": "what of a run is neither profiling nor a pipeline step",
    "kill": "kill -9 of the controller, at random moments and in each phase of a run",
    "faults": "ranks that die, hang or fail: what becomes of them, and how long recovery takes",
    "page": "how large the HTML page of a large report is, and how long a browser takes to open it",
    "script": "the exported script under torchrun, against the throughput of the report",
    "check": "regressions of 5 % that autotune check finds, and false alarms between runs of the same thing",
    "exports FOLDER": "exports into a folder of real config files: values, comments, lines, files of other launchers",
    "disturbed": "a busy core during a third of the run",
}


def run(names: list[str]) -> None:
    """Runs ``names`` in order; each part is the module of that name, with a function ``main``.

    What follows ``simulated`` or ``exports`` are its own options.
    """
    if names[:1] in (["simulated"], ["exports"]):
        import_module(f"tests.bench.{names[0]}").main(names[1:])
        return
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        listed = "\n".join(f"  {name:14} {what}" for name, what in PARTS.items())
        sys.exit(f"there is no part {unknown[0]!r}; the parts are\n{listed}")
    for name in names or [part for part in PARTS if " " not in part]:
        print(f"\n=== {name}: {PARTS[name]} ===", flush=True)
        import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    run(sys.argv[1:])
