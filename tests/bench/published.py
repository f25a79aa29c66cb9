"""The simulator and the cost model against what a paper prints; how far they can agree: tests/published/README.md."""

import numpy as np

from tests.published.zero_bubble import (
    OURS,
    Throughput,
    bubble_rates,
    predicted_step,
    rate,
    simulated_step,
    stage_times,
    throughputs,
)

LESS = "1F1B-I less p·T_comm"
"""The interleaved step without the hops that the authors' simulation leaves out."""


def theoretical_bubble_rates() -> None:
    """Every printed rate of a schedule that we build."""
    print("theoretical bubble rates: printed, simulated (messages travel as soon as they are made)")
    print(f"  {'model':6}{'p':>3}{'m':>5}" + "".join(f"   {name:>15}" for name in (*OURS, LESS)))
    off = dict.fromkeys((*OURS, LESS), 0.0)
    for row in bubble_rates():
        steps = {name: simulated_step(row, name) for name in OURS}
        steps[LESS] = steps["1F1B-I"] - row.p * stage_times()[row.model, row.m].hop
        line = f"  {row.model:6}{row.p:3}{row.m:5}"
        for name, step in steps.items():
            printed, ours = row.rate[name.partition(" ")[0]], round(rate(row, step), 4)
            off[name] = max(off[name], abs(ours - printed))
            line += f"   {printed:7.4f} {ours:7.4f}"
        print(line)
    for name, most in off.items():
        print(f"  {name}: off by {most:.4f} at most; goal 0.0000: {verdict(most < 5e-5)}")


def measured(rows: list[Throughput]) -> list[float]:
    """Prints one line per row; returns our throughput / the paper's."""
    ratios = []
    for row in rows:
        ours = predicted_step(row)
        ratios.append(row.step / ours)
        print(
            f"  {row.model:6}{row.p:3}{row.m:5}  {row.samples:6.2f} {row.m * row.b / row.p / ours:6.2f} samples/GPU/s"
            f"  {ratios[-1]:.3f}   step {row.step:.3f} s, {ours:.3f} s, short of it {(row.step - ours) * 1e3:4.0f} ms"
        )
    return ratios


def throughput(schedule: str, promised: bool) -> None:
    """One schedule over the paper's m; the bounds hold for what is promised."""
    rows = throughputs("throughput_memory", schedule)
    print(f"\n{schedule}, measured on A100: printed, predicted from stage times and hops alone, ratio")
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        ratios = measured(own)
        relative, absolute = (max(abs(ratio / base - 1) for ratio in ratios) for base in (ratios[-1], 1.0))
        slope, constant = np.polyfit([row.m for row in own], [row.step - predicted_step(row) for row in own], 1)
        goals = ("goal 2 %: " + verdict(relative <= 0.02), "goal 10 %: " + verdict(absolute <= 0.1))
        for text, wanted in zip(
            (f"over m, relative to the largest m: off by {relative:.1%}", f"absolute: off by {absolute:.1%}"),
            goals if promised else ("no goal", "no goal"),
            strict=True,
        ):
            print(f"    {text}; {wanted}")
        print(f"    the paper's step is longer by {constant * 1e3:.0f} ms and {slope * 1e3:.1f} ms per micro-batch")


def verdict(met: bool) -> str:
    """In a word."""
    return "met" if met else "MISSED"


def main() -> None:
    """Bubble rates, then throughput."""
    theoretical_bubble_rates()
    throughput("1F1B", promised=True)
    throughput("1F1B-I", promised=False)
    print("\n1F1B with few micro-batches (stage times of the nearest m; torch refuses m < p, a search takes GPipe)")
    measured(throughputs("small_m", "1F1B"))
