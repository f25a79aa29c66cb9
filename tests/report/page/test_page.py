"""The page as a file: self-contained, small enough, complete without its plots, and safe with any string."""

import re
from html.parser import HTMLParser

import pytest

from autotune.records.report import Report
from autotune.report.page.page import page
from tests.report.export.reports import make_report

EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
MOST_BYTES = 6 * 10**6


class Reader(HTMLParser):
    """Tags, the text outside of scripts and styles, and the rows of tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.rows, self.inside = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.attributes.extend(attrs)
        self.inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is None and data.strip():
            self.texts.append(data.strip())
            if self.tags[-1] == "td":
                self.rows[-1].append(data.strip())


@pytest.fixture(scope="module")
def usual():
    return page(make_report().model_copy(update={"command": "autotune run --layers 48"}))


def test_it_is_one_file_that_needs_nothing_else(usual):
    assert len(usual.encode()) < MOST_BYTES
    found = Reader(usual)
    assert found.tags[0] == "html"
    assert not [(name, value) for name, value in found.attributes if name in ("src", "href")]
    assert "<!doctype html>" in usual[:20]


def test_the_answer_comes_first_and_every_candidate_is_in_a_table(usual):
    texts = Reader(usual).texts
    assert any(text.startswith("Sweet spot: m = 8 micro-batches of 8 under 1F1B, 128.0 sequences/s") for text in texts)
    for count in (1, 2, 4, 6, 8, 16):
        assert str(count) in texts
    for heading in ("Throughput", "Where the time goes", "One step", "Real runs", "Where this comes from"):
        assert heading in texts
    assert "autotune run --layers 48" in texts


def evil_report():
    """With EVIL in every string that may hold any."""
    document = make_report(failed=[(16, "GPipe")]).model_dump(mode="json", by_alias=True)
    document["warnings"] = document["sweet_spot"]["ties"] = [EVIL]
    document["command"] = document["created"] = document["autotune_version"] = document["search"]["stopped_because"] = (
        EVIL
    )
    document["sweet_spot"]["reason"] = EVIL
    document["environment"] |= {"device": EVIL, "devices": [EVIL], "hostname": EVIL, "platform": EVIL}
    for row in document["candidates"]:
        if row["failure"]:
            row["failure"]["message"] = EVIL
        row["excluded"] = row["loses_to"] = EVIL
    return document


def test_no_string_of_a_report_becomes_code(usual):
    text = page(Report.model_validate(evil_report()))
    assert EVIL not in text
    assert text.count("<script") == usual.count("<script")
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert any(EVIL in shown for shown in Reader(text).texts)
