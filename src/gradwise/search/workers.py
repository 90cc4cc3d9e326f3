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
from dataclasses import dataclass, replace
from pathlib import Path

from gradwise.search.jobs import EngineError, Job, OnJobValue, Result, Work
from gradwise.search.scripted import pinned
from gradwise.search.worker import Line

# Seconds for a worker that was told to end, in which to do so.
_PATIENCE = 5.0
# Seconds for one to begin at all.
_START_UP = 120.0
_ASLEEP = 0.2


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    line: Line
    k: int
    job: Job | None = None
    began: float = 0.0
    ready: bool = False


class LocalProcesses:
    """Makes runs by worker processes (`gradwise.search.jobs.Engine`).

    Args:
        work: what to run.
        jobs: how many workers.
        on_tick: called a few times a second while waiting.

    Raises:
        EngineError: where other processes can't be told what to run.
    """

    def __init__(self, work: Work, jobs: int, on_tick: Callable[[], None] = lambda: None) -> None:
        self.slots, self._on_tick = jobs, on_tick
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self.use(work)

    def use(self, work: Work) -> None:
        """Run this from now on."""
        for worker in list(self._workers):
            self._dismiss(worker)
        self.work = work
        self._told = {"kind": work.KIND, "work": work.to_json(), "driver": os.getpid()}

    def submit(self, job: Job) -> None:
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

    def next_done(self, on_value: OnJobValue, timeout: float | None = None) -> tuple[Job, Result] | None:
        """Wait until a run has ended."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            asleep = _ASLEEP if until is None else max(0.0, min(_ASLEEP, until - time.monotonic()))
            for key, _ in self._selector.select(asleep):
                worker: _Worker = key.data
                try:
                    result = self._hear(worker, on_value)
                    while result is None and worker.line.more:
                        result = self._hear(worker, on_value)
                except (EOFError, OSError, ValueError):
                    result = Result(None, problem="its worker process died", lost=True)
                    done = self._over(worker, result)
                    if done is not None:
                        return done
                    break  # the selector's answer is of workers that may be gone
                if result is not None:
                    job, worker.job = worker.job, None
                    assert job is not None
                    return job, result
            now = time.monotonic()
            for worker in self._workers:
                late = self.work.patience + (0.0 if worker.ready else _START_UP)
                if worker.job is not None and now - worker.began > late:
                    return self._over(worker, self.work.overdue())
            self._on_tick()
            if until is not None and time.monotonic() >= until:
                return None

    def cancel(self, key: str) -> None:
        """End a run and its worker."""
        for worker in [w for w in self._workers if w.job is not None and w.job.key == key]:
            self._dismiss(worker)

    def close(self) -> None:
        """End all workers, and the scripts they run."""
        for worker in self._workers:
            self._tell_to_end(worker)
        for worker in list(self._workers):
            self._dismiss(worker)
        self._selector.close()

    def _hear(self, worker: _Worker, on_value: OnJobValue) -> Result | None:
        heard = worker.line.hear()
        if "failed" in heard and not worker.ready:
            raise EngineError(f"a worker process could not begin: {heard['failed']}")
        if "ready" in heard:
            worker.ready, worker.began = True, time.monotonic()
        if "value" in heard:
            assert worker.job is not None
            k, value = heard["value"]
            worker.line.say({"end": on_value(worker.job, int(k), float(value))})
        return Result.from_json(heard["result"]) if "result" in heard else None

    def _over(self, worker: _Worker, result: Result) -> tuple[Job, Result] | None:
        """The end of a worker, and of the run it was at."""
        job, seconds = worker.job, time.monotonic() - worker.began
        self._dismiss(worker)
        return None if job is None else (job, replace(result, seconds=seconds))

    def _hire(self) -> _Worker:
        taken = {w.k for w in self._workers}
        k = next(n for n in range(len(taken) + 1) if n not in taken)
        # The very gradwise that speaks here, however it was found.
        home = str(Path(__file__).resolve().parents[2])
        # What a script prints in trials is nobody's business; a function of the user's prints as ever.
        complaints = subprocess.DEVNULL if self.work.KIND == "script" else None
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, home],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
            env=pinned(self.slots, k), start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        worker = _Worker(process, Line(process.stdout.fileno(), process.stdin), k)
        self._workers.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        with contextlib.suppress(OSError):
            worker.line.say(self._told)
        return worker

    def _tell_to_end(self, worker: _Worker) -> None:
        """One that is spoken to no longer ends by itself; one at work is told to."""
        assert worker.process.stdin is not None
        with contextlib.suppress(OSError):
            worker.process.stdin.close()
        if worker.job is not None:
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()

    def _dismiss(self, worker: _Worker) -> None:
        self._tell_to_end(worker)
        self._workers.remove(worker)
        process = worker.process
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        process.stdout.close()
        try:
            process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


_START = "import sys; sys.path.append(sys.argv[1]); from gradwise.search.worker import main; main()"
