"""Runs by several processes of this machine at once. A worker that dies loses its run and nothing else."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwise.search.jobs import Job, Result
from gradwise.search.scripted import Task, pinned
from gradwise.search.worker import Line

# A worker ends its script when its time is up; one that is so much later has hung itself.
_LATE = 60.0
# Seconds for a worker that is no longer spoken to, in which to end by itself.
_PATIENCE = 5.0
_ASLEEP = 0.2


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    line: Line
    k: int
    job: Job | None = None
    began: float = 0.0


class LocalProcesses:
    """Makes runs of a script by worker processes (`gradwise.search.jobs.Engine`).

    Args:
        task: what to run.
        jobs: how many workers.
        on_tick: called a few times a second while waiting.
    """

    def __init__(self, task: Task, jobs: int, on_tick: Callable[[], None] = lambda: None) -> None:
        self.task, self.slots, self._on_tick = task, jobs, on_tick
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def start(self, job: Job) -> None:
        """Hand a run to a worker that has nothing to do, or to a new one."""
        while True:
            idle = next((w for w in self._workers if w.job is None), None) or self._hire()
            idle.job, idle.began = job, time.monotonic()
            try:
                idle.line.say({"job": job.to_json()})
            except OSError:
                self._dismiss(idle)
            else:
                return

    def finish(self, on_value: Callable[[Job, int, float], bool]) -> tuple[Job, Result]:
        """Wait until a run has ended."""
        while True:
            for key, _ in self._selector.select(_ASLEEP):
                worker: _Worker = key.data
                try:
                    result = self._hear(worker, on_value)
                except (EOFError, OSError, ValueError):
                    return self._lost(worker, "its worker process died")
                if result is not None:
                    job, worker.job = worker.job, None
                    assert job is not None
                    return job, result
            for worker in self._workers:
                if worker.job is not None and time.monotonic() - worker.began > 2 * self.task.limit + _LATE:
                    return self._lost(worker, "its worker process hung")
            self._on_tick()

    def close(self) -> None:
        """End all workers, and the scripts they run."""
        for worker in list(self._workers):
            self._dismiss(worker)
        self._selector.close()

    def _hear(self, worker: _Worker, on_value: Callable[[Job, int, float], bool]) -> Result | None:
        heard: dict[str, Any] | None = worker.line.hear(wait=True)
        assert heard is not None
        if "result" in heard:
            return Result.from_json(heard["result"])
        assert worker.job is not None
        k, value = heard["value"]
        worker.line.say({"end": on_value(worker.job, int(k), float(value))})
        return None

    def _lost(self, worker: _Worker, why: str) -> tuple[Job, Result]:
        job, seconds = worker.job, time.monotonic() - worker.began
        self._dismiss(worker)
        assert job is not None
        return job, Result(None, seconds=seconds, problem=why, lost=True)

    def _hire(self) -> _Worker:
        taken = {w.k for w in self._workers}
        k = next(n for n in range(len(taken) + 1) if n not in taken)
        environment = pinned(self.slots, k)
        # The very gradwise that speaks here, however it was found.
        home = str(Path(__file__).resolve().parents[2])
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, home],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        worker = _Worker(process, Line(process.stdout.fileno(), process.stdin), k)
        self._workers.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        with contextlib.suppress(OSError):
            worker.line.say({"task": self.task.to_json()})
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        """A worker that nobody speaks to ends its script and itself."""
        self._workers.remove(worker)
        process = worker.process
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


_START = "import sys; sys.path.append(sys.argv[1]); from gradwise.search.worker import main; main()"
