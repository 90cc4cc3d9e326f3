"""The range test as a loop over trials: one ramp for the phases, a few short runs at constant rates for the answer.

The ramp alone can't give it. High momentum answers a hundred steps late, adaptive rules warm in, and what is best over
a ramp's few steps at each rate is too high for a run of thousands. So the ramp only tells where to look, and two thirds
of the budget go into constant rates with the same batches in the same order (`gradwise.diagnosis.forecast`), each
chosen where the ones before forecast the best rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gradwise.diagnosis.forecast import TRAINED, VALIDATED, Forecast, forecast, lost_of
from gradwise.diagnosis.ramp import Phases, joined, read_ramp
from gradwise.diagnosis.suggestion import Suggestion
from gradwise.recording.recording import EMPTY, Floats, Series
from gradwise.schedules import Schedule, constant, exponential, multi_step

LOW, HIGH = 1e-7, 1e2
"""The rates of the first ramp: from below any in use to above all but those of tiny losses."""

# Decades by which a ramp is widened at a time, and how often at most; half of the budget is kept for what follows.
_WIDER, _TIMES = 3.0, 3
# A linear ramp in which the loss jumped at once ends so many times lower the next time, or at the jump.
_NARROWER = 10.0
# Of the budget, what the ramp may have; each run at a constant rate has a sixth of the rest, and at least this many.
_RAMP, _RUNS, _SHORT = 1 / 3, 6, 20
# A momentum's time constants that a run must have, before which its answer isn't there.
_CONSTANTS = 8 / 3
# Evaluations of validation that a run should have; and the runs that there must be at least.
_EPOCHS, _FEWEST = 3, 3
# A jump within this factor of a ramp's first rate: nothing came before it that noise could hide.
_AT_ONCE = 1000.0
# Spacing of the first three rates, in decades, and the least distance of a further one.
_WIDE, _CLOSE = 0.75, 0.18
# With fewer runs than this to make, none is spent below the middle unless the forecast asks for it.
_FEW = 5


@dataclass(frozen=True, slots=True)
class Run:
    """The losses of one run; `complete` if the script came to its own end; `momentum` as used.

    `validation` has the validation losses, if any were evaluated, by the steps made before.
    """

    losses: Floats
    complete: bool = False
    momentum: float = 0.0
    validation: Series = EMPTY


class Track(Protocol):
    """Where the runs are made, each from the same start with the same batches."""

    def run(self, lr: Schedule, steps: int, what: str) -> Run:
        """Train from the start at rates `lr`, at most so many steps; `what` says what for.

        Raises:
            HaltedError: where no further run can be made.
        """
        ...


class HaltedError(Exception):
    """No further run, and why, in words that follow "the range test ended early: "."""


class InconclusiveError(HaltedError):
    """No rate can be told from losses of this kind, and why, in sentences."""


@dataclass(frozen=True)
class Budget:
    """How much to try.

    Args:
        steps: optimizer steps of all runs together.
        horizon: the length of the training the rate is for; None is the script's own where it is known, else the
            length of the runs.
        low, high: rates of the first ramp.
        linear: whether the rate rises linearly rather than exponentially.
        per: steps for which the rate is held constant within the ramp.
    """

    steps: int = 1200
    horizon: int | None = None
    low: float = LOW
    high: float = HIGH
    linear: bool = False
    per: int = 1

    @property
    def ramp(self) -> int:
        """Steps of the first ramp."""
        return max(_SHORT, int(self.steps * _RAMP))

    def schedule(self, low: float, high: float, steps: int) -> Schedule:
        """The rate rising from `low` to `high` over so many steps."""
        stages = max(1, (steps - 1) // self.per)
        if self.linear:
            rates = np.linspace(low, high, stages + 1)
            at = [self.per * (k + 1) for k in range(stages)]
            return low * multi_step(at, [float(r) for r in rates[1:] / rates[:-1]])
        return low * exponential((high / low) ** (1 / stages), self.per, staircase=self.per > 1)


def range_test(track: Track, budget: Budget) -> Suggestion:
    """Find the learning rate.

    Args:
        track: where to train.
        budget: how much.
    """
    test = _Test(track, budget)
    try:
        test.ramp()
        test.settle()
    except InconclusiveError as reason:
        test.why.append(f"Inconclusive: {reason}")
        return replace(test.suggestion(), rate=None, low=math.nan, high=math.nan, confirmed=False, inconclusive=True)
    except HaltedError as halted:
        test.why.append(f"The range test ended early: {halted}.")
    return test.suggestion()


class _Test:
    """One range test as it goes on."""

    def __init__(self, track: Track, budget: Budget) -> None:
        self.track, self.budget = track, budget
        self.spent = 0
        self.length: int | None = None
        self.momentum = 0.0
        self.rates, self.losses = np.empty(0), np.empty(0)
        self.pieces: list[Phases] = []
        self.runs: dict[float, Floats] = {}
        self.validation: dict[float, Series] = {}
        self.epoch = 0
        self.why: list[str] = []

    @property
    def left(self) -> int:
        """Steps left."""
        return self.budget.steps - self.spent

    def _run(self, lr: Schedule, steps: int, what: str) -> Run:
        if steps < 1:
            raise HaltedError(f"the budget of {self.budget.steps:,} steps was spent")
        run = self.track.run(lr, steps, what)
        self.spent += len(run.losses)
        self.momentum = run.momentum
        if len(run.validation) > 1:
            self.epoch = int(np.median(np.diff(run.validation.steps)))
        elif len(run.validation):
            self.epoch = max(1, int(run.validation.steps[0]))
        if run.complete and len(run.losses) < steps:
            self.length = len(run.losses)
        return run

    # the ramp

    def ramp(self) -> None:
        """Ramps until all three phases are there, or have been looked for twice."""
        budget = self.budget
        low, high, steps = budget.low, budget.high, budget.ramp
        self._rise(low, high, steps)
        seen = joined(self.pieces)
        while budget.linear and self._jumped_at_once(seen, high) and self.left >= 2 * steps:
            # Raised linearly, nearly all rates are as large as the largest: below the jump there is more to see.
            high = max(min(seen.jumps, high / _NARROWER), 10 * low)
            self.why.append(f"The loss jumped at once, so the ramp was narrowed to end at η = {high:.3g}.")
            self.rates, self.losses, self.pieces = np.empty(0), np.empty(0), []
            self._rise(low, high, steps)
            seen = joined(self.pieces) if self.pieces else _NOTHING
        if "steep" in seen.missing and len(self.pieces) == 1 and not seen.jumps < _AT_ONCE * low:
            self._pair()
        if not self.pieces:
            return
        density = steps / math.log10(high / low)
        wider = int(_WIDER * density)
        for _ in range(_TIMES):
            missing = joined(self.pieces).missing
            if self.left - wider < self.budget.steps / 2 or not missing:
                break
            if "jump" in missing:
                self.why.append(f"Up to η = {high:.3g} the loss did not jump, so the ramp was widened upwards.")
                self._rise(high, high * 10**_WIDER, wider)
                high *= 10**_WIDER
            elif "slow" in missing:
                self.why.append(f"From η = {low:.3g} on the loss moved at once, so the ramp was widened downwards.")
                self._rise(low / 10**_WIDER, low, wider)
                low /= 10**_WIDER

    def _jumped_at_once(self, seen: Phases, high: float) -> bool:
        """Whether a linear ramp shows nothing but the jump, or so few steps before it that no fall can be told."""
        few = bool(np.count_nonzero(self.rates < seen.jumps) < _SHORT)
        return high > 10 * self.budget.low and (not self.pieces or (few and math.isfinite(seen.jumps)))

    def _rise(self, low: float, high: float, steps: int) -> None:
        """One ramp; where the script ends before it, the script is started again for the rest."""
        schedule = self.budget.schedule(low, high, steps)
        rates = np.maximum.accumulate(schedule(np.arange(steps)))
        done = 0
        while done < steps:
            rest = steps - done
            part = self.budget.schedule(float(rates[done]), high, rest) if done else schedule
            run = self._run(part, min(rest, self.left), f"η from {rates[done]:.2g} to {high:.2g}")
            count = len(run.losses)
            if not count:
                raise HaltedError("the script took no step")
            self._add(rates[done : done + count], run.losses)
            if not run.complete or done + count >= steps:
                break
            if not done:
                self.why.append(f"The script ends after {count:,} steps, so it was started again to cover the ramp.")
            done += count
            if "jump" not in self.pieces[-1].missing and "steep" not in joined(self.pieces).missing:
                break

    def _add(self, rates: Floats, losses: Floats) -> None:
        self.rates, self.losses = np.append(self.rates, rates), np.append(self.losses, losses)
        if len(losses) >= 10:
            self.pieces.append(read_ramp(rates, losses, per=self.budget.per))

    def _pair(self) -> None:
        """The same batches without learning, for a loss too noisy to show its fall."""
        count = len(self.losses)
        if self.left < count + 3 * _SHORT:
            return
        still = self._run(self.budget.low * constant(), count, "the same batches, unchanged")
        if len(still.losses) >= count and np.isfinite(still.losses).all():
            self.pieces = [read_ramp(self.rates, self.losses, still.losses, self.budget.per)]
            self.why.append(
                "The batches' noise hid the fall, so the same batches were run without learning and compared."
            )

    # constant rates

    def settle(self) -> None:
        """Runs at constant rates, as many as there are steps for."""
        phases = joined(self.pieces)
        middle = _middle(phases)
        if middle is None:
            self.why.append("In no ramp did the loss fall by more than its noise.")
            return
        lag = _CONSTANTS / (1 - self.momentum) if 0 < self.momentum < 1 else 0.0
        # One step more than whole epochs: a script evaluates after the last step of one.
        epochs = _EPOCHS * self.epoch + 1 if self.epoch else 0
        length = int(max(min(max(self.left / _RUNS, lag, epochs, _SHORT), self.left / _FEWEST), 1))
        self.each = length if self.length is None else min(length, self.length)
        # Upwards first: that a rate is too high shows, that it is too low has to be compared.
        self.few = self.left < _FEW * self.each
        self.wide = 2 * _WIDE if self.few else _WIDE
        for away in (0.0, self.wide) if self.few else (0.0, _WIDE, -_WIDE):
            if not (self.few and lost_of(self.runs)):  # else there is nothing to find further up
                self._hold(middle * 10**away)
        while self.left >= self.each and len(self.runs) < 2 * _RUNS:
            following = self._following()
            if following is None:
                break
            self._hold(following)

    @property
    def horizon(self) -> int:
        """The steps that the answer is for."""
        longest = max((len(losses) for losses in self.runs.values()), default=0)
        return self.budget.horizon or self.length or max(longest, 1)

    def _hold(self, rate: float) -> None:
        run = self._run(rate * constant(), min(self.each, self.left), f"η = {rate:.2g}")
        if len(run.losses):
            self.runs[rate] = run.losses
            self.validation[rate] = run.validation

    def _forecast(self, above: float = 0.0) -> Forecast | None:
        return forecast(self.runs, self.horizon, self.momentum, above, self.validation)

    def _following(self) -> float | None:
        """The rate to try next: the forecast's best, or next to it if that has been tried."""
        if self.few and (further := self._beyond()) is not None:
            return further
        found = self._forecast(self.wide)
        if found is None:
            held = sorted(set(self.runs) - set(lost_of(self.runs)))
            return float(min(held or self.runs) / 10**self.wide)
        tried = np.log10(list(self.runs))
        for away in (0.0, 0.25, -0.25, 0.5, -0.5):
            place = math.log10(found.best) + away
            beyond = found.lost and place > math.log10(min(found.lost)) - _CLOSE
            if np.abs(tried - place).min() >= _CLOSE and not beyond:
                return float(10**place)
        return None

    def _beyond(self) -> float | None:
        """A rate beyond the highest or lowest tried, as long as that did best: few runs can't tell what comes there."""
        length = min(map(len, self.runs.values()))
        ends = {rate: float(losses[length - max(1, length // 4) : length].mean()) for rate, losses in self.runs.items()}
        lost = lost_of(self.runs)
        held = [rate for rate in ends if rate not in lost]
        if not held:
            return None
        best = min(held, key=ends.__getitem__)
        if best == max(ends):
            return float(best * 10**self.wide)
        return float(best / 10**self.wide) if best == min(ends) else None

    # the answer

    def suggestion(self) -> Suggestion:
        """What is known by now."""
        phases = joined(self.pieces) if self.pieces else _NOTHING
        found: Forecast | None = self._forecast() if len(self.runs) > 1 else None
        rate, low, high = (found.rate, found.low, found.high) if found else (None, math.nan, math.nan)
        if found is None and self.pieces:
            rate, low, high = self._unconfirmed(phases)
        order = np.argsort(self.rates, kind="stable")
        return Suggestion(
            rate, low, high, self.horizon, found is not None, phases, self.rates[order], self.losses[order],
            dict(sorted(self.runs.items())), self.spent, (*self.why, *self._because(phases, found)),
            {rate: self.validation[rate] for rate in sorted(self.runs) if len(self.validation[rate])},
            found.metric if found else TRAINED,
        )  # fmt: skip

    def _unconfirmed(self, phases: Phases) -> tuple[float | None, float, float]:
        """Where no two runs can be compared: the one that held, else what the ramp alone says."""
        held = sorted(set(self.runs) - set(lost_of(self.runs)))
        if held:
            return held[0], held[0], held[0]
        middle = _middle(phases)
        if middle is None:
            return None, math.nan, math.nan
        if not self.runs:
            return middle, phases.falls, phases.lowest
        below = min(self.runs) / 10**_WIDE
        return below, below, below

    def _because(self, phases: Phases, found: Forecast | None) -> list[str]:
        said = []
        if phases.missing and self.pieces:
            said.append(
                f"The ramp does not show the phase{'s' * (len(phases.missing) > 1)} {' and '.join(phases.missing)}."
            )
        if found is not None:
            held = len(self.runs) - len(found.lost)
            longest = max(map(len, self.runs.values()))
            said.append(
                f"{len(self.runs)} runs of {longest:,} steps at constant rates with the same batches, of which {held} "
                f"held, forecast the lowest {found.metric} after {self.horizon:,} steps at η = {found.rate:.2g}."
            )
            if self.epoch and found.metric != VALIDATED:
                said.append("Validation losses came too seldom for so few steps, so the training loss decided.")
            if self.budget.horizon is None and self.length is None:
                said.append("Longer training wants a lower rate: a horizon can be given.")
        elif self.runs:
            said.append("Fewer than two of the runs at constant rates held, which is too few to compare.")
        return said


_NOTHING = Phases(math.nan, math.nan, math.nan, math.nan, ("slow", "steep", "jump"), np.empty(0), math.nan)


def _middle(phases: Phases) -> float | None:
    """Where to begin: half-way (in decades) from where the loss begins to fall to where it is lowest.

    At the first a ramp's few steps just begin to pay, at the second they already balance what the noise costs.
    """
    if math.isfinite(phases.falls):
        return math.sqrt(phases.falls * phases.lowest)
    return None
