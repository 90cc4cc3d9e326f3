"""A real store under load: two processes write, one looks on, one writer is killed in the middle."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from gradwise.recording.signals import GRADIENT, LOSS
from gradwise.recording.store import Store

WRITER = """
import os, sys
import numpy as np
from gradwise.recording.frames import Declaration, Message, Points
from gradwise.recording.recording import RunInfo
from gradwise.recording.store import Store

store = Store.open(sys.argv[1])
run = store.create(RunInfo(sys.argv[2]))
names = tuple(f"layer{i}.weight" for i in range(20))
store.append(run, [Declaration(0, "loss/train", 0), Declaration(1, "norm/gradient", 0, names)])
rng = np.random.default_rng(0)
step = 0
while not os.path.exists(sys.argv[3]):
    n = int(rng.integers(1, 120))
    steps = np.arange(step, step + n)
    store.append(run, [Points(0, steps, steps / 8), Points(1, steps, np.repeat(steps[:, None], 20, 1) / 8)])
    step += n
    print(step, flush=True)  # what is acknowledged here must never be lost
store.append(run, [Message("end", {"status": "finished", "exit": 0})])
"""


def start(path: Path, name: str) -> subprocess.Popen[str]:
    """A process that writes until there is a file of its name beside the store."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(path.with_name(name))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check_complete(store: Store, run: str) -> int:
    """How many steps a run has, none of them missing or torn."""
    recording = store.load(run)
    loss, gradient = recording.get(LOSS), recording.get(GRADIENT)
    n = len(loss)
    np.testing.assert_array_equal(loss.steps, np.arange(n))
    np.testing.assert_array_equal(loss.values, np.arange(n) / 8)
    np.testing.assert_array_equal(gradient.steps, np.arange(n))
    if n:
        np.testing.assert_array_equal(gradient.values, np.repeat(np.arange(n)[:, None], 20, 1) / 8)
    return n


def test_a_killed_writer_loses_nothing_acknowledged_and_hurts_nobody(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    Store.open(str(path)).close()
    survivor, victim = start(path, "survivor"), start(path, "victim")
    assert survivor.stdout is not None
    assert victim.stdout is not None
    survivor.stdout.readline()
    first = int(victim.stdout.readline())

    seen = []
    with Store.open(str(path), create=False) as reader:
        for _ in range(10):
            assert {r.status for r in reader.runs()} <= {"running", "finished"}
            seen.append([check_complete(reader, "survivor"), check_complete(reader, "victim")])
        victim.send_signal(signal.SIGKILL)
        acknowledged = max([first, *(int(line) for line in victim.stdout if line.endswith("\n"))])
        victim.wait()
        at_kill = check_complete(reader, "survivor")
        while (last := int(survivor.stdout.readline())) < at_kill + 1000:
            pass
        path.with_name("survivor").touch()
        last = max([last, *map(int, survivor.stdout)])

        assert survivor.wait(timeout=120) == 0
        assert check_complete(reader, "survivor") == last
        assert check_complete(reader, "victim") >= acknowledged
        assert {r.id: r.status for r in reader.runs()} == {"survivor": "finished", "victim": "lost"}
    survivor.stdout.close()
    victim.stdout.close()
    assert all(a <= b for before, after in pairwise(seen) for a, b in zip(before, after, strict=True))
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
