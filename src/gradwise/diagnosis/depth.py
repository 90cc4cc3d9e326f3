"""What examinations saw of layers and activations (events "layers"), and how much a run has to complain of.

Many nets that look bad inside train well: half of a layer's units silent, gradients that differ a thousandfold. So
nothing is read off the inside of a net alone: `plight` says whether the run suffers, and by how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwise.diagnosis.case import Case
from gradwise.diagnosis.rates import LEARNED
from gradwise.diagnosis.targets import targets_of
from gradwise.recording import signals
from gradwise.recording.recording import Event
from gradwise.recording.signals import LOSS

_NONE = float("nan")
# A loss function's value, recomputed on a sample, and the loss that was differentiated: the same within this.
_SAME = 0.05
_EQUAL = 1e-6


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in one examination.

    Attributes:
        name, bias: its parameters.
        raw: whether it is given the data itself.
        depth, deepest: layers up to its first call and up to its last, itself included.
        calls: how often it was called.
        fan_in: numbers that each of its outputs is a sum over.
        rms, spread: scale of its inputs, and how much they vary from row to row.
        weight: rms of its weight, in the first examination.
        alike: whether all rows of its weight were the same in the first examination, and whether all columns were.
        gradients: norm of the loss' gradient at its output, in up to five calls from the first to the last.
    """

    name: str
    bias: str | None
    raw: bool
    depth: int
    deepest: int
    calls: int
    fan_in: int
    rows: int
    rms: float
    spread: float
    weight: float
    alike: tuple[bool, bool]
    gradients: tuple[float, ...]

    @property
    def recurrent(self) -> bool:
        """Whether it was called on its own output, several times."""
        return self.calls > 2 and self.deepest - self.depth >= self.calls - 1

    @property
    def gain(self) -> float:
        """Its initial weights' rms times √fan_in: √2 by He's rule, about 1 by Xavier's, 0.58 by torch's default."""
        return self.weight * math.sqrt(self.fan_in)


@dataclass(frozen=True, slots=True)
class Units:
    """The activations behind one layer in one examination.

    Attributes:
        kind: autograd's name of it.
        hidden: whether it feeds a further layer; `gate`: whether it is a factor of something else.
        flat: share of its outputs where its slope is (nearly) zero.
        units: how many there are; 0 for those that can't be silent.
        silent, dead, never: shares of units that are zero on all rows: now, for the last three examinations, ever.
        seen: rows in those examinations.
    """

    layer: str
    kind: str
    depth: int
    hidden: bool
    gate: bool
    flat: float
    units: int
    silent: float
    dead: float
    never: float
    seen: int


@dataclass(frozen=True, slots=True)
class Look:
    """One examination of the layers that an optimizer trains.

    Attributes:
        norms: depths of normalizations.
        loss: the loss function's kind, value and guess, as `gradwise.probes.guesses` found them.
    """

    step: int
    number: int
    layers: tuple[Layer, ...]
    units: tuple[Units, ...]
    norms: tuple[int, ...]
    loss: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chain(self) -> list[Layer]:
        """The layers from input to output that are called once; of several at one depth the largest gradient's."""
        best: dict[int, Layer] = {}
        for layer in self.layers:
            if layer.calls <= 2 and math.isfinite(layer.gradients[-1]):
                known = best.get(layer.depth)
                if known is None or layer.gradients[-1] > known.gradients[-1]:
                    best[layer.depth] = layer
        return [best[depth] for depth in sorted(best)]


def looks_of(case: Case) -> list[Look]:
    """The examinations of what the case's optimizer trains, as long as its loss was finite."""
    loss = case.recording.get(LOSS, case.e.source)
    gone = np.flatnonzero(~np.isfinite(loss.values))
    end = float(loss.steps[gone[0]]) if len(gone) else math.inf
    events = [e for e in case.recording.happened("layers") if e.source == case.e.source]
    return [_look(e) for e in events if e.step <= end or not e.step]


def _look(event: Event) -> Look:
    data = event.data
    return Look(
        step=event.step,
        number=int(data["number"]),
        layers=tuple(_layer(entry) for entry in data["layers"]),
        units=tuple(_units(entry) for entry in data["units"]),
        norms=tuple(data.get("norms", ())),
        loss=data.get("loss") or {},
    )


def _layer(data: Mapping[str, Any]) -> Layer:
    shape: Sequence[int] = data["shape"]
    differ = [_float(data.get(key)) for key in ("rows_differ", "columns_differ")]
    size = _float(data.get("weight"))
    fan_in, rows = math.prod(shape[1:]), (shape[0] if shape else 1)
    if data.get("flipped"):
        fan_in, rows, differ = rows, fan_in, differ[::-1]
    return Layer(
        name=data["name"],
        bias=data.get("bias"),
        raw=data["raw"],
        depth=data["depth"],
        deepest=data["deepest"],
        calls=data["calls"],
        fan_in=max(fan_in, 1),
        rows=rows,
        rms=_float(data.get("rms")),
        spread=_float(data.get("spread")),
        weight=size,
        alike=(differ[0] <= _EQUAL * size, differ[1] <= _EQUAL * size),
        gradients=tuple(_float(g) for g in data["gradients"]) or (_NONE,),
    )


def _units(data: Mapping[str, Any]) -> Units:
    return Units(
        layer=data["layer"],
        kind=data["kind"],
        depth=data["depth"],
        hidden=data["hidden"],
        gate=data["gate"],
        flat=_float(data.get("flat")),
        units=int(data.get("units") or 0),
        silent=_float(data.get("silent")),
        dead=_float(data.get("dead")),
        never=_float(data.get("never")),
        seen=int(data.get("seen") or 0),
    )


def _float(value: Any) -> float:
    return _NONE if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Plight:
    """How the run does, seen from outside.

    Attributes:
        fails: it learns nothing: no fall beyond the noise, no better than a guess, or not finite. Known only of torch's
            own losses: others need not fall (policies, games).
        poor: it learns little or late: most of what a guess misses is still missed, or a third of the run went by
            before the loss moved. Hard and noisy tasks are like that too.
        remaining: the loss at the end over that of a guess that knows nothing; NaN where that isn't known.
    """

    fails: bool
    poor: bool
    remaining: float = _NONE


def plight(case: Case, looks: Sequence[Look]) -> Plight:
    """Whether a run suffers."""
    c = case.e.curve
    if case.rivals:
        return Plight(False, False)
    if c is None:  # too short, or over as soon as it had begun
        losses = case.recording.get(signals.LOSS, case.e.source).values
        over = bool(len(losses)) and not np.isfinite(losses[-1])
        return Plight(over, over)
    remaining = c.end / guess if (guess := guess_of(case, looks)) > 0 else _NONE
    if c.bad_at_end or c.learned < LEARNED or remaining > 0.9:
        return Plight(c.bad_at_end or not math.isnan(remaining), True, remaining)
    moved = np.flatnonzero(c.level < c.start - 0.1 * c.fall)
    late = not len(moved) or c.centre[moved[0]] > c.steps[-1] / 3
    return Plight(False, late or remaining > 0.25, remaining)


def level_of_knowing_nothing(case: Case) -> float:
    """The loss of the best guess that doesn't look at the input, over all targets seen; NaN where that isn't known."""
    if case.rivals or math.isnan(guess_of(case, looks_of(case))):
        return _NONE  # the loss that is trained on is not known, or is not this function alone
    return next((t.uninformed for t in targets_of(case.recording) if not math.isnan(t.uninformed)), _NONE)


def guess_of(case: Case, looks: Sequence[Look]) -> float:
    """The loss of a guess that knows nothing, in units of the recorded loss; NaN where it can't be told."""
    c = case.e.curve
    first = looks[0] if looks else None
    if c is None or first is None or first.step or not first.loss:
        return _NONE
    value, guess, seen = float(first.loss["value"]), float(first.loss["guess"]), float(c.losses[0])
    if first.loss.get("sum"):
        return guess * seen / value if value > 0 else _NONE
    return guess if abs(seen - value) <= _SAME * abs(value) else _NONE
