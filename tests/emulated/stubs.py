"""Functions that must be there for torch's libraries to load, and that nothing should call."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

HEAD = """\
extern "C" void emulated_misuse(const char *, ...);
#define STUB extern "C" __attribute__((visibility("default"))) int"""


def symbols(kind: str, libraries: Iterable[Path], *flags: str) -> set[str]:
    """The symbols of ``kind`` ("U": needed, "T": defined) in the libraries, with their version where they have one."""
    listed = subprocess.run(["nm", *flags, *map(str, libraries)], capture_output=True, text=True, check=False).stdout
    return {words[-1] for words in map(str.split, listed.splitlines()) if len(words) >= 2 and words[-2] == kind}


def stubs(pattern: str, result: int, needing: Iterable[Path], objects: Iterable[Path]) -> str:
    """C++ source of every symbol that matches ``pattern``, is needed, and is not among ``objects``: each writes to the
    log that it was called, and returns ``result``."""
    needed = {name for name in symbols("U", needing, "-D") if re.fullmatch(pattern, name)}
    lacking = sorted({name.split("@")[0] for name in needed} - symbols("T", objects))
    lines = [
        f'STUB {name}() {{ emulated_misuse("{name}: the emulation lacks it"); return {result}; }}' for name in lacking
    ]
    return "\n".join([HEAD, *lines, ""])
