"""Shapes that fall: constant, in steps, exponentially, with the inverse of time, as a polynomial, as a cosine, freely.

In all formulas *t* is the step from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gradwise.schedules.checks import count, is_number, number, switch
from gradwise.schedules.schedule import Floats, Ints, Schedule, made, shape


@shape(lambda t, factor, steps: factor)
def constant(factor: float = 1.0, steps: int | None = None) -> Schedule:
    """The same `factor` throughout.

    Args:
        factor: the factor.
        steps: how many steps it lasts where something follows; None has no end.

    Example:
        >>> (constant(0.5, steps=10) >> constant())(10)
        1.0
    """
    steps = None if steps is None else count("constant: steps", steps, 0)
    return made("constant", factor=number("constant: factor", factor), steps=steps)


@shape(lambda t, every, factor: factor ** (t // every))
def step(every: int, factor: float = 0.1) -> Schedule:
    """Times `factor` after every `every` steps: factor^⌊t/every⌋.

    Args:
        every: steps between two cuts. "Halve every 5 epochs" is `step(5 * batches, 0.5)`.
        factor: what each cut multiplies with, at least 0.

    Example:
        >>> step(10, 0.5)(np.array([0, 9, 10, 20]))
        array([1.  , 1.  , 0.5 , 0.25])
    """
    return made("step", every=count("step: every", every), factor=number("step: factor", factor, 0))


def _multi_step(t: Ints, milestones: tuple[int, ...], factor: float | tuple[float, ...]) -> Floats:
    cuts = np.searchsorted(milestones, t, side="right")
    return np.asarray(np.cumprod([1.0, *factor])[cuts] if isinstance(factor, tuple) else factor**cuts)


@shape(_multi_step)
def multi_step(milestones: Sequence[int], factor: float | Sequence[float] = 0.1) -> Schedule:
    """Times `factor` at each of the milestones.

    The number of milestones up to and including *t* is the power that `factor` is raised to; with a factor for each
    milestone it is the product of theirs.

    Args:
        milestones: steps, rising.
        factor: what each multiplies with, at least 0; or one for each milestone.

    Raises:
        ValueError: milestones don't rise, or factors are more or fewer than milestones.

    Example:
        >>> multi_step([30, 60], 0.1)(59), multi_step([30, 60], [0.5, 0.1])(60)
        (0.1, 0.05)
    """
    steps = tuple(count("multi_step: milestones", m, 0) for m in milestones)
    if not steps or any(b <= a for a, b in pairwise(steps)):
        raise ValueError(f"multi_step: milestones must be rising steps, got {list(steps)}")
    if is_number(factor):
        return made("multi_step", milestones=steps, factor=number("multi_step: factor", factor, 0))
    each: Any = factor
    factors = tuple(number("multi_step: factor", f, 0) for f in each)
    if len(factors) != len(steps):
        raise ValueError(f"multi_step: one factor, or one for each of {len(steps)} milestones; got {len(factors)}")
    return made("multi_step", milestones=steps, factor=factors)


def _passed(t: Ints, decay_steps: int, staircase: bool) -> Floats:
    """How many times `decay_steps` have passed, in full or in part."""
    return np.asarray(t // decay_steps if staircase else t / decay_steps, np.float64)


@shape(lambda t, rate, decay_steps, staircase: rate ** _passed(t, decay_steps, staircase))
def exponential(rate: float, decay_steps: int = 1, staircase: bool = False) -> Schedule:
    """Times `rate` in every `decay_steps` steps: rate^(t/decay_steps).

    Args:
        rate: above 0; above 1 it grows, which is what a range test needs.
        decay_steps: in how many steps.
        staircase: all at once at the end of each `decay_steps` (t//decay_steps) rather than little by little.

    Example:
        >>> exponential(0.5, 100)(200), exponential(0.5, 100, staircase=True)(199)
        (0.25, 0.5)
    """
    rate = number("exponential: rate", rate, 0, above=True)
    return _timed("exponential", rate, decay_steps, staircase)


@shape(lambda t, rate, decay_steps, staircase: np.exp(-rate * _passed(t, decay_steps, staircase)))
def natural_exponential(rate: float, decay_steps: int = 1, staircase: bool = False) -> Schedule:
    """exp(−rate·t/decay_steps).

    Args:
        rate: at least 0.
        decay_steps: in how many steps it falls to exp(−rate).
        staircase: all at once at the end of each `decay_steps` (t//decay_steps) rather than little by little.

    Example:
        >>> round(natural_exponential(1.0, 100)(100), 4)
        0.3679
    """
    return _timed("natural_exponential", number("natural_exponential: rate", rate, 0), decay_steps, staircase)


def _inverse_time(t: Ints, rate: float, decay_steps: int, staircase: bool, power: float) -> Floats:
    grown = 1 + rate * _passed(t, decay_steps, staircase)
    return np.asarray(1 / (grown if power == 1 else grown**power))


@shape(_inverse_time)
def inverse_time(rate: float, decay_steps: int = 1, staircase: bool = False, power: float = 1.0) -> Schedule:
    """1/(1 + rate·t/decay_steps)^power.

    With power ½ after a warm-up it is the inverse square root of "Attention is all you need":
    `warmup(w) >> inverse_time(1, decay_steps=w, power=0.5)` is √(w/t) from step *w* on.

    Args:
        rate: at least 0.
        decay_steps: in how many steps it falls to 1/(1 + rate)^power.
        staircase: all at once at the end of each `decay_steps` (t//decay_steps) rather than little by little.
        power: above 0; the sum of all rates stays finite for powers above 1.

    Example:
        >>> inverse_time(1.0, 100)(100), inverse_time(1.0, 100, power=0.5)(300)
        (0.5, 0.5)
    """
    rate, power = number("inverse_time: rate", rate, 0), number("inverse_time: power", power, 0, above=True)
    return _timed("inverse_time", rate, decay_steps, staircase, power=power)


def _timed(name: str, rate: float, decay_steps: int, staircase: bool, **more: float) -> Schedule:
    steps = count(f"{name}: decay_steps", decay_steps)
    return made(name, rate=rate, decay_steps=steps, staircase=switch(f"{name}: staircase", staircase), **more)


def _left(t: Ints, steps: int) -> Floats:
    """The part of the steps that is still to come, from 1 to 0."""
    return np.asarray(1 - np.minimum(t, steps) / steps)


@shape(lambda t, steps, end, power: end + (1 - end) * _left(t, steps) ** power)
def polynomial(steps: int, end: float = 0.0, power: float = 1.0) -> Schedule:
    """From 1 to `end` as (1 − t/steps)^power: end + (1 − end)·(1 − t/steps)^power, then `end`.

    Args:
        steps: when it arrives.
        end: where it arrives, as a factor.
        power: above 0; 1 is a straight line.

    Example:
        >>> polynomial(100)(25), polynomial(100, end=0.2, power=2)(50), polynomial(100, end=0.2)(10**9)
        (0.75, 0.4, 0.2)
    """
    power = number("polynomial: power", power, 0, above=True)
    return _falling("polynomial", steps, end, power=power)


@shape(lambda t, steps, end: end + (1 - end) * 0.5 * (1 + np.cos(np.pi * np.minimum(t, steps) / steps)))
def cosine(steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `end`: end + (1 − end)·½(1 + cos(π·t/steps)), then `end`.

    Args:
        steps: when it arrives. It stays there: it doesn't climb again.
        end: where it arrives, as a factor.

    Example:
        >>> cosine(100)(0), cosine(100, end=0.1)(50), cosine(100, end=0.1)(10**9)
        (1.0, 0.55, 0.1)

    Source:
        Loshchilov & Hutter, SGDR: Stochastic gradient descent with warm restarts, ICLR 2017 (one cycle of it).
    """
    return _falling("cosine", steps, end)


@shape(lambda t, steps, end: end + (1 - end) * (1 - np.sqrt(np.minimum(t, steps) / steps)))
def square_root(steps: int, end: float = 0.0) -> Schedule:
    """From 1 to `end`, steep at first: end + (1 − end)·(1 − √(t/steps)), then `end`.

    Args:
        steps: when it arrives.
        end: where it arrives, as a factor.

    Example:
        >>> square_root(100)(25), square_root(100, end=0.1)(100)
        (0.5, 0.1)

    Source:
        Hägele et al., Scaling laws and compute-optimal training beyond fixed training durations, NeurIPS 2024: the
        best of the decays they tried after a constant rate.
    """
    return _falling("square_root", steps, end)


def _falling(name: str, steps: int, end: float, **more: float) -> Schedule:
    return made(name, steps=count(f"{name}: steps", steps), end=number(f"{name}: end", end), **more)


def _function(t: Ints, f: Callable[[int], float]) -> Floats:
    values = [f(one) for one in t.tolist()]
    for one, value in zip(t.tolist(), values, strict=True):
        if not is_number(value):
            raise TypeError(f"a schedule's function must give a number; {_name(f)}({one}) gave {value!r}")
    return np.asarray(values, np.float64)


def _name(f: Callable[[int], float]) -> str:
    return getattr(f, "__qualname__", repr(f))


@shape(_function)
def function(f: Callable[[int], float]) -> Schedule:
    """Any function of the step.

    It takes part in all else, but has no JSON. It has no end; `.until(steps)` gives it one.

    Args:
        f: from the step, an int from 0, to the factor. It should be pure: only then is a run that is resumed the same.

    Raises:
        TypeError: it can't be called; later, it gave something other than a number.

    Example:
        >>> (0.5 * function(lambda t: 1 / (1 + t)))(3)
        0.125
    """
    if not callable(f):
        raise TypeError(f"function: f must be a function of the step, got {f!r}")
    return made("function", f=f)
