"""What if: other links, devices, batches, limits and numbers of ranks, one by one and over ranges."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import UsageError
from autotune.plan.whatif import Case, Question, ask, changed
from autotune.predict.sweep import sweep
from autotune.records.profile import Profile
from autotune.report.paper.whatif import question_of

SIZES = (1, 2, 4, 8, 16)
ROWS = [{"micro_batch_size": b, "t_f": 0.002 + 0.001 * b, "t_bw": 0.004 + 0.002 * b} for b in SIZES]
STAGE = {
    "layers": 4,
    "static_bytes": 2**30,
    "time_s": ROWS,
    "memory": [{"micro_batch_size": 1, "activation_bytes": 2**28}],
    "optimizer_s": 0.01,
}
LINKS = [{"from": a, "to": b, "bandwidth_bytes_s": 1e10} for a, b in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2))]
DOCUMENT = {
    "kind": "autotune.profile",
    "workload": {"batch": 64},
    "stages": [STAGE] * 4,
    "links": LINKS,
    "message_bytes": [{"micro_batch_size": 1, "bytes": 2**24}],
}
PROFILE = Profile.model_validate(DOCUMENT)


def step(profile, m=16):
    ((_, one),) = sweep(profile, {"batch": 64, "micro_batches": m})[0]
    return one.step_time_s


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ({"link": "1GB/s,25GB/s"}, ("link_bytes_s", (1e9, 25e9))),
        ({"batch": "64:512"}, ("batch", (64, 128, 256, 512))),
        ({"batch": "48:100"}, ("batch", (48, 96, 100))),
        ({"memory_limit": "40GB"}, ("memory_limit", (40 * 10**9,))),
        ({"speed_up": "1:16"}, ("speed_up", (1, 2, 4, 8, 16))),
        ({"stages": "4,8"}, ("stages", (4, 8))),
    ],
)
def test_ranges(flags, values):
    name, expected = values
    assert getattr(question_of(flags), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"link": "fast"}, "--link: write 25GB/s"),
        ({"batch": "1.5"}, "--batch: give whole numbers"),
        ({"batch": "64:16"}, "give the smaller one first"),
        ({"speed_up": "0"}, "give more than 0"),
        ({"stages": "x"}, "--stages: write"),
    ],
)
def test_what_is_no_range(flags, message):
    with pytest.raises(UsageError, match=message):
        question_of(flags)


def test_devices_that_are_twice_as_fast_compute_in_half_the_time():
    alone = PROFILE.model_copy(update={"links": (), "message_bytes": ()})
    assert step(changed(alone, Case(speed_up=2.0))) == pytest.approx(step(alone) / 2)
    assert step(changed(PROFILE, Case(speed_up=2.0))) > step(PROFILE) / 2  # messages take as long as before


def test_slower_links_cost_what_their_messages_take_longer():
    slow, fast = (step(changed(PROFILE, Case(link_bytes_s=rate))) for rate in (1e9, 1e12))
    assert slow > step(PROFILE) > fast
    bare = PROFILE.model_copy(update={"links": ()})
    assert step(changed(bare, Case(link_bytes_s=1e9))) == pytest.approx(slow)  # on links that the profile lacks, too


def test_more_ranks_have_fewer_layers_each():
    longer = changed(PROFILE, Case(stages=8))
    assert longer.ranks == 8
    assert sum(stage.layers for stage in longer.stages) == 16
    assert len(longer.links) == 14
    assert step(longer, 64) < step(PROFILE, 64)


def test_the_best_of_every_case():
    """A small memory wants small micro-batches; slow links cost time whatever m is."""
    question = Question(link_bytes_s=(1e8, 1e12), memory_limit=(10 * 2**30, 40 * 2**30))
    found = ask(PROFILE, question, None, ("1F1B",))
    best = {(one.case.link_bytes_s, one.case.memory_limit): one for one in found.answers}
    assert len(best) == 4
    for limit in question.memory_limit:
        assert best[1e8, limit].step_time_s > best[1e12, limit].step_time_s
    assert all(one.peak_memory_bytes <= one.case.memory_limit for one in found.answers)
    assert best[1e12, 10 * 2**30].micro_batch_size <= best[1e12, 40 * 2**30].micro_batch_size


def test_where_nothing_fits_nothing_is_said():
    (one,) = ask(PROFILE, Question(memory_limit=(2**20,)), None, ("1F1B",)).answers
    assert one.micro_batches is None and one.step_time_s is None


def test_too_many_cases():
    with pytest.raises(UsageError, match="cases are too many"):
        ask(PROFILE, Question(batch=tuple(range(1, 500))), None, ("1F1B",))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(DOCUMENT))
    return tmp_path / "profile.json"


def run(*words):
    done = CliRunner().invoke(app, ["predict", *map(str, words)])
    assert done.exit_code == 0, done.output or done.exception
    return done


def test_the_command_prints_a_table_a_grid_and_a_picture(path):
    page = path.with_name("page.html")
    done = run(path, "--link", "1GB/s,100GB/s", "--batch", "32:128", "--html", page)
    assert "the m that wins" in done.stdout
    assert "batch / link" in done.stdout
    assert "nothing was run" in done.stdout
    assert "The m that wins" in page.read_text() and "bokeh" in page.read_text().lower()
    printed = json.loads(run(path, "--speed-up", "1,2,4", "--json").stdout)
    assert printed["kind"] == "autotune.what-if"
    assert len(printed["answers"]) == 3
    assert run(path, "--speed-up", "1,2,4", "--html", page).exit_code == 0


def test_one_case_is_a_prediction_that_says_so(path):
    done = run(path, "--speed-up", "1.3", "--link", "25GB/s", "--micro-batches", "16")
    assert "what if: link 25.0 GB/s, speed-up 1.30x" in done.stderr
    assert "Best prediction: m = 16" in done.stdout
