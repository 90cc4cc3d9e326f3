"""The search itself: trials one after another or several at a time, then the winner against the script's own settings.

Trials all run with the same seeds, so that they differ by their configurations only. Whoever looks long enough for the
best of many runs finds one that was lucky; so the winner is run again with seeds that no trial had, in pairs with the
script's own settings, and is called better only if it is (`gradwise.search.judge`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from gradwise.search.jobs import Engine, Job, Result
from gradwise.search.judge import Judgement, judge
from gradwise.search.rows import Row
from gradwise.search.storage import AwayError
from gradwise.search.study import Study

MOST_LOST = 5
"""Runs lost one after another after which a search gives up, times the runs at a time."""
# Seconds after which to look whether there is room, or something new, while nothing is heard.
_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to try.

    Args:
        trials: how many in all, those of an earlier session included.
        seconds: time for trials; None is no limit.
        seeds: pairs of runs that confirm the winner; 0 confirms nothing.
        test: whether there is a test score to read for the chosen configuration.
        baseline: whether there is something to compare with.
    """

    trials: int = 30
    seconds: float | None = None
    seeds: int = 3
    test: bool = False
    baseline: bool = True


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The chosen configuration run again.

    Attributes:
        number: its trial's; None where the script's own settings are what was chosen.
        winner: the runs of it, by seed.
        own: those of the script's own settings with the same seeds.
        judgement: what they say; None without pairs.
        problem: why there is none; "" where there is one.
    """

    number: int | None
    winner: tuple[Result, ...] = ()
    own: tuple[Result, ...] = ()
    judgement: Judgement | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        rows: all trials.
        best: the one with the lowest value, None where none has any.
        reference: the script's own settings with the trials' seeds; None without such.
        confirmation: how the chosen one did with other seeds.
        test: the test score of the chosen configuration, retrained; None where there is none.
        ended: why the search ended before all its trials, "" where it did not.
        notes: what a reader should know.
    """

    rows: tuple[Row, ...]
    best: Row | None
    reference: Result | None = None
    confirmation: Confirmation | None = None
    test: float | None = None
    ended: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def chosen(self) -> Row | None:
        """The configuration to use; None where that is what the script has."""
        if self.best is None or self.best.result is None:
            return None
        own = self.reference is None or self.best.result.level < self.reference.level
        return self.best if own else None

    @property
    def better(self) -> bool:
        """Whether the chosen one was shown to be better than the script's own settings."""
        c = self.confirmation
        return c is not None and c.judgement is not None and c.judgement.verified


class Display(Protocol):
    """Who is shown how things stand."""

    def changed(self, rows: Sequence[Row], doing: str) -> None:
        """Trials have begun or ended; `doing` says what goes on, in a few words."""
        ...


class Quiet:
    """Shows nothing."""

    def changed(self, rows: Sequence[Row], doing: str) -> None:
        """Nothing."""


def tune(
    study: Study, engine: Engine, plan: Plan, reference: Result | None = None, display: Display | None = None
) -> Found:
    """Search, then confirm.

    A search that is interrupted leaves its study as it is: with the same study it goes on where it ended.

    Args:
        study: its trials.
        engine: where runs are made.
        plan: how much to try.
        reference: the script's own settings with the trials' seeds.
        display: who is shown how things stand.
    """
    search = _Search(study, engine, plan, display or Quiet())
    try:
        search.trials()
        study.settle()
        found = Found(tuple(study.rows()), study.best(), reference, ended=search.ended)
        return search.confirmed(found)
    finally:
        study.close()


class _Search:
    def __init__(self, study: Study, engine: Engine, plan: Plan, display: Display) -> None:
        self.study, self.engine, self.plan, self.display = study, engine, plan, display
        self.ended = ""
        self._began = time.monotonic()
        self._lost = 0

    def trials(self) -> None:
        """As many as were asked for."""
        running: set[str] = set()
        while True:
            more = self._begun(running)
            if not running and not more:
                return
            if not running:
                time.sleep(_LOOK)
                self.study.idle()
                continue
            done = self.engine.next_done(self._on_value, _LOOK)
            if done is None:
                self.study.idle()
            else:
                job, result = done
                running.discard(job.key)
                self.study.tell(int(job.key), result)
                self._lost = self._lost + 1 if result.lost else 0
                self._show("searching")
            for number in self.study.taken():
                running.discard(str(number))
                self.engine.cancel(str(number))

    def _on_value(self, job: Job, k: int, value: float) -> bool:
        return self.study.report(int(job.key), k, value)

    def _begun(self, running: set[str]) -> bool:
        """Give the engine what it has room for; whether there may be more to begin later."""
        while len(running) < self.engine.slots:
            if self._enough():
                return False
            try:
                row = self.study.ask(self.plan.trials)
            except AwayError:
                return True
            if row is None:
                return self._elsewhere(running)
            running.add(str(row.number))
            self.engine.submit(Job(str(row.number), row.config, keep=self.study.keep(row.number)))
            self._show("searching")
        return True

    def _enough(self) -> bool:
        """Whether no more is begun, though not everything has been tried."""
        plan = self.plan
        if not self.ended and sum(r.ended for r in self.study.rows()) < plan.trials:
            if plan.seconds is not None and time.monotonic() - self._began > plan.seconds:
                self.ended = "its time was over"
            elif self._lost >= MOST_LOST * self.engine.slots:
                self.ended = f"{self._lost} runs were lost one after another"
        return bool(self.ended)

    def _elsewhere(self, running: set[str]) -> bool:
        """There is nothing new to try: whether something may come back that other drivers have under way."""
        rows = self.study.rows()
        others = [r for r in rows if r.state == "running" and str(r.number) not in running]
        if others:
            self._show(f"waiting for {len(others)} that other drivers run")
        elif not running and sum(r.ended for r in rows) < self.plan.trials:
            self.ended = "the space has no more configurations"
        return bool(others)

    def _show(self, doing: str) -> None:
        self.display.changed(self.study.rows(), doing)

    # the protocol

    def confirmed(self, found: Found) -> Found:
        """The chosen configuration retrained, against the script's own settings, and its test score."""
        plan, chosen = self.plan, found.chosen
        if found.best is None or (chosen is None and not plan.test):
            return found
        number = None if chosen is None else chosen.number
        key = f"confirmation {number} {plan.seeds}"
        known = self._known(key)
        if known is not None:
            runs = {key: Result.from_json(r) for key, r in known["runs"].items()}
            test = known["test"]
        else:
            runs = self._runs(chosen)
            test = next((r.test for r in runs.values() if r.test is not None), None)
            kept = {"runs": {key: r.to_json() for key, r in runs.items()}, "test": test}
            self.study.note(key, kept)
        confirmation = _judged(number, runs, plan)
        return replace(found, confirmation=confirmation, test=test, notes=self._read(number, test))

    def _known(self, key: str) -> Any:
        """What has been found before, or is being found by another driver; None where it's for this one to find."""
        while True:
            known = self.study.noted(key)
            if known is not None and (known["test"] is not None or not self.plan.test):
                return known
            if self.study.mine(key):
                return None
            self._show("waiting for another driver that confirms the best")
            time.sleep(_LOOK)

    def _runs(self, chosen: Row | None) -> dict[str, Result]:
        """Every run by its key: "winner 1", "own 1", … with seeds that no trial had."""
        plan = self.plan
        config = None if chosen is None else chosen.config
        jobs = [Job(f"winner {s}", config, s, plan.test and s == 1) for s in range(1, max(1, plan.seeds) + 1)]
        if chosen is None or not plan.seeds:
            jobs = jobs[:1] if plan.test else []
        elif plan.baseline:
            jobs = [each for job in jobs for each in (job, Job(job.key.replace("winner", "own"), None, job.seed))]
        found: dict[str, Result] = {}
        tried: dict[str, int] = {}
        running = 0
        while jobs or running:
            while jobs and running < self.engine.slots:
                self.engine.submit(jobs.pop(0))
                running += 1
                self._show("confirming the best" if chosen else "the script's own settings")
            done = self.engine.next_done(lambda job, k, value: False, _LOOK)
            if done is None:
                self.study.idle()
                continue
            job, result = done
            running -= 1
            tried[job.key] = tried.get(job.key, 0) + 1
            if result.lost and tried[job.key] <= 2:
                jobs.append(job)
            else:
                found[job.key] = result
        return found

    def _read(self, number: int | None, test: float | None) -> tuple[str, ...]:
        """Keep count of who saw the test score."""
        if test is None:
            return ()
        read: list[Any] = self.study.noted("test reads") or []
        if number not in read:
            read.append(number)
            self.study.note("test reads", read)
        others = len(read) - 1
        if not others:
            return ()
        return (
            f"The test score was read for {others} other configuration{'s' * (others > 1)} of this study before: "
            "whoever chose by it has no untouched test score any more.",
        )


def _judged(number: int | None, runs: dict[str, Result], plan: Plan) -> Confirmation:
    winner = [runs[f"winner {s}"] for s in range(1, plan.seeds + 1) if f"winner {s}" in runs]
    own = [runs[f"own {s}"] for s in range(1, plan.seeds + 1) if f"own {s}" in runs]
    made = Confirmation(number, tuple(winner), tuple(own))
    bad = next((r.problem for r in (*winner, *own) if r.problem), "")
    if bad:
        return replace(made, problem=f"it could not be compared: in a trial {bad}")
    if not own or len(own) != len(winner):
        return made
    outcomes = [(a.outcome(), b.outcome()) for a, b in zip(own, winner, strict=True)]
    if any(o.start is None for pair in outcomes for o in pair):
        outcomes = [(replace(a, start=None), replace(b, start=None)) for a, b in outcomes]
    return replace(made, judgement=judge(outcomes))
