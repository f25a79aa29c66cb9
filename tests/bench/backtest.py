"""What is predicted on paper, against published runs: by ``plan`` (no times given) and ``predict`` (times given).

``python -m tests.bench fit`` is the same for ``fit`` (two runs given).
"""

from collections.abc import Sequence
from math import exp, log
from statistics import median

import numpy as np
from scipy.optimize import least_squares

from autotune.plan.roofline import FITTED, Constants
from tests.published.extrapolations import coverage, extrapolations, sweeps
from tests.published.planned import Case, Result, korthikanti, megatron_sc21, regret, results, run, zero_bubble
from tests.published.zero_bubble import prediction_of, throughputs

FREE = ("products", "last_round", "launch_s", "score_passes", "passes", "collective_s")
PRIOR = 0.5  # of the logarithm of each constant, about the shipped one
SIGMA = 0.03  # of a step's logarithm


def line(name: str, errors: Sequence[float], covered: float) -> None:
    """Prints one row."""
    sizes = sorted(abs(exp(error) - 1) for error in errors)
    print(f"  {name:32} {len(sizes):4} {median(sizes):8.1%} {sizes[-1]:8.1%} {covered:8.0%}", flush=True)


def head(title: str) -> None:
    print(f"{title}\n  {'':32} runs   median    worst  covered")


def summarised(name: str, found: Sequence[Result]) -> None:
    line(name, [one.error for one in found], sum(one.is_covered for one in found) / len(found))


def papers(found: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each paper."""
    grouped: dict[str, list[Result]] = {}
    for one in found:
        grouped.setdefault(one.case.paper, []).append(one)
    return grouped


def fitted(cases: Sequence[Case]) -> Constants:
    """Constants that fit these cases, each near the shipped one as far as they do not tell."""
    settled = [with_best_size(case) for case in cases]

    def residuals(shift: np.ndarray) -> list[float]:
        tried = shifted(shift)
        return [run(case, tried).error / SIGMA for case in settled] + list(shift / PRIOR)

    return shifted(least_squares(residuals, np.zeros(len(FREE)), diff_step=1e-2, max_nfev=8).x)


def shifted(shift: Sequence[float]) -> Constants:
    return FITTED._replace(**{name: getattr(FITTED, name) * exp(by) for name, by in zip(FREE, shift, strict=True)})


def with_best_size(case: Case) -> Case:
    """The case with one micro-batch size, the quickest by the shipped constants."""
    times = {b: run(case._replace(sizes=(b,))).prediction.step_time_s for b in case.sizes}
    return case._replace(sizes=(min(times, key=lambda b: times[b]),))


def held_out() -> None:
    """Each paper by constants that were fitted to the others alone."""
    head("plan, each paper by constants fitted without it")
    groups = {"Narayanan et al.": megatron_sc21(), "Korthikanti et al.": korthikanti(), "Qi et al.": zero_bubble()}
    for name, cases in groups.items():
        constants = fitted([case for other, more in groups.items() if other != name for case in more])
        summarised(name, [run(case, constants) for case in cases])


def peaks() -> None:
    """Memory where a paper prints it."""
    found = [one for one in results() if one.case.peak_gb]
    print("peak memory of the fullest rank: printed (GB or GiB, neither says), planned (GB)")
    for one in found:
        planned = max(one.prediction.peak_memory_bytes or (0,)) / 1e9
        off = planned / (one.case.peak_gb or planned) - 1
        print(f"  {one.case.name:32} {one.case.peak_gb:6.1f} {planned:6.1f} {off:+7.1%}")


def sizes() -> None:
    """What the size that plan picks really loses."""
    losses = {sweep.name: regret(sweep) for sweep in sweeps()}
    print("the micro-batch size that plan picks: how much longer its step really took than the best one's")
    for name, loss in losses.items():
        print(f"  {name:50} {loss:7.1%}")
    good = sum(loss <= 0.02 for loss in losses.values())
    print(f"  within 2 % in {good} of {len(losses)} sweeps; in the mean {sum(losses.values()) / len(losses):.1%}")


def main() -> None:
    """Every table."""
    head("plan, no times given: A100, constants fitted to the first three")
    for name, found in papers(results()).items():
        summarised(name, found)
    summarised("all", results())
    held_out()
    peaks()
    sizes()
    head("predict, stage times given (Qi et al.; without what they leave out)")
    rows = [*throughputs("throughput_memory", "1F1B"), *throughputs("small_m", "1F1B")]
    pairs = [(prediction_of(row), row.step) for row in rows]
    errors = [log(one.step_time_s / real) for one, real in pairs]
    line("1F1B", errors, sum(one.step_time_low_s <= real <= one.step_time_high_s for one, real in pairs) / len(pairs))
    head("predict, beyond the sizes that were timed (BLOOM, Hagemann et al.)")
    far = extrapolations()
    line("one or two sizes timed", [log(one.predicted_s / one.step_s) for one in far], coverage(far))
