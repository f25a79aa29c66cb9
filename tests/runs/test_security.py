"""What a run opens to others: nothing. Its sockets by the kernel's own tables, its files by their modes."""

import ast
import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import autotune
from tests.killing import family, wait_until

pytestmark = pytest.mark.slow  # whole runs

LISTEN = "0A"
FLAGS = ["--layers", "4", "--stages", "2", "--hidden", "16", "--heads", "2", "--seq-len", "8", "--vocab", "32"]
FLAGS += ["--batch", "8", "--device", "cpu", "--exhaustive"]


def address_of(written):
    """``0100007F:1F90`` as ("127.0.0.1", 8080); the kernel writes words of four bytes in the order of this machine."""
    host, port = written.split(":")
    words = b"".join(struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8))
    return socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words), int(port, 16)


def listening():
    """Inode -> address of every TCP socket that listens in this network namespace."""
    found = {}
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == LISTEN:
                found[fields[9]] = address_of(fields[1])
    return found


def sockets_of(process):
    """Inodes of the sockets that a process holds."""
    found = set()
    try:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            target = os.readlink(handle)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # it has ended
    return found


def test_the_kernels_table_is_read_right():
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = [address for inode, address in listening().items() if inode in sockets_of(os.getpid())]
        assert server.getsockname() in mine


def modes_below(folder):
    """Name and mode of all that is in ``folder``, but for its own folders; what goes away meanwhile is left out."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (files if place == str(folder) else [*folders, *files])):
            with suppress(FileNotFoundError):
                yield str(path.relative_to(folder)), path.lstat().st_mode & 0o777


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A whole run: every address at which one of its processes listened at any moment, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "tmp").mkdir(mode=0o755)
    marker = f"AUTOTUNE_TEST_SOCKETS={os.getpid()}"
    name, value = marker.split("=")
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune", "run", *FLAGS],
        cwd=folder,
        env=os.environ | {name: value, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        umask=0o022,
    )
    addresses, modes, most = set(), {}, 0
    while process.poll() is None:
        members = family(marker)
        most = max(most, len(members))
        held = set().union(*map(sockets_of, members)) if members else set()
        addresses |= {address for inode, address in listening().items() if inode in held}
        for name, mode in modes_below(folder):
            modes.setdefault(name, mode)
    assert process.returncode == 0
    assert most >= 4  # the controller, the server, two ranks
    assert wait_until(lambda: not family(marker), 10)
    return addresses, modes, folder


def test_no_process_of_a_run_listens_beyond_loopback(watched):
    addresses, _, _ = watched
    assert addresses, "gloo's own listeners were not even seen"
    assert {host for host, _ in addresses} <= {"127.0.0.1", "::1"}


def test_all_that_a_run_makes_is_its_users_alone(watched):
    _, _, folder = watched
    made = [path for path in folder.rglob("*") if path != folder / "tmp"]
    assert made
    for path in made:
        inside_private = any(parent.stat().st_mode & 0o077 == 0 for parent in path.parents if folder in parent.parents)
        assert inside_private or path.stat().st_mode & 0o077 == 0, path


def test_temporary_files_lie_in_private_folders_and_are_gone(watched):
    _, modes, folder = watched
    tops = {name: mode for name, mode in modes.items() if name.startswith("tmp/") and name.count("/") == 1}
    assert tops
    assert all(mode & 0o077 == 0 for mode in tops.values()), tops
    assert not list((folder / "tmp").iterdir())


def test_no_code_of_ours_unpickles_or_evaluates():
    """What is read from a file or a pipe is JSON, TOML or CSV."""
    for path in Path(autotune.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert words not in ("eval", "exec", "torch.load", "compile") and "pickle" not in words, (path, words)
            assert words.rpartition(".")[2] not in ("recv", "unsafe_load") or words == "dist.recv", (path, words)
