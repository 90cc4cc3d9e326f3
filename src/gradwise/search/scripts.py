"""The runs of a range test as trials of an unmodified script."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gradwise.diagnosis.metric import primary_place
from gradwise.interventions import Intervention
from gradwise.recording.recording import EMPTY, Floats, OptimizerInfo, Recording, Series
from gradwise.recording.signals import LOSS, MOMENTUM, TIME, VALIDATION
from gradwise.schedules import Schedule, constant
from gradwise.search.attempts import Bench
from gradwise.search.rates import HaltedError, InconclusiveError, Run

# The offset on the seeds of every run: with the same seeds the batches are the same.
_SEED = 0
_FOREVER = 7 * 24 * 3600.0


@dataclass
class ScriptTrack:
    """Runs a script at given rates (`gradwise.search.rates.Track`).

    Args:
        bench: makes the trials.
        optimizer: index of the optimizer whose rate it is; the others keep theirs.
        rule: another rule to put in place of its own.
        metric: read from the output instead of the loss: all matches in order, spread over the steps.
        maximize: whether more of the metric is better.
        seconds: time for all runs together; None is no limit.
        progress: called with a few words as each run begins.

    Attributes:
        optimizers: those that stepped in the last run.
        by_hand: whether the script steps without an optimizer, so that rates are factors on its own.
    """

    bench: Bench
    optimizer: int = 0
    rule: str | None = None
    metric: re.Pattern[str] | None = None
    maximize: bool = False
    seconds: float | None = None
    progress: Callable[[str], None] = lambda what: None
    optimizers: tuple[OptimizerInfo, ...] = ()
    by_hand: bool = False
    _place: int | None = None
    _others: dict[int, Floats] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def run(self, lr: Schedule, steps: int, what: str) -> Run:
        """One trial.

        Raises:
            HaltedError: where no trial of this script can work, or time is over.
            InconclusiveError: where no rate can be told by its losses.
        """
        recording, output, complete = self._trial(
            Intervention(lr=lr, optimizer=self.optimizer, rule=self.rule), steps, what
        )
        losses = recording.get(LOSS, self.optimizer).values[:steps]
        self._search_has_a_point(recording, losses)
        if self.metric is not None:
            losses = self._printed(output, len(losses))
        momentum = recording.get(MOMENTUM, self.optimizer)
        return Run(
            np.asarray(losses, np.float64),
            complete,
            float(np.ravel(momentum.values)[0]) if len(momentum) else 0.0,
            EMPTY if self.metric is not None else self._validated(recording, steps),
        )

    def _search_has_a_point(self, recording: Recording, losses: Floats) -> None:
        """Refuse a rate that decides nothing, and a loss that isn't to fall.

        Raises:
            InconclusiveError: where that is so.
        """
        own = next((o for o in self.optimizers if o.index == self.optimizer), None)
        searches = own is not None and own.kind == "LBFGS" and own.defaults.get("line_search_fn")
        if searches and self.rule is None:
            raise InconclusiveError(
                f"L-BFGS with line_search_fn={searches!r} finds the length of each step by itself, and its lr is only "
                "where it begins to look. Leave it at 1; --rule sgd,adam tries other rules in its place."
            )
        if self.metric is not None:
            return
        for source in recording.sources(LOSS):
            other = recording.get(LOSS, source).values
            if source == self.optimizer or np.array_equal(other[: len(losses)], losses[: len(other)], equal_nan=True):
                continue  # one loss for two optimizers falls or doesn't
            before = self._others.setdefault(source, other)
            count = min(len(before), len(other))
            if not np.array_equal(before[:count], other[:count], equal_nan=True):
                kind = next((f" ({o.kind})" for o in self.optimizers if o.index == source), "")
                raise InconclusiveError(
                    f"at other rates optimizer {source}{kind} has other losses, too, and they are not this one's: two "
                    "that train against each other, as in a GAN, or on each other's results. Then a loss need not fall "
                    "where training goes well. --metric names a number that tells."
                )

    def _validated(self, recording: Recording, steps: int) -> Series:
        """The validation losses, all from one place in the script: in all runs that of the first to have any."""
        if self._place is None:
            self._place = primary_place([recording])
        if self._place is None:
            return EMPTY
        series = recording.get(VALIDATION, self._place)
        # A pass at the very end may have been cut off with the trial.
        whole = (series.steps > 0) & (series.steps < steps)
        return Series(series.steps[whole], series.values[whole])

    def epoch(self, steps: int) -> int:
        """The steps of an epoch, from where the script evaluates, as far as it does so within `steps`.

        Raises:
            HaltedError: it doesn't.
        """
        change = Intervention(lr=1e-12 * constant(), optimizer=self.optimizer)
        recording, _, _ = self._trial(change, steps, "how long an epoch is")
        for source in recording.sources(VALIDATION):
            at = recording.get(VALIDATION, source).steps
            if len(at) and at[0] > 0:
                return int(at[0])
        raise HaltedError(
            "the script evaluates nothing after an epoch, so its length is not known: give --per in steps"
        )

    def _trial(self, change: Intervention, steps: int, what: str) -> tuple[Recording, str, bool]:
        left = _FOREVER if self.seconds is None else self.seconds - (time.monotonic() - self._began)
        if left <= 0:
            raise HaltedError("its time was over")
        self.progress(what)
        trial = self.bench.run(change, _SEED, steps, left)
        recording = trial.recording
        if trial.isolation:
            raise HaltedError(f"in a trial {trial.problem}; --allow-side-effects runs it all the same")
        lost = any(not np.isfinite(recording.get(LOSS, s).values).all() for s in recording.sources(LOSS))
        if trial.problem and not lost:
            raise HaltedError(f"in a trial {trial.problem}")
        if not len(recording.get(LOSS, self.optimizer)):
            raise HaltedError(self._absent(recording))
        moved = set(recording.sources(TIME))
        self.optimizers = tuple(o for o in recording.optimizers if o.index in moved)
        self.by_hand = any(o.kind == "manual" and o.index == self.optimizer for o in self.optimizers)
        return recording, trial.output or "", trial.complete

    def _absent(self, recording: Recording) -> str:
        known = [o for o in recording.optimizers if o.index in recording.sources(TIME)]
        if not known:
            return "the script took no optimizer step"
        names = ", ".join(f"{o.index} ({o.kind})" for o in known)
        return f"the script has no loss for an optimizer {self.optimizer}; those that step: {names}"

    def _printed(self, output: str, steps: int) -> Floats:
        assert self.metric is not None
        values = []
        for match in self.metric.finditer(output):
            text = next((g for g in match.groups() if g is not None), match[0]).strip()
            try:
                values.append(float(text.removesuffix("%").replace("_", "")))
            except ValueError:
                raise HaltedError(f"the metric {self.metric.pattern!r} matches {text[:40]!r}, no number") from None
        if not values:
            raise HaltedError(f"the metric {self.metric.pattern!r} matches nothing that a trial printed")
        sign = -1.0 if self.maximize else 1.0
        each = -(-steps // len(values))
        return sign * np.repeat(np.array(values), each)[:steps]
