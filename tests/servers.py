"""Real parts for tests: a PostgreSQL server and a Ray cluster of two machines' worth, on this one.

Where they are not installed, tests are skipped with the reason. With `CI` or `GRADWISE_TEST_ALL` set PostgreSQL is
installed from Debian's packages where that is possible, and what is missing then fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CI = any(os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "GRADWISE_TEST_ALL"))


def missing(words: str) -> None:
    """Skip, but fail where everything has to be tested."""
    if CI:
        pytest.fail(words)
    pytest.skip(words)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class PostgreSQL:
    """A server with a data folder of its own, run by a user without privileges."""

    def __init__(self) -> None:
        self._bin = _binaries()
        self.user = "postgres" if os.getuid() == 0 else None  # initdb refuses root; Debian's package makes that user
        self.folder = Path(tempfile.mkdtemp(prefix="gradwise-test-postgresql-"))
        self.port = free_port()
        if self.user:
            shutil.chown(self.folder, self.user)
        self._call(
            "initdb", "-D", str(self.folder / "data"), "-U", "gradwise", "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, database: str) -> str:
        """The address of an empty database; a server that was killed is started again."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "gradwise", database)
        return f"postgresql://gradwise@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}",
                    "fsync=off", "max_connections=40", "shared_buffers=16MB")  # fmt: skip
        words = [str(self._bin / "postgres"), "-D", str(self.folder / "data")]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*words, *(w for s in settings for w in ("-c", s))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._as(),
            )  # fmt: skip
        for _ in range(1200):
            asked = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(asked, check=False).returncode == 0:
                return
            time.sleep(0.1)
        pytest.fail(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """`kill -9`, of all its processes."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it, and leave nothing."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as(self) -> dict[str, Any]:
        return {"user": self.user, "group": self.user, "extra_groups": [], "cwd": "/"} if self.user else {}

    def _call(self, program: str, *words: str) -> None:
        subprocess.run([str(self._bin / program), *words], check=True, capture_output=True, **self._as())


def _binaries() -> Path:
    found = _found()
    if found is None and CI and os.getuid() == 0 and shutil.which("apt-get"):
        with open(Path(tempfile.gettempdir(), "gradwise-test-apt.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # pytest's workers may all come here
            if _found() is None:
                quietly = {"check": True, "stdout": subprocess.DEVNULL, "env": {**os.environ, **_NO_QUESTIONS}}
                subprocess.run(["apt-get", "update", "-qq"], **quietly)
                subprocess.run(["apt-get", "install", "-qqy", "--no-install-recommends", "postgresql"], **quietly)
        found = _found()
    if found is None:
        missing("there is no PostgreSQL server on this machine (Debian: apt install postgresql)")
    assert found is not None
    return found


_NO_QUESTIONS = {"DEBIAN_FRONTEND": "noninteractive"}


def _found() -> Path | None:
    for path in (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), shutil.which("initdb")):
        if path is not None and Path(path, "initdb").exists():
            return Path(path)
        if path is not None and Path(path).name == "initdb":
            return Path(path).resolve().parent
    return None


class RayCluster:
    """Two nodes with room for one run each."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            from ray.cluster_utils import Cluster
        except ImportError:
            missing("Ray is not installed: pip install 'gradwise[ray]'")
        share: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
        self._cluster = Cluster(initialize_head=True, head_node_args={**share, "include_dashboard": False})
        self._cluster.add_node(**share)
        self.address: str = self._cluster.address

    def close(self) -> None:
        """End it."""
        self._cluster.shutdown()
