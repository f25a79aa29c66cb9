"""A real PostgreSQL server of our own, from Debian's package, and what a study in a database holds."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest

FOLDERS = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), os.environ.get("PATH", "")]
POSTGRES = shutil.which("postgres", path=os.pathsep.join(FOLDERS))
MISSING = "needs PostgreSQL (apt-get install postgresql)" if POSTGRES is None else "needs psycopg2"
needed = pytest.mark.skipif(POSTGRES is None or find_spec("psycopg2") is None, reason=MISSING)
PASSWORD = "s3cret%word"  # as it is; %25 in a URL


def unprivileged():
    """A user that may run the server, which refuses root; None: we are one already."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


class Server:
    """Listens on the loopback interface, lets in whoever knows the password; ``start`` works again after ``stop``."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="autotune-postgres-"))
        self.user, self.process = unprivileged(), None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        word = self.folder / "password"
        word.write_text(PASSWORD)
        for path in (self.folder, word):
            if self.user:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        initdb = ["-D", "data", "-U", "tuner", "--auth=scram-sha-256", "--pwfile=password", "--no-sync"]
        self._command("initdb", *initdb).communicate()

    def _command(self, program, *arguments):
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        words = [str(Path(POSTGRES).with_name(program)), *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(words, cwd=self.folder, env={"LC_ALL": "C"}, **quiet, **who)

    def start(self):
        flags = ["-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "fsync=off"]
        self.process = self._command("postgres", *flags)
        deadline = time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)

    def answers(self):
        import psycopg2

        try:
            psycopg2.connect(self.url()).close()
        except psycopg2.OperationalError:
            return False
        return True

    def url(self, password="s3cret%25word"):
        return f"postgresql://tuner:{password}@127.0.0.1:{self.port}/postgres"

    def stop(self):
        """At once: whoever is connected is thrown out."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)


@contextmanager
def running():
    """A server that lets in whoever knows the password."""
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.remove()


def trials(url):
    """The trials of the only study, as any other program sees them."""
    storage = optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg2:"))
    try:
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    finally:
        storage.engine.dispose()
