"""The table of a report as other programs take it: a flat dictionary for each candidate, and these as CSV, as a frame
of pandas, and as HTML for a notebook."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any, NamedTuple

from autotune.records.prediction import schedule_words

Row = dict[str, Any]
"""One candidate: numbers in seconds and bytes, texts, and None where nothing is known."""

GIB = 2**30
WHOLE = 10**4  # from which on a figure is shown without decimals


class Column(NamedTuple):
    """A column of the HTML table: its heading, and the text of its cell."""

    heading: str
    cell: Callable[[Row], str]


def csv_text(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with a line of names first; a cell is empty where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell_of(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def cell_of(value: Any) -> Any:
    """Return a value as CSV has it: true and false as JSON writes them."""
    return str(value).lower() if isinstance(value, bool) else value


def frame_of(rows: Sequence[Row]) -> Any:
    """Return the rows as a pandas.DataFrame; raise ImportError where there is no pandas."""
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise ImportError(
            "to_frame() needs pandas, which is not installed here: pip install pandas; rows() gives the same as"
            " dictionaries"
        ) from None
    return pandas.DataFrame(rows)


def html_table(title: str, rows: Sequence[Row]) -> str:
    """Return a title and the rows as an HTML table, the recommended one in bold; whatever comes from a file is
    escaped."""
    shown = [column for column in COLUMNS if any(column.cell(row) for row in rows)]
    head = "".join(f"<th>{escape(column.heading)}</th>" for column in shown)
    body = "".join(f"<tr>{''.join(map(td, cells(row, shown)))}</tr>" for row in rows)
    return f"<p>{escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def cells(row: Row, columns: Sequence[Column]) -> list[str]:
    """Return the cells of a row as HTML, escaped."""
    texts = [escape(column.cell(row)) for column in columns]
    return [f"<b>{text}</b>" for text in texts] if row["is_recommended"] else texts


def td(cell: str) -> str:
    """Return a cell of a table."""
    return f"<td>{cell}</td>"


def figure(name: str, unit: int = 1) -> Callable[[Row], str]:
    """Return the function that shows a number of a row with four significant digits; ``unit``: by what it is
    divided."""

    def cell(row: Row) -> str:
        if row[name] is None:
            return ""
        value = row[name] / unit
        return f"{value:.0f}" if abs(value) >= WHOLE else f"{value:.4g}"

    return cell


def schedule(row: Row) -> str:
    """Return ``Interleaved1F1B x2 cut 7,6,6,5``."""
    return schedule_words(row["schedule"], row["virtual_stages"], row["split"], row["recompute"])


def what_became_of_it(row: Row) -> str:
    """Return ``recommended, measured``; what failed, or why it was not tried."""
    marks = {"recommended": row["is_recommended"], "undecided": row["is_undecided"]}
    states: Mapping[str, Any] = {
        row["failure"] or "": row["failure"],
        row["excluded"] or "": row["excluded"],
        "over the memory limit": row["fits"] is False,
    }
    words = [word for word, holds in {**marks, **states}.items() if holds]
    return ", ".join([*words, *([] if row["failure"] or row["excluded"] else [row["source"]])])


COLUMNS = (
    Column("m", figure("micro_batches")),
    Column("b", figure("micro_batch_size")),
    Column("schedule", schedule),
    Column("sequences/s", figure("throughput_seq_s")),
    Column("tokens/s", figure("throughput_tokens_s")),
    Column("step, s", figure("step_time_s")),
    Column("from", figure("step_time_low_s")),
    Column("to", figure("step_time_high_s")),
    Column("peak memory, GiB", figure("peak_memory_bytes", GIB)),
    Column("what became of it", what_became_of_it),
)
