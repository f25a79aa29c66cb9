"""The check that real steps computed the same under every candidate, and released what they held. Arithmetic on
records.

::

    agreement   loss and gradient norm of the first step are those of the candidate with the fewest micro-batches
    growth      no step leaves memory behind
    peak slope  under 1F1B the peak grows with m by no more than the memory model says
    retries     no timed step waited for an allocator that had hardly room
"""

from collections.abc import Mapping, Sequence
from statistics import linear_regression

from autotune.records.correctness import Agreement, PeakSlope, Soundness
from autotune.records.job.workload import Precision
from autotune.records.profile import Profile, StageProfile
from autotune.records.report import CandidateReport
from autotune.report.units import show_bytes

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 4e-3, "fp16": 4e-3}
"""Relative difference that rounding explains. Seen for m up to 32 and millions of weights: 1e-7 in fp32, 6e-5 in bf16,
2e-6 in fp16. One rounding to bf16 is off by up to 4e-3; sums over many more tokens in fp32 by more than 1e-7."""
GROWTH_BYTES, GROWTH_BYTES_EACH = 16 * 1024, 1024
"""The bytes that a step may leave behind on a rank, and of each micro-batch. Seen of steps that keep nothing: 10 KiB
after the first timed one, then some hundred bytes, whatever the sizes."""
SLOPE_SHARE = 0.02
"""The share of the peak that the memory model may be off by. It is off by 0.1 % on the CPU."""
ALIKE = 0.1
"""Relative difference up to which a ratio is taken for the number of micro-batches."""

Rows = Sequence[CandidateReport]


def checked(
    rows: Rows, profile: Profile, precision: Precision | None, tolerance: float | None = None, draws: bool = False
) -> tuple[tuple[CandidateReport, ...], Soundness | None]:
    """Return the candidates with what is to be said of each, and of all together; None where nothing ran that computes.

    ``profile``: the one of one stage per rank, if candidates have several numbers of them. ``tolerance``: relative
    difference that is let pass, where it is not rounding alone. ``draws``: whether a forward draws random numbers; then
    no two candidates compute the same.
    """
    if not any(is_known(row) for row in rows):
        return tuple(rows), None
    tolerance = tolerance or TOLERANCE[precision or "fp32"]
    groups = comparable(rows, any(stage.batch_statistics for stage in profile.stages), draws)
    found = agreements(rows, groups)
    marked = tuple(
        row.model_copy(update={"agreement": found.get(index), "doubts": doubts(rows, index, found, tolerance)})
        for index, row in enumerate(rows)
    )
    slope = peak_slope(rows, profile)
    findings = (disagreement(rows, found, tolerance), leak(rows), steepness(slope), retried(rows))
    return marked, Soundness(
        compared=len(found),
        loss_difference=max((abs(one.loss) for one in found.values()), default=None),
        gradient_difference=max((abs(one.gradient_norm) for one in found.values()), default=None),
        tolerance=tolerance,
        not_compared=not_compared(rows, groups, draws),
        growth_bytes=max((one for row in rows if (one := growth(row)) is not None), default=None),
        peak_slope=slope,
        findings=tuple(finding for finding in findings if finding),
    )


def is_known(row: CandidateReport) -> bool:
    """Return whether the candidate ran and computed a loss and gradients from the weights that all begin with."""
    ran = row.measurement
    return ran is not None and ran.first_loss is not None and ran.gradient_norm is not None


def comparable(rows: Rows, batch_statistics: bool, draws: bool = False) -> list[list[int]]:
    """Return groups of candidates that compute the same but for rounding, each with the fewest micro-batches first.

    They see the same sequences; with batch statistics also in the same micro-batches, which are normalised over. Each
    is alone where a forward draws random numbers.
    """
    groups: dict[tuple[int, int, int], list[int]] = {}
    for index, row in enumerate(rows):
        if is_known(row):
            sequences = row.sequences
            same = row.micro_batches if batch_statistics else 0, index if draws else 0
            groups.setdefault((sequences, *same), []).append(index)
    return [sorted(group, key=lambda index: rows[index].micro_batches) for group in groups.values()]


def agreements(rows: Rows, groups: Sequence[Sequence[int]]) -> dict[int, Agreement]:
    """Return every candidate against the first of its group, by index."""
    found = {}
    for reference, *others in groups:
        theirs = rows[reference].measurement
        for index in others:
            mine = rows[index].measurement
            assert mine is not None and theirs is not None
            found[index] = Agreement(
                reference=reference,
                loss=relative(mine.first_loss or 0.0, theirs.first_loss or 0.0),
                gradient_norm=relative(mine.gradient_norm or 0.0, theirs.gradient_norm or 0.0),
            )
    return found


def relative(own: float, other: float) -> float:
    """Return (own - other) / other."""
    return (own - other) / abs(other) if other else float(own != 0)


def not_compared(rows: Rows, groups: Sequence[Sequence[int]], draws: bool = False) -> str | None:
    """Return why some candidates that ran have nothing to be compared with."""
    alone = sum(len(group) == 1 for group in groups)
    if not alone:
        return None
    sequences = {row.sequences for row in rows}
    if draws:
        why = "the model draws random numbers in every forward (dropout), so that no two candidates compute the same"
    elif len(groups) == 1:
        why = "no other one ran"
    elif len(sequences) > 1:
        why = "the batch grows with m, so that others saw other data"
    else:
        why = "the model normalises over the batch (BatchNorm), and others had other micro-batches"
    return f"{alone} of the candidates that ran: {why}"


def differing(agreement: Agreement, tolerance: float) -> list[str]:
    """Return what differs by more than rounding."""
    parts = {"loss": agreement.loss, "gradients": agreement.gradient_norm}
    return [name for name, difference in parts.items() if abs(difference) > tolerance]


def doubts(rows: Rows, index: int, found: Mapping[int, Agreement], tolerance: float) -> tuple[str, ...]:
    """Return why a candidate should not be used although it ran, each reason short enough for the table."""
    texts = []
    if index in found and (parts := differing(found[index], tolerance)):
        texts.append(f"other {' and '.join(parts)} than m = {rows[found[index].reference].micro_batches}")
    if is_leaking(rows[index]):
        texts.append("leaks memory")
    return tuple(texts)


def disagreement(rows: Rows, found: Mapping[int, Agreement], tolerance: float) -> str | None:
    """Return the candidate that differs most from its reference, by how much, what to look for, and who else
    differs."""
    wrong = [index for index, agreement in found.items() if differing(agreement, tolerance)]
    if not wrong:
        return None
    worst = max(wrong, key=lambda index: max(abs(found[index].loss), abs(found[index].gradient_norm)))
    row, reference = rows[worst], rows[found[worst].reference]
    mine, theirs = row.measurement, reference.measurement
    assert mine is not None and theirs is not None
    others = ", ".join(rows[index].label for index in wrong if index != worst)
    return (
        f"{row.label} does not compute what {reference.label} computes: from the same weights and sequences its loss is"
        f" {mine.first_loss:.6g}, not {theirs.first_loss:.6g}, and its gradient norm {mine.gradient_norm:.6g}, not"
        f" {theirs.gradient_norm:.6g}, where rounding explains {tolerance:.2%}; {hint(row, reference, found[worst])}"
        + (f"; likewise {others}" if others else "")
    )


def hint(row: CandidateReport, reference: CandidateReport, agreement: Agreement) -> str:
    """Return what to look for."""
    times = row.micro_batches / reference.micro_batches
    ratios = (1 + agreement.loss, 1 + agreement.gradient_norm)
    if times > 1 and any(abs(ratio / times - 1) < ALIKE for ratio in ratios):
        return f"{times:g} times as much is what micro-batches give that are summed where their mean is meant"
    if times > 1 and any(abs(ratio * times - 1) < ALIKE for ratio in ratios):
        return f"1/{times:g} of it is what micro-batches give whose mean is divided by their number once more"
    if row.padding:
        return f"look whether its {row.padding} rows of padding are masked from the loss, and not counted in its mean"
    return "look at what micro-batches share, and at how each weighs in the loss"


def growth(row: CandidateReport) -> int | None:
    """Return the most that a candidate left behind in each step on any rank; None where it could not be told."""
    found = row.measurement.growth_bytes if row.measurement else None
    return max(found) if found else None


def is_leaking(row: CandidateReport) -> bool:
    """Return whether every step left more behind than passing objects explain."""
    return (growth(row) or 0) > GROWTH_BYTES + GROWTH_BYTES_EACH * row.micro_batches


def leak(rows: Rows) -> str | None:
    """Return the candidate whose steps leave most behind, where, and how much."""
    leaking = [row for row in rows if is_leaking(row)]
    if not leaking:
        return None
    row = max(leaking, key=lambda one: growth(one) or 0)
    most = growth(row) or 0
    assert row.measurement is not None and row.measurement.growth_bytes is not None
    others = ", ".join(one.label for one in leaking if one is not row)
    return (
        f"{row.label} leaks memory: each step leaves {show_bytes(most)} behind on rank"
        f" {row.measurement.growth_bytes.index(most)}, {show_bytes(most / row.micro_batches)} per micro-batch; look for"
        " what keeps outputs, losses or hooks' tensors from step to step" + (f"; likewise {others}" if others else "")
    )


def retries(row: CandidateReport) -> int:
    """Return how often the allocator of any rank had to begin anew in timed steps."""
    found = row.measurement.alloc_retries if row.measurement else None
    return max(found) if found else 0


def retried(rows: Rows) -> str | None:
    """Return the candidate whose steps were held up most by an allocator that had hardly room, and what to do."""
    tight = [row for row in rows if retries(row)]
    if not tight:
        return None
    row = max(tight, key=retries)
    assert row.measurement is not None and row.measurement.alloc_retries is not None
    steps, others = len(row.measurement.step_times_s), ", ".join(one.label for one in tight if one is not row)
    return (
        f"{row.label} is so close to the memory limit that torch's allocator gave back {retries(row)} times in"
        f" {steps} timed steps what it kept, on rank {row.measurement.alloc_retries.index(retries(row))}: its steps are"
        " slower for that; use more micro-batches or a higher --memory-limit"
        + (f"; likewise {others}" if others else "")
    )


def peak_slope(rows: Rows, profile: Profile) -> PeakSlope | None:
    """Return the slope of the rank where it matters most; None where fewer than two numbers of micro-batches were
    measured.

    Under 1F1B with m >= p rank r holds p - r micro-batches, whatever m is. At a fixed batch each is smaller the more
    there are, so bytes of different m are counted in micro-batches of their own size ::

        x(m) = (measured peak - predicted peak) / activation bytes of one micro-batch on the rank

    A tensor that is kept of each of the m micro-batches makes x grow with m; a part of the model that is off by so much
    per sequence does not change it. The slope of x over m, by least squares, is in micro-batches per micro-batch; times
    the activation bytes it is in bytes. A part that is off by the same bytes at every m shows as a slope as well, hence
    SLOPE_SHARE.
    """
    if profile.virtual_stages > 1 or not all(stage.memory for stage in profile.stages):
        return None
    own = (None, tuple(stage.layers for stage in profile.stages))
    alike = [row for row in rows if row.recompute == profile.recompute and row.split in own]
    steady = sorted((row for row in alike if is_steady(row, profile.ranks)), key=lambda row: row.micro_batches)
    if len({row.micro_batches for row in steady}) < 2:
        return None
    slopes = [rank_slope(steady, stage, rank) for rank, stage in enumerate(profile.stages)]
    return max((one for one in slopes if one), key=lambda one: one.share_of_peak, default=None)


def is_steady(row: CandidateReport, ranks: int) -> bool:
    """Return whether the candidate's peak is known, and how much a rank holds does not depend on m."""
    has_peaks = row.measurement and row.measurement.peak_memory_bytes and row.prediction.peak_memory_bytes
    return bool(has_peaks) and row.schedule == "1F1B" and row.micro_batches >= ranks


def rank_slope(rows: Rows, stage: StageProfile, rank: int) -> PeakSlope | None:
    """Return the slope of one rank, over candidates with ascending m; None where its stage holds no activations."""
    units, excess, peaks = [], [], []
    for row in rows:
        measured = row.measurement.peak_memory_bytes if row.measurement else None
        predicted = row.prediction.peak_memory_bytes
        assert measured is not None and predicted is not None
        units.append(stage.bytes(row.micro_batch_size, lambda part: part.activation_bytes))
        excess.append(measured[rank] - predicted[rank])
        peaks.append(measured[rank])
    if min(units) <= 0 or peaks[-1] <= 0:
        return None
    counts = [row.micro_batches for row in rows]
    held = [bytes_ / unit for bytes_, unit in zip(excess, units, strict=True)]
    slope = linear_regression(counts, held).slope * units[-1]
    return PeakSlope(
        rank=rank,
        micro_batches=tuple(counts),
        micro_batch_size=rows[-1].micro_batch_size,
        bytes_per_micro_batch=slope,
        share_of_peak=slope * (counts[-1] - counts[0]) / peaks[-1],
    )


def steepness(slope: PeakSlope | None) -> str | None:
    """Say where the peak grows with m by more than the model may be off by."""
    if slope is None or slope.share_of_peak <= SLOPE_SHARE:
        return None
    first, last = slope.micro_batches[0], slope.micro_batches[-1]
    return (
        f"under 1F1B the peak of rank {slope.rank} grows with m: {show_bytes(slope.bytes_per_micro_batch)} with each"
        f" micro-batch of {slope.micro_batch_size} sequences, {slope.share_of_peak:.1%} of the peak from m = {first} to"
        f" m = {last}, beyond what the memory model knows; look for what is kept of a micro-batch until the step ends"
    )
