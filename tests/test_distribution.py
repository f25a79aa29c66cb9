"""What is built and installed: its name, its files, and what happens beside the stranger of the same import name."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement

import autotune

ROOT = Path(__file__).parents[1]
STRANGER = "autotune"  # on PyPI: hyperparameter tuning, 0.0.3
TOLD = [
    *(ROOT / name for name in ("README.md", "pyproject.toml", "Makefile", "constraints.txt")),
    *(path for name in (".github", ".ci", "autotune", "configs") for path in (ROOT / name).rglob("*")),
]
DOCUMENTS = [path for path in TOLD if path.suffix in (".md", ".py", ".toml", ".yml", ".txt", "") and path.is_file()]


def installed_by(text):
    """Every requirement that a ``pip install`` in ``text`` names, in a line or in quotes in a sentence."""
    for command in re.findall(r"pip3? install ([^\n`;]*)", text):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # the quotes of the code around it
            words = command.replace("'", " ").replace('"', " ").split()
        for word in words:
            try:
                yield Requirement(word.rstrip(".,)")).name
            except InvalidRequirement:
                continue  # a flag, a path, a variable


def test_what_would_install_the_stranger_is_found():
    assert STRANGER in installed_by("run pip install 'autotune[postgresql]'.")
    assert STRANGER in installed_by("pip install -U autotune==0.1.0  # or")
    assert STRANGER not in installed_by("pip install -e . && pip install 'pipeline-autotune[gp]' ./autotune")


def test_no_document_and_no_message_installs_the_stranger():
    assert len(DOCUMENTS) > 100
    for path in DOCUMENTS:
        text = path.read_text()
        assert STRANGER not in installed_by(text), path
        assert not re.search(r"(?<![-\w])autotune\[[a-z]+\]", text), path


def test_the_distribution_has_the_name_that_the_package_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == autotune.DISTRIBUTION != STRANGER
    assert project["version"] == autotune.__version__
    assert project["scripts"] == {"autotune": "autotune.cli:main"}


def build(kind, source, out):
    """As ``make dist`` does it."""
    pytest.importorskip("hatchling", reason="make setup installs it")
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, which must therefore hold all that it takes."""
    folder = tmp_path_factory.mktemp("dist")
    with tarfile.open(build("sdist", ROOT, folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return build("wheel", source, folder / "wheel")


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"pipeline_autotune-{autotune.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    ours = {path.relative_to(ROOT) for path in (ROOT / "autotune").rglob("*") if "__pycache__" not in path.parts}
    wanted = {str(path) for path in ours if (ROOT / path).is_file()}
    wanted |= {f"autotune/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert {name for name in held if ".dist-info/" not in name} == wanted


def installed(wheel, folder):
    """Puts the wheel into ``folder``, by pip and without a network, and returns an environment that sees it first."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--upgrade"]
    subprocess.run([*command, "--target", folder, wheel], check=True, capture_output=True, text=True)
    return os.environ | {"PYTHONPATH": str(folder)}


def test_an_installed_wheel_runs_by_its_script_and_knows_its_scenarios(wheel, tmp_path):
    environment = installed(wheel, tmp_path / "site")
    script = [sys.executable, tmp_path / "site" / "bin" / "autotune", "--version"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == f"autotune {autotune.__version__}\n", done.stderr
    asked = "import autotune, importlib.metadata as m; print(autotune.__file__, m.version(autotune.DISTRIBUTION))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "site" / "autotune" / "__init__.py"), autotune.__version__]
    script[2:] = ["guide", "memory"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == (ROOT / "autotune" / "guide" / "memory.md").read_text(), done.stderr


def stranger(folder):
    """A wheel with the files that autotune 0.0.3 on PyPI has, of the same names."""
    path, info = folder / "autotune-0.0.3-py3-none-any.whl", "autotune-0.0.3.dist-info"
    files = {
        "autotune/__init__.py": "def main():\n    print('hyperparameters')\n",
        "autotune/tuner.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: autotune\nVersion: 0.0.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nautotune = autotune:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_a_stranger_that_was_installed_later_is_named_with_the_remedy(wheel, tmp_path):
    """README says that both overwrite each other; this is what the user then sees."""
    site = tmp_path / "site"
    for path in (wheel, stranger(tmp_path)):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site)
    done = subprocess.run(
        [sys.executable, "-m", "autotune", "doctor"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip uninstall autotune" in done.stderr and "Traceback" not in done.stderr


def test_what_the_launchers_need_does_not_contradict_the_constraints():
    """pip takes both at once, and then installs nothing."""
    pinned = {}
    for file in (ROOT / "constraints.txt", ROOT / "tests" / "interop" / "requirements.txt"):
        for line in file.read_text().splitlines():
            name, _, version = line.partition("==")
            if version:
                name = re.sub(r"[-_.]+", "-", name).lower()
                assert pinned.setdefault(name, version) == version, f"{file.name}: {line}"
