"""autotune scale as its users run it."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import InputError, UsageError
from autotune.plan.scale import ScalePlan
from autotune.records.base import write_record
from tests.report.export.reports import make_report
from tests.report.scales import document

SIZES = ("--stages", "16,64", "--network", "dgx-h100")


@pytest.fixture
def profile(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(document()))
    return tmp_path / "profile.json"


def run(*arguments):
    return CliRunner().invoke(app, ["scale", *map(str, arguments)])


def points(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.exception
    return ScalePlan.model_validate_json(done.stdout).points


def test_a_table_and_a_page(profile, tmp_path):
    done = run(profile, *SIZES, "--html", tmp_path / "page.html")
    assert done.exit_code == 0
    assert "On 64 ranks a rank is predicted to do" in done.stdout
    assert "p = 64, 1F1B" in done.stderr
    assert "How far to trust this" in (tmp_path / "page.html").read_text()


def test_json_is_a_versioned_record_with_its_assumptions(profile):
    printed = json.loads(run(profile, *SIZES, "--json").stdout)
    assert (printed["kind"], printed["schema_version"]) == ("autotune.scale", 1)
    assert len(printed["assumptions"]) >= 6
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(CliRunner().invoke(app, ["schema", "scale"]).stdout)
    jsonschema.Draft202012Validator(schema).validate(printed)


def test_the_sizes_given_hold_at_every_number_of_ranks(profile):
    found = points(profile, *SIZES, "--layers", 192, "--batch", 512, "--micro-batches", "64,128,512")
    assert [(one.ranks, one.layers, one.batch) for one in found] == [(4, 192, 512), (16, 192, 512), (64, 192, 512)]
    assert [one.micro_batches for one in found[-1].evaluated] == [64, 128, 512]


def test_schedules_of_several_stages_to_a_rank(profile):
    found = points(profile, *SIZES, "--schedule", "1F1B,Interleaved1F1B")
    assert [(one.ranks, one.schedule, one.virtual_stages) for one in found[-2:]] == [
        (64, "1F1B", 1),
        (64, "Interleaved1F1B", 2),
    ]
    three = points(profile, *SIZES, "--schedule", "Interleaved1F1B", "--virtual-stages", 3)
    assert three[-1].virtual_stages == 3


def test_a_profile_of_two_stages_to_a_rank(tmp_path):
    path = tmp_path / "profile-v2.json"
    path.write_text(json.dumps(document(virtual_stages=2)))
    found = points(path, *SIZES)
    assert [(one.ranks, one.layers, one.schedule_text) for one in found] == [
        (2, 48, "Interleaved1F1B x2"),
        (16, 384, "Interleaved1F1B x2"),
        (64, 1536, "Interleaved1F1B x2"),
    ]


def test_links_that_were_measured(profile, tmp_path):
    network = tmp_path / "mine.toml"
    network.write_text("ranks_per_host = 4\nrails = 1\n[between]\nlatency_s = 1e-5\nbandwidth_bytes_s = 1e10\n")
    profile.write_text(json.dumps(document(links=[{"from": 0, "to": 1, "latency_s": 1e-6, "bandwidth_bytes_s": 1e11}])))
    assert points(profile, "--stages", 16, "--network", network)[-1].between == 3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (("--stages", "2"), UsageError, "--stages: 2 ranks cannot be made from a profile of 4; give 4 to 4096"),
        (("--stages", "sixty"), UsageError, "--stages: write numbers of ranks with commas"),
        (("--stages", ""), UsageError, "--stages: write numbers of ranks with commas"),
        (("--stages", "64", "--layers", "63"), UsageError, "--layers: 64 stages on 64 ranks need at least one layer"),
        (("--layers", "0"), UsageError, "--layers: it must be greater than 0"),
        (("--batch", "0"), UsageError, "--batch: it must be greater than 0"),
        (("--virtual-stages", "2,3"), UsageError, "--virtual-stages: give one"),
        (("--micro-batches", "9999"), UsageError, "m = 9999 is more than the batch of 1024"),
        (("--schedule", "ZBVZeroBubble", "--virtual-stages", "3"), UsageError, "runs exactly 2 stage(s) per rank"),
        (("--network", "absent.toml"), InputError, "cannot read network absent.toml"),
    ],
)
def test_wrong_usage(profile, options, error, words):
    done = run(profile, *SIZES, *options)
    assert isinstance(done.exception, error), done.stdout
    assert words in str(done.exception)
    assert done.stdout == ""


def test_a_report_whose_profile_does_not_say_its_layers(tmp_path):
    write_record(tmp_path / "report.json", make_report())
    done = run(tmp_path / "report.json", *SIZES)
    assert isinstance(done.exception, InputError)
    assert "stages.0.layers: say how many layers each stage holds" in str(done.exception)


def test_a_network_is_needed(profile):
    assert run(profile).exit_code == 2
