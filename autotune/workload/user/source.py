"""The user's function, found by the place and the name that ``--model`` gives, and called."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from autotune.workload.user.refusal import ModelRefused, line_of, words_of

INSTALLED = {"site-packages", "dist-packages"}
BROUGHT: dict[str, set[str]] = {}
"""What importing a module of the user's imported, by its name."""


class Source(NamedTuple):
    """What a user's module offers: the function that makes the model, and what may stand beside it."""

    module: ModuleType
    function: Callable[..., Any]
    title: str  # as messages have it
    arguments: Mapping[str, Any]

    @property
    def cuts_itself(self) -> bool:
        """True where the function makes a stage, of (stage, stages)."""
        return {"stage", "stages"} <= set(parameters(self.function))

    def make(self, **more: int) -> Any:
        """Call the function; raise ModelRefused where it fails."""
        try:
            return self.function(**self.arguments, **more)
        except ModelRefused:
            raise
        except Exception as error:
            where = line_of(error, (str(self.module.__file__),))
            raise ModelRefused(f"{self.title} failed{where}: {words_of(error)}") from error

    def beside(self, name: str) -> Callable[..., Any] | None:
        """Return another function of the module; None where there is none."""
        found = getattr(self.module, name, None)
        if found is not None and not callable(found):
            raise ModelRefused(f"{name} beside {self.title} is a {type(found).__name__}; it must be a function")
        return found


def find(place: str, name: str, arguments: Mapping[str, Any]) -> Source:
    """Import the module and return what it offers; raise ModelRefused where there is no such function, or it does not
    take the arguments."""
    module = imported(place)
    title = f"{Path(place).name}:{name}"
    try:
        function = getattr(module, name)
    except AttributeError:
        own = [key for key, value in vars(module).items() if is_own(module, value) and not key.startswith("_")]
        raise ModelRefused(f"{place} has no {name}; it has {', '.join(own) or 'no functions'}") from None
    if isinstance(function, nn.Module) or not callable(function):
        raise ModelRefused(f"{title} is a {type(function).__name__}; it must be a function that returns the model")
    source = Source(module, function, title, arguments)
    try:
        inspect.signature(function).bind(**arguments, **({"stage": 0, "stages": 1} if source.cuts_itself else {}))
    except TypeError as error:
        takes = ", ".join(parameters(function)) or "nothing"
        raise ModelRefused(f"{title} takes {takes}: {error}; give them with --model-args") from None
    except ValueError:
        pass  # some built-in callables do not tell
    return source


def parameters(function: Callable[..., Any]) -> list[str]:
    """Return the names of what a function takes, as far as it tells."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def is_own(module: ModuleType, value: Any) -> bool:
    """Return whether a function or class was written in this module."""
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def imported(place: str) -> ModuleType:
    """Import a file by its path, or a module by its dotted name; raise ModelRefused where that fails."""
    path = Path(place)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ModelRefused(f"there is no file {place}")
    folder = str(path.resolve().parent) if is_file else str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # so that the file finds what lies beside it
    name = path.stem if is_file else place
    before = set(sys.modules)
    try:
        if is_file and name in sys.modules and getattr(sys.modules[name], "__file__", None) != str(path.resolve()):
            module = from_file(path.resolve(), f"autotune_model_{name}")
        else:
            module = importlib.import_module(name)
        BROUGHT.setdefault(module.__name__, set(sys.modules) - before)
        return module
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise ModelRefused(f"there is no module {place}; give a module that Python finds, or a file.py") from None
        raise ModelRefused(f"{place} cannot be imported: {words_of(error)}; install it where the ranks run") from error
    except ModelRefused:
        raise
    except Exception as error:
        where = line_of(error, (str(path.resolve()),))
        raise ModelRefused(f"{place} cannot be imported{where}: {words_of(error)}") from error


def from_file(path: Path, name: str) -> ModuleType:
    """Import a file whose name another module has."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def digest(module: ModuleType) -> str:
    """Return hex digits that change with the module's file, and with those of its folder and package that it has
    imported."""
    own = Path(str(module.__file__)).resolve()
    folder = own.parents[module.__name__.count(".")]
    files = {own}
    for name in BROUGHT.get(module.__name__, ()):
        path = Path(getattr(sys.modules.get(name), "__file__", None) or "").resolve()
        is_ours = name.split(".")[0] == "autotune"
        if path.suffix == ".py" and folder in path.parents and not is_ours:
            files |= {path} if not INSTALLED & set(path.relative_to(folder).parts) else set()
    text = hashlib.sha256()
    for path in sorted(files):
        text.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return text.hexdigest()[:16]
