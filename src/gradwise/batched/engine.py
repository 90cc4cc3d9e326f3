"""Runs of a `Training` for a search: those that it asks for together train together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradwise.batched.loop import Run, tested, together
from gradwise.batched.training import Trained, Training
from gradwise.search.jobs import Job, OnJobValue, Result, Work
from gradwise.search.methods import Method

# Methods whose proposals don't depend on what came of others: as many at once as there is room for.
_BLIND = ("guess", "grid", "random", "quasi-random")
# The others learn between batches: so many batches at least.
_LEAST_BATCHES = 6


class Batched:
    """Makes runs in batches (`gradwise.search.jobs.Engine`).

    Args:
        training: what to run.
        method: how the space is searched: one that learns from trials gets smaller batches.
        baseline: the configuration that stands for the script's own settings.
        maximize: whether a higher score is better; values told are such that lower is.
    """

    def __init__(self, training: Training, method: Method, baseline: Mapping[str, Any] | None, maximize: bool) -> None:
        self.training, self.baseline, self.sign = training, baseline, -1.0 if maximize else 1.0
        self.most = width(method, training.rows)
        self._waiting: list[Job] = []
        self._done: list[tuple[Job, Result]] = []

    @property
    def slots(self) -> int:
        """How many at a time; while results are handed out, no new ones, so that the next batch knows them all."""
        return len(self._done) if self._done else self.most

    def use(self, work: Work) -> None:
        """What is run is known already."""

    def submit(self, job: Job) -> None:
        """Remember it."""
        self._waiting.append(job)

    def next_done(self, on_value: OnJobValue, timeout: float | None = None) -> tuple[Job, Result] | None:
        """Train what waits, all at once and however long that takes; then hand out results one after another."""
        if not self._done:
            jobs, self._waiting = self._waiting, []
            self._done = self._made(jobs, on_value)
        return self._done.pop(0) if self._done else None

    def cancel(self, key: str) -> None:
        """Forget it."""
        self._waiting = [job for job in self._waiting if job.key != key]
        self._done = [(job, result) for job, result in self._done if job.key != key]

    def close(self) -> None:
        """Forget what has not begun."""
        self._waiting.clear()
        self._done.clear()

    def _made(self, jobs: list[Job], on_value: OnJobValue) -> list[tuple[Job, Result]]:
        began = time.perf_counter()
        runs = [Run(self._config(job), job.seed) for job in jobs]
        found = together(self.training, runs, lambda k, epoch, v: on_value(jobs[k], epoch, self.sign * v))
        results = [self._result(job, each) for job, each in zip(jobs, found, strict=True)]
        share = (time.perf_counter() - began) / max(1, len(jobs))
        return [(job, replace(result, seconds=share)) for job, result in zip(jobs, results, strict=True)]

    def _config(self, job: Job) -> Mapping[str, Any]:
        return (self.baseline if job.config is None else job.config) or {}

    def _result(self, job: Job, trained: Trained | Exception) -> Result:
        if isinstance(trained, Exception):
            return Result(None, problem=f"{type(trained).__name__}: {trained}"[:300])
        value = None if trained.value is None else self.sign * trained.value
        start = None if trained.start is None else self.sign * trained.start
        made = Result(value, start, trained.diverged, trained.steps)
        if trained.stopped:
            return replace(made, value=None, pruned=True)
        if job.test and self.training.tested is not None:
            return replace(made, test=tested(self.training, self._config(job), trained.state))
        return made


def width(method: Method, rows: int) -> int:
    """How many configurations to ask a method for at a time."""
    if method.name in _BLIND:
        return rows
    if method.name == "nsga-ii":
        return min(rows, int(method.settings()["population_size"]))
    return min(rows, max(1, method.trials // _LEAST_BATCHES))
