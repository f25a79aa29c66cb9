"""``autotune predict``: the report of one case; over ranges a row for each case, and a grid of the m that wins."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.config import refuse_bare
from autotune.errors import UsageError
from autotune.plan.whatif import Answer, Case, Question, WhatIf, changed
from autotune.predict.sweep import limit_of, settled, sweep
from autotune.quantities import UNITS, parse_quantity
from autotune.records.profile import Profile
from autotune.records.report import Report
from autotune.report.paper.predicted import predicted_report
from autotune.report.paper.predicted_cells import show_step
from autotune.report.units import show_bytes, show_rough

RATES = {f"{unit}/s": size for unit, size in UNITS.items() if unit}
TITLES = {
    "stages": "p",
    "batch": "batch",
    "link_bytes_s": "link",
    "speed_up": "speed-up",
    "memory_limit": "memory limit",
}
STEPS = 5  # of a range whose ends are no whole numbers


def question_of(flags: Mapping[str, str | None]) -> Question:
    """Return the ranges that the flags give: values with commas, or LOW:HIGH. Raise UsageError for anything else."""
    return Question(
        stages=wholes("--stages", flags.get("stages")),
        batch=wholes("--batch", flags.get("batch")),
        link_bytes_s=quantities("--link", flags.get("link"), RATES, "25GB/s"),
        speed_up=quantities("--speed-up", flags.get("speed_up"), {"": 1, "x": 1}, "1.3"),
        memory_limit=tuple(
            None if value is None else int(value)
            for value in quantities("--memory-limit", flags.get("memory_limit"), UNITS, "40GB")
        ),
    )


def wholes(flag: str, text: str | None) -> tuple[int | None, ...]:
    """Return whole numbers: those with commas between, or LOW:HIGH in steps of two times."""
    found = quantities(flag, text, {"": 1}, "64,128 or 64:512")
    if any(value is not None and value != int(value) for value in found):
        raise UsageError(f"{flag}: give whole numbers (given: {text})")
    return tuple(None if value is None else int(value) for value in found)


def quantities(flag: str, text: str | None, units: Mapping[str, int], example: str) -> tuple[float | None, ...]:
    """Return the values of a flag; (None,) where it was not given."""
    if text is None:
        return (None,)
    low, colon, high = text.partition(":")
    values = [quantity(flag, part, units, example) for part in ([low, high] if colon else text.split(","))]
    if not colon:
        return tuple(dict.fromkeys(values))
    first, last = values
    if last <= first:
        raise UsageError(f"{flag}: the range begins with {low} and ends with {high}; give the smaller one first")
    if set(units) == {""}:
        doubled = [first * 2**power for power in range(32) if first * 2**power < last]
        return (*doubled, last)
    return tuple(first * (last / first) ** (step / (STEPS - 1)) for step in range(STEPS))


def quantity(flag: str, text: str, units: Mapping[str, int], example: str) -> float:
    """Return a number of the base unit from ``25GB/s``."""
    number, unit = text.strip(), ""
    if number.lower().endswith("/s") and flag == "--link":
        number, unit = number[:-2], "/s"
    try:
        plain = {name.removesuffix("/s"): size for name, size in units.items()} if unit else units
        found = float(parse_quantity(number, plain, example))
    except (ValueError, TypeError):
        raise UsageError(f"{flag}: write {example} or such (given: {text!r})") from None
    if found <= 0:
        raise UsageError(f"{flag}: give more than 0 (given: {text!r})")
    if units is UNITS:
        try:
            refuse_bare(number, found)
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from None
    return found


def case_report(profile: Profile, case: Case, flags: Mapping[str, Any], command: str | None = None) -> Report:
    """Return every candidate of a profile, predicted in other circumstances than the profile's. ``flags``: which
    candidates; None: not given. ``command``: what the user typed. Raise UsageError for flags that do not agree."""
    paper = changed(profile, case)
    pairs, notes = sweep(paper, flags)
    limit = limit_of(paper, settled(paper, flags))
    return predicted_report(paper, pairs, limit, [*what_if_lines(case), *notes], command)


# --- what is printed ----------------------------------------------------------------------------------------------


def shown(name: str, value: float | None) -> str:
    """Return a circumstance as people read it."""
    if value is None:
        return "as is"
    if name == "link_bytes_s":
        return f"{show_rough(value / 1e9)} GB/s"
    if name == "speed_up":
        return f"{show_rough(value)}x"
    return show_bytes(value) if name == "memory_limit" else str(value)


def what_if_lines(case: Case) -> list[str]:
    """Return what of one case is not as the profile has it, as a note; nothing where everything is."""
    names = ("stages", "link_bytes_s", "speed_up")
    words = [f"{TITLES[name]} {shown(name, value)}" for name in names if (value := getattr(case, name)) is not None]
    return [f"what if: {', '.join(words)}; the profile was measured otherwise"] if words else []


def varied(found: WhatIf) -> list[str]:
    """Return the circumstances that differ between cases."""
    return [name for name in Case.model_fields if len({getattr(one.case, name) for one in found.answers}) > 1]


def what_if_rows(found: WhatIf) -> tuple[list[str], list[list[str]]]:
    """Return headings and a row for each case."""
    names = varied(found)
    headings = [*(TITLES[name] for name in names), "best m", "b", "schedule", "step", "90% interval", "sequences/s"]
    headings += ["idle", "peak memory"]
    return headings, [[*(shown(name, getattr(one.case, name)) for name in names), *cells(one)] for one in found.answers]


def cells(one: Answer) -> list[str]:
    """Return what is best in a case; dashes where nothing is."""
    if one.micro_batches is None or one.step_time_s is None or one.step_time_low_s is None:
        return ["none fits", *["-"] * 7]
    return [
        str(one.micro_batches),
        str(one.micro_batch_size),
        str(one.schedule),
        show_step(one.step_time_s),
        f"{show_step(one.step_time_low_s)} to {show_step(one.step_time_high_s or one.step_time_s)}",
        show_rough(one.throughput_seq_s or 0.0),
        f"{one.bubble_fraction:.1%}",
        show_bytes(one.peak_memory_bytes) if one.peak_memory_bytes is not None else "-",
    ]


def grid(found: WhatIf) -> tuple[list[str], list[list[str]]] | None:
    """Return the m that wins over two circumstances, a column for each value of the second; None where there are not
    two."""
    names = varied(found)
    if len(names) != 2:
        return None
    down, across = names
    columns = list(dict.fromkeys(getattr(one.case, across) for one in found.answers))
    lines = list(dict.fromkeys(getattr(one.case, down) for one in found.answers))
    best = {(getattr(one.case, down), getattr(one.case, across)): one.micro_batches for one in found.answers}
    headings = [f"{TITLES[down]} / {TITLES[across]}", *(shown(across, value) for value in columns)]
    rows = [[shown(down, line), *(str(best[line, column] or "-") for column in columns)] for line in lines]
    return headings, rows


def print_what_if(found: WhatIf, console: Console) -> None:
    """Print a row for each case, and the grid of the m that wins where two circumstances differ."""
    drawn = [("what if; everything is predicted, nothing was run", what_if_rows(found))]
    board = grid(found)
    drawn += [("the m that wins", board)] if board else []
    for title, (headings, rows) in drawn:
        table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "schedule" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
