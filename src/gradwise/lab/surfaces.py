"""Surfaces to race on: functions of two numbers, each with its map, a start, and what is known of its bottom."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Formula = Callable[[Tensor, Tensor], Tensor]
Point = tuple[float, float]

TOLERANCE = 1e-3
"""A minimum is reached with so much of the way from the start's height left."""

_MAP, _START = (-2.0, 2.0), (1.0, 1.0)  # of a user's own function
_CELLS = 121  # of the grid on which the lowest value of an unknown surface is looked for, along each side


@dataclass(frozen=True)
class Surface:
    """A function of (x, y) and what a race on it needs.

    Args:
        name: what it is called.
        formula: the function of two flat tensors, giving a tensor of their length.
        x, y: the map: what is drawn, lowest and highest.
        start: where a race begins.
        text: the function as one writes it.
        source: where it is from.
        minima: all places of its lowest value; none where they aren't known or there are none.
        saddle: the place of the saddle that a race has to leave; None where the minimum is the goal.
        scatter: the standard deviation of further starts about `start`; by default 3 % of the map.
        noise: the standard deviation of what is added to each entry of each gradient.

    Example:
        >>> bowl = Surface("bowl", lambda x, y: x**2 + y**2, (-1, 1), (-1, 1), (0.5, 1), "x² + y²", minima=((0, 0),))
        >>> bowl.at(torch.tensor([[0.5, 1.0], [0.0, 0.0]]))
        tensor([1.2500, 0.0000], dtype=torch.float64)
        >>> bowl.goal()
        0.00125
    """

    name: str
    formula: Formula
    x: Point
    y: Point
    start: Point
    text: str
    source: str = ""
    minima: tuple[Point, ...] = ()
    saddle: Point | None = None
    scatter: Point | None = None
    noise: float = 0.0

    def at(self, points: Tensor) -> Tensor:
        """The heights at points of shape (…, 2), in double precision; without the noise."""
        flat = points.to(torch.float64).reshape(-1, 2)
        return self.formula(flat[:, 0], flat[:, 1]).reshape(points.shape[:-1])

    def height(self, point: Point) -> float:
        """The height at one point."""
        return float(self.at(torch.tensor([point], dtype=torch.float64)))

    def grid(self, columns: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """The map's x, its y, and the heights, (rows, columns)."""
        x = torch.linspace(*self.x, columns, dtype=torch.float64)
        y = torch.linspace(*self.y, rows, dtype=torch.float64)
        with torch.no_grad():
            return x, y, self.at(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))

    @cached_property
    def lowest(self) -> float:
        """The lowest value: at the known minima, else the lowest seen on the map."""
        if self.minima:
            return self.height(self.minima[0])
        heights = self.grid(_CELLS, _CELLS)[2]
        return float(heights[heights.isfinite()].min()) if heights.isfinite().any() else math.nan

    def goal(self, seen: float = math.inf) -> float:
        """The height at which a race is over.

        A saddle is left half-way from its height down to the lowest on the map. Otherwise it is the lowest value and
        `TOLERANCE` of the way there.

        Args:
            seen: the lowest value that any racer found; counts where the minima aren't known.
        """
        if self.saddle is not None:
            return (self.height(self.saddle) + self.lowest) / 2
        lowest = self.lowest if self.minima else min(self.lowest, seen)
        return lowest + TOLERANCE * (self.height(self.start) - lowest)

    def starts(self, count: int, seed: int = 0) -> Tensor:
        """So many starts, (count, 2): `start` itself, then others scattered about it."""
        widths = [0.03 * (high - low) for low, high in (self.x, self.y)]
        scatter = torch.tensor(self.scatter or widths, dtype=torch.float64)
        # One after the other, so that more of them begin with the same ones.
        drawn = np.random.default_rng(seed).standard_normal((count, 2))
        away = scatter * torch.from_numpy(drawn)
        away[:1] = 0
        return torch.tensor(self.start, dtype=torch.float64) + away


def _beale(x: Tensor, y: Tensor) -> Tensor:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _rastrigin(x: Tensor, y: Tensor) -> Tensor:
    return 20 + sum((z**2 - 10 * torch.cos(2 * math.pi * z) for z in (x, y)), torch.zeros_like(x))


_TEST_FUNCTIONS = "Moré, Garbow & Hillstrom (1981), Testing unconstrained optimization software, problem {}"
_HIMMELBLAU = ((3.0, 2.0), (-2.8051180869527448, 3.1313125182505730), (-3.7793102533777469, -3.2831859912861694),
               (3.5844283403304917, -1.8481265269644036))  # fmt: skip
_ROOT = math.sqrt(2)
_THIRD = 1.5 * math.sqrt(3)

_KNOWN = (
    Surface(
        "saddle", lambda x, y: x**2 - y**2, (-1.5, 1.5), (-1.5, 1.5), (1.0, 0.01), "x² − y²",
        "the saddle of Radford's animation (2014), which D2 shows", saddle=(0.0, 0.0), scatter=(0.05, 0.01),
    ),
    Surface(
        "turned-saddle", lambda x, y: 2 * x * y, (-1.5, 1.5), (-1.5, 1.5), (0.99 / _ROOT, 1.01 / _ROOT), "2xy",
        "the same saddle, turned by 45°", saddle=(0.0, 0.0), scatter=(0.01, 0.01),
    ),
    Surface(
        "wells", lambda x, y: x**2 - y**2 + y**4 / 4, (-1.5, 1.5), (-2.2, 2.2), (1.0, 0.01), "x² − y² + y⁴/4",
        "the same saddle with a bottom on either side",
        minima=((0.0, _ROOT), (0.0, -_ROOT)), saddle=(0.0, 0.0), scatter=(0.05, 0.01),
    ),
    Surface(
        "monkey-saddle", lambda x, y: x**3 - 3 * x * y**2 + (x**2 + y**2) ** 2 / 4, (-4.0, 4.0), (-4.0, 4.0),
        (1.0, 0.01), "x³ − 3xy² + (x² + y²)²/4", "three ways down, with a bottom each; flat at the saddle",
        minima=((-3.0, 0.0), (1.5, _THIRD), (1.5, -_THIRD)), saddle=(0.0, 0.0), scatter=(0.05, 0.01),
    ),
    Surface(
        "ravine", lambda x, y: (x**2 + 100 * y**2) / 2, (-11.0, 3.0), (-1.5, 1.5), (-10.0, 1.0), "½ (x² + 100 y²)",
        "a quadratic of condition 100", minima=((0.0, 0.0),),
    ),
    Surface(
        "beale", _beale, (-0.5, 4.5), (-1.2, 2.0), (1.0, 1.0), "Σ (c − x + xyᵏ)² over c = 1.5, 2.25, 2.625",
        _TEST_FUNCTIONS.format(5) + "; the contours of D2's animation", minima=((3.0, 0.5),),
    ),
    Surface(
        "rosenbrock", lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, (-2.0, 2.0), (-1.0, 3.0), (-1.2, 1.0),
        "(1 − x)² + 100 (y − x²)²", _TEST_FUNCTIONS.format(1), minima=((1.0, 1.0),),
    ),
    Surface(
        "himmelblau", lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2, (-5.0, 5.0), (-5.0, 5.0), (0.0, 0.0),
        "(x² + y − 11)² + (x + y² − 7)²", "Himmelblau (1972), Applied nonlinear programming", minima=_HIMMELBLAU,
    ),
    Surface(
        "rastrigin", _rastrigin, (-5.12, 5.12), (-5.12, 5.12), (2.6, -3.4), "20 + Σ (z² − 10 cos 2πz), z = x, y",
        "Rastrigin (1974), with a hundred local minima", minima=((0.0, 0.0),),
    ),
    Surface(
        "noisy", lambda x, y: (x**2 + 10 * y**2) / 2, (-4.0, 4.0), (-2.5, 2.5), (-3.0, 2.0),
        "½ (x² + 10 y²), its gradients with noise of 0.5",
        "a quadratic as mini-batches show it", minima=((0.0, 0.0),), noise=0.5,
    ),
)  # fmt: skip
SURFACES: dict[str, Surface] = {surface.name: surface for surface in _KNOWN}
"""The surfaces that need no data."""

NETWORKS = {
    "network": "a digits net's loss about its trained weights, along two random directions (filter-normalized)",
    "network-plane": "a digits net's loss on the plane through three trainings' ends",
}
"""Slices of a real network's loss, made by training it when they are asked for."""


def surface(name: str, x: Point | None = None, y: Point | None = None, start: Point | None = None) -> Surface:
    """A surface by name, or a user's own as "FILE.py:FUNCTION" or "MODULE:FUNCTION".

    Args:
        name: one of `SURFACES` or `NETWORKS`, or a place with a colon.
        x: the map's lowest and highest x, in place of its own.
        y: its lowest and highest y.
        start: where to begin, in place of its own start.

    Raises:
        ValueError: there is none of that name, it isn't finite at the start, the map is empty, or the user's function
            can't be used; says which.

    Example:
        >>> surface("beale").minima
        ((3.0, 0.5),)
    """
    for axis, ends in (("x", x), ("y", y)):
        if ends is not None and not (all(map(math.isfinite, ends)) and ends[0] < ends[1]):
            raise ValueError(f"the map's {axis} goes from {ends[0]:g} to {ends[1]:g}: the first must be the lower")
    if name in SURFACES:
        found = SURFACES[name]
    elif name in NETWORKS:
        from gradwise.lab.slices import plane_slice, random_slice

        found = random_slice() if name == "network" else plane_slice()
    elif ":" in name:
        return own(name, x or _MAP, y or _MAP, start or _START)
    else:
        known = ", ".join((*SURFACES, *NETWORKS))
        raise ValueError(f"there is no surface {name!r}; there are {known}, and your own as FILE.py:FUNCTION")
    found = replace(found, x=x or found.x, y=y or found.y, start=start or found.start)
    if not (all(map(math.isfinite, found.start)) and math.isfinite(found.height(found.start))):
        raise ValueError(f"{name} is not finite at the start {found.start[0]:g}, {found.start[1]:g}")
    return found


def own(name: str, x: Point = _MAP, y: Point = _MAP, start: Point = _START) -> Surface:
    """A user's own function of two tensors.

    It may know nothing but single numbers: one that can't take many points at once is called for one after the other.

    Args:
        name: "FILE.py:FUNCTION" or "MODULE:FUNCTION".
        x: the map's lowest and highest x.
        y: its lowest and highest y.
        start: where to begin.

    Raises:
        ValueError: there is no such function, it fails, or its result is no number to differentiate; says which.
    """
    function = _found(name)
    try:
        formula = function if _takes_many(function, x, y) else _one_by_one(function)
        points = torch.tensor([start], dtype=torch.float64, requires_grad=True)
        height = formula(points[:, 0], points[:, 1])
        given: object = height  # whatever a function of the user's returns
        usable = isinstance(given, Tensor) and given.shape == (1,) and given.requires_grad
    except Exception as error:
        raise ValueError(
            f"{name} fails at x, y = {start[0]:g}, {start[1]:g}: {type(error).__name__}: {error}"
        ) from error
    if not usable:
        raise ValueError(f"{name} must return one number of its two tensors, made of them by torch; got {height!r}")
    if not torch.isfinite(height).all():
        raise ValueError(f"{name} is not finite at the start {start[0]:g}, {start[1]:g}: begin elsewhere (--start X,Y)")
    return Surface(name, formula, x, y, start, name, "a function of your own")


def _found(name: str) -> Formula:
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            path = Path(place)
            if not path.is_file():
                raise ValueError(f"there is no file {place} to take {attribute} from")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            with _from_here():
                module = importlib.import_module(place)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{place} can't be loaded: {type(error).__name__}: {error}") from error
    function: Formula | None = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{place} has no function {attribute!r}")
    return function


@contextmanager
def _from_here() -> Iterator[None]:
    """With modules of the current folder found, as `python -m` finds them."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def _takes_many(function: Formula, x: Point, y: Point) -> bool:
    """Whether it gives for many points at once what it gives for each of them."""
    fractions = torch.tensor([0.21, 0.5, 0.83], dtype=torch.float64)
    xs, ys = (low + (high - low) * fractions for low, high in (x, y))
    try:
        together = function(xs, ys)
        alone = torch.stack([function(a, b).reshape(()) for a, b in zip(xs, ys, strict=True)])
        return together.shape == xs.shape and bool(torch.allclose(together, alone, equal_nan=True))
    except Exception:
        return False


def _one_by_one(function: Formula) -> Formula:
    return lambda xs, ys: torch.stack([function(a, b).reshape(()) for a, b in zip(xs, ys, strict=True)])
