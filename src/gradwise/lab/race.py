"""A race: update rules from the same starts on the same surface, each at a rate that was found and not set by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwise import optim
from gradwise.finder import range_test
from gradwise.lab.surfaces import Surface
from gradwise.optim import Optimizer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Racer:
    """A rule that can take part.

    Args:
        kind: its class.
        textbook: the rate that textbooks or its paper begin with.
        settings: its other arguments.
    """

    kind: Callable[..., Optimizer]
    textbook: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    def on(self, parameters: Mapping[Tensor, float]) -> Optimizer:
        """The optimizer of some parameters, each at a rate of its own."""
        groups = [{"params": [p], "lr": lr} for p, lr in parameters.items()]
        return self.kind(groups, lr=self.textbook, **self.settings)


RULES: dict[str, Racer] = {
    "sgd": Racer(optim.SGD, 0.01),  # D2: begin with 0.01 to 0.001
    "momentum": Racer(optim.SGD, 0.01, {"momentum": 0.9}),
    "nesterov": Racer(optim.SGD, 0.01, {"momentum": 0.9, "nesterov": True}),
    "adagrad": Racer(optim.Adagrad, 0.01),
    "adadelta": Racer(optim.Adadelta, 1.0),  # which has no rate in its paper
    "rmsprop": Racer(optim.RMSprop, 0.001, {"alpha": 0.9}),  # Hinton's
    "adam": Racer(optim.Adam, 0.001),
    "adamw": Racer(optim.AdamW, 0.001),
    "adamax": Racer(optim.Adamax, 0.002),
    "nadam": Racer(optim.NAdam, 0.002),
    "radam": Racer(optim.RAdam, 0.001),
    "adabelief": Racer(optim.AdaBelief, 0.001),
    "lion": Racer(optim.Lion, 1e-4),
    "lamb": Racer(optim.LAMB, 0.001),
    "rprop": Racer(optim.Rprop, 0.01),
    "asgd": Racer(optim.ASGD, 0.01),
    "schedule-free-sgd": Racer(optim.ScheduleFreeSGD, 1.0),
    "schedule-free-adamw": Racer(optim.ScheduleFreeAdamW, 0.0025),
}
USUAL = ("sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam")
"""Those of D2's animations, and Adam."""

RANGE_TEST, TEXTBOOK, GIVEN = "range test", "textbook", "given"
_STARTS = 8  # about the race's own, from which the range test finds a rate: for one alone a lucky jump would decide
_FAR = 100.0  # a racer this many maps away from the map's middle has left it for good


@dataclass(frozen=True, eq=False)
class Lane:
    """One rule at one rate.

    Attributes:
        rule: its name.
        lr: the rate.
        how: how that was chosen: "range test", "textbook" or "given".
        interval: rates that would do as well, by the range test.
        path: (seeds, steps + 1, 2) where it was, from its start on. Who left the map for good stays where that was.
        heights: (seeds, steps + 1) the surface there, without noise.
        left: for each seed the step at which it had left the map for good, or None.
    """

    rule: str
    lr: float
    how: str
    interval: tuple[float, float] | None
    path: Floats
    heights: Floats
    left: tuple[int | None, ...]

    def arrivals(self, goal: float) -> list[int | None]:
        """For each seed, the step from which on it is as low as `goal` for the rest of the race; None if it never is.

        Flying past isn't arriving: it counts from when it stays.
        """
        above = ~(self.heights <= goal)
        steps = above.shape[1]
        last = np.where(above.any(1), steps - 1 - np.argmax(above[:, ::-1], 1), -1)
        return [int(k) + 1 if k + 1 < steps else None for k in last]

    @property
    def detours(self) -> list[float]:
        """For each seed, how many times as long as the straight line its way was; 1 is straight."""
        pieces = np.linalg.norm(np.diff(self.path, axis=1), axis=-1).sum(1)
        straight = np.linalg.norm(self.path[:, -1] - self.path[:, 0], axis=-1)
        return [float(p / s) if s > 0 else math.inf for p, s in zip(pieces, straight, strict=True)]


@dataclass(frozen=True, eq=False)
class Race:
    """A race that was run."""

    surface: Surface
    steps: int
    goal: float
    lanes: tuple[Lane, ...]
    notes: tuple[str, ...] = ()

    @property
    def finish(self) -> str:
        """What the goal is, in words."""
        if self.surface.saddle is not None:
            return f"has left the saddle: f ≤ {self.goal:.4g} for the rest of the race"
        lowest = "the lowest value" if self.surface.minima else "the lowest value seen"
        return f"within a thousandth of {lowest}: f ≤ {self.goal:.4g} for the rest of the race"

    def to_json(self) -> dict[str, Any]:
        """The race as a JSON object; what isn't finite is null."""
        surface = self.surface
        about = {"name": surface.name, "function": surface.text, "start": list(surface.start), "source": surface.source}
        return {
            "surface": {**about, "minima": [list(m) for m in surface.minima]},
            "steps": self.steps,
            "goal": self.goal,
            "finish": self.finish,
            "lanes": [
                {
                    "rule": lane.rule,
                    "lr": lane.lr,
                    "how": lane.how,
                    "interval": lane.interval and list(lane.interval),
                    "steps_to_goal": lane.arrivals(self.goal),
                    "final": [_plain(v) for v in lane.heights[:, -1]],
                    "left_the_map": list(lane.left),
                    "path": [[[_plain(v) for v in point] for point in seed] for seed in lane.path],
                }
                for lane in self.lanes
            ],
            "notes": list(self.notes),
        }


Run = tuple[Floats, Floats, tuple[int | None, ...]]


def run(rule: str, surface: Surface, lr: float, starts: Tensor, steps: int, seed: int = 0) -> Run:
    """One rule at one rate from all starts; as `sweep`."""
    return sweep(rule, surface, [lr], starts, steps, seed)[0]


def sweep(rule: str, surface: Surface, rates: Sequence[float], starts: Tensor, steps: int, seed: int = 0) -> list[Run]:
    """One rule at several rates from all starts, side by side.

    Args:
        rule: a name out of `RULES`.
        surface: where.
        rates: the rates.
        starts: (n, 2).
        steps: how many to make.
        seed: of the noise, which is the same for every rule and rate.

    Returns:
        For each rate the path (n, steps + 1, 2), the heights (n, steps + 1), and for each start when it left the map
        for good.
    """
    starts = starts.to(torch.float64)
    # LAMB goes by norms of whole tensors: there each start is a tensor of its own.
    pieces = torch.split(starts, 1) if rule == "lamb" else (starts,)
    points: dict[Tensor, float] = {torch.nn.Parameter(piece.clone()): lr for lr in rates for piece in pieces}
    optimizer = RULES[rule].on(points)
    noise = _noise(surface, starts, steps, seed)
    path = torch.empty(steps + 1, len(rates) * len(starts), 2, dtype=torch.float64)
    path[0] = starts.repeat(len(rates), 1)
    for k in range(steps):
        _step(surface, optimizer, list(points), noise[k].repeat(len(rates), 1) if noise is not None else None)
        path[k + 1] = _where(optimizer, list(points))
    each = torch.split(path.transpose(0, 1), len(starts))
    return [_held(one.clone(), surface) for one in each]


def find_rate(rule: str, surface: Surface, starts: Tensor, steps: int, budget: int | None = None) -> Any:
    """The rate that a range test finds for a race of so many steps: from all starts, for the mean of their heights.

    Args:
        rule: a name out of `RULES`.
        surface: where.
        starts: (n, 2).
        steps: of the race.
        budget: steps of the range test; by default its runs at constant rates are as long as the race.

    Returns:
        The range test's answer (`gradwise.range_test`).
    """
    points = torch.nn.Parameter(starts.to(torch.float64).clone())
    optimizer = RULES[rule].on({points: RULES[rule].textbook})
    # Some surfaces have no bottom. Below this all is one: further down isn't better; and above that all is as bad.
    start = surface.height(surface.start)
    fall = abs(start - surface.lowest)
    floor, ceiling = surface.lowest - fall, start + 10 * fall

    def step() -> Tensor:
        noise = surface.noise * torch.randn(starts.shape, dtype=torch.float64) if surface.noise else None
        return _step(surface, optimizer, [points], noise).clamp(floor, ceiling).mean()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return range_test(step, optimizer=optimizer, budget=budget or 9 * steps, horizon=steps)


def race(
    surface: Surface,
    rules: Sequence[str] = USUAL,
    *,
    rates: Mapping[str, float] | None = None,
    steps: int = 200,
    seeds: int = 1,
    budget: int | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Race:
    """Race rules on a surface: each at the rate a range test finds, and at the textbook's.

    Args:
        surface: where.
        rules: names out of `RULES`.
        rates: rates given by hand, which stand in place of both for their rules.
        steps: the length of the race.
        seeds: from how many starts, the surface's own and others scattered about it; each has noise of its own.
        budget: steps of each range test.
        progress: told what is going on.

    Raises:
        ValueError: an unknown rule, a rate that isn't positive, no steps, no seeds.

    Example:
        >>> from gradwise.lab.surfaces import SURFACES
        >>> over = race(SURFACES["ravine"], ["sgd", "momentum"], rates={"sgd": 0.01, "momentum": 0.01}, steps=100)
        >>> [(lane.rule, lane.arrivals(over.goal)) for lane in over.lanes]
        [('sgd', [None]), ('momentum', [62])]
    """
    rates = dict(rates or {})
    check(rules, rates, steps, seeds)
    starts, around = surface.starts(seeds), surface.starts(_STARTS)
    lanes: list[Lane] = []
    notes: list[str] = []
    for rule in dict.fromkeys(rules):
        ways: list[tuple[float, str, tuple[float, float] | None]] = []
        if rule in rates:
            ways.append((rates[rule], GIVEN, None))
        else:
            progress(f"looking for a rate for {rule}")
            found = find_rate(rule, surface, around, steps, budget)
            if found.rate is None:
                notes.append(f"For {rule} the range test found no rate: {' '.join(found.why)}")
            else:
                ways.append((found.rate, RANGE_TEST, (found.low, found.high)))
            ways.append((RULES[rule].textbook, TEXTBOOK, None))
        progress(f"racing {rule}")
        lanes += [Lane(rule, lr, how, near, *run(rule, surface, lr, starts, steps)) for lr, how, near in ways]
    seen = min((float(lane.heights.min()) for lane in lanes), default=math.inf)
    return Race(surface, steps, surface.goal(seen), tuple(lanes), tuple(notes))


def typical(arrivals: Sequence[int | None], steps: int) -> float:
    """The median arrival; infinite if half of the seeds or more didn't arrive within `steps`.

    >>> typical([10, None, 30], 100), typical([None, 5], 100)
    (30.0, inf)
    """
    middle = float(median(math.inf if k is None else k for k in arrivals))
    return middle if middle <= steps else math.inf


def check(rules: Sequence[str], rates: Mapping[str, float], steps: int, seeds: int) -> None:
    """Make sure that there can be such a race.

    Raises:
        ValueError: there is an unknown rule, a rate that isn't positive, or too few rules, steps or seeds.
    """
    for rule in (*rules, *rates):
        if rule not in RULES:
            raise ValueError(f"there is no rule {rule!r} to race; there are {', '.join(RULES)}")
    for rule, rate in rates.items():
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"the rate of {rule} must be above 0, not {rate:g}")
    if not rules or steps < 10 or seeds < 1:
        raise ValueError(f"a race needs a rule, 10 steps and 1 seed at least: got {len(rules)}, {steps}, {seeds}")


def _step(surface: Surface, optimizer: Optimizer, points: Sequence[Tensor], noise: Tensor | None) -> Tensor:
    """One step of all points; the heights from which it began."""
    optimizer.zero_grad()
    heights = surface.at(torch.cat(list(points)))
    heights.sum().backward()  # type: ignore[no-untyped-call]
    if noise is not None:
        for p, added in zip(points, torch.split(noise, [len(p) for p in points]), strict=True):
            assert p.grad is not None
            p.grad += added
    optimizer.step()
    return heights.detach()


def _where(optimizer: Optimizer, points: Sequence[Tensor]) -> Tensor:
    """Where a rule says its model is: for those that keep an average, there."""
    if not isinstance(optimizer, optim.ScheduleFreeSGD | optim.ScheduleFreeAdamW):
        return torch.cat(list(points)).detach()
    optimizer.eval()
    there = torch.cat(list(points)).detach()
    optimizer.train()
    return there


def _noise(surface: Surface, starts: Tensor, steps: int, seed: int) -> Tensor | None:
    if not surface.noise:
        return None
    each = [torch.Generator().manual_seed(1 + seed + k) for k in range(len(starts))]
    drawn = [torch.randn(steps, 2, generator=g, dtype=torch.float64) for g in each]
    return surface.noise * torch.stack(drawn, 1)


def _held(path: Tensor, surface: Surface) -> tuple[Floats, Floats, tuple[int | None, ...]]:
    """A path stopped where it leaves the map for good, and its heights."""
    middle = torch.tensor([(low + high) / 2 for low, high in (surface.x, surface.y)], dtype=torch.float64)
    width = torch.tensor([high - low for low, high in (surface.x, surface.y)], dtype=torch.float64)
    away = ~(((path - middle).abs() / width).amax(-1) < _FAR)
    left: list[int | None] = []
    for points, gone in zip(path, away, strict=True):
        first = int(gone.to(torch.uint8).argmax()) if gone.any() else None
        left.append(first)
        if first is not None:
            points[first:] = points[first - 1]
    with torch.no_grad():
        return path.numpy().copy(), surface.at(path).numpy(), tuple(left)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
