"""A user's own schedule: both forms of the file, what is refused and in which words."""

import csv
from pathlib import Path

import pytest

from autotune.errors import InputError
from autotune.predict.custom import MOST_BYTES, read_schedule
from autotune.predict.schedules import ScheduleError, build_schedule
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.schedule_spec import why_illegal
from tests.predict.torch_orders import MULTI, stand_in

SOURCE_TABLE = Path(__file__).parent / "data" / "source-schedule.csv"

IN_TIME_UNITS = """\
F1,F2,,,B1,,B2
,F1,B1,F2,,B2
"""
TORCHS = """\
0F0,0F1,,,0B0,,0B1
,1F0,1B0,1F1,,1B1
"""


@pytest.fixture
def read(tmp_path):
    """Reads a text, or bytes, as a schedule."""

    def read_text(text):
        path = tmp_path / "mine.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_schedule(path)

    return read_text


@pytest.fixture
def faults(read):
    """The lines of the refusal below its first one, or its only line."""

    def faults_of(text):
        with pytest.raises(InputError) as refusal:
            read(text)
        first, *lines = str(refusal.value).split("\n")
        return [line.strip() for line in lines] or [first.split("mine.csv")[1].lstrip(": ")]

    return faults_of


def rows(own):
    return [own.schedule.row(rank) for rank in range(own.schedule.ranks)]


@pytest.mark.parametrize(("text", "first"), [(IN_TIME_UNITS, 1), (TORCHS, 0)])
def test_both_forms_are_the_same_schedule(read, text, first):
    own = read(text)
    assert rows(own) == ["F0 F1 B0 B1", "F0 B0 F1 B1"]
    assert (own.first_micro_batch, own.schedule.stages, own.notes) == (first, 2, ())


@pytest.mark.parametrize(
    "text",
    [
        "F0,F1,,,B0,,B1\n,F0,B0,F1,,B1\n",  # micro-batches from 0
        "F_1,F_2,-,-,B_1,-,B_2,-,-\n-,F_1,B_1,F_2,.,B_2\n",  # as the source document writes it
        "\ufeffF1,F2,,,B1,,B2,,,,\r\n,F1,B1,F2,,B2\r\n\r\n",  # what a spreadsheet makes of it
        ' F1 , F2,,,"B1",,B2\n,F1,B1,F2,,B2',
    ],
)
def test_other_spellings_of_time_units(read, text):
    assert rows(read(text)) == ["F0 F1 B0 B1", "F0 B0 F1 B1"]


def test_the_source_documents_table_is_refused_with_every_reason():
    """GPU3 lacks F2-F4; GPU1 runs every backward one column before GPU2's. Times count from 0, as in the document."""
    with pytest.raises(InputError) as refusal:
        read_schedule(SOURCE_TABLE)
    headline, *lines = str(refusal.value).split("\n  ")
    assert headline.endswith("(GPUs and times count from 0, micro-batches from 1): 7 violations")
    assert lines == [
        "GPU3: F2 is missing, so B2 at t=5 runs without its forward",
        "GPU3: F3 is missing, so B3 at t=6 runs without its forward",
        "GPU3: F4 is missing, so B4 at t=7 runs without its forward",
        "GPU1: B1 at t=5 is too early: it needs GPU2's B1 at t=6",
        "GPU1: B2 at t=6 is too early: it needs GPU2's B2 at t=7",
        "GPU1: B3 at t=7 is too early: it needs GPU2's B3 at t=8",
        "GPU1: B4 at t=8 is too early: it needs GPU2's B4 at t=9",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "F1,B1\nF1,B1",
            [
                f"GPU{a}: {kind}1 at t={t} is too early: it needs GPU{b}'s {kind}1 at t={t}"
                for a, b, kind, t in ((0, 1, "B", 1), (1, 0, "F", 0))
            ],
        ),
        ("F1,,,B1\n,F1\n", ["GPU1: B1 is missing"]),
        ("F1,B1,F1", ["GPU0: F1 at t=2 is done already: F1 at t=0"]),
        ("B1,F1", ["GPU0: B1 at t=0 comes before F1 at t=1, which it needs"]),
        ("F1,I1", ["GPU0: W1 is missing, the other half of I1 at t=1"]),
        ("F1,I1,W1,B1", ["GPU0: B1 at t=3 is the whole backward, but I1 at t=1 does half of it again"]),
        ("F1,W1,I1", ["GPU0: W1 at t=1 comes before I1 at t=2, which it needs"]),
        ("F3,B3", [f"GPU0: {kind}{i} is missing" for i in (1, 2) for kind in "FB"]),
        ("0F1,0B1", ["GPU0: 0F0 is missing", "GPU0: 0B0 is missing"]),
        ("0F0,0B0\n2F0,2B0", ["stage 1 is on no GPU"]),
        ("0F0,1F0,1B0\n0B0", ["GPU1: 0B0 at t=0 is of stage 0, which is on GPU0"]),
        ("1F0,0F0,1B0,0B0", ["GPU0: 1F0 at t=0 comes before 0F0 at t=1, which it needs"]),
    ],
)
def test_violations_are_named_in_the_files_words(faults, text, found):
    assert faults(text) == found


def test_many_violations_are_counted(faults):
    lines = faults(",".join(f"F{i}" for i in range(1, 31)))
    assert lines[0] == "GPU0: B1 is missing"
    assert lines[20:] == ["... and 10 more"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (b"F1,B\xff", "is not CSV in UTF-8"),
        ("F1,B1\n,,\nF1,B1", "row 2 (GPU1) computes nothing"),
        ("F1,X1", "row 1, column 2 (GPU0, t=1): 'X1' is no action"),
        ("F1,B1\n,f1", "row 2, column 2 (GPU1, t=1): 'f1' is no action"),
        ("0F0,0B", "'0B' is no action"),
        ("F1,0B0", "'0B0' is of the other form"),
        ("(0F0;B1)OVERLAP_F_B", "is no action"),
        ("F1,B9999999", "pairs of stage and micro-batch in only 2 actions"),
        ("F" + "9" * 5000, "is no action"),
        (b"," * (MOST_BYTES + 1), "larger than 16 MiB"),
        ('"' + "a" * 200_000, "is not CSV"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused_in_one_line(faults, text, words):
    (line,) = faults(text)
    assert words in line


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(InputError, match=f"cannot read {path}"):
            read_schedule(path)


@pytest.mark.parametrize(
    "text",
    [
        "0F0,0F1,,0B0,0W0,0B1,0W1\n,1F0,1B0,1F1,1B1,1W0,1W1\n",
        "0F0,0SEND_F0,0RECV_B0,0BW0\n1RECV_F0,1F0,1BW0,1SEND_B0\n",
    ],
)
def test_a_file_of_torch_2_5_is_told_its_letters(faults, text):
    (line,) = faults(text)
    assert line.endswith(
        "torch 2.5 wrote B for the input gradient and BW for the whole backward; write I for B, and B for BW"
    )


def test_a_file_of_torch_2_4_is_read(read):
    """Its actions name micro-batch and stage the other way round."""
    own = read("F0_s0,F1_s0,,B0_s0,B1_s0\n,F0_s1,B0_s1,F1_s1,B1_s1\n")
    assert rows(own) == rows(read("0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n")) == ["F0 F1 B0 B1", "F0 B0 F1 B1"]


def test_a_file_of_torch_2_6_is_read(read):
    assert read("0F0,0F1,,0I0,0W0,0I1,0W1\n,1F0,1I0,1F1,1I1,1W0,1W1\n").first_micro_batch == 0


def test_an_overlapped_pair_is_its_two_parts(read):
    assert rows(read("0F0,(0F1;0B0)OVERLAP_F_B,0B1")) == ["F0 F1 B0 B1"]


def test_messages_and_sharding_are_skipped_and_counted(read):
    own = read("0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD\n1RECV_F0,1F0,1B0,1SEND_B0")
    assert rows(own) == ["F0 B0", "F0 B0"]
    (note,) = own.notes
    assert "6 messages and sharding actions skipped" in note


def test_columns_of_torchs_form_that_are_no_times_are_noted_not_refused(read):
    (note,) = read("0F0,,0B0\n1F0,1B0").notes
    assert "columns are no times" in note
    assert note.endswith("GPU1: 1F0 at t=0 is too early: it needs GPU0's 0F0 at t=0")
    assert read("0F0,0B0\n1F0,1B0").notes == ()  # without gaps nobody means times


def test_ranks_that_wait_in_a_circle_are_left_to_the_simulator(read):
    own = read("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0")
    with pytest.raises(ScheduleError, match="deadlock"):
        simulate(own.schedule, Costs([1, 1], [1, 1], [1, 1], [1, 1], [0], [0]))


@pytest.mark.parametrize("name", MULTI)
def test_torchs_own_dumps_are_read_back(name, tmp_path):
    """What ``_dump_csv`` writes of its own schedules, not all of them aligned in time, is our schedule of that name."""
    path = tmp_path / "torch.csv"
    for ranks, virtual_stages, micro_batches in ((2, 2, 1), (2, 2, 4), (3, 2, 6), (2, 3, 5)):
        if why_illegal(name, ranks, virtual_stages, micro_batches):
            continue
        stages = [stand_in(index, ranks * virtual_stages, ranks) for index in range(0, ranks * virtual_stages, ranks)]
        order = MULTI[name](stages, micro_batches).pipeline_order
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(order[rank] for rank in range(ranks))
        ours = build_schedule(name, ranks, micro_batches, virtual_stages)
        own = read_schedule(path).schedule
        assert [own.actions(rank) for rank in range(ranks)] == [ours.actions(rank) for rank in range(ranks)]
        assert own.stage_ranks == ours.stage_ranks
