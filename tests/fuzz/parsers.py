"""What is fuzzed, and with what: files with a few wrong bytes, files with a wrong value, and any bytes at all."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from autotune.config import load_config, shipped
from autotune.errors import InputError
from autotune.plan.devices import read_device
from autotune.plan.network import read_network
from autotune.plan.shape import of_hugging_face, read_shape
from autotune.predict.custom import read_schedule
from autotune.records.profile import read_profile
from autotune.report.export.export import export
from autotune.report.load import read_report
from tests.report.export.reports import make_report

ROOT = Path(__file__).parents[2]
HUGGING_FACE = (
    b'{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "n_positions": 8}'
)
MOST_WORDS = 20_000  # characters of a complaint; it is one line
STRANGE: list[Any] = [None, True, 0, -1, 10**400, 1e308, float("nan"), float("-inf"), "", "\ud800", "\0", [], {}]
STRANGE += [[[]] * 100, {"a": {"b": 1}}, "1" * 5000, "<script>", 0.1, 2**63]


def into(to: str, suffix: str, **more: Any) -> Callable[[Path], object]:
    """Export into a launcher's config file, whose name must end as its files do."""

    def read(path: Path) -> object:
        named = path.rename(path.with_suffix(suffix))
        try:
            return export(make_report(), to, merge=named, **more)
        except InputError as error:
            raise InputError(str(error).replace(str(named), str(path))) from None

    return read


class Parser(NamedTuple):
    """``read(path)`` gives a record or raises InputError; ``seeds``: files that it takes."""

    read: Callable[[Path], object]
    seeds: list[bytes]
    is_json: bool = False


def parsers() -> dict[str, Parser]:
    """All of them."""
    report = make_report()
    cases = {path.name: path.read_bytes() for path in (ROOT / "tests/report/export/data").iterdir()}
    older = (ROOT / "tests/report/data/two_stages.json").read_bytes()
    drawn = (ROOT / "tests/predict/data/source-schedule.csv").read_bytes()
    return {
        "config": Parser(
            lambda path: load_config(path, {}),
            [file.read_bytes() for file in sorted((ROOT / "configs").glob("*.toml"))],
        ),
        "device": Parser(read_device, [file.read_bytes() for file in shipped("devices").values()]),
        "DeepSpeed file": Parser(into("deepspeed", ".json"), [cases["deepspeed.json"]], True),
        "GPT-NeoX file": Parser(into("gpt-neox", ".yml"), [cases["gpt-neox.yml"]]),
        "nanotron file": Parser(into("nanotron", ".yaml"), [cases["nanotron.yaml"]]),
        "torchtitan file": Parser(into("torchtitan", ".toml", version="0.2"), [cases["titan_split.toml"]]),
        "model": Parser(lambda path: read_shape(path, {}), [file.read_bytes() for file in shipped("models").values()]),
        "hugging face": Parser(of_hugging_face, [HUGGING_FACE], True),
        "network": Parser(read_network, [file.read_bytes() for file in shipped("networks").values()]),
        "profile": Parser(read_profile, [report.profile.model_dump_json(by_alias=True).encode()], True),
        "report": Parser(read_report, [report.model_dump_json(by_alias=True).encode(), older], True),
        "schedule": Parser(
            read_schedule, [drawn, b"F1,F2,,,B1,B2\n,F1,B1,F2,B2\n", b"0F0,0F1,,,0B0,0B1\n,1F0,1B0,1F1,1B1\n"]
        ),
    }


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


@st.composite
def wrong_value(draw: st.DrawFn, seed: bytes) -> bytes:
    """A JSON file with one or two values replaced, removed or added."""
    document = json.loads(seed)
    for _ in range(draw(st.integers(1, 2))):
        known = list(places(document))
        container, key = known[draw(st.integers(0, len(known) - 1))]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        value = draw(st.sampled_from(STRANGE).map(deepcopy) | st.text(max_size=10) | st.integers() | st.floats())
        if how == "remove":
            del container[key]
        elif how == "add" and isinstance(container, dict):
            container[draw(st.text(max_size=10))] = value
        else:
            container[key] = value
        if not document:
            break
    return json.dumps(document).encode()


@st.composite
def wrong_bytes(draw: st.DrawFn, seed: bytes) -> bytes:
    """A file with a few places cut out, doubled or overwritten."""
    content = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 30)))
        piece = bytes(content[start:end])
        content[start:end] = draw(st.sampled_from([b"", piece * 2, piece * 50]) | st.binary(max_size=8))
    return bytes(content)


def inputs(parser: Parser) -> st.SearchStrategy[bytes]:
    """Files for a parser."""
    ways = [wrong_bytes(seed) for seed in parser.seeds]
    if parser.is_json:
        ways += [wrong_value(seed) for seed in parser.seeds] * 2
    else:
        ways.append(st.text(alphabet="FBIW0123456789,_\n=[]\"'.{}# \\", max_size=60).map(str.encode))
    return st.one_of(*ways, st.binary(max_size=100))


def attempt(parser: Parser, content: bytes, path: Path) -> bool:
    """Whether ``content`` is a valid record; every other way to end than one clear line raises."""
    path.write_bytes(content)
    try:
        parser.read(path)
    except InputError as error:
        words = str(error)
        assert str(path) in words, f"the file is not named: {words}"
        assert len(words) < MOST_WORDS, f"{len(words)} characters"
        return False
    return True
