"""Down when a metric stops improving: a pure step from (state, metric) to (state, factor)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from inspect import signature
from typing import Any, Literal

from gradwise.schedules.checks import choice, count, is_number, limits, number, switch
from gradwise.schedules.schedule import Schedule, closed, said_limits


@dataclass(frozen=True)
class PlateauState:
    """All that is remembered between two values of the metric.

    Attributes:
        cuts: how often the factor was cut.
        best: the best metric so far; None before the first.
        wait: values in a row that were no better.
        cooldown: values for which none is counted yet.
    """

    cuts: int = 0
    best: float | None = None
    wait: int = 0
    cooldown: int = 0

    def to_json(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(data: Any) -> PlateauState:
        """The state that a JSON object describes; ValueError if it describes none."""
        names = [f.name for f in fields(PlateauState)]
        if not isinstance(data, Mapping) or sorted(data) != sorted(names):
            raise ValueError(f"a plateau's state has {', '.join(names)}; got {data!r}")
        try:
            if data["best"] is not None and not is_number(data["best"]):
                raise TypeError(f"best must be a number or null, got {data['best']!r}")
            counts = {name: count(name, data[name], 0) for name in names if name != "best"}
        except TypeError as error:
            raise ValueError(f"a plateau's state: {error}") from None
        return PlateauState(best=data["best"], **counts)


@dataclass(frozen=True, repr=False)
class Plateau:
    """What `reduce_on_plateau` makes: `state, factor = plateau(state, metric)`, beginning with `plateau.start`.

    Only `*` (with a number or a schedule) and `clip` apply: what a metric decides has no end for something to follow.
    """

    settings: tuple[tuple[str, Any], ...]
    after: tuple[Schedule | float | tuple[float | None, float | None], ...] = ()

    __array_ufunc__ = None  # numpy's numbers leave `*` to us

    @property
    def start(self) -> PlateauState:
        """The state before the first metric."""
        return PlateauState()

    def __call__(self, state: PlateauState, metric: float, step: int = 0) -> tuple[PlateauState, float]:
        """The state after one more value of the metric, and the factor from there on.

        Args:
            state: from the call before; `start` at first.
            metric: its value now. NaN is no better than anything.
            step: for schedules that it is multiplied with.
        """
        following = self._following(state, float(metric))
        return following, self.factor(following, step)

    def factor(self, state: PlateauState, step: int = 0) -> float:
        """The factor in a state, at a step."""
        value = float(dict(self.settings)["factor"] ** state.cuts)
        for change in self.after:
            if isinstance(change, tuple):
                low, high = change
                value = max(value, -math.inf if low is None else low)
                value = min(value, math.inf if high is None else high)
            else:
                value *= change(step) if isinstance(change, Schedule) else change
        return value

    def __mul__(self, other: float | Schedule) -> Plateau:
        """The product with a number or with a schedule, such as a warm-up."""
        if not (is_number(other) or isinstance(other, Schedule)):
            return NotImplemented
        return replace(self, after=(*self.after, other if isinstance(other, Schedule) else number("factor", other)))

    __rmul__ = __mul__

    def clip(self, lo: float | None = None, hi: float | None = None) -> Plateau:
        """Nowhere below `lo`, nowhere above `hi` (factors; None is no limit)."""
        return replace(self, after=(*self.after, limits(lo, hi)))

    def __rshift__(self, other: object) -> Any:
        raise TypeError(
            "reduce_on_plateau goes by a metric, not by the step, so it can't be one part after another; "
            "multiply instead: warmup(500) * reduce_on_plateau()"
        )

    __rrshift__ = __rshift__

    def to_json(self) -> dict[str, Any]:
        """The rule (not its state) as a JSON object."""
        after = [
            {"clip": list(c)} if isinstance(c, tuple) else c.to_json() if isinstance(c, Schedule) else c
            for c in self.after
        ]
        return {"reduce_on_plateau": dict(self.settings)} | ({"after": after} if after else {})

    @staticmethod
    def from_json(data: Any) -> Plateau:
        """The rule that a JSON object describes; ValueError if it describes none."""
        if not isinstance(data, Mapping) or not {"reduce_on_plateau"} <= set(data) <= {"reduce_on_plateau", "after"}:
            raise ValueError(f"a plateau is an object with the key reduce_on_plateau, and after; got {data!r}")
        try:
            plateau = reduce_on_plateau(**data["reduce_on_plateau"])
            for change in data.get("after", []):
                if isinstance(change, Mapping) and isinstance(change.get("clip"), list):
                    plateau = plateau.clip(*change["clip"])
                else:
                    plateau = plateau * (change if is_number(change) else Schedule.from_json(change))
        except TypeError as error:
            raise ValueError(f"reduce_on_plateau: {error}") from None
        return plateau

    def __repr__(self) -> str:
        defaults = {p.name: p.default for p in signature(reduce_on_plateau).parameters.values()}
        said = (f"{k}={v!r}" for k, v in self.settings if v != defaults[k])
        text, product = f"reduce_on_plateau({', '.join(said)})", False
        for change in self.after:
            if isinstance(change, tuple):
                text, product = f"{f'({text})' if product else text}.clip({said_limits(*change)})", False
            else:
                factor = closed(change) if isinstance(change, Schedule) else repr(change)
                text, product = f"{text} * {factor}", True
        return text

    def _following(self, state: PlateauState, metric: float) -> PlateauState:
        settings = dict(self.settings)
        better, late = self._better(metric, state.best), settings["rule"] == "torch"
        cooldown = max(state.cooldown - 1, 0)
        cooling = state.cooldown > 0 if late else cooldown > 0
        wait = 0 if better or cooling else (0 if state.cooldown else state.wait) + 1
        best = metric if better else state.best
        if wait > settings["patience"] or (wait and not late and wait >= settings["patience"]):
            return PlateauState(state.cuts + 1, best, 0, settings["cooldown"])
        return PlateauState(state.cuts, best, wait, cooldown)

    def _better(self, metric: float, best: float | None) -> bool:
        settings = dict(self.settings)
        sign = 1 if settings["mode"] == "min" else -1
        if best is None:
            return sign * metric < math.inf
        threshold: float = settings["threshold"]
        relative = settings["rule"] == "torch" if settings["relative"] is None else settings["relative"]
        level = best * (1 - sign * threshold) if relative else best - sign * threshold
        return sign * metric < sign * level


def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    rule: Literal["keras", "torch"] = "keras",
    mode: Literal["min", "max"] = "min",
    threshold: float = 1e-4,
    relative: bool | None = None,
    cooldown: int = 0,
) -> Plateau:
    """Times `factor` whenever a metric has not improved for `patience` values: factor^cuts.

    Two rules are in use, and they differ by one value and in what improving means. A value is better if it is below
    best − threshold ("keras", an absolute threshold) or below best·(1 − threshold) ("torch", relative). It is cut when
    the number of values in a row that were no better reaches the patience ("keras") or exceeds it ("torch").

    Args:
        factor: what each cut multiplies with, at least 0 and below 1.
        patience: how many values to wait.
        rule: "keras" or "torch".
        mode: whether the metric is to be low ("min") or high ("max").
        threshold: how much counts as better, at least 0.
        relative: whether the threshold is a part of the best value; None goes by the rule.
        cooldown: values after a cut that don't count.

    Returns:
        A pure function (state, metric) → (state, factor); `clip(lo)` gives it a lower limit, `warmup(500) *` a warm-up.

    Example:
        >>> plateau = reduce_on_plateau(0.5, patience=2)
        >>> state = plateau.start
        >>> for loss in (1.0, 0.9, 0.95, 0.9):
        ...     state, factor = plateau(state, loss)
        >>> factor, PlateauState.from_json(state.to_json()) == state
        (0.5, True)

    Source:
        The callback of Keras 3 and the scheduler of PyTorch, both called ReduceLROnPlateau.
    """
    settings: dict[str, Any] = {
        "factor": number("reduce_on_plateau: factor", factor, 0),
        "patience": count("reduce_on_plateau: patience", patience, 0),
        "rule": choice("reduce_on_plateau: rule", rule, ("keras", "torch")),
        "mode": choice("reduce_on_plateau: mode", mode, ("min", "max")),
        "threshold": number("reduce_on_plateau: threshold", threshold, 0),
        "relative": None if relative is None else switch("reduce_on_plateau: relative", relative),
        "cooldown": count("reduce_on_plateau: cooldown", cooldown, 0),
    }
    if settings["factor"] >= 1:
        raise ValueError(f"reduce_on_plateau: factor must be below 1, got {factor!r}")
    return Plateau(tuple(settings.items()))
