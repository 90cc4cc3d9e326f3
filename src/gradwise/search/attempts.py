"""The trials of one repair: made within the budget, the untouched ones kept for all remedies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from gradwise.diagnosis.metric import training
from gradwise.interventions import Intervention
from gradwise.legible import duration
from gradwise.recording.recording import Recording
from gradwise.recording.signals import LOSS, TIME, VALIDATION
from gradwise.search.costs import Costs
from gradwise.search.measure import LOSSES, Measure
from gradwise.trials.runner import Trial

UNTOUCHED = Intervention()
CHANGES_THE_LOSS = frozenset({"logits", "match-shapes"})
"""Fixes after which the loss is another function; all others leave it what it was."""
_LEAST = 50
_SCREENING = 0.4  # of the time for a cause, where not all candidates can have full length
_SAME_LUCK = 1e-4  # relative difference of first losses that sums in another order may make


class Bench(Protocol):
    """Where trials are made (`gradwise.trials.runner.Runner`)."""

    def run(
        self,
        intervention: Intervention,
        seed: int,
        max_steps: int | None,
        timeout: float,
        score: Intervention | None = None,
    ) -> Trial:
        """The script with a change, the offset on its seeds, for so many steps; killed after `timeout` seconds.

        With `score`, its loss is recorded as that intervention would make it, while training keeps the script's.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """How much to try.

    Args:
        seconds: what the watched run took.
        budget: seconds for all trials together.
        seeds: paired runs that verify a remedy.
        paired: whether the watched run may have had the luck of seed offset 0 (the script seeds torch itself).
        measure: the metric.
        progress: called as `progress(what, pair, pairs)` when a trial begins.
        processor: what the watched run took of the processor, in seconds; 0 where that isn't known.
        stretch: how many times the budget it may take by the clock, where the machine is busier than it was then.
    """

    seconds: float
    budget: float
    seeds: int = 3
    paired: bool = True
    measure: Measure = LOSSES
    progress: Callable[[str, int, int], None] = lambda what, pair, pairs: None
    processor: float = 0.0
    stretch: float = 1.0


class OverError(Exception):
    """No further trial: the reason as it stands in a remedy."""


class BrokenError(Exception):
    """A trial that says nothing of its intervention: what happened, to follow "in a trial"."""


class Attempts:
    """Makes trials while the budget lasts.

    Attributes:
        length: steps of the whole script; None where the watched run broke off because of how it trained.
        trials: all that were made.
        spent: the seconds they took, at the pace at which the machine went while the script was watched.
        clock: the seconds they took by the clock.
    """

    def __init__(self, recording: Recording, plan: Plan, bench: Bench) -> None:
        self.recording, self.plan, self.bench = recording, plan, bench
        self.costs = Costs.of_run(recording, plan.seconds)
        self.spent = self.clock = 0.0
        self.trials: list[Trial] = []
        steps, status = steps_of(recording), recording.run.status
        diverged = (training(recording, s, steps).diverged for s in recording.sources(LOSS))
        self.broke = status in ("failed", "killed") and any(diverged)
        self.length = None if self.broke else steps
        self._finished = status == "finished"
        self._sane = False
        self._watched = Trial(recording, complete=self._finished)
        self._untouched: dict[tuple[int, Intervention | None], Trial] = {}
        if plan.paired and plan.measure.from_recordings:
            self._untouched[0, None] = self._watched

    @property
    def left(self) -> float:
        """Seconds left of the budget."""
        return min(self.plan.budget - self.spent, self.waits)

    @property
    def waits(self) -> float:
        """Seconds by the clock that trials may still take."""
        return self.plan.stretch * self.plan.budget - self.clock

    def charge(self, trial: Trial) -> float:
        """Take what a trial cost from the budget; returns that.

        A trial that had to share the processor more than the watched run did is charged what it would have cost then.
        """
        cost, plan = trial.seconds, self.plan
        if plan.stretch > 1 and plan.processor > 0 and trial.processor > 0:
            cost = min(cost, plan.seconds * trial.processor / plan.processor)
        self.spent += cost
        self.clock += trial.seconds
        return cost

    @property
    def pair_runs(self) -> int:
        """The runs it takes to verify a remedy."""
        return 2 * self.plan.seeds - sum(judged_by is None for _, judged_by in self._untouched)

    def is_whole(self, steps: int) -> bool:
        """Whether so many steps are all of the script, which may then do what it does after the last one."""
        return self._finished and self.length is not None and steps >= self.length

    def least(self, shows: int, late: bool) -> int:
        """The fewest steps in which a cure can show that it is one.

        Args:
            shows: the step at which the trouble shows.
            late: whether the trouble is how the run ends.
        """
        beyond = max(_LEAST, int(1.25 * shows) + 20)
        if self.length is None:
            return max(beyond, 2 * steps_of(self.recording))
        return self.length if late else min(self.length, beyond)

    def lengths(self, count: int, least: int) -> tuple[int, int]:
        """How long to run: steps for screening `count` candidates (0: don't), steps for verifying one.

        As long as the time left allows; less than `least` means that it allows too little.
        """
        runs, costs, left = self.pair_runs, self.costs, self.left
        if self.length is not None:
            once = costs.of(self.length, self.is_whole(self.length))
            if (count + runs - 1 if count > 1 else runs) * once <= left:
                return (self.length if count > 1 else 0), self.length
        length = self._bounded(costs.affordable((1 - _SCREENING) * left / runs))
        screened = min(costs.affordable(_SCREENING * left / count), length)
        if count == 1 or min(length, screened) < least:
            length, screened = self._bounded(costs.affordable(left / runs)), 0
        return self._after_evaluation(screened, least), self._after_evaluation(length, least)

    def affords_another(self, screened: int, length: int, margin: float = 1.0) -> bool:
        """Whether there is so many times the time for one more screening run and for verifying the best so far."""
        # Where both are equally long, the best one's screening run is its first pair.
        runs = self.pair_runs - (screened == length)
        verifying = runs * self.costs.of(length, self.is_whole(length))
        return margin * (self.costs.of(screened, self.is_whole(screened)) + verifying) <= self.left

    def _bounded(self, steps: int) -> int:
        return steps if self.length is None else min(steps, self.length)

    def _after_evaluation(self, steps: int, least: int) -> int:
        """A little shorter, where the validation loss has just been taken then."""
        if self.length is not None and steps >= self.length:
            return steps
        taken = [self.recording.get(VALIDATION, s).steps for s in self.recording.sources(VALIDATION)]
        return max((int(s) for each in taken for s in each if max(least, 0.6 * steps) <= s <= steps), default=steps)

    def run(
        self,
        intervention: Intervention,
        seed: int,
        steps: int,
        pair: int,
        pairs: int,
        score: Intervention | None = None,
    ) -> Trial:
        """One trial.

        Args:
            intervention: what to change.
            seed: offset on the script's seeds.
            steps: how far to go; to the script's own end where that is all of it.
            pair: which of `pairs` it is, for the line on progress.
            pairs: how many are planned.
            score: an intervention whose loss is recorded in place of the script's own.

        Raises:
            OverError: where there is no time for it, or no trial of this script can work.
            BrokenError: where it says nothing of the intervention.
        """
        whole = self.is_whole(steps)
        expected = self.costs.of(steps if self.length is None else min(steps, self.length), whole)
        spent = f"the budget of {duration(self.plan.budget)} was spent"
        if expected > self.left:
            raise OverError(spent)
        self.plan.progress(intervention.describe() if intervention else "the script as it is", pair, pairs)
        timeout = min(self.waits, 30 + 10 * expected)
        trial = self.bench.run(intervention, seed, None if whole else steps, timeout, score)
        cost = self.charge(trial)
        self.trials.append(trial)
        if trial.isolation:
            raise OverError(f"not tried: in a trial {trial.problem}; --allow-side-effects tries it all the same")
        if trial.refused:
            raise BrokenError(trial.problem)
        if trial.problem and not self.broke:
            self._blame(trial, intervention, steps)
        reached = steps_of(trial.recording)
        if not (trial.complete or reached >= steps or _lost(trial)):
            raise OverError(spent)
        self._sane = True
        self.costs.learn(self.costs.of(reached, whole), cost)
        if self.length is None and trial.recording.run.status == "finished":
            self.length, self._finished = reached, True
        return trial

    def untouched(self, seed: int, steps: int, partner: Trial) -> Trial:
        """The script as it is with that seed, at least so long, to be compared with `partner`.

        Where the partner's change is to the loss itself, it trains by its own loss and records the partner's, so that
        both are judged by one.
        """
        score = judged_by(Intervention.from_json(partner.recording.run.intervention))
        if score is not None and not self.plan.measure.from_recordings:
            score = None  # what the script prints is one measure for both
        known = self._untouched.get((seed, score))
        if known is self._watched and not same_luck(known.recording, partner.recording):
            known = None
        if known is None or not (known.complete or steps_of(known.recording) >= steps or _lost(known)):
            known = self.run(UNTOUCHED, seed, steps, seed + 1, self.plan.seeds, score)
            self._untouched[seed, score] = known
        return known

    def recordings(self) -> tuple[Recording, ...]:
        """The longest run of each kind and seed, the watched one among them where it served as a baseline.

        Those that recorded another loss than the script's are left out: their curves lie beside no other.
        """
        kept: dict[tuple[str, int], Recording] = {}
        used = [self._watched] if self.trials and self._untouched.get((0, None)) is self._watched else []
        plain = [t for t in (*used, *self.trials) if not t.recording.run.facts.get("score")]
        for trial in sorted(plain, key=lambda t: steps_of(t.recording)):
            run = trial.recording.run
            kept[repr(run.intervention), run.seed or 0] = trial.recording
        return tuple(kept.values())

    def _blame(self, trial: Trial, intervention: Intervention, steps: int) -> NoReturn:
        """Something stopped a trial that didn't stop the watched run: is it the change, or being a trial?"""
        if intervention and not self._sane:
            self._untouched[0, None] = self.run(UNTOUCHED, 0, steps, 1, 1)
        raise BrokenError(trial.problem) if intervention else OverError(f"not tried: in a trial {trial.problem}")


def judged_by(intervention: Intervention) -> Intervention | None:
    """What of an intervention changes the loss itself, so that its partner must be judged by the changed one."""
    fixes = tuple(fix for fix in intervention.fixes if fix in CHANGES_THE_LOSS)
    return Intervention(fixes=fixes, optimizer=intervention.optimizer) if fixes else None


def steps_of(recording: Recording) -> int:
    """Steps of the optimizer that made most of them."""
    return max((int(recording.get(TIME, s).steps[-1]) + 1 for s in recording.sources(TIME)), default=0)


def _lost(trial: Trial) -> bool:
    """Whether its loss ceased to be finite, so that going on longer would change nothing."""
    return any(training(trial.recording, s).value is None for s in trial.recording.sources(LOSS))


def same_luck(a: Recording, b: Recording) -> bool:
    """Whether two runs began with the same loss, which is taken before any change to training has an effect."""
    for source in a.sources(LOSS):
        one, other = a.get(LOSS, source), b.get(LOSS, source)
        if len(other):
            return math.isclose(float(one.values[0]), float(other.values[0]), rel_tol=_SAME_LUCK)
    return True
