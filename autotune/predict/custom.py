"""A user's own schedule: a CSV file, one row per rank, checked for order and for time.

Two forms, told apart by whether the actions name their stage ::

    time units   F1,F2,,,B1,B2          one column per time unit; row = GPU = stage; micro-batches from 1, or from 0
                 ,F1,B1,F2,B2
    torch's      0F0,0F1,,,0B0,0B1      stage, letter, micro-batch from 0: what torch's _dump_csv writes
                 ,1F0,1B0,1F1,1B1

Torch 2.4 wrote ``F0_s1`` for what is 1F0 now. An empty cell (or ``-`` or ``.``) is an idle column. In the first form
columns are times: an action must stand in a later column than what it needs, and one that does not is a fault of the
file. Torch runs a row's actions in order whatever their columns, and its own dumps are not always aligned
(Interleaved1F1B with p = v = 2 and m = 1, for one), so there a column that comes too early is only noted.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from autotune.errors import InputError
from autotune.predict.schedules import Action, Kind, Schedule, custom_schedule
from autotune.records.base import read_bytes

MOST_BYTES = 16 * 2**20
MOST_ACTIONS = 1_000_000
MOST_LINES = 20
"""Violations that are spelled out; the rest are counted."""

COMPUTATION = re.compile(r"(?P<stage>[0-9]{0,6})(?P<letter>[FBIW])_?(?P<number>[0-9]{1,7})")
OF_TORCH_2_4 = re.compile(r"(?P<letter>[FBIW])(?P<number>[0-9]{1,7})_s(?P<stage>[0-9]{1,6})")
OVERLAPPED = re.compile(r"\(([^()]*)\)OVERLAP_F_B")
NO_COMPUTATION = re.compile(r"[0-9]+(SEND_F|RECV_F|SEND_B|RECV_B|UNSHARD|RESHARD|REDUCE_GRAD)[0-9]*")
WHOLE = re.compile(r"[0-9]+BW[0-9]+")
IDLE = ("", "-", ".")


class Cell(NamedTuple):
    """An action and where it stands: the row is the GPU, the column the time; both count from 0."""

    gpu: int
    column: int
    action: Action


@dataclass(frozen=True)
class Table:
    """The file, read but not checked. ``cells``: row after row, in order; ``staged``: actions name their stage.

    ``first``: the number that the file gives its first micro-batch; in the actions that one is 0.
    ``skipped``: messages and sharding, which follow from the computations. ``gaps``: some row idles between actions.
    """

    gpus: int
    cells: tuple[Cell, ...]
    staged: bool
    first: int
    skipped: int
    gaps: bool

    def name(self, action: Action) -> str:
        """Return a cell in the words of the file: ``F2``, or ``3F2`` in torch's form."""
        return f"{action.stage if self.staged else ''}{action.kind}{action.micro_batch + self.first}"

    def at(self, index: int) -> str:
        """Return ``B1 at t=6``."""
        return f"{self.name(self.cells[index].action)} at t={self.cells[index].column}"


@dataclass(frozen=True)
class OwnSchedule:
    """A user's schedule that is complete and in order, the number of its first micro-batch, and what to tell the user.

    Ranks of torch's form may still wait for each other in a circle: that is for ``simulate`` to say.
    """

    schedule: Schedule
    first_micro_batch: int
    notes: tuple[str, ...]


def read_schedule(path: Path) -> OwnSchedule:
    """Read and check a CSV file; raise InputError that names the cell, or every violation in the file's words."""
    table = read_table(path)
    if table.staged and halves_are_named_b(table):
        raise InputError(f"{path} has W beside B: {OF_TORCH_2_5}")
    places, faults = place(table)
    faults += missing_actions(table, places)
    early: list[str] = []
    for index, made in violations(table, places):
        of_order = table.cells[index].gpu == table.cells[made].gpu or not table.staged
        (faults if of_order else early).append(violation_text(table, index, made))
    if faults:
        where = f"GPUs and times count from 0, micro-batches from {table.first}"
        raise InputError(listed(f"{path} cannot run as written ({where})", faults))
    rows: list[list[Action]] = [[] for _ in range(table.gpus)]
    for cell in table.cells:
        rows[cell.gpu].append(cell.action)
    notes = tuple(remarks(path, table, early))
    return OwnSchedule(custom_schedule(rows), table.first, notes)


def listed(headline: str, faults: list[str]) -> str:
    """Return ``headline: 2 violations``, then a line for each of the first ones."""
    lines = [f"{headline}: {len(faults)} violation{'s' if len(faults) > 1 else ''}", *faults[:MOST_LINES]]
    if len(faults) > MOST_LINES:
        lines.append(f"... and {len(faults) - MOST_LINES} more")
    return "\n  ".join(lines)


def remarks(path: Path, table: Table, early: list[str]) -> Iterator[str]:
    """Return what was left out of torch's form, and where its columns are no times."""
    if table.skipped:
        yield f"{path}: {table.skipped} messages and sharding actions skipped; messages follow from the computations"
    elif table.gaps and table.staged and early:
        headline = f"{path}: the order can run, as drawn here, but its columns are no times (torch ignores them)"
        yield listed(headline, early)


# --- reading ------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[list[str]]:
    """Return the cells as text; raise InputError for what is no CSV file of UTF-8 text, or too large."""
    try:
        rows = list(csv.reader(io.StringIO(read_bytes(path, MOST_BYTES).decode("utf-8-sig"), newline="")))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not CSV in UTF-8: {error}") from None
    while rows and not any(text.strip() for text in rows[-1]) and len(rows[-1]) < 2:
        rows.pop()  # a blank line at the end is no GPU
    if not rows:
        raise InputError(f"{path} is empty: write one row per GPU, such as F1,F2,,B1,B2")
    return [[text.strip() for text in row] for row in rows]


def computations(text: str) -> list[tuple[str, str, str]] | None:
    """Return stage, letter and micro-batch of what a cell computes: two for an overlapped pair, none for a message.

    None if the cell is no action at all.
    """
    pair = OVERLAPPED.fullmatch(text)
    parts = [part.strip() for part in (pair[1].split(";") if pair else [text])]
    found = [COMPUTATION.fullmatch(part) or OF_TORCH_2_4.fullmatch(part) for part in parts]
    if all(found) and len({bool(match["stage"]) for match in found if match}) == 1:
        return [(match["stage"], match["letter"], match["number"]) for match in found if match]
    return [] if NO_COMPUTATION.fullmatch(text) else None


def read_table(path: Path) -> Table:
    """Read the cells; raise InputError that names the first one that is no action, or a row without any."""
    rows = read_rows(path)
    found: list[tuple[int, int, str, str, int]] = []  # GPU, column, stage as written, letter, micro-batch as written
    skipped, gaps = 0, False
    for gpu, row in enumerate(rows):
        before, last = len(found), -1
        for column, text in enumerate(row):
            if text in IDLE:
                continue
            parts = computations(text)
            if parts is None:
                remedy = OF_TORCH_2_5 if WHOLE.fullmatch(text) else WRITE
                raise InputError(f"{path}: {cell_name(gpu, column)}: {text[:40]!r} is no action: {remedy}")
            if any(bool(stage) != bool(found[0][2]) for stage, _, _ in parts if found):
                raise InputError(f"{path}: {cell_name(gpu, column)}: {text[:40]!r} {MIXED}")
            found += [(gpu, column, stage, letter, int(number)) for stage, letter, number in parts]
            skipped += not parts
            gaps |= column != last + 1
            last = column
        if len(found) == before:
            raise InputError(f"{path}: row {gpu + 1} (GPU{gpu}) computes nothing: leave it out, or give it its actions")
        if len(found) > MOST_ACTIONS:
            raise InputError(f"{path} has more than {MOST_ACTIONS:,} actions: too many to draw")
    return make_table(path, found, skipped, gaps)


WRITE = "write F1 or B1 (I1, W1 for a split backward), torch's 0F1, or nothing"
OF_TORCH_2_5 = "torch 2.5 wrote B for the input gradient and BW for the whole backward; write I for B, and B for BW"
MIXED = "is of the other form than the actions before it: name the stage in all of them (2F0) or in none (F1)"


def cell_name(gpu: int, column: int) -> str:
    """Return ``row 2, column 6 (GPU1, t=5)``."""
    return f"row {gpu + 1}, column {column + 1} (GPU{gpu}, t={column})"


def make_table(path: Path, found: list[tuple[int, int, str, str, int]], skipped: int, gaps: bool) -> Table:
    """Return the table with stages and micro-batches numbered; raise InputError for numbers far beyond the actions."""
    staged = bool(found[0][2])
    first = 0 if staged else min(1, min(number for *_, number in found))
    cells = tuple(
        Cell(gpu, column, Action(cast(Kind, letter), int(stage) if staged else gpu, number - first))
        for gpu, column, stage, letter, number in found
    )
    pairs = (1 + max(cell.action.stage for cell in cells)) * (1 + max(cell.action.micro_batch for cell in cells))
    if pairs > max(len(cells), 10_000):
        raise InputError(
            f"{path} names up to {pairs:,} pairs of stage and micro-batch in only {len(cells)} actions; every stage "
            "must run every micro-batch, forward and backward"
        )
    return Table(found[-1][0] + 1, cells, staged, first, skipped, gaps)


# --- checking -----------------------------------------------------------------------------------------------------


Places = dict[Action, int]
"""Which cell (index into ``Table.cells``) does an action first."""


def place(table: Table) -> tuple[Places, list[str]]:
    """Return where each action is done; and the faults: actions done twice, stages on two GPUs."""
    places: Places = {}
    gpu_of: dict[int, int] = {}
    faults = []
    for index, cell in enumerate(table.cells):
        earlier = places.setdefault(cell.action, index)
        if earlier != index:
            faults.append(f"GPU{cell.gpu}: {table.at(index)} is done already: {table.at(earlier)}")
        home = gpu_of.setdefault(cell.action.stage, cell.gpu)
        if home != cell.gpu:
            faults.append(f"GPU{cell.gpu}: {table.at(index)} is of stage {cell.action.stage}, which is on GPU{home}")
    return places, faults


def halves_are_named_b(table: Table) -> bool:
    """Return whether every B is followed by a weight gradient of its own, as in torch 2.5, which knew no I."""
    of_kind = {
        kind: {cell.action._replace(kind="B") for cell in table.cells if cell.action.kind == kind} for kind in "BIW"
    }
    return bool(of_kind["W"]) and not of_kind["I"] and of_kind["W"] == of_kind["B"]


def missing_actions(table: Table, places: Places) -> Iterator[str]:
    """Return a line for every forward or backward that a stage lacks, or half of a split one."""
    gpu_of = {cell.action.stage: cell.gpu for cell in table.cells}
    stages, micro_batches = (
        1 + max(column) for column in zip(*((a.stage, a.micro_batch) for a in places), strict=True)
    )
    for stage in range(stages):
        if stage not in gpu_of:
            yield f"stage {stage} is on no GPU"
            continue
        for micro_batch in range(micro_batches):
            done = [kind for kind in "FBIW" if Action(cast(Kind, kind), stage, micro_batch) in places]
            for text in missing_kinds(table, places, stage, micro_batch, "".join(done)):
                yield f"GPU{gpu_of[stage]}: {text}"


def missing_kinds(table: Table, places: Places, stage: int, micro_batch: int, done: str) -> Iterator[str]:
    """Return a line for each of F, B, I and W that is missing where only ``done`` are done; ``FB`` and ``FIW`` are
    complete."""

    def name(kind: str) -> str:
        return table.name(Action(cast(Kind, kind), stage, micro_batch))

    def at(kind: str) -> str:
        return table.at(places[Action(cast(Kind, kind), stage, micro_batch)])

    backward = done.removeprefix("F")
    if "F" not in done:
        yield f"{name('F')} is missing" + (f", so {at(backward[0])} runs without its forward" if backward else "")
    if not backward:
        yield f"{name('B')} is missing"
    elif backward in ("I", "W"):
        yield f"{name('W' if backward == 'I' else 'I')} is missing, the other half of {at(backward)}"
    elif "B" in backward and backward != "B":
        yield f"{at('B')} is the whole backward, but {at(backward[1])} does half of it again"


def needs(action: Action) -> Iterable[Action]:
    """Return what must be done before the action; of B and I of the next stage it is the one that exists."""
    kind, stage, micro_batch = action
    if kind == "F":
        return (Action("F", stage - 1, micro_batch),)
    if kind == "W":
        return (Action("I", stage, micro_batch),)
    nexts: tuple[Kind, Kind] = ("B", "I")
    return (Action("F", stage, micro_batch), *(Action(kind, stage + 1, micro_batch) for kind in nexts))


def violations(table: Table, places: Places) -> Iterator[tuple[int, int]]:
    """Return every pair (cell, cell that it needs), as indices, whose second comes too late.

    On one GPU the order of the row counts, between two the columns.
    """
    for index, cell in enumerate(table.cells):
        for action in needs(cell.action):
            made = places.get(action)
            if made is None:
                continue
            maker = table.cells[made]
            if index < made if maker.gpu == cell.gpu else cell.column <= maker.column:
                yield index, made


def violation_text(table: Table, index: int, made: int) -> str:
    """Return in one line which action comes before what it needs; or, of another GPU, no later than that."""
    gpu, maker = table.cells[index].gpu, table.cells[made].gpu
    if gpu == maker:
        return f"GPU{gpu}: {table.at(index)} comes before {table.at(made)}, which it needs"
    return f"GPU{gpu}: {table.at(index)} is too early: it needs GPU{maker}'s {table.at(made)}"
