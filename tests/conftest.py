"""What holds for every test."""

import compileall
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradwise
from servers import PostgreSQL, RayCluster

# Scripts under test run beside each other and beside pytest: two torch processes with a thread per core each wait for
# one another's threads most of the time, which makes a one-second script take a minute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Fixtures of a module that take many seconds: all tests that need one go to the same of pytest's processes, which makes
# it once.
COSTLY = frozenset({"sick", "visit", "known", "plain", "tried", "stubborn", "together"})


# Where pytest itself was started in the background, or by nohup, these are ignored, and each process it starts would
# inherit that.
for _number, _default in (
    (signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL),
):  # fmt: skip
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)


def pytest_configure(config: pytest.Config) -> None:
    """Hundreds of processes import gradwise: where Python is told to keep no bytecode, each would compile it anew."""
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(gradwise.__file__).parent, quiet=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests into groups by the costly fixtures of their module."""
    for item in items:
        if COSTLY & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


# Tests that need one of these are marked `xdist_group`, so that one of pytest's processes starts it for all.


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server; each test asks for a database of its own."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A Ray cluster of two nodes."""
    cluster = RayCluster()
    yield cluster
    cluster.close()
