"""Runs of an unmodified script with a configuration: what `tune` makes of a script."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from gradwise.diagnosis.metric import Outcome, training, validation
from gradwise.interventions import Intervention
from gradwise.search.attempts import steps_of
from gradwise.search.domains import SpaceError
from gradwise.search.facts import Facts, intervention, spread
from gradwise.search.jobs import Job, OnValue, Result
from gradwise.search.measure import Measure, MeasureError
from gradwise.search.space import Space
from gradwise.trials.process import Target
from gradwise.trials.runner import Intake, Runner, Trial
from gradwise.trials.sandbox import Workspace

_FOREVER = 7 * 24 * 3600.0
# Relative difference between a run's length and the one that its schedule was made for, up to which they agree.
_AS_LONG = 0.02
# A worker ends its script when its time is up; one that is so many seconds later has hung itself.
_LATE = 60.0


@dataclass(frozen=True)
class Task:
    """A script to tune and what to go by, as data, so that others can work on it (`gradwise.search.jobs.Work`).

    Args:
        target: the script as the user runs it.
        space: what is searched.
        metric: pattern of what the script prints to go by; "" goes by the loss.
        maximize: whether more of it is better.
        on_training: whether to go by the training loss.
        test: pattern of the test score that it prints; "" for none.
        which: the only optimizer to change.
        guarded: whether trials are kept from reaching outside their copy.
        timeout: seconds that a run may take; None is ten times the script's own run, and a minute.
        facts: what the script's own run told.
    """

    KIND: ClassVar[str] = "script"

    target: Target
    space: Space
    metric: str = ""
    maximize: bool = False
    on_training: bool = False
    test: str = ""
    which: int | None = None
    guarded: bool = True
    timeout: float | None = None
    facts: Facts | None = None

    @property
    def limit(self) -> float:
        """Seconds that a run may take."""
        if self.timeout is not None:
            return self.timeout
        return _FOREVER if self.facts is None else 60 + 10 * self.facts.seconds

    @property
    def patience(self) -> float:
        """Seconds after which a worker has hung: where arguments change a script's length, it may run twice."""
        return 2 * self.limit + _LATE

    def overdue(self) -> Result:
        """What comes of its run."""
        return Result(None, problem="its worker hung", lost=True)

    @contextmanager
    def begun(self, environment: Mapping[str, str] | None = None) -> Iterator[Scripted]:
        """Ready for runs, in copies of the folder as it is now."""
        target = self.target
        script = None if target.module else target.script
        with Workspace.before(target.cwd, script, target.argv, environment) as workspace:
            workspace.after()
            yield Scripted(self, workspace)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        target = self.target
        return {
            "script": target.script, "argv": list(target.argv), "module": target.module, "cwd": target.cwd,
            "space": self.space.to_json(), "metric": self.metric, "maximize": self.maximize,
            "on_training": self.on_training, "test": self.test, "which": self.which, "guarded": self.guarded,
            "timeout": self.timeout, "facts": None if self.facts is None else self.facts.to_json(),
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Task:
        """The task that `to_json` wrote."""
        given = dict(data)
        target = Target(given.pop("script"), tuple(given.pop("argv")), given.pop("module"), given.pop("cwd"))
        space, facts = Space.from_json(given.pop("space")), given.pop("facts")
        return Task(target, space, **given, facts=None if facts is None else Facts.from_json(facts))


@dataclass
class Scripted:
    """Makes runs of a script (`gradwise.search.jobs.Evaluate`).

    Args:
        task: what to run.
        workspace: its surroundings, of which each run gets a copy.
        on_tick: called a few times a second.
    """

    task: Task
    workspace: Workspace
    on_tick: Callable[[], None] = lambda: None
    _lengths: dict[tuple[str, ...], int] = field(default_factory=dict)

    def reference(self) -> tuple[Result, Facts]:
        """The script as it is, and what that tells.

        Raises:
            SpaceError: where it can't be tuned, and why.
        """
        trial = self._runner((), lambda intake: False).run(Intervention(), 0, None, self.task.limit)
        if not trial.complete and trial.seconds >= self.task.limit:
            raise SpaceError(f"its own run took longer than {self.task.limit:.0f} s: give it more with --timeout")
        if trial.problem:
            more = "; --allow-side-effects runs it all the same" if trial.isolation else ""
            raise SpaceError(f"in a trial {trial.problem}{more}")
        facts = Facts.of(trial.recording, trial.seconds, self.task.which)
        if facts.place is None and not self.task.metric and not self.task.on_training:
            raise SpaceError(
                "it takes no validation loss that could be selected on: name what it prints with --metric, or go by "
                "the training loss with --training-loss, which rewards overfitting"
            )
        knobs = {p.name for p in self.task.space.parameters if p.template is None}
        if facts.rate is None and knobs & {"lr", "schedule"}:
            raise SpaceError("its optimizer has no learning rate to set")
        known = replace(self, task=replace(self.task, facts=facts))
        result = known._result(trial, Job("reference"))
        if result.problem:
            raise SpaceError(result.problem)
        return result, facts

    def __call__(self, job: Job, on_value: OnValue) -> Result:
        """One run."""
        task, config = self.task, job.config or {}
        if job.reference:
            try:
                result, known = self.reference()
            except SpaceError as error:
                return Result(None, problem=str(error))
            return replace(result, facts=known.to_json())
        facts = task.facts
        assert facts is not None
        words, knobs = task.space.words(config), task.space.knobs(config)
        length = self._lengths.get(words, facts.steps)
        trial, pruned = self._run(job, self._change(knobs, length), words, on_value)
        if trial.complete and not trial.problem and "steps" not in knobs:
            taken = self._lengths[words] = steps_of(trial.recording)
            if spread(knobs) and abs(taken - length) > _AS_LONG * length:
                # Other arguments made the run longer or shorter than its schedule. What the first one told on its way
                # stands for it where runs are compared, so this one goes on to its end.
                trial, pruned = self._run(job, self._change(knobs, taken), words, lambda k, value: False)
        if pruned:
            return Result(None, steps=steps_of(trial.recording), seconds=trial.seconds, pruned=True)
        return self._result(trial, job)

    def change(self, job: Job, steps: int) -> Intervention:
        """What a job with so many steps sets from outside."""
        return self._change(self.task.space.knobs(job.config or {}), steps)

    def _change(self, knobs: Mapping[str, Any], steps: int) -> Intervention:
        assert self.task.facts is not None
        return intervention(knobs, self.task.facts, steps, self.task.which)

    def _runner(self, words: tuple[str, ...], enough: Callable[[Intake], bool]) -> Runner:
        return Runner(self.task.target, self.workspace, None, None, self.task.guarded, self.on_tick, words, enough)

    def _run(self, job: Job, change: Intervention, words: tuple[str, ...], on_value: OnValue) -> tuple[Trial, bool]:
        facts, told, pruned = self.task.facts, 0, False
        assert facts is not None

        def enough(intake: Intake) -> bool:
            nonlocal told, pruned
            if facts.place is not None and not pruned:
                for value in intake.evaluated.get(facts.place, [])[told:]:
                    told += 1
                    if on_value(told, value):
                        pruned = True
                        break
            return pruned

        return self._runner(words, enough).run(change, job.seed, None, self.task.limit), pruned

    def _result(self, trial: Trial, job: Job) -> Result:
        source, steps = self.task.which or 0, steps_of(trial.recording)
        made = Result(None, steps=steps, seconds=trial.seconds)
        if trial.recording.run.status == "stopped" and trial.seconds >= self.task.limit:
            return replace(made, problem=f"the script took longer than {self.task.limit:.0f} s")
        if trial.problem:
            return replace(made, problem=trial.problem)
        trained = training(trial.recording, source)
        try:
            outcome = self._outcome(trial, trained, source)
            test = self._test(trial) if job.test else None
        except MeasureError as error:
            return replace(made, problem=str(error))
        return replace(made, value=outcome.value, start=outcome.start, diverged=outcome.diverged, test=test)

    def _outcome(self, trial: Trial, trained: Outcome, source: int) -> Outcome:
        task = self.task
        if task.metric:
            measure = Measure(re.compile(task.metric, re.MULTILINE), task.maximize)
            (outcome,) = measure.outcomes([trial], source, None)
            return outcome
        if task.on_training:
            return trained
        assert task.facts is not None
        assert task.facts.place is not None
        found = validation(trial.recording, task.facts.place, source)
        if found is None and not trained.diverged:
            raise MeasureError("it took no validation loss")
        return found or Outcome("validation", None, trained.start, diverged=True)

    def _test(self, trial: Trial) -> float | None:
        if not self.task.test:
            return None
        return Measure(re.compile(self.task.test, re.MULTILINE)).read(trial.output or "")


def pinned(jobs: int, k: int) -> dict[str, str]:
    """The environment of the k-th of so many workers: its share of the cores, a GPU of its own where there are some."""
    environment = dict(os.environ)
    if jobs > 1:
        share = max(1, (os.cpu_count() or 1) // jobs)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.setdefault(name, str(share))
    devices = _devices()
    if len(devices) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices[k % len(devices)]
    return environment


def _devices() -> list[str]:
    """The GPUs there are, without asking torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [d for d in visible.split(",") if d.strip()]
    try:
        return [str(k) for k in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    except OSError:
        return []
