"""Which candidate wins, and why: the rules of DESIGN section 6, on plain numbers."""

from math import hypot
from statistics import median

from autotune.pipeline.outcome import Measurement
from autotune.predict.record import Candidate, Prediction

TIE = 0.01  # throughputs closer than this are tied
WIDEST_TIE = 0.05  # however noisy the steps, medians further apart than this decide


def standard_error(samples: tuple[float, ...]) -> float:
    """Standard error of the median of ``samples``, from their median absolute deviation; 1.25 sigma / sqrt(n)."""
    middle = median(samples)
    deviation = median(abs(sample - middle) for sample in samples)
    return float(1.25 * 1.48 * deviation / len(samples) ** 0.5)


def is_tied(one: Measurement, other: Measurement, rates: tuple[float, float]) -> bool:
    """Whether two throughputs (``rates``, sequences/s) differ by less than TIE or their noise, up to WIDEST_TIE."""
    gap = abs(rates[0] - rates[1]) / max(rates)
    noise = 2.0 * hypot(*(standard_error(m.step_times_s) / m.step_time_s for m in (one, other)))
    return gap <= max(TIE, min(noise, WIDEST_TIE))


def finalists(measured: dict[int, Measurement]) -> list[int]:
    """The best candidate and those tied with it, best first; ``measured`` maps candidate index to its measurement."""
    ranking = sorted(measured, key=lambda index: -measured[index].throughput_seq_s)
    if not ranking:
        return []
    best = measured[ranking[0]]
    return [
        index
        for index in ranking
        if is_tied(best, measured[index], (best.throughput_seq_s, measured[index].throughput_seq_s))
    ]


def pick(measured: dict[int, Measurement]) -> int:
    """The winner: of the finalists the one whose fullest rank needs the least memory."""
    tied = finalists(measured)
    return min(tied, key=lambda index: (peak(measured[index]), -measured[index].throughput_seq_s))


def peak(measurement: Measurement) -> int:
    """Bytes of the fullest rank."""
    return max(measurement.peak_memory_bytes or (0,))


def reason(winner: int, measured: dict[int, Measurement], candidates: list[Candidate]) -> str:
    """One sentence: which rule decided."""
    others = [index for index in finalists(measured) if index != winner]
    if len(measured) == 1:
        return "it is the only candidate that was measured"
    if not others:
        second = max((m for i, m in measured.items() if i != winner), key=lambda m: m.throughput_seq_s)
        lead = measured[winner].throughput_seq_s / second.throughput_seq_s - 1
        return f"highest measured throughput, {lead:.1%} above the next"
    names = ", ".join(f"m = {candidates[index].micro_batches}" for index in sorted(others))
    spared = min(peak(measured[index]) for index in others) - peak(measured[winner])
    if spared <= 0:
        return f"tied with {names} within the noise, and none of these needs less memory"
    return f"tied with {names} within the noise, and needs {spared / 2**20:.1f} MiB less memory than the next"


def why_not(index: int, winner: int, predictions: list[Prediction], candidates: list[Candidate]) -> str:
    """What candidate ``index`` loses most to, against the winner, as its predicted time per sequence splits."""
    mine, best = (
        {
            part: seconds / candidates[at].sequences
            for part, seconds in predictions[at].time_split_s.model_dump().items()
        }
        for at in (index, winner)
    )
    names = {"compute": "granularity", "overhead": "granularity"}
    losses: dict[str, float] = {}
    for part, seconds in mine.items():
        name = names.get(part, part)
        losses[name] = losses.get(name, 0.0) + seconds - best[part]
    return max(losses, key=lambda name: losses[name])
