"""What a simulated action costs: against a plain Python loop, against torch's own dry run, and as p and m grow.

Whatever is compared runs side by side in this process, A B A B ..., and medians are printed; every result is first
checked to be equal to what it is compared with. A line ends with its goal and whether it was met.
"""

import gc
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.dedicated import run_sequential
from autotune.predict.simulator.posting import Receives
from autotune.predict.simulator.simulate import Costs, Timeline, simulate, travel_seconds
from autotune.predict.simulator.wavefront import step_time
from autotune.schedule_spec import SCHEDULE_NAMES, why_illegal

LARGE = (1024, 8192)
"""p and m of the largest step: 16.8 million actions under 1F1B."""
MANY = (256, 2048)
"""p and m of the large steps with two stages per rank."""
DRY_RUN_SIZES = ((4, 16), (4, 64), (8, 64), (16, 64), (16, 256))
"""p and m that torch's dry run finishes within seconds."""
ONE_STAGE_PER_RANK = ("GPipe", "1F1B")


@cache
def unequal_stages(stages: int) -> Costs:
    """Costs that differ from stage to stage and from link to link, always the same."""
    rng = np.random.default_rng(stages)
    work, links = rng.uniform(0.5, 1.5, (4, stages)), rng.uniform(0.0, 0.1, (2, stages - 1))
    return Costs(*work.tolist(), *links.tolist())


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of one call; the mean of as many as fit into 50 ms, so that a short one is not timed on a cold cache."""
    gc.collect()
    begun, calls, elapsed = perf_counter(), 0, 0.0
    while elapsed < 0.05:
        work()
        calls, elapsed = calls + 1, perf_counter() - begun
    return elapsed / calls


def side_by_side(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """Median seconds of each, run in turn ``rounds`` times."""
    samples = [[seconds_of(work) for work in works] for _ in range(rounds)]
    return [median(column) for column in zip(*samples, strict=True)]


def goal(figure: str, wanted: str, met: bool) -> None:
    """One line: the figure, the goal, and whether it was met."""
    print(f"  {figure}; goal {wanted}: {'met' if met else 'MISSED'}", flush=True)


def predicted(name: str, p: int, m: int, receives: Receives = "torch") -> Timeline:
    """What a prediction asks for: the schedule built anew and simulated, two stages per rank where it has several."""
    virtual_stages = stages_per_rank(name)
    return simulate(build_schedule(name, p, m, virtual_stages), unequal_stages(p * virtual_stages), receives)


def action_count(name: str, p: int, m: int) -> int:
    """Forwards and fused backwards of all stages."""
    return 2 * stages_per_rank(name) * p * m


def stages_per_rank(name: str) -> int:
    """v = 2 for the schedules that run several stages on a rank."""
    return 1 if name in ONE_STAGE_PER_RANK else 2


# --- a plain loop -------------------------------------------------------------------------------------------------


def plain_loop(p: int, m: int, costs: Costs) -> list[float]:
    """When each rank has ended its last action of 1F1B: rank after rank runs until it must wait, over and over.

    As torch receives: a message moves once it is made and its receiver free; where one goes each way, as the slower.
    """
    rows = ["F" * ahead + "BF" * (m - ahead) + "B" * ahead for ahead in (min(m, p - rank) for rank in range(p))]
    slower = [max(pair) for pair in zip(costs.activation_link, costs.gradient_link, strict=True)]
    forward: list[list[float]] = [[] for _ in range(p)]  # forward[s][i]: when F(s, i) ended
    backward: list[list[float]] = [[] for _ in range(p)]
    at_once = [0.0] * m
    activations, gradients = [at_once, *forward[:-1]], [*backward[1:], at_once]
    there, back = [0.0, *costs.activation_link], [*costs.gradient_link, 0.0]
    there_fused, back_fused = [0.0, *slower], [*slower, 0.0]
    position, free = [0] * p, [0.0] * p
    while position[0] < 2 * m:  # rank 0 is the last to end
        for rank in range(p):
            at, now, row = position[rank], free[rank], rows[rank]
            while at < 2 * m:
                if row[at] == "F":
                    mine, given, work = forward[rank], activations[rank], costs.forward[rank]
                    hop = there_fused[rank] if len(mine) >= p - rank else there[rank]
                else:
                    mine, given, work = backward[rank], gradients[rank], costs.backward[rank]
                    hop = back_fused[rank] if len(mine) <= m - p + rank else back[rank]
                if len(given) == len(mine):
                    break
                made = given[len(mine)]
                now = (made if made > now else now) + hop + work
                mine.append(now)
                at += 1
            position[rank], free[rank] = at, now
    return free


def check_the_plain_loop() -> None:
    """At sizes where the step-by-step simulation is quick: loop, simulation and ``step_time`` agree to the last bit."""
    for p, m in ((16, 3), (16, 64), (128, 512)):
        schedule, costs = build_schedule("1F1B", p, m), unequal_stages(p)
        timeline = simulate(schedule, costs)
        ends = [timeline.end(rank)[-1] for rank in range(p)]
        assert ends == plain_loop(p, m, costs) == step_time(schedule, costs).rank_ends.tolist()


def against_a_plain_loop() -> None:
    """``step_time`` and the loop at the largest size; both must end every rank at the very same moment."""
    check_the_plain_loop()
    p, m = LARGE
    schedule, costs = build_schedule("1F1B", p, m), unequal_stages(p)
    ends: dict[str, list[float]] = {}

    def ours() -> None:
        ends["ours"] = step_time(schedule, costs).rank_ends.tolist()

    def loop() -> None:
        ends["loop"] = plain_loop(p, m, costs)

    around = [side_by_side(3, ours)[0]]
    plain = seconds_of(loop)
    around += side_by_side(3, ours)
    fast, actions = sum(around) / 2, 2 * p * m
    assert ends["ours"] == ends["loop"]
    print(f"1F1B, p = {p}, m = {m}, unequal stages: {actions / 1e6:.1f} million actions, every rank's end equal")
    print(f"  plain Python loop, action by action: {plain:.2f} s once, {plain / actions * 1e9:.0f} ns per action")
    print(
        f"  step_time: {around[0]:.3f} s before, {around[1]:.3f} s after it, {fast / actions * 1e9:.1f} ns per action"
    )
    goal(f"{plain / fast:.1f} x faster", "20 x", plain >= 20 * fast)


PEAK = """
from tests.bench.speed import LARGE, build_schedule, most_mib, step_time, unequal_stages
costs, before = unequal_stages(LARGE[0]), most_mib()
step_time(build_schedule("1F1B", *LARGE), costs)
print(before, most_mib())
"""


def most_mib() -> float:
    """The most memory that this process ever held, Python and numpy included.

    Linux's high-water mark of the process itself: ``getrusage`` of a child begins with what its parent once held.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 2**10


def peak_memory() -> None:
    """The most memory that a fresh process ever holds for the same ``step_time``."""
    printed = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    before, after = map(float, printed.split())
    goal(f"peak memory {after:.1f} MiB, {before:.1f} MiB of it before the call", "1024 MiB", after < 1024)


# --- torch's own dry run ------------------------------------------------------------------------------------------


def against_torch() -> None:
    """Torch's constructor and dry run (steps without seconds) against building and simulating, per action."""
    from tests.bench.torch_dry_run import dry_run

    print("torch's constructor and dry run against ours, per action: at the same size, and ours at the large size")
    for name, large in (("1F1B", LARGE), ("Interleaved1F1B", MANY)):
        for size in DRY_RUN_SIZES:
            ours = build_schedule(name, *size, stages_per_rank(name))
            assert [ours.actions(rank) for rank in range(ours.ranks)] == dry_run(name, *size)
        both = [partial(way, name, *size) for way in (dry_run, predicted) for size in DRY_RUN_SIZES]
        at_large, *rest = side_by_side(5, partial(step, name, *large), *both)
        compare_with_torch(
            name, at_large / action_count(name, *large), rest[: len(DRY_RUN_SIZES)], rest[len(DRY_RUN_SIZES) :]
        )


def compare_with_torch(name: str, at_large: float, torchs: list[float], ours: list[float]) -> None:
    """Prints a line per size; ``at_large``: our seconds per action at the large size."""
    ratios = []
    for (p, m), their_seconds, our_seconds in zip(DRY_RUN_SIZES, torchs, ours, strict=True):
        actions = action_count(name, p, m)
        theirs, mine = their_seconds / actions, our_seconds / actions
        ratios.append(theirs / at_large)
        print(
            f"  {name:15} p = {p:2}, m = {m:3}: torch {theirs * 1e6:6.1f} us, ours {mine * 1e6:5.2f} us"
            f" ({theirs / mine:.0f} x); ours at the large size {at_large * 1e9:.0f} ns ({ratios[-1]:.0f} x)"
        )
    figure = f"{name}: torch's action / ours at the large size {min(ratios):.0f} to {max(ratios):.0f}"
    goal(figure, "1000", min(ratios) >= 1000)


# --- many candidates, many ranks, many micro-batches --------------------------------------------------------------


def a_whole_sweep() -> None:
    """Every divisor of 64 under every schedule at p = 4, each built and simulated, where torch admits it."""
    wanted = [
        (name, m)
        for name in SCHEDULE_NAMES
        for m in (1, 2, 4, 8, 16, 32, 64)
        if why_illegal(name, 4, stages_per_rank(name), m) is None
    ]

    def all_of_them(receives: Receives) -> None:
        for name, m in wanted:
            predicted(name, 4, m, receives)

    seconds, early = side_by_side(5, partial(all_of_them, "torch"), partial(all_of_them, "early"))
    figure = f"{len(wanted)} candidates (divisors of 64 x seven schedules, p = 4) built and simulated"
    figure += f" in {seconds * 1e3:.0f} ms ({early * 1e3:.0f} ms with early receives)"
    goal(figure, "50 ms", seconds <= 0.05)


def many_stages() -> None:
    """The schedules without a closed form, two stages per rank; each ends as when run one action at a time."""
    p, m = MANY
    for name in SCHEDULE_NAMES:
        if name not in ONE_STAGE_PER_RANK:
            seconds, early = side_by_side(3, *(partial(predicted, name, p, m, way) for way in ("torch", "early")))
            timeline, costs = predicted(name, p, m), unequal_stages(2 * p)
            graph = timeline.graph
            work = costs.work()[graph.kind, graph.stage]
            _, ends = run_sequential(graph, work, travel_seconds(graph, costs))
            assert np.array_equal(ends, timeline.ends)
            figure = f"{name:21} p = {p}, m = {m}, v = 2: {len(ends) / 1e6:.1f} million actions in {seconds:.2f} s"
            figure += f" ({early:.2f} s with early receives)"
            goal(figure, "2 s", seconds <= 2)


def growth() -> None:
    """Nanoseconds per action over p and m: 1F1B by ``step_time``, Interleaved1F1B (v = 2) by ``simulate``."""
    counts = (64, 512, 2048)
    print("ns per action, from building the schedule to the end of the step (no goal)")
    print(f"  {'':26}" + "".join(f"m = {m:<8}" for m in counts))
    for name, largest in (("1F1B", 1024), ("Interleaved1F1B", 256)):
        for p in (4, 16, 64, 256, 1024):
            if p <= largest:
                cells = (side_by_side(3, partial(step, name, p, m))[0] / action_count(name, p, m) for m in counts)
                print(f"  {name:15} p = {p:<5}" + "".join(f"{cell * 1e9:<12.0f}" for cell in cells), flush=True)


def step(name: str, p: int, m: int) -> float:
    """The seconds of a step, by the fastest way there is."""
    schedule = build_schedule(name, p, m, stages_per_rank(name))
    return step_time(schedule, unequal_stages(schedule.stages)).makespan


def main() -> None:
    """All of it."""
    against_a_plain_loop()
    peak_memory()
    a_whole_sweep()
    many_stages()
    growth()
    against_torch()
