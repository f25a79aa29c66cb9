"""README and guide: complete, up to date, and every command in them is one that there is. The cheap ones are run."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from autotune.cli import app
from autotune.cli.options import COMMANDS
from autotune.cli.reference import schema_of
from autotune.config import load_config
from autotune.guide import TOPICS, page, title
from autotune.predict.sweep import sweep
from autotune.records.profile import Profile
from autotune.settings import SETTINGS
from tests.guide.manual import FOLDER, PAGES, README, ROOT, blocks, shell_lines, typed
from tests.guide.reference import PAGES as MADE
from tests.guide.reference import SCHEMAS

SMALL = "--layers 4 --stages 4 --hidden 32 --heads 2 --seq-len 16 --vocab 64 --batch 32 --device cpu --trials 2"
STARTS_RANKS = ("run", "profile", "worker")


def parsed(words):
    """What the real parser makes of a command's words; a bare mention of it, such as `autotune run`, is one too."""
    name, *arguments = words
    try:
        return get_command(app).commands[name].make_context(name, list(arguments)).params
    except Exception as error:
        if type(error).__name__ == "MissingParameter" and len(arguments) <= 1:
            return None
        raise


@pytest.mark.parametrize("command", typed(), ids=str)
def test_every_command_in_readme_and_guide_parses(command):
    given = parsed(command.words)
    if command.words[0] in ("run", "profile", "worker") and given is not None and given.get("config") is None:
        load_config(None, {name: value for name, value in given.items() if name in SETTINGS})


def test_every_command_and_every_flag_of_run_is_in_the_guide():
    text = "".join(path.read_text() for path in PAGES)
    assert [name for name in COMMANDS if f"autotune {name}" not in text] == []
    assert [row.name for row in COMMANDS["run"] if row.spellings[0] not in text] == []


def test_every_flag_in_readme_and_guide_is_one_of_a_command():
    """In the running text, where no command stands before it; flags of other programs are named here."""
    others = {
        "--rampup-batch-size",
        "--rdzv-id",
        "--rdzv-endpoint",
        "--standalone",
        "--force-reinstall",
        "--no-deps",
        "--from-literal",
        "--log-interval",
        "--train-iters",
        "--eval-iters",
        "--nnodes",
        "--nproc-per-node",
    }
    known = {spelling for rows in COMMANDS.values() for row in rows for spelling in row.spellings} | {
        "--help",
        "--version",
    }
    for path in PAGES:
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known - others == set(), path.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the examples name, from one real run of the small example."""
    from tests.cli.test_cli import autotune

    place = tmp_path_factory.mktemp("examples")
    done = autotune("run", *SMALL.split(), "--record-timeline", "--quiet", cwd=place)
    assert done.returncode == 0, done.stderr
    for name in ("new.json", "baseline.json", "tonight.json"):
        shutil.copy(place / "report.json", place / name)
    (place / "ds_config.json").write_text('{"train_batch_size": 8}')
    (place / "mine.csv").write_text("F1,F2,,,,B1,,B2\n,F1,F2,,B1,,B2,\n")
    with_runs(place)
    return place


def with_runs(place):
    """The table of the guide, logs, and the report that they come to."""
    (table,) = [text for text in blocks(FOLDER / "runs.md", "text") if text.startswith("micro_batches")]
    (place / "runs.csv").write_text(table)
    for count in (16, 32):
        steps = "".join(f"steps: {n} loss: 7.1 iter time (s): {4 + n % 2 / 100} samples/sec: 9\n" for n in range(1, 9))
        (place / f"m{count}.log").write_text(f"CONFIG: micro_batches={count} micro_batch_size={512 // count}\n{steps}")
    done = CliRunner().invoke(app, ["fit", *map(str, [place / "runs.csv", "--stages", 8, "--out", place / "fit.json"])])
    assert done.exit_code == 0, done.exception


CHEAP = [command for command in typed() if command.words[0] not in STARTS_RANKS and parsed(command.words) is not None]


@pytest.mark.parametrize("words", sorted({command.words for command in CHEAP}), ids=" ".join)
def test_the_cheap_commands_run(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output or done.exception


def test_the_profile_by_hand_can_be_predicted():
    (text,) = blocks(FOLDER / "profiles.md", "json")
    rows, notes = sweep(Profile.model_validate(json.loads(text)), {"micro_batches": "4,8,16"})
    assert len(rows) == 3
    assert notes


def test_the_config_file_can_be_loaded(tmp_path):
    (text,) = blocks(FOLDER / "model.md", "toml")
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert load_config(path, {}).micro_batches == tuple(tomllib.loads(text)["micro_batches"])


def test_make_targets_are_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for path in PAGES for line in shell_lines(path) if line.startswith("make ")}
    named |= {name for path in PAGES for name in re.findall(r"`make ([a-z-]+)`", path.read_text())}
    assert named - targets == set()
    assert {"run", "test"} <= named


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 160


def test_the_readme_links_every_page_and_no_other():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert {Path(link).stem for link in links if link.startswith("autotune/guide/")} == set(TOPICS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_lines_are_no_wider_than_the_code(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "!"))]
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("topic", MADE)
def test_a_page_that_is_made_is_up_to_date(topic):
    assert page(topic) == MADE[topic](), "make guide makes it again"


def test_every_topic_has_its_page():
    assert {path.stem for path in FOLDER.glob("*.md")} == set(TOPICS)
    assert [topic for topic in TOPICS if not title(topic)] == []


def test_the_guide_is_plain_text_in_a_pipe():
    shown = CliRunner().invoke(app, ["guide", "memory"])
    assert (shown.exit_code, shown.stdout) == (0, page("memory"))
    listed = CliRunner().invoke(app, ["guide"]).stdout
    assert [
        topic for topic in TOPICS if not re.search(rf"^{topic} +{re.escape(title(topic))}$", listed, re.MULTILINE)
    ] == []


def test_the_guide_is_drawn_on_a_terminal(tmp_path):
    from tests.terminal import typed as on_a_terminal

    shown = on_a_terminal(["guide", "table"], tmp_path, 100)
    assert "\x1b[" in shown
    assert "| --- |" not in shown


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_property_of_a_schema_is_described(name):
    schema = schema_of(name)
    records = {"": schema, **schema.get("$defs", {})}
    properties = [
        (record, field, about) for record in records for field, about in records[record].get("properties", {}).items()
    ]
    assert [(record, field) for record, field, about in properties if not about.get("description")] == []
