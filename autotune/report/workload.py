"""What is trained, in words."""

from autotune.records.job.workload import WorkloadFacts
from autotune.records.report import Report
from autotune.report.units import show_rate, show_share


def replicas_text(work: WorkloadFacts) -> str:
    """Return `` in each of 2 replicas``; nothing where there is one."""
    return f" in each of {work.replicas} replicas" if work.replicas > 1 else ""


def model_words(work: WorkloadFacts) -> str:
    """Return ``llama.py:build, 12 layers, 1.2 billion parameters``, as far as it is known."""
    layers = f"{work.layers} layers" if work.layers else None
    weights = f"{show_count(work.parameters)} parameters" if work.parameters else None
    return ", ".join(part for part in (work.model, layers, weights) if part) or "model"


def show_count(count: int) -> str:
    """Return ``950``, ``3.2 million``, ``1.2 billion``."""
    for word, size in (("trillion", 10**12), ("billion", 10**9), ("million", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {word}"
    return str(count)


def samples(work: WorkloadFacts) -> str:
    """Return what the rows of a batch are called: sequences, images or samples."""
    return f"{work.sample or 'sequence'}s"


def utilisation_words(report: Report) -> list[str]:
    """Return what share of the devices' best the sweet spot reaches, and tokens per second, where asked for."""
    share = report.model_flops_utilisation
    if share is None or report.sweet_spot is None:
        return []
    tokens = report.workload.seq_len
    rate = f", {show_rate(report.sweet_spot.throughput_seq_s * tokens)} tokens/s" if tokens else ""
    peak = f"{(report.peak_flops or 0) / 1e12:g} TFLOP/s"
    return [f"Model FLOPs utilisation: {show_share(share)} of {peak} per device{rate}."]
