"""Runs of a real script with configurations, in this process and by workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gradwise.search.domains import SpaceError
from gradwise.search.facts import Facts
from gradwise.search.jobs import Job, Result
from gradwise.search.scripted import Scripted, Task, pinned
from gradwise.search.space import Space
from gradwise.search.workers import LocalProcesses
from gradwise.trials.process import Target
from gradwise.trials.sandbox import Workspace
from search import tunable

SPACE = Space.of(
    {"lr": "1e-4..1", "schedule": "own,cosine"}, {"hidden": "2..64", "epochs": "1..9", "mode": "fail,hang,slow"}
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scripted, Result]]:
    folder = tmp_path_factory.mktemp("tunable")
    tunable.write(folder)
    task = Task(Target("train.py", cwd=str(folder)), SPACE, test=r"test score (\S+)")
    with Workspace.before(str(folder), "train.py") as workspace:
        workspace.after()
        scripted = Scripted(task, workspace)
        result, facts = scripted.reference()
        scripted.task = replace(task, facts=facts)
        yield scripted, result


def never(k: int, value: float) -> bool:
    return False


def test_the_reference_tells_what_a_search_must_know(known: tuple[Scripted, Result]) -> None:
    scripted, result = known
    facts = scripted.task.facts
    assert facts is not None
    assert (facts.steps, facts.rate, facts.evaluations, facts.on_test_data) == (24, 0.001, 6, False)
    assert result.value is not None
    assert result.test is None  # nobody asked
    assert Task.from_json(scripted.task.to_json()) == scripted.task


def test_a_configuration_reaches_the_script(known: tuple[Scripted, Result]) -> None:
    scripted, own = known
    seen: list[tuple[int, float]] = []
    job = Job("a", {"lr": 0.1, "schedule": "cosine", "hidden": 32, "epochs": 9}, 1, test=True)
    result = scripted(job, lambda k, value: bool(seen.append((k, value))))
    assert not result.problem
    assert (result.steps, result.diverged) == (36, False)
    assert result.value is not None
    assert own.value is not None
    assert result.value < own.value
    assert result.test is not None
    assert [k for k, _ in seen] == list(range(1, len(seen) + 1))
    # The cosine lasts for the nine epochs that the script made, not for the six of its own.
    change = scripted.change(job, result.steps)
    assert change.lr is not None
    assert change.lr(30) > 0


def test_what_falls_behind_is_ended(known: tuple[Scripted, Result]) -> None:
    scripted, _ = known
    result = scripted(Job("a", {"mode": "slow"}), lambda k, value: k >= 2)
    assert result.pruned
    assert (result.value, result.problem) == (None, "")
    assert result.steps < 24


def test_a_run_that_fails_or_hangs_says_so(known: tuple[Scripted, Result]) -> None:
    scripted, _ = known
    failed = scripted(Job("a", {"mode": "fail"}), never)
    assert failed.problem == "the script failed: ValueError: of its own"
    assert not failed.lost
    hasty = replace(scripted, task=replace(scripted.task, timeout=3.0))
    assert hasty(Job("b", {"mode": "hang"}), never).problem == "the script took longer than 3 s"


def test_where_there_is_nothing_to_select_on_it_says_so(tmp_path: Path) -> None:
    tunable.write(tmp_path)
    target = Target("train.py", ("--mode", "blind"), cwd=str(tmp_path))
    with Workspace.before(str(tmp_path), "train.py", target.argv) as workspace:
        workspace.after()
        with pytest.raises(SpaceError, match="no validation loss"):
            Scripted(Task(target, SPACE), workspace).reference()
        result, facts = Scripted(Task(target, SPACE, on_training=True), workspace).reference()
    assert result.value is not None
    assert facts.place is None


def test_a_worker_that_dies_loses_its_run_only(known: tuple[Scripted, Result]) -> None:
    scripted, own = known
    engine = LocalProcesses(scripted.task, 2)
    ticks: list[int] = []

    def kill_one() -> None:
        hanging = next((w for w in engine._workers if w.job is not None and w.job.key == "hangs"), None)
        if hanging is not None and not ticks:
            ticks.append(hanging.process.pid)
            os.kill(hanging.process.pid, signal.SIGKILL)

    engine._on_tick = kill_one
    try:
        engine.submit(Job("hangs", {"mode": "hang"}))
        engine.submit(Job("own"))
        ended = {job.key: result for job, result in (engine.next_done(lambda j, k, v: False) for _ in range(2))}
        assert ended["hangs"].lost
        assert ended["hangs"].problem == "its worker process died"
        assert ended["own"].value == pytest.approx(own.value, rel=1e-5)
        engine.submit(Job("again", {"hidden": 8}))
        job, result = engine.next_done(lambda j, k, v: False)
        assert (job.key, result.problem, result.value is not None) == ("again", "", True)
    finally:
        engine.close()


def test_a_worker_that_hangs_is_replaced(known: tuple[Scripted, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwise.search.scripted._LATE", 0.5)
    monkeypatch.setattr("gradwise.search.workers._PATIENCE", 0.5)
    monkeypatch.setattr("gradwise.search.workers._START_UP", 0.5)
    scripted, _ = known
    engine = LocalProcesses(replace(scripted.task, timeout=1.0), 2)
    try:
        engine.submit(Job("own"))
        (worker,) = engine._workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        job, result = engine.next_done(lambda j, k, v: False)
        assert (job.key, result.lost, result.problem) == ("own", True, "its worker hung")
        assert worker.process.returncode == -signal.SIGKILL
        assert not engine._workers
    finally:
        engine.close()


def test_each_worker_has_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert pinned(4, 1)["OMP_NUM_THREADS"] == "2"
    assert [pinned(4, k)["CUDA_VISIBLE_DEVICES"] for k in range(3)] == ["2", "5", "2"]
    assert "OMP_NUM_THREADS" not in pinned(1, 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert pinned(4, 0)["OMP_NUM_THREADS"] == "7"


def test_limits() -> None:
    task = Task(Target("train.py"), SPACE)
    assert replace(task, facts=Facts(10, 3.0)).limit == 90
    assert replace(task, facts=Facts(10, 3.0), timeout=5.0).limit == 5
