"""Which rank ran where, and what the links between hosts gave."""

from collections.abc import Sequence

from autotune.records.profile import Link, Profile
from autotune.report.units import show_bytes, show_seconds


def places(hosts: Sequence[str]) -> str:
    """Return ``alpha: ranks 0, 1; beta: rank 2``."""
    ranks = {host: [str(rank) for rank, at in enumerate(hosts) if at == host] for host in hosts}
    return "; ".join(f"{host}: rank{'s' * (len(here) > 1)} {', '.join(here)}" for host, here in ranks.items())


def host_lines(profile: Profile) -> list[str]:
    """Return a line of placement and one of every link between hosts; nothing where all ranks are on one."""
    hosts = profile.environment.hosts
    between = [link for link in profile.links if hosts and hosts[link.from_] != hosts[link.to]]
    lines = [f"Hosts: {places(hosts)}."] if hosts else []
    return [*lines, f"Between hosts: {'; '.join(map(link_text, between))}."] if between else lines


def link_text(link: Link) -> str:
    """Return ``rank 1 to 2 11.4 MiB/s (5.8 MiB/s while all links carry) after 44.0 µs``."""
    alone = f"{show_bytes(link.bandwidth_bytes_s)}/s" if link.bandwidth_bytes_s else "no limit seen"
    busy = f" ({show_bytes(link.together_bytes_s)}/s while all links carry)" if link.together_bytes_s else ""
    return f"rank {link.from_} to {link.to} {alone}{busy} after {show_seconds(link.latency_s)}"
