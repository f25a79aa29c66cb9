"""Numbers as people read them; the only place where seconds and bytes become text."""

from math import floor, log10


def show_bytes(count: float) -> str:
    """Return ``1.5 GiB``, ``12.0 MiB``, ``512 B``."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def show_seconds(seconds: float) -> str:
    """Return ``1.23 s``, ``45.6 ms``, ``78.9 µs``."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def show_share(share: float, digits: int = 1) -> str:
    """Return ``15.4%``."""
    return f"{share:.{digits}%}"


def show_certainty(chance: float) -> str:
    """Return ``98%``; never more than ``>99%`` nor less than ``<1%``, because no probability here is known better."""
    return ">99%" if chance > 0.99 else "<1%" if chance < 0.01 else f"{chance:.0%}"


def show_speed(times_longer: float) -> str:
    """Return ``1.39x slower`` or ``1.39x faster`` of steps that took ``times_longer`` times as long."""
    return f"{times_longer:.2f}x slower" if times_longer >= 1 else f"{1 / times_longer:.2f}x faster"


def counted(number: int, name: str, plural: str = "s") -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{number} {name}{'' if number == 1 else plural}"


def show_rate(rate: float) -> str:
    """Return sequences per second with four significant digits, so that ratios can be recomputed from what is printed.

    ``128.0``, ``98.73``, ``2.333``; from 1000 on with one decimal.
    """
    return f"{rate:.{rate_decimals(rate)}f}"


def show_rough(value: float) -> str:
    """Return a predicted figure with three significant digits, more than any prediction is sure of: ``0.0123``,
    ``4.56``, ``123``, ``45600``."""
    if not value:
        return "0"
    decimals = 2 - floor(log10(abs(value)))
    rounded = round(value, decimals)
    return f"{rounded:.{max(0, 2 - floor(log10(abs(rounded))))}f}"


def rate_decimals(rate: float) -> int:
    """Return how many decimals ``show_rate`` gives."""
    return 1 if rate >= 100 else 2 if rate >= 10 else 3 if rate >= 1 else 5
