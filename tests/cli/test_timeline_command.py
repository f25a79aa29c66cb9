"""``autotune timeline`` as a user types it: where durations come from, what is refused and with which exit code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import AutotuneError
from autotune.predict.predict import predict
from autotune.records.base import write_record
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile
from autotune.records.report import Report, SweetSpot, candidate_report
from autotune.records.verdict import SearchReport

SOURCE_TABLE = Path(__file__).parents[1] / "predict" / "data" / "source-schedule.csv"


def profile(stages=2, virtual_stages=1, **more):
    """Stages that take 10 ms forward and 20 ms backward for 4 sequences, in proportion for others."""
    row = {"micro_batch_size": 4, "t_f": 0.01, "t_bw": 0.02}
    document = {"virtual_stages": virtual_stages, "stages": [{"time_s": [row]}] * stages} | more
    return Profile.model_validate(document)


def report(tmp_path):
    """A run of 16 sequences that tried m = 2, 4 and 8; the sweet spot is GPipe with m = 4."""
    measured, folded = profile(), profile(4, 2)
    tried = [
        Candidate(micro_batches=2, micro_batch_size=8, sequences=16, schedule="1F1B"),
        Candidate(micro_batches=4, micro_batch_size=4, sequences=16, schedule="GPipe"),
        Candidate(micro_batches=8, micro_batch_size=2, sequences=16, schedule="Interleaved1F1B", virtual_stages=2),
    ]
    rows = [
        candidate_report(c, predict(folded if c.virtual_stages == 2 else measured, c, None), None, None) for c in tried
    ]
    spot = SweetSpot(
        candidate=1,
        micro_batches=4,
        micro_batch_size=4,
        schedule="GPipe",
        virtual_stages=1,
        throughput_seq_s=1.0,
        speedup_over_naive=None,
        memory_headroom_bytes=None,
        reason="it is the fastest",
        confirmed=False,
    )
    work = {"layers": 4, "stages": 2, "hidden": 8, "heads": 1, "seq_len": 8, "vocab": 8}
    work |= {"batch": 16, "precision": "fp32", "optimizer": "sgd"}
    record = Report(
        created="2026-01-01",
        autotune_version="0",
        status="complete",
        environment={},
        workload=work,
        profile=measured,
        virtual_profiles=(folded,),
        candidates=tuple(rows),
        sweet_spot=spot,
        search=SearchReport(sampler="none", trials=0, real_steps=0, wall_s=0.0, stopped_because="nothing was left"),
    )
    write_record(tmp_path / "report.json", record)
    return tmp_path / "report.json"


@pytest.fixture
def saved(tmp_path):
    """The path of a saved two-stage profile."""
    write_record(tmp_path / "profile.json", profile())
    return tmp_path / "profile.json"


def timeline(*arguments):
    return CliRunner().invoke(app, ["timeline", *map(str, arguments)])


def as_json(*arguments):
    done = timeline(*arguments, "--format", "json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def refused(*arguments):
    """Exit code and message; ``main`` turns the exception into them."""
    done = timeline(*arguments)
    assert isinstance(done.exception, AutotuneError), done.output
    assert done.stdout == ""
    return done.exception.exit_code, str(done.exception)


def test_a_profile_is_drawn_with_its_durations(saved):
    done = timeline(saved, "-m", 2, "--schedule", "1F1B", "--batch", 8, "--width", 53)
    assert done.stdout.split("\n")[:4] == [
        "1F1B, 2 ranks, m = 2 micro-batches of 4",
        "        |0                  |50 ms              idle",
        "rank 0  F0--F1--........B0======....B1======     33%",
        "rank 1  ....F0--B0======F1--B1======........     33%",
    ]
    assert "Step: 90.0 ms." in done.stdout
    assert "gives no links: messages take no time" in done.stderr


def test_sizes_come_from_flags_and_profile(saved, tmp_path):
    assert as_json(saved, "-m", 4, "--micro-batch-size", 2)["makespan_s"] == pytest.approx(5 * 0.015)
    assert as_json(saved, "-m", 3, "--batch", 8)["micro_batch_size"] == 3
    assert "no batch is given: taken as 64" in timeline(saved, "-m", 4).stderr
    write_record(tmp_path / "sized.json", profile(workload={"batch": 12}))
    assert as_json(tmp_path / "sized.json", "-m", 4)["micro_batch_size"] == 3


def test_the_schedule_is_1f1b_and_gpipe_where_that_cannot_run(saved, tmp_path):
    assert as_json(saved, "-m", 2)["schedule"] == "1F1B"
    assert as_json(saved, "-m", 1)["schedule"] == "GPipe"
    write_record(tmp_path / "folded.json", profile(4, 2))
    found = as_json(tmp_path / "folded.json", "-m", 4)
    assert (found["schedule"], len(found["ranks"]), found["stages"]) == ("Interleaved1F1B", 2, 4)


def test_a_split_backward_that_was_not_measured_is_said(saved):
    assert "half of it each" in timeline(saved, "-m", 4, "--schedule", "InterleavedZeroBubble").stderr


def test_a_report_is_drawn_at_its_sweet_spot(tmp_path):
    found = as_json(report(tmp_path))
    assert (found["schedule"], found["micro_batches"], found["micro_batch_size"]) == ("GPipe", 4, 4)


def test_a_report_gives_the_rest_of_the_candidate_that_the_flags_name(tmp_path):
    path = report(tmp_path)
    found = as_json(path, "-m", 8)
    assert (found["schedule"], found["virtual_stages"], found["micro_batch_size"]) == ("Interleaved1F1B", 2, 2)
    assert as_json(path, "--schedule", "1F1B")["micro_batches"] == 4
    assert as_json(path, "--schedule", "ZBVZeroBubble")["virtual_stages"] == 2
    assert as_json(path, "-m", 16)["micro_batch_size"] == 1


def test_unit_times_without_a_profile():
    found = as_json("--stages", 4, "-m", 4, "--schedule", "1F1B")
    assert (found["makespan_s"], found["unit_times"]) == (14, True)
    assert "unit times: t_f = t_b = 1 t" in timeline("--stages", 4, "-m", 4).stdout
    assert as_json("--stages", 2, "-m", 4, "--schedule", "ZBVZeroBubble")["stages"] == 4


@pytest.mark.parametrize("source", [True, False])
def test_a_users_own_schedule_is_drawn(source, saved, tmp_path):
    (tmp_path / "mine.csv").write_text("F1,F2,,,B1,,B2\n,F1,B1,F2,,B2\n")
    done = timeline(*([saved, "--batch", 8] if source else []), "--schedule-csv", tmp_path / "mine.csv")
    title, _, *rows = done.stdout.split("\n")
    assert title.startswith("mine.csv, 2 ranks, m = 2 micro-batches")
    assert [re.findall(r"[FB]\d", row) for row in rows[:2]] == [["F1", "F2", "B1", "B2"], ["F1", "B1", "F2", "B2"]]
    assert ("Step: 90.0 ms" if source else "Step: 6 t") in done.stdout


def test_the_source_documents_table_is_refused_by_the_program(tmp_path):
    command = [sys.executable, "-m", "autotune", "timeline", "--schedule-csv", str(SOURCE_TABLE)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("autotune: ")
    assert "GPU3: F2 is missing, so B2 at t=5 runs without its forward\n" in done.stderr
    assert "GPU1: B1 at t=5 is too early: it needs GPU2's B1 at t=6\n" in done.stderr


def test_ranks_that_wait_for_each_other_are_refused(tmp_path):
    (tmp_path / "mine.csv").write_text("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n")
    code, words = refused("--schedule-csv", tmp_path / "mine.csv")
    assert code == 3
    assert "mine.csv cannot finish: deadlock" in words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give a PROFILE or REPORT; or --stages or --schedule-csv"),
        (["PROFILE"], "give -m"),
        (["--stages", 2], "give -m"),
        (["PROFILE", "-m", 1, "--schedule", "1F1B"], "the nearest m it runs is 2"),
        (["PROFILE", "-m", 5, "--schedule", "Interleaved1F1B"], "the nearest m it runs is 4"),
        (["PROFILE", "-m", 4, "--schedule", "1F2B"], "there is no schedule '1F2B'"),
        (["PROFILE", "-m", 0], "at least 1 of micro-batches"),
        (["PROFILE", "-m", 65], "m = 65 is more than the batch of 64"),
        (["PROFILE", "-m", 4, "--batch", 0], "--batch must be at least 1"),
        (["PROFILE", "-m", 4, "--batch", 64, "--micro-batch-size", 4], "leave one out"),
        (["PROFILE", "-m", 4, "--stages", 3], "has 2 ranks"),
        (["PROFILE", "-m", 4, "--virtual-stages", 2], "has 2 stages on 2 ranks"),
        (["PROFILE", "-m", 4, "--virtual-stages", 0], "has 2 stages on 2 ranks"),
        (["PROFILE", "-m", 4, "--schedule", "DualPipeV"], "2 stages per rank"),
        (["--stages", 2, "-m", 4, "--batch", 8], "--batch needs a PROFILE"),
        (["--stages", 2, "-m", 10**6], "too many to draw"),
        (["--schedule-csv", SOURCE_TABLE, "-m", 4], "leave -m out"),
        (["--schedule-csv", SOURCE_TABLE, "--virtual-stages", 1], "leave --virtual-stages out"),
        (["--stages", 2, "-m", 2, "--format", "svg"], "no format 'svg'"),
    ],
)
def test_flags_that_disagree_are_usage_errors_of_one_line(flags, words, saved):
    code, message = refused(*(saved if flag == "PROFILE" else flag for flag in flags))
    assert code == 2
    assert words in message
    assert "\n" not in message


def test_a_schedule_and_a_profile_of_other_sizes_disagree(saved, tmp_path):
    (tmp_path / "mine.csv").write_text("F1,,,B1\n")
    code, message = refused(saved, "--schedule-csv", tmp_path / "mine.csv", "--batch", 8)
    assert code == 2
    assert "runs 1 stage(s) on 1 rank(s)" in message


def test_a_profile_of_zeros_has_nothing_to_draw(tmp_path):
    row = {"micro_batch_size": 4, "t_f": 0.0, "t_bw": 0.0}
    write_record(tmp_path / "zero.json", Profile.model_validate({"stages": [{"time_s": [row]}]}))
    code, message = refused(tmp_path / "zero.json", "-m", 1)
    assert code == 3
    assert "nothing to draw" in message


def test_a_trace_is_written(saved, tmp_path):
    done = timeline(saved, "-m", 2, "--format", "trace", "--out", tmp_path / "trace.json")
    assert "ui.perfetto.dev" in done.stdout
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 8
    code, message = refused(saved, "-m", 2, "--out", tmp_path / "absent" / "trace.json")
    assert code == 3
    assert "--out" in message


def test_help_shows_examples_and_nothing_loads_torch():
    assert "autotune timeline profile.json -m 8 --schedule 1F1B" in " ".join(timeline("--help").stdout.split())
    program = (
        "import sys; from typer.testing import CliRunner; from autotune.cli import app\n"
        "done = CliRunner().invoke(app, ['timeline', '--stages', '2', '-m', '2'])\n"
        "print(done.exit_code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "False"]
