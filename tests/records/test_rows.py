"""The table of a report for other programs: rows, CSV, frame and HTML say what the table and report.json say."""

import csv
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.records.report import Report
from autotune.records.rows import csv_text
from autotune.report.load import read_report
from autotune.report.paper.plan import Flags, plan_report
from autotune.report.table import Mark, marks, table_of
from autotune.report.units import show_bytes, show_rate, show_rough
from tests.report.export.reports import make_report

DATA = sorted((Path(__file__).parents[1] / "report" / "data").glob("*.json"))


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_rows_say_what_report_json_says(path):
    report = read_report(path)
    for row, one in zip(report.rows(), json.loads(report.model_dump_json())["candidates"], strict=True):
        stated = one["estimate"] or one["measurement"] or one["last_prediction"] or one["prediction"]
        assert row["throughput_seq_s"] == stated["throughput_seq_s"]
        assert row["step_time_s"] == stated["step_time_s"]
        assert row["predicted_step_time_s"] == one["prediction"]["step_time_s"]
        steps = one["measurement"]["step_times_s"] if one["measurement"] else []
        assert (row["measured_steps"] or 0, row["source"] == "measured") == (len(steps), bool(steps))
        assert row["failure"] == (one["failure"] or {}).get("kind")
    assert [row["candidate"] for row in report.rows()] == list(range(len(report.candidates)))


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_rows_say_what_the_table_says(path):
    report = read_report(path)
    names, shown = table_of(report)
    for row, cells, mark in zip(report.rows(), shown, marks(report), strict=True):
        table = dict(zip(names, cells, strict=True))
        assert (table["m"], table["b"].split()[0]) == (str(row["micro_batches"]), str(row["micro_batch_size"]))
        if table["estimate"] != "-":
            assert table["estimate"].split()[0] == show_rate(row["throughput_seq_s"])
        assert table["peak memory"] == show_bytes(row["peak_memory_bytes"])
        assert row["is_recommended"] == (mark in (Mark.SWEET_SPOT, Mark.RECOMMENDED))
        assert row["is_undecided"] == (mark is Mark.RIVAL)


def test_rates_of_a_plan_are_those_of_all_replicas_as_in_its_table():
    report = plan_report(Flags(device_spec=Path("h100"), settings={"stages": 4}, data_parallel=8))
    names, shown = table_of(report)
    rows = report.rows()
    assert report.replicas == 8
    assert [dict(zip(names, one, strict=True))["sequences/s"] for one in shown] == [
        show_rough(row["throughput_seq_s"]) for row in rows
    ]
    assert rows[0]["throughput_tokens_s"] == pytest.approx(rows[0]["throughput_seq_s"] * report.workload.seq_len)


def read_back(text):
    """Every value of CSV as Python has it."""
    words = {"": None, "true": True, "false": False}

    def value(cell):
        try:
            return words[cell] if cell in words else float(cell)
        except ValueError:
            return cell

    return [{name: value(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


def test_csv_says_what_the_rows_say():
    report = make_report(split=(11, 12, 12, 13), failed=[(4, "1F1B")])
    (first, *_) = rows = report.rows()
    assert (first["split"], first["recompute"]) == ("11,12,12,13", None)
    assert "out_of_memory" in [row["failure"] for row in rows]
    assert read_back(csv_text(rows)) == rows


@pytest.mark.parametrize("path", DATA[:2], ids=lambda path: path.stem)
def test_show_prints_the_table_as_csv(path):
    done = CliRunner().invoke(app, ["show", str(path), "--csv"])
    assert (done.exit_code, done.stdout) == (0, csv_text(read_report(path).rows()))


def test_show_prints_a_prediction_as_csv(tmp_path):
    stage = {"time_s": [{"micro_batch_size": 8, "t_f": 0.01, "t_bw": 0.02}]}
    profile = {"schema_version": 1, "kind": "autotune.profile", "stages": [stage] * 2, "workload": {"batch": 64}}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    written = ["predict", str(tmp_path / "profile.json"), "--out", str(tmp_path / "predicted.json")]
    assert CliRunner().invoke(app, written).exit_code == 0
    rows = read_back(CliRunner().invoke(app, ["show", str(tmp_path / "predicted.json"), "--csv"]).stdout)
    assert [row["micro_batches"] for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    assert {row["source"] for row in rows} == {"predicted"}
    assert [row["micro_batches"] for row in rows if row["is_recommended"]] == [8]


def test_a_frame_has_the_rows():
    pandas = pytest.importorskip("pandas")
    report = read_report(DATA[0])
    frame = report.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["throughput_seq_s"].tolist() == [row["throughput_seq_s"] for row in report.rows()]
    assert frame.loc[frame["is_recommended"]].index.tolist() == [report.sweet_spot.candidate]


def test_a_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as Python has it where an import is forbidden
    with pytest.raises(ImportError, match="pip install pandas"):
        make_report().to_frame()


def test_a_report_is_shown_in_a_line():
    for report in (make_report(), make_report(winner=None), read_report(DATA[0])):
        assert repr(report).startswith("Report(status=")
        assert len(repr(report)) < 160
    assert "recommended='m = 8 1F1B', throughput_seq_s=128.0" in repr(make_report())


class Tags(HTMLParser):
    """The tags of a page, and the texts between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert attributes == []

    def handle_data(self, text):
        self.texts.append(text)


def test_a_notebook_shows_the_table():
    report = make_report()
    found = Tags(report._repr_html_())
    assert found.tags.count("tr") == 1 + len(report.candidates)
    assert {"m", "b", "schedule", "sequences/s", "128", "recommended, measured"} <= set(found.texts)
    assert found.texts[0] == repr(report)


def test_what_a_file_says_cannot_be_a_tag():
    evil = "<script>alert(1)</script>"
    document = json.loads(make_report().model_dump_json(by_alias=True))
    document["candidates"][0]["excluded"] = evil
    found = Tags(Report.model_validate(document)._repr_html_())
    assert "script" not in found.tags
    assert evil in found.texts
