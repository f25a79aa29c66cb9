"""The check of exports over real files: nothing wrong with the cases here, and it finds whatever is wrong."""

import json
from pathlib import Path

import pytest

from autotune.report.export.export import export
from tests.bench.exported import Change, found_in
from tests.bench.exports import check, known_files
from tests.report.export.reports import make_report

DATA = Path(__file__).parent / "data"


def test_nothing_is_wrong_with_the_cases():
    counts, wrong = check(DATA)
    assert wrong == []
    assert counts["files"] == len(list(DATA.iterdir()))
    assert {name for name in counts if name.startswith("exported")} == {
        f"exported ({to})"
        for to in (
            "accelerate",
            "automodel",
            "deepspeed",
            "gpt-neox",
            "megatron-bridge",
            "nanotron",
            "torchtitan",
        )
    }


def test_the_list_names_files_of_many_repositories():
    rows = list(known_files().values())
    assert len(rows) > 200
    assert len({row.repository for row in rows}) > 10
    assert len({row.kind for row in rows}) > 10


OLD = "# mine\nparallelism:\n  dp: 1 # one\n  pp: 1\n  tp: 2\ntokens:\n  micro_batch_size: 1\n  sequence_length: 32\n"


def change(**swap):
    """An export to nanotron, in which texts are then exchanged."""
    path = swap.pop("path")
    path.write_text(OLD)
    made = export(make_report(), "nanotron", merge=path)
    text = made.text
    for old, new in swap.pop("texts", ()):
        assert old in text
        text = text.replace(old, new)
    return Change(".yaml", OLD, text, made.notes)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("pp: 4", "pp: 2", "wrong value"),
        ("pp: 4", "pp: true", "wrong value"),
        ("dp: 1", "dp: 2", "wrong value"),
        ("tp: 2", "tp: 3", "foreign key changed"),
        ("  tp: 2\n", "", "key removed"),
        ("  tp: 2\n", "  tp: 2\n  cp: 1\n", "foreign key added"),
        ("# mine\n", "", "comment lost"),
        (" # one", "", "comment lost"),
        ("pp: 4", "pp: 4 # four", "comment added"),
        ("tp: 2", "tp:  2", "foreign line"),
        ("  tp: 2\n", "  tp: 2\n\n  # more\n", "comment added"),
        ("\n", "\r\n", "line breaks"),
        ("sequence_length: 32\n", "sequence_length: 32", "unreadable"),
        ("tokens:", "tokens: [", "unreadable"),
    ],
)
def test_what_is_wrong_is_found(tmp_path, old, new, kind):
    path = tmp_path / "run.yaml"
    assert list(found_in(change(path=path), "nanotron", "1F1B")) == []
    found = list(found_in(change(path=path, texts=[(old, new)]), "nanotron", "1F1B"))
    assert kind in {one for one, _ in found}, found


def test_a_key_that_goes_without_a_word_is_found():
    old = json.dumps({"pipeline": {"stages": 2}, "train_batch_size": 1})
    sizes = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 8}
    new = json.dumps({"pipeline": {}} | sizes)
    note = "m = 8 of 1F1B: 8 sequences x 8 micro-batches x 1 replicas = 64 sequences per step"
    silent = {kind for kind, _ in found_in(Change(".json", old, new, (note,)), "deepspeed", "1F1B")}
    assert "key removed" in silent
    said = ("removed pipeline.stages (2): it is another number of stages", note)
    assert "key removed" not in {kind for kind, _ in found_in(Change(".json", old, new, said), "deepspeed", "1F1B")}
