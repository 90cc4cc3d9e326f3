"""A search in a process of its own, whose objective leaves a mark in a side log whenever it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = """
import ctypes, json, os, signal, sys, time
import gradwise

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a test that fails leaves nothing behind
LOG, GIVEN = sys.argv[1], json.loads(sys.argv[2])


def mark(words):
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{words} {os.getpid()}\\n".encode())
    os.close(log)


def objective(config, seed, report):
    n = config["n"]
    mark(f"begin {n}")
    report(1, 0.0)  # as all others: it is never pruned
    if n == GIVEN["hangs"]:
        time.sleep(600)
    if n == GIVEN["kills"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(GIVEN["seconds"])
    mark(f"end {n}")
    return abs(n - 7.25)


if __name__ == "__main__":
    space = {"n": list(range(1, GIVEN["trials"] + 1))}
    found = gradwise.tune(objective, space, method="grid", trials=GIVEN["trials"], seeds=0, pruning="median", epochs=9,
                          **GIVEN["tune"])
    print(json.dumps({"config": found.config, "trials": list(found.trials)}))
"""


@dataclass
class Drive:
    """A search of `trials` whole numbers, each tried once, in some folder.

    Args:
        folder: where it runs.
        tune: arguments of `gradwise.tune` beside the objective's.
        trials: how many.
        seconds: how long each takes.
        hangs: the one that never ends.
        kills: the one that kills its worker.
    """

    folder: Path
    tune: dict[str, Any]
    trials: int = 50
    seconds: float = 0.05
    hangs: int = 0
    kills: int = 0

    @property
    def log(self) -> Path:
        """What the objective left."""
        return self.folder / "side.log"

    def start(self) -> subprocess.Popen[str]:
        """Begin."""
        (self.folder / "drive.py").write_text(DRIVER)
        given = {"trials": self.trials, "seconds": self.seconds, "hangs": self.hangs, "kills": self.kills}
        words = [sys.executable, "drive.py", str(self.log), json.dumps({**given, "tune": self.tune})]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, cwd=self.folder, **streams)

    def run(self) -> dict[str, Any]:
        """Begin and wait for the answer."""
        return answer(self.start())

    def marks(self, kind: str) -> Counter[int]:
        """How often each number began, or ended."""
        lines = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return Counter(int(n) for what, n, _ in lines if what == kind)

    def kept(self) -> list[set[int]]:
        """Wait for a driver's file of results that can't be told: the numbers in each."""
        deadline = time.monotonic() + 200
        while True:
            files = [path.read_text().splitlines() for path in self.folder.glob(".gradwise/pending-*.jsonl")]
            if any(files):
                # Asked for in order, and none was lost so far: the k-th trial is number k + 1.
                return [{json.loads(line)["number"] + 1 for line in lines} for lines in files]
            assert time.monotonic() < deadline, "after 200 s nothing is kept"
            time.sleep(0.02)

    def until(self, many: int, kind: str = "end") -> int:
        """Wait for so many marks; the process that left the last."""
        deadline = time.monotonic() + 200
        while self.marks(kind).total() < many:
            assert time.monotonic() < deadline, f"after 200 s there are {self.marks(kind).total()} marks of {many}"
            time.sleep(0.02)
        return int(self.log.read_text().splitlines()[-1].split()[2])


def answer(driver: subprocess.Popen[str]) -> dict[str, Any]:
    """What a search found."""
    printed, said = driver.communicate(timeout=200)
    assert driver.returncode == 0, said
    found: dict[str, Any] = json.loads(printed)
    found["said"] = said
    return found


def kill(driver: subprocess.Popen[str]) -> None:
    """`kill -9`."""
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()


def finished(url: str) -> set[int]:
    """The numbers whose trials have ended, as the database has it."""
    import optuna

    study = optuna.load_study(study_name="tune", storage=url.replace("postgresql:", "postgresql+psycopg:"))
    return {t.user_attrs["run"]["config"]["n"] for t in study.trials if t.state.name == "COMPLETE"}
