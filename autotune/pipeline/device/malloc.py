"""The bytes that malloc has handed out to this process, by glibc's own count: exact, and cheap after every step."""

import ctypes
from functools import cache
from typing import Any

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class MallocInfo(ctypes.Structure):
    """``struct mallinfo2``, over all arenas: ``uordblks`` and ``hblkhd`` are in use, on the heap and mapped apart."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in FIELDS)


@cache
def mallinfo2() -> Any | None:
    """Return glibc's function, 2.33 and newer; None in a process without it."""
    found = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if found is not None:
        found.restype = MallocInfo
    return found


def malloc_bytes() -> int | None:
    """Return bytes that malloc has handed out and not got back; None without glibc.

    Python's small objects are not among them, because these lie in arenas of its own.
    """
    ask = mallinfo2()
    if ask is None:
        return None
    info = ask()
    return int(info.uordblks + info.hblkhd)
