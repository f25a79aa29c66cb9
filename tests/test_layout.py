"""The layout's rules: imports point downwards, what must be quick to load does without torch, names tell the story."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autotune"
LAYERS = [
    "errors",
    "probe",
    "events",
    "disk",
    "quantities",
    "schedule_spec",
    "settings",
    "storage_url",
    "records",
    "identity",
    "torch_range",
    "config",
    "logs",
    "command",
    "workload",
    "pipeline",
    "worker",
    "profile",
    "predict",
    "plan",
    "search",
    "report",
    "hosts",
    "backend",
    "tuning",
    "tune",
    "checkup",
    "guide",
    "api",
    "cli",
]
HEIGHT = {name: height for height, name in enumerate(LAYERS)} | {"__init__": -1, "__main__": len(LAYERS)}
WITHOUT_TORCH = [
    "autotune.api",
    "autotune.backend",
    "autotune.cli",
    "autotune.command",
    "autotune.config",
    "autotune.logs",
    "autotune.pipeline.control",
    "autotune.pipeline.hosts",
    "autotune.plan",
    "autotune.predict",
    "autotune.records",
    "autotune.probe",
    "autotune.report",
    "autotune.search",
    "autotune.tune",
    "autotune.tuning",
]
SOURCES = sorted(PACKAGE.rglob("*.py"))
FRONT_DOOR = PACKAGE / "__init__.py"  # the version, for all; and the API, whose functions import when called


def part_of(module: str) -> str:
    """``autotune.records.prediction`` -> ``predict``; the package itself, which holds the version, -> ``__init__``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def module_name(source: Path) -> str:
    return ".".join(("autotune", *source.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imported(source: Path, code: str) -> set[str]:
    """Every module of autotune that ``code`` imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # from autotune import tune: a name is a module where there is such a file, else part of the module itself
            base = node.module or ""
            assert node.level == 0, f"{source}:{node.lineno}: relative import"
            found |= {f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names}
    return {name for name in found if name.split(".")[0] == "autotune"}


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def upward(source: Path, code: str) -> set[str]:
    """The imports of ``code`` that point to a higher layer than that of ``source``."""
    height = HEIGHT[part_of(module_name(source))]
    return {name for name in imported(source, code) if HEIGHT[part_of(name)] > height}


def circles(graph):
    """The groups of modules that import each other in a circle, each with those that it imports (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in graph.get(name, ()):
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_no_files_import_each_other_in_a_circle():
    """What is imported under TYPE_CHECKING or inside a function counts."""
    graph = {
        module_name(source): imported(source, source.read_text()) - {"autotune"}
        for source in SOURCES
        if source != FRONT_DOOR
    }
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
        ({"a": {"a"}}, [["a"]]),
    ],
)
def test_a_circle_is_found(graph, found):
    assert circles(graph) == found


def test_every_part_has_its_layer():
    parts = {part_of(module_name(source)) for source in SOURCES}
    assert parts <= set(HEIGHT), f"give these a place in LAYERS: {parts - set(HEIGHT)}"


@pytest.mark.parametrize("source", [one for one in SOURCES if one != FRONT_DOOR], ids=module_name)
def test_imports_point_downwards(source):
    assert upward(source, source.read_text()) == set()


WALLS = {  # what a folder never imports, although it lies below
    "predict": {"pipeline"},
    "plan": {"pipeline"},
    "search": {"pipeline", "backend"},
    "report": {"search", "pipeline", "backend"},
    "backend": {"search"},
}


def test_no_folder_reaches_through_a_wall():
    for source in SOURCES:
        behind = WALLS.get(part_of(module_name(source)), set())
        reached = {name for name in imported(source, source.read_text()) if part_of(name) in behind}
        assert reached == set(), source


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import autotune.tune", {"autotune.tune"}),
        ("from autotune import tune", {"autotune.tune"}),
        ("from autotune import __version__", set()),
        ("def late():\n    from autotune.search.choose import pick", {"autotune.search.choose"}),
        ("from autotune.records.prediction import Candidate", set()),
        ("from autotune.config import Config", set()),
    ],
)
def test_an_upward_import_is_found(code, found):
    assert upward(PACKAGE / "predict" / "memory.py", code) == found


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_imports_without_torch(name):
    """A package is imported with all of its modules."""
    program = (
        "import importlib, pkgutil, sys\n"
        f"module = importlib.import_module({name!r})\n"
        f"for found in pkgutil.walk_packages(getattr(module, '__path__', []), {name + '.'!r}):\n"
        "    importlib.import_module(found.name)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr


@pytest.mark.parametrize("light", ["autotune.cli"])
def test_help_loads_neither_torch_nor_optuna(light):
    program = f"import sys, {light}; print(sorted({{'torch', 'optuna', 'pydantic', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]", done.stderr


def test_ranks_import_torch_and_the_standard_library_alone():
    """Where they run there may be nothing else (--python). What a user's model needs is imported by its name."""
    seen, left = set(), {"autotune.worker", "autotune.workload.user_model"}
    left |= {module_name(source) for source in SOURCES if source.is_relative_to(PACKAGE / "pipeline" / "rank")}
    while left:
        name = left.pop()
        seen.add(name)
        path = PACKAGE.parent.joinpath(*name.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if source == FRONT_DOOR:
            continue
        code = source.read_text()
        left |= imported(source, code) - seen
        assert foreign(code) <= {"torch"}, f"{source}: {sorted(foreign(code))}"
    assert "autotune.workload.user_model" in seen


def foreign(code: str) -> set[str]:
    """The packages that ``code`` imports, but ours and those of the standard library."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found - sys.stdlib_module_names - {"autotune"}


def test_file_names_tell_the_story():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [source for source in SOURCES if {part.removesuffix(".py") for part in source.parts} & vague] == []


def test_no_folder_is_too_full_to_be_read():
    """At most 15 files, beside the ``__init__`` that says what the folder is for."""
    folders = {source.parent for source in SOURCES}
    counts = {str(one): len([file for file in one.glob("*.py") if file.name != "__init__.py"]) for one in folders}
    assert {name: count for name, count in counts.items() if count > 15} == {}


def test_functions_fit_a_screen():
    """At most 60 lines."""
    long = {}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > 60:
                long[f"{source}: {node.name}"] = lines
    assert long == {}


def test_files_of_the_search_fit_a_reader():
    """At most 300 lines, so that the search stays in parts that are each read at once."""
    long = {path.name: n for path in (PACKAGE / "search").rglob("*.py") if (n := path.read_text().count("\n")) > 300}
    assert long == {}
