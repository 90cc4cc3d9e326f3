"""What became of a run, as one number that runs can be compared by.

The validation loss where it can be compared, else the training loss. Nothing here depends on the scale or the sign of
a loss: values are only ever compared with other values of the same loss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradwise.recording.recording import Recording, Series
from gradwise.recording.signals import LOSS, VALIDATION

# Losses at the end that are above the start: in a run that learned nothing about half of them are.
_NEARLY_ALL = 0.9
# So many losses in a row that are not finite at the end, and the run is lost.
_GONE = 20
_HELD_OUT = re.compile(r"val|test|dev\b|eval|held|hold", re.IGNORECASE)
_TRAINED_ON = re.compile(r"train", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended by one metric; lower is better.

    Attributes:
        metric: what was measured.
        value: the metric at the end; None where it is not finite.
        start: the same before training moved anything, None where that isn't known.
        diverged: whether training went wrong: not finite at the end, nearly all of the end above the start, or
            broken off by an error before it came so far.
    """

    metric: str
    value: float | None
    start: float | None = None
    diverged: bool = False


def training(recording: Recording, source: int = 0, steps: int | None = None) -> Outcome:
    """The training loss of one optimizer: its mean over the last tenth of the steps.

    Args:
        recording: the run.
        source: the optimizer.
        steps: look at the first so many steps only.
    """
    loss = recording.get(LOSS, source)
    if steps is not None:
        loss = _until(loss, steps - 1)
    if not len(loss):
        return Outcome(LOSS.name, None, diverged=True)
    tail = loss.values[-max(1, len(loss) // 10) :]
    good = tail[np.isfinite(tail)]
    lost = 2 * len(good) < len(tail) or not np.isfinite(tail[-min(max(1, len(tail) // 5), _GONE) :]).any()
    # Only the first loss was there before training moved anything; in long runs a few more hardly differ.
    first = float(np.median(loss.values[: max(1, min(5, len(loss) // 100))]))
    start = first if np.isfinite(first) else None
    climbed = start is not None and len(good) > 0 and bool(np.mean(good > start) > _NEARLY_ALL)
    broken = recording.run.status in ("failed", "killed") and (steps is None or int(loss.steps[-1]) + 1 < steps)
    return Outcome(LOSS.name, None if lost else float(good.mean()), start, lost or climbed or broken)


def validation(recording: Recording, place: int, source: int = 0, until: int | None = None) -> Outcome | None:
    """The last validation loss from one place in the script; None where there is none.

    Args:
        recording: the run.
        place: which validation loss (its source).
        source: the optimizer whose training loss tells whether the run diverged.
        until: the last evaluation after at most so many steps.
    """
    series = recording.get(VALIDATION, place)
    if until is not None:
        series = _until(series, until)
    if not len(series):
        return None
    trained = training(recording, source, until)
    value = float(series.values[-1])
    finite = np.isfinite(value) and trained.value is not None
    start = trained.start if _same_units(recording, series, source, trained) else None
    return Outcome(VALIDATION.name, value if finite else None, start, trained.diverged or not finite)


def primary_place(recordings: Sequence[Recording]) -> int | None:
    """The validation loss to go by: one that all the runs have, on held-out data by its name, evaluated most often."""
    shared = set.intersection(*(set(r.sources(VALIDATION)) for r in recordings)) if recordings else set()
    if not shared:
        return None
    words = {e.source: _words(e.data) for e in recordings[0].happened("validation-place")}

    def rank(place: int) -> tuple[int, int, int]:
        text = words.get(place, "")
        held_out = bool(_HELD_OUT.search(text)) - bool(_TRAINED_ON.search(text))
        # At a tie the later one: scripts evaluate what they trained on first.
        return held_out, min(len(r.get(VALIDATION, place)) for r in recordings), place

    return max(shared, key=rank)


def final_metric(recording: Recording, source: int = 0) -> Outcome:
    """The validation loss at the end where the run has one, else the training loss."""
    place = primary_place([recording])
    found = None if place is None else validation(recording, place, source)
    return training(recording, source) if found is None else found


def common_metric(recordings: Sequence[Recording], source: int = 0, steps: int | None = None) -> list[Outcome]:
    """The same metric for several runs of one script.

    The validation loss if every run that didn't diverge has one, else the training loss; and the training loss where
    one diverged and the validation loss isn't on its scale, so that nobody knows where that run started.

    Args:
        recordings: the runs.
        source: the optimizer in question.
        steps: how far all of them got; None where each ran to its own end.
    """
    trained = [training(r, source, steps) for r in recordings]
    alive = [r for r, t in zip(recordings, trained, strict=True) if not t.diverged]
    place = primary_place(alive)
    if place is None:
        return trained
    until = None if steps is None else _last_in_common(alive, place, steps)
    if steps is not None and until is None:
        return trained
    found = [validation(r, place, source, until) for r in recordings]
    starts = [o.start for o, t in zip(found, trained, strict=True) if o is not None and not t.diverged]
    comparable = None not in starts
    outcomes = []
    for seen, base in zip(found, trained, strict=True):
        outcome = seen or Outcome(VALIDATION.name, None, diverged=True)
        outcomes.append(replace(outcome, start=base.start if comparable else None))
    return trained if not comparable and len(alive) < len(recordings) else outcomes


def _until(series: Series, step: int) -> Series:
    n = int(np.searchsorted(series.steps, step, side="right"))
    return Series(series.steps[:n], series.values[:n], series.labels)


def _last_in_common(recordings: Sequence[Recording], place: int, steps: int) -> int | None:
    """The last step, at most `steps`, after which all of the runs were evaluated."""
    evaluated = [set(_until(r.get(VALIDATION, place), steps).steps.tolist()) for r in recordings]
    return max(set.intersection(*evaluated), default=None)


def _same_units(recording: Recording, series: Series, source: int, trained: Outcome) -> bool:
    """Whether a validation loss is on the scale of the training loss: no farther from it than training carried that.

    Scripts may sum the one and average the other, or validate by another loss altogether.
    """
    loss = recording.get(LOSS, source)
    before = int(np.searchsorted(loss.steps, series.steps[0], side="left"))
    near = loss.values[max(0, before - max(1, len(loss) // 20)) : before]
    near = near[np.isfinite(near)]
    if trained.value is None or trained.start is None or not len(near):
        return False
    return bool(abs(float(series.values[0]) - float(np.median(near))) < trained.start - trained.value)


def _words(data: object) -> str:
    """The names and lines of a place and its callers."""
    if isinstance(data, dict):
        return " ".join(_words(v) for k, v in data.items() if k not in ("file", "line", "source"))
    if isinstance(data, list | tuple):
        return " ".join(map(_words, data))
    return str(data)
