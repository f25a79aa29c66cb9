"""What a report says in words: the answer in a line and in a sentence, what it rests on, why the search stopped."""

from autotune.records.report import CandidateReport, Report
from autotune.records.verdict import Source
from autotune.report.cost import cost_text
from autotune.report.hosts import host_lines
from autotune.report.paper.predicted_cells import origin, show_step
from autotune.report.recommend import is_undecided, undecided_text
from autotune.report.units import counted, show_bytes, show_certainty, show_rate, show_rough, show_seconds, show_share
from autotune.report.workload import model_words, replicas_text, samples, utilisation_words


def does_not_fit(row: CandidateReport) -> bool:
    """Return True where a candidate that did not run is predicted not to fit."""
    return row.prediction.fits is False or row.over_limit_bytes is not None


def headline(report: Report) -> str:
    """Return what was tuned, on what."""
    work = report.workload
    model = f"{model_words(work)}, " if work.model or work.layers else ""
    stages = f"{model}{work.stages} stages, batch {work.batch}{replicas_text(work)}"
    if report.is_predicted and report.environment.device is None:
        return stages
    return f"{stages} on {report.environment.device}"


def short_answer(report: Report) -> str:
    """Return ``m = 8, b = 8, 1F1B: 102.3 sequences/s, 1.29x m = 1; 3.1 GiB of 8.0 GiB per rank; 93% sure``."""
    spot = report.sweet_spot
    assert spot is not None
    row = report.candidates[spot.candidate]
    rate = show_rough(report.replicas * spot.throughput_seq_s) if report.is_predicted else show_rate(row.rate)
    unit = f"{samples(report.workload)}/s"
    text = f"m = {spot.micro_batches}, b = {spot.micro_batch_size}, {row.schedule_text}: {rate} {unit}"
    if spot.speedup_over_naive is not None and spot.baseline is not None and spot.baseline != spot.candidate:
        text += f", {spot.speedup_over_naive:.2f}x m = {report.candidates[spot.baseline].micro_batches}"
    text += present_text(report)
    if row.peak is not None:
        limit = f" of {show_bytes(report.memory_limit_bytes)}" if report.memory_limit_bytes else ""
        text += f"; {show_bytes(row.peak)}{limit} per rank"
    if spot.certainty is not None:
        text += f"; {'undecided, ' if is_undecided(spot) else ''}{show_certainty(spot.certainty)} sure"
    return text


def short_conclusion(report: Report) -> str:
    """Return the answer with its reason, what must be settled before it is used, and why the search stopped."""
    if report.sweet_spot is None or report.is_predicted:
        return conclusion(report)
    stopped = f"{stopped_text(report)} -v, or autotune show, says more."
    return "\n".join([answer(report), *doubt_lines(report), *finding_lines(report), stopped])


def stopped_text(report: Report) -> str:
    """Return how many trials there were, how long the search took, and why it stopped."""
    search = report.search
    source = "; the profile is from an earlier run" if report.profile_from_earlier_run else ""
    others = "other controllers" if search.controller else "earlier runs"
    return (
        f"Stopped after {counted(search.trials, 'trial')} ({search.earlier_trials} more from {others}) and"
        f" {show_seconds(search.wall_s)}: {search.stopped_because}{source}."
    )


def conclusion(report: Report) -> str:
    """Return the sweet spot in one sentence, the ties, the knee, the Pareto front, why the search stopped."""
    if report.is_predicted:
        return predicted_conclusion(report)
    if report.sweet_spot is None:
        return f"No sweet spot: {report.search.stopped_because}."
    lines = (
        answer(report),
        *utilisation_words(report),
        *doubt_lines(report),
        *report.sweet_spot.ties,
        *knee_lines(report),
        *pareto_lines(report),
        *correctness_lines(report),
        *host_lines(report.profile),
        stopped_text(report),
        *certainty_lines(report),
    )
    return "\n".join(lines) + cost_text(report)


def predicted_conclusion(report: Report) -> str:
    """Return the best prediction and what it rests on."""
    if report.sweet_spot is None:
        why = "no candidate fits in the memory limit" if report.status == "infeasible" else "none was timed at its b"
        return f"No best prediction: {why}."
    lines = (
        predicted_answer(report),
        *report.sweet_spot.ties,
        *knee_lines(report),
        *pareto_lines(report),
        f"{origin(report).capitalize()}. autotune run confirms a prediction by real runs.",
        *certainty_lines(report),
    )
    return "\n".join(lines)


def predicted_answer(report: Report) -> str:
    """Return the best prediction, its step, the speed-up, how sure that is where it is not, and the reason."""
    spot = report.sweet_spot
    assert spot is not None
    row = report.candidates[spot.candidate]
    one = row.estimate or row.prediction
    spread = f"{show_step(one.step_time_low_s)} to {show_step(one.step_time_high_s)}"
    doubt = f"; {undecided_text(report)} ({show_certainty(spot.certainty or 0.0)} sure)" if is_undecided(spot) else ""
    return (
        f"Best prediction: m = {counted(spot.micro_batches, 'micro-batch', 'es')} of {spot.micro_batch_size} under"
        f" {row.schedule_text}, {show_rough(report.replicas * spot.throughput_seq_s)} {samples(report.workload)}/s,"
        f" a step of {show_step(one.step_time_s)} ({spread}){speedup_text(report)}, because {spot.reason}{doubt}."
    )


def answer(report: Report) -> str:
    """Return the sweet spot, its throughput, the speed-up, how sure that is where it is not, and the reason."""
    spot = report.sweet_spot
    assert spot is not None
    row = report.candidates[spot.candidate]
    pick = (
        f"m = {counted(spot.micro_batches, 'micro-batch', 'es')} of {spot.micro_batch_size} under"
        f" {row.schedule_text}, {show_rate(spot.throughput_seq_s)} {samples(report.workload)}/s{speedup_text(report)}"
        f"{present_text(report)}"
    )
    if not is_undecided(spot):
        return f"Sweet spot: {pick}, because {spot.reason}."
    sure = f" ({show_certainty(spot.certainty)} sure)" if spot.certainty is not None else ""
    return f"Sweet spot: {undecided_text(report)}{sure}; {pick}, is recommended because {spot.reason}."


def speedup_text(report: Report) -> str:
    """Return ``, 1.29x the naive m = 1``; where that did not run, what the speed-up is against, and why."""
    spot = report.sweet_spot
    if spot is None or spot.speedup_over_naive is None:
        return ""
    if spot.baseline == spot.candidate:
        return ", the naive m = 1 itself"
    times = f", {spot.speedup_over_naive:.2f}x"
    against = report.candidates[spot.baseline].micro_batches if spot.baseline is not None else 1
    if against == 1:
        return f"{times} the naive m = 1"
    if report.is_predicted:
        return f"{times} m = {against}"
    return f"{times} m = {against}, the smallest that ran ({why_no_naive(report)})"


def present_text(report: Report) -> str:
    """Return ``, 1.08x the present m = 8``; empty where it is not known what the user ran before."""
    spot = report.sweet_spot
    if spot is None or spot.present is None or spot.speedup_over_present is None:
        return ""
    if spot.present == spot.candidate:
        return ", as at present"
    return f", {spot.speedup_over_present:.2f}x the present m = {report.candidates[spot.present].micro_batches}"


def why_no_naive(report: Report) -> str:
    """Return why m = 1 is not what the speed-up is stated against."""
    naive = [row for row in report.candidates if row.micro_batches == 1]
    if not naive:
        return "m = 1 was no candidate"
    if any(row.failure for row in naive):
        return "m = 1 failed"
    return "m = 1 does not fit" if all(does_not_fit(row) for row in naive) else "m = 1 did not run"


def doubt_lines(report: Report) -> list[str]:
    """Return what must be settled before the sweet spot is used."""
    doubts = report.candidates[report.sweet_spot.candidate].doubts if report.sweet_spot else ()
    return [f"Do not use it before its doubts are settled: {', '.join(doubts)}."] if doubts else []


def finding_lines(report: Report) -> list[str]:
    """Return what is wrong with what the candidates compute."""
    return [f"Doubtful: {finding}." for finding in report.soundness.findings] if report.soundness else []


def correctness_lines(report: Report) -> list[str]:
    """Return ``Checked: loss and gradient norm of the first step agree within 2e-07 …``, or what is wrong."""
    found = report.soundness
    if found is None:
        return []
    if found.findings:
        return finding_lines(report)
    texts = []
    if found.loss_difference is not None and found.gradient_difference is not None:
        most = max(found.loss_difference, found.gradient_difference)
        pairs = f"{found.compared} comparison{'s' if found.compared > 1 else ''}"
        texts.append(f"loss and gradient norm of the first step agree within {most:.0e} ({pairs})")
    if found.growth_bytes is not None:
        texts.append("no step leaves memory behind")
    if found.peak_slope is not None:
        texts.append("the peak under 1F1B does not grow with m")
    if found.not_compared is not None:
        texts.append(f"not compared: {found.not_compared}")
    return [f"Checked: {'; '.join(texts)}."] if texts else []


def knee_lines(report: Report) -> list[str]:
    """Return ``Knee: m = 8 is the smallest m within 1% of the best under 1F1B; m = 4 loses 6.2%.``"""
    spot = report.sweet_spot
    if spot is None or spot.knee is None:
        return []
    sides = [
        f"m = {side.micro_batches} {loss_text(side.loss)}{not_run(report, side.source)}"
        for side in (spot.knee.fewer, spot.knee.more)
        if side is not None
    ]
    at, under = spot.knee.at, report.candidates[spot.candidate].schedule_text
    note = not_run(report, at.source)
    text = f"Knee: m = {at.micro_batches} is the smallest m within 1% of the best under {under}{note}"
    return ["; ".join([text, ", ".join(sides)] if sides else [text]) + "."]


def loss_text(loss: float) -> str:
    """Return ``loses 6.2%``, or ``is the best``."""
    return f"loses {show_share(loss)}" if loss else "is the best"


def not_run(report: Report, source: Source) -> str:
    """Return the note on a figure of a candidate that did not run."""
    return "" if source == "measured" else " (predicted)" if report.is_predicted else " (not run)"


def pareto_lines(report: Report) -> list[str]:
    """Return throughput against memory, the leanest first; nothing where one candidate is best in both."""
    points = report.search.pareto_front
    if len(points) < 2:
        return []
    shown = [
        f"{report.candidates[point.candidate].label} {show_rate(point.throughput_seq_s)}/s"
        f" {show_bytes(point.peak_memory_bytes)}{not_run(report, point.source)}"
        for point in points
    ]
    return [f"Less memory for less throughput: {', '.join(shown)}."]


def certainty_lines(report: Report) -> list[str]:
    """Return how sure the pick is; of a report without estimates, what its run stated of it."""
    spot, tolerance = report.sweet_spot, report.search.tolerance
    if spot is None or spot.certainty is None or tolerance is None:
        return []
    is_lean = report.search.objective == "memory"
    place = f"{'the leanest of those ' if is_lean else ''}within {show_share(tolerance, 0)} of the best"
    claim = f"he pick is {place} with a probability of {show_certainty(spot.certainty)}."
    has_estimates = report.is_predicted or any(row.estimate for row in report.candidates)
    return [f"T{claim}" if has_estimates else f"As that run stated it, t{claim}"]
