"""Runs of Python functions by worker processes: what they are told, and what stands in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gradwise.search.functions import Function
from gradwise.search.jobs import EngineError, Job, Result
from gradwise.search.workers import LocalProcesses


def falls(config: dict[str, Any], seed: int, report: Any) -> float:
    for k in range(1, 5):
        report(k, config["n"] / k)
    return config["n"] + seed


def score(config: dict[str, Any]) -> float:
    return -float(config["n"])


def sleeps(config: dict[str, Any]) -> float:
    import time

    time.sleep(config["n"])
    return 1.0


def results(engine: LocalProcesses, *jobs: Job, on_value: Any = lambda job, k, value: False) -> dict[str, Result]:
    for job in jobs:
        engine.submit(job)
    done = [engine.next_done(on_value) for _ in jobs]
    return {each[0].key: each[1] for each in done if each is not None}


def test_workers_make_the_same_runs_as_this_process() -> None:
    work = Function(falls, score, maximize=True, baseline={"n": 9})
    engine = LocalProcesses(work, 2)
    jobs = [Job("a", {"n": 1}, 3), Job("own"), Job("c", {"n": 2}, test=True)]
    try:
        made = results(engine, *jobs[:2]) | results(engine, *jobs[2:])
        assert made == {job.key: work(job, lambda k, value: False) for job in jobs}
        assert made["c"].test == -2.0
        ended = results(engine, Job("d", {"n": 1}), on_value=lambda job, k, value: k == 2 and value == -0.5)
        assert ended["d"] == Result(None, steps=2, pruned=True)
    finally:
        engine.close()


def test_a_function_that_hangs_is_ended_and_has_failed() -> None:
    engine = LocalProcesses(Function(sleeps, timeout=2.0), 1)
    try:
        made = results(engine, Job("a", {"n": 600}))["a"]
        assert (made.problem, made.lost) == ("it took longer than 2 s", False)
        engine.submit(Job("b", {"n": 600}))
        engine.cancel("b")
        assert engine.next_done(lambda job, k, value: False, timeout=0.0) is None
        assert results(engine, Job("c", {"n": 0}))["c"].value == 1.0
    finally:
        engine.close()


def test_a_function_that_cannot_be_imported_is_refused() -> None:
    def local(config: dict[str, Any]) -> float:
        return 1.0

    for function in (local, lambda config: 1.0, Function(score)):
        with pytest.raises(EngineError, match="define it at the top level of a module, or take jobs=1"):
            LocalProcesses(Function(function), 2)


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "search_it.py").write_text(text)
    return subprocess.run([sys.executable, "search_it.py"], cwd=folder, capture_output=True, text=True, timeout=120)


SEARCH = """
import gradwise

def objective(config):
    return abs(config["n"] - 2)

{guard}
    found = gradwise.tune(objective, {{"n": [1, 2, 3]}}, method="grid", trials=3, jobs=2)
    print(found.config)
"""


def test_a_script_that_searches_when_imported_is_told_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, SEARCH.format(guard="if __name__ == '__main__':"))
    assert (done.returncode, done.stdout) == (0, "{'n': 2}\n"), done.stderr
    done = run(tmp_path, SEARCH.format(guard="if True:"))
    assert done.returncode != 0
    assert "keep that under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
