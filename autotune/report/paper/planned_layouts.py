"""The layouts that a plan found, as rows and words."""

from autotune.records.report import Report
from autotune.report.units import show_bytes, show_rough, show_share


def layout_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the layouts, the quickest first; none where there are none."""
    names = ["p", "t", "d", "v", "m", "b", "recompute", "step", "90% interval", "tokens/s per device", "MFU", "memory"]
    rows = []
    for one in report.layouts:
        layout = one.layout
        rows.append(
            [
                *map(str, (layout.pipeline_parallel, layout.tensor_parallel, layout.data_parallel)),
                *map(str, (layout.virtual_stages, one.micro_batches, one.micro_batch_size)),
                layout.recompute.value,
                f"{show_rough(one.step_time_s)} s",
                f"{show_rough(one.step_time_low_s)} to {show_rough(one.step_time_high_s)} s",
                show_rough(one.throughput_tokens_s / layout.devices),
                show_share(one.model_flops_utilisation),
                show_bytes(one.device_memory_bytes),
            ]
        )
    return names, rows


def layout_lines(report: Report) -> list[str]:
    """Return the layout in one sentence, and what it stands against."""
    layout = report.layout
    if layout is None:
        return []
    spec = report.profile.estimate.device if report.profile.estimate else "devices"
    several = f"; rates below are of all {layout.data_parallel} replicas" if layout.data_parallel > 1 else ""
    words = [f"Layout: {layout.words} on {layout.devices} {spec}{several}."]
    if len(report.layouts) > 1:
        best, last = report.layouts[0], report.layouts[-1]
        gap = last.step_time_s / best.step_time_s - 1
        words.append(
            f"Of the layouts that fit, these {len(report.layouts)} are within {show_share(gap, 0)} of each other, and"
            " none is surer than its interval says: time the first few before you choose."
        )
    return words
