"""Trying remedies: which to try, in which order, and what became of each.

Where several causes would explain the run and none of them is plain, the first cure of each gets one run (the
*contest*): whose cure gains most is looked at first. Then the candidates for a cause get one run each (*screening*),
then the best of them is held against the untouched script with several seeds (*verification*), then the next best where
that failed, until time or candidates end. The untouched runs serve all remedies; the watched run is one of them if it
had the luck of seed offset 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gradwise.diagnosis.causes import symptoms
from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Status
from gradwise.diagnosis.hypotheses import REPORT
from gradwise.diagnosis.metric import Outcome, training
from gradwise.interventions import Intervention
from gradwise.legible import duration
from gradwise.recording.recording import Recording
from gradwise.search.attempts import Attempts, Bench, BrokenError, OverError, Plan, steps_of
from gradwise.search.decide import decide
from gradwise.search.examine import examine
from gradwise.search.judge import Judgement, judge
from gradwise.search.measure import MeasureError
from gradwise.trials.process import Interrupted
from gradwise.trials.runner import Trial

# Causes that show late: a cure must go the whole way to show that it works.
LATE = frozenset({"late-lr-too-high", "late-divergence", "lr-decayed-too-early", "overfitting"})
# A cause as sure as this is plain from the recording, and needs no contest.
_PLAIN = 0.85
_RIVALS = 5
# A suspicion is confirmed by a cure that is worth having: this share of the way the loss came down with it.
_WORTH = 0.02
_GUESSES = 3
# More than half of what a run learns is due to a cure: so large a gain is no luck, even where time was too short to
# verify it. And where a tenth of the loss is left, no other cure can do much better: none is tried then unless there is
# ample time, since what is left of it may not reach as far as it seems.
_PLAINLY, _NEARLY_ALL, _AMPLE = 0.5, 0.1, 2.0
_INTERRUPTED = "not tried to the end: interrupted"
_ORDER = ("verified", "suggested", "failed")


@dataclass(frozen=True, slots=True)
class Repaired:
    """A diagnosis with its remedies tried, and the recordings that show it (the watched run is one if it was used)."""

    diagnosis: Diagnosis
    trials: tuple[Recording, ...]


def repair(diagnosis: Diagnosis, recording: Recording, plan: Plan, bench: Bench) -> Repaired:
    """Try the remedies of a diagnosis.

    Args:
        diagnosis: its remedies are candidates, best guess first.
        recording: the watched run.
        plan: how much to try.
        bench: makes the trials.

    Returns:
        The diagnosis as the trials leave it: remedies *verified*, *failed* or still *suggested* with the reason,
        findings reordered by what cured. Also when it is interrupted, with what is known until then.
    """
    attempts = Attempts(recording, plan, bench)
    over = ""
    try:
        diagnosis = examine(diagnosis, recording, attempts)
    except (Interrupted, KeyboardInterrupt):
        over = _INTERRUPTED
    findings = [_Group(f, attempts, True) for f in diagnosis.findings]
    doubts = [_Group(f, attempts, False) for f in diagnosis.suspicions]
    waiting = [g for g in findings if g.plain] + [g for g in (*findings, *doubts) if not g.plain]
    while waiting:
        try:
            if not over and not waiting[0].plain:
                waiting = _contest(waiting, attempts)
        except OverError as end:
            over = str(end)
        except (Interrupted, KeyboardInterrupt):
            over = _INTERRUPTED
        group = waiting.pop(0)
        # What a cured cause explains is its symptom, and whether there is another fault besides is a question for the
        # next visit.
        cured = [g for g in (*findings, *doubts) if g.cured]
        if any(group.finding.id in symptoms(g.finding.id) for g in cured):
            group.leave(f"not tried: it goes with {cured[0].finding.id}, which was cured")
            continue
        if group in doubts and cured:
            continue
        if not over:
            try:
                group.treat()
            except OverError as end:
                over = str(end)
            except (Interrupted, KeyboardInterrupt):
                over = _INTERRUPTED
        if over:
            group.leave(over)
    confirmed = [g.result for g in doubts if g.cured and (g.cured.share or 0.0) >= _WORTH]
    confirmed += [replace(g.result, confidence=REPORT) for g in doubts if not g.cured and g.promising]
    diagnosis = decide(diagnosis, [g.result for g in findings], confirmed, [g.result for g in doubts])
    if attempts.trials:
        note = f"{_runs(len(attempts.trials))} tried in {duration(attempts.clock)} of {duration(plan.budget)}."
        if attempts.clock > 1.25 * attempts.spent:
            note = (
                f"{_runs(len(attempts.trials))} tried in {duration(attempts.clock)}. The machine was busier than while "
                f"the script was watched: at its pace then they would have taken {duration(attempts.spent)} of "
                f"{duration(plan.budget)}."
            )
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, note))
    return Repaired(diagnosis, attempts.recordings())


def _contest(groups: list[_Group], attempts: Attempts) -> list[_Group]:
    """The causes by what one run of their first cure gained, where there are several that it could be.

    A suspicion takes part where it could be the root of a finding and not the other way round, or where there is no
    finding.
    """
    found = [g.finding.id for g in groups if g.found]
    rivals = [g for g in groups if g.found or not found or any(_roots(g.finding.id, f) for f in found)]
    rivals = [g for g in rivals if g.candidates and not g.contested][:_RIVALS]
    for group in rivals:
        group.contested = True
    if len(rivals) < 2:
        return groups
    least = max(g.least for g in rivals)
    screened, length = attempts.lengths(len(rivals), least)
    if not screened or length < least:
        return groups
    for k, group in enumerate(rivals):
        if k and not attempts.affords_another(screened, length):
            break
        group.screen(group.candidates[0], screened, length, k + 1, len(rivals))
    # Stable: those that gained nothing, and those that were not asked, stay in the order of confidence.
    return sorted(groups, key=lambda g: -max((c.rank for c in g.candidates), default=-math.inf))


def _roots(cause: str, effect: str) -> bool:
    return effect in symptoms(cause) and cause not in symptoms(effect)


@dataclass(slots=True)
class _Candidate:
    """A remedy being tried.

    Attributes:
        tried: its trials by seed.
        judged: what they say.
        screened: how many steps the one had that screened it.
        left: what is left of the loss at worst, as a share of where it began; NaN for what may be negative.
        waiting: whether it was passed over for one that leaves little to gain.
        compared: whether it was to be verified.
    """

    remedy: Remedy
    tried: dict[int, Trial] = field(default_factory=dict)
    judged: Judgement | None = None
    screened: int = 0
    left: float = math.nan
    waiting: bool = False
    compared: bool = False

    @property
    def intervention(self) -> Intervention:
        return self.remedy.intervention

    @property
    def rank(self) -> float:
        """The gain; minus infinity unless it did better."""
        return -math.inf if self.judged is None or not self.judged.better else self.judged.gain

    @property
    def hopeful(self) -> bool:
        """Whether it did better, and is still to be verified."""
        return not self.compared and self.rank > -math.inf

    @property
    def plainly(self) -> bool:
        """Whether it did better, and by most of what there was to learn."""
        return self.judged is not None and self.judged.better and (self.judged.share or 0.0) >= _PLAINLY

    @property
    def enough(self) -> bool:
        """Whether it did so well that no other can do much better."""
        return self.hopeful and self.plainly and self.left <= _NEARLY_ALL

    def settle(self, status: Status, reason: str = "") -> None:
        self.remedy = replace(self.remedy, status=status, reason=reason)


class _Group:
    """A cause with the candidates for its cure."""

    def __init__(self, finding: Finding, attempts: Attempts, found: bool) -> None:
        self.finding, self.attempts = finding, attempts
        self.candidates = [_Candidate(r) for r in finding.remedies]
        self.found = found
        self.contested = False

    @property
    def plain(self) -> bool:
        """Whether the recording alone is as good as proof."""
        return self.finding.confidence >= _PLAIN

    @property
    def least(self) -> int:
        """The fewest steps in which a cure can show that it is one."""
        return self.attempts.least(self.finding.where.step or 0, self.finding.id in LATE)

    @property
    def cured(self) -> Judgement | None:
        """The judgement on the remedy that was verified."""
        return next((c.judged for c in self.candidates if c.remedy.status == "verified"), None)

    @property
    def promising(self) -> bool:
        """Whether a cure was plainly better in what was tried of it, and time ended before it was verified."""
        return any(c.plainly for c in self.candidates if c.remedy.status == "suggested")

    @property
    def result(self) -> Finding:
        """The finding with what became of its remedies, best first."""
        ranked = sorted(self.candidates, key=lambda c: (_ORDER.index(c.remedy.status), -c.rank))
        return replace(self.finding, remedies=tuple(c.remedy for c in ranked))

    def treat(self) -> None:
        """Try the candidates.

        Raises:
            OverError: where no further trial can be made.
            Interrupted: by the user.
        """
        if not self.candidates:
            return
        least = self.least
        # Time for a few guesses is enough to begin with: each further one is tried only if it leaves time to verify.
        screened, length = self.attempts.lengths(min(len(self.candidates), _GUESSES), least)
        if length < least:
            self._too_long(least)
            return
        while True:
            for candidate in self._screen(screened, length) if screened else self.candidates:
                if self._verify(candidate, length):
                    self._compare_with(candidate)
                    return
            # Those that were passed over for the sake of one that failed all the same.
            if not any(candidate.waiting for candidate in self.candidates):
                return

    def leave(self, reason: str) -> None:
        """Say of what hasn't been tried why not."""
        for candidate in self.candidates:
            if candidate.judged is None:
                candidate.settle("suggested", reason)

    def _too_long(self, least: int) -> None:
        attempts = self.attempts
        needed = attempts.pair_runs * attempts.costs.of(least, attempts.is_whole(least))
        self.leave(
            f"not tried: it takes {attempts.pair_runs} runs of at least {least:,} steps, about {duration(needed)}, "
            f"and the budget leaves {duration(max(attempts.left, 0.0))}"
        )

    def _screen(self, steps: int, length: int) -> list[_Candidate]:
        """Try each candidate once; those that did better, best first."""
        for k, candidate in enumerate(self.candidates):
            if candidate.screened >= steps:
                continue
            worse = _bracket(candidate, self.candidates)
            if worse:
                candidate.settle("suggested", f"not tried: {worse} does less well already")
                continue
            best = next((c for c in self.candidates if c.enough), None)
            if best is not None and not self.attempts.affords_another(steps, length, _AMPLE):
                candidate.settle("suggested", f"not tried: {best.intervention.describe()} leaves little to gain")
                candidate.waiting = True
                continue
            candidate.waiting = False
            if any(c.hopeful for c in self.candidates) and not self.attempts.affords_another(steps, length):
                candidate.settle("suggested", "not tried: the time left was needed to verify a better guess")
                continue
            self.screen(candidate, steps, length, k + 1, len(self.candidates))
        return sorted((c for c in self.candidates if c.hopeful), key=lambda c: -c.rank)

    def screen(self, candidate: _Candidate, steps: int, length: int, number: int, of: int) -> None:
        """Try a candidate once, unless that has been done over as many steps."""
        if candidate.screened >= steps:
            return
        candidate.screened = steps
        try:
            self._try(candidate, 0, steps, number, of)
        except BrokenError as broken:
            candidate.settle("suggested", f"in a trial {broken}")
            return
        judged = self._judge(candidate, steps)
        if judged.better:
            candidate.settle("suggested", "better in one run, not verified")
        else:
            candidate.settle("failed", judged.reason)
        if steps < length:
            candidate.tried.clear()

    def _verify(self, candidate: _Candidate, steps: int) -> bool:
        """Hold a candidate against the untouched script, seed by seed, until it fails or all seeds are through."""
        seeds, candidate.compared = self.attempts.plan.seeds, True
        try:
            for seed in range(seeds):
                self._try(candidate, seed, steps, seed + 1, seeds)
                judged = self._judge(candidate, steps)
                if not judged.better:
                    break
        except BrokenError as broken:
            candidate.settle("suggested", f"in a trial {broken}")
            return False
        except OverError as end:
            begun = f"better in {_runs(len(candidate.remedy.outcome))}; " if candidate.rank > -math.inf else ""
            candidate.settle("suggested", f"{begun}{end}")
            raise
        candidate.settle("verified" if judged.verified else "failed", judged.reason)
        return judged.verified

    def _try(self, candidate: _Candidate, seed: int, steps: int, pair: int, pairs: int) -> None:
        if seed not in candidate.tried:
            candidate.tried[seed] = self.attempts.run(candidate.intervention, seed, steps, pair, pairs)

    def _judge(self, candidate: _Candidate, steps: int) -> Judgement:
        """Compare what has been tried of a candidate with the untouched runs of the same seeds."""
        attempts, source = self.attempts, self.finding.source
        after = list(candidate.tried.values())
        before = [attempts.untouched(seed, steps, trial) for seed, trial in candidate.tried.items()]
        trials = [*before, *after]
        whole = attempts.is_whole(steps) and all(t.complete or training(t.recording, source).diverged for t in trials)
        try:
            ends = attempts.plan.measure.outcomes(trials, source, None if whole else steps)
        except MeasureError as error:
            raise OverError(f"not verified: {error}") from None
        pairs = list(zip(ends[: len(before)], ends[len(before) :], strict=True))
        judged = judge(pairs)
        if judged.verified and judged.share is None:
            # Of a metric nobody knows where it began; what the training loss gained says what it is worth.
            trained = [training(t.recording, source, None if whole else steps) for t in trials]
            judged = replace(
                judged, share=judge(list(zip(trained[: len(before)], trained[len(before) :], strict=True))).share
            )
        candidate.judged = judged
        candidate.left = max(_left(a) for _, a in pairs)
        shown = attempts.plan.measure.shown
        candidate.remedy = replace(
            candidate.remedy,
            steps=max(steps_of(t.recording) for t in trials) if whole else steps,
            full=whole,
            metric=ends[0].metric,
            baseline=tuple(shown(b) for b, _ in pairs),
            outcome=tuple(shown(a) for _, a in pairs),
            diverged=tuple(a.diverged for _, a in pairs),
        )
        return judged

    def _compare_with(self, best: _Candidate) -> None:
        """Say of the other candidates that did better why they are only suggested."""
        for candidate in self.candidates:
            if candidate.judged is not None and candidate.remedy.status == "suggested":
                candidate.settle("suggested", f"better in one run, but by less than {best.intervention.describe()}")


def _left(outcome: Outcome) -> float:
    if outcome.value is None or outcome.start is None or outcome.value < 0 or not outcome.start > 0:
        return math.nan
    return outcome.value / outcome.start


def _bracket(candidate: _Candidate, candidates: Sequence[_Candidate]) -> str:
    """What lies between this rate and the best so far and did worse than that one; "" where nothing does."""
    tried = {_rate(c): c for c in candidates if c.judged is not None and _rate(c)}
    here = _rate(candidate)
    best = max((r for r in tried if tried[r].rank > -math.inf), key=lambda r: tried[r].rank, default=None)
    if not here or best is None:
        return ""
    between = [r for r in tried if min(here, best) < r < max(here, best)]
    return tried[between[0]].intervention.describe() if between else ""


def _rate(candidate: _Candidate) -> float:
    """The factor of a candidate that only scales the learning rate; 0 of others."""
    intervention = candidate.intervention
    plain = intervention.schedule is None and intervention.clip_norm is None
    return intervention.lr_scale or 0.0 if plain else 0.0


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"
