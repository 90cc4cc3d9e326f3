"""Shapes that rise too: warm-up, one cycle, triangles, warm restarts. Cycles are counted in integers.

In all formulas *t* is the step from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from gradwise.schedules.checks import choice, count, number, switch
from gradwise.schedules.schedule import Floats, Ints, Schedule, made, shape

_LAST = np.iinfo(np.int64).max


def _warmup(t: Ints, steps: int, start: float | None, kind: str) -> Floats:
    if start is None:
        return np.asarray(np.minimum(t + 1, steps) / steps)
    rising = start if kind == "constant" else start + (1 - start) * (t / steps)
    return np.where(t < steps, rising, 1.0)


@shape(_warmup)
def warmup(steps: int, start: float | None = None, kind: Literal["linear", "constant"] = "linear") -> Schedule:
    """From low to 1 over `steps` steps, then 1.

    Linear: (t + 1)/steps, so that no step is wasted on a rate of 0 and the last of them has the full rate. With a
    `start`: start + (1 − start)·t/steps, which reaches 1 at step `steps`. Constant: `start`, then 1.

    Args:
        steps: how long it takes.
        start: the factor at step 0; a constant warm-up needs it.
        kind: "linear" or "constant".

    Example:
        >>> warmup(4)(np.arange(6))
        array([0.25, 0.5 , 0.75, 1.  , 1.  , 1.  ])
        >>> warmup(4, start=0.0)(np.arange(6))
        array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ])
        >>> warmup(4, start=0.1, kind="constant")(3)
        0.1

    Source:
        Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017 (both kinds).
    """
    choice("warmup: kind", kind, ("linear", "constant"))
    if start is None and kind == "constant":
        raise ValueError("warmup: a constant warm-up needs its factor, start=")
    start = None if start is None else number("warmup: start", start, 0)
    return made("warmup", steps=count("warmup: steps", steps), start=start, kind=kind)


def _one_cycle(
    t: Ints, steps: int, up: float, start: float, end: float, peak: float, anneal: str, three_phase: bool
) -> Floats:
    turns = [(up * steps - 1, peak), (2 * up * steps - 2, start)] if three_phase else [(up * steps - 1, peak)]
    value = np.full(t.shape, float(end))
    begins, left, waiting = 0.0, start, np.ones(t.shape, bool)
    for at, reached in (*turns, (float(steps - 1), end)):
        if at > begins:
            part = (t - begins) / (at - begins)
            part = part if anneal == "linear" else (1 - np.cos(np.pi * part)) / 2
            value = np.where(waiting & (t <= at), left * (1 - part) + reached * part, value)
            waiting &= t > at
            begins = at
        left = reached
    return value


@shape(_one_cycle)
def one_cycle(
    steps: int,
    up: float = 0.3,
    start: float = 1 / 25,
    end: float = 1 / 25e4,
    peak: float = 1.0,
    anneal: Literal["cosine", "linear"] = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Up from `start` to `peak`, then down to `end`, once: the 1cycle policy.

    The peak is reached at step up·steps − 1, the end at step steps − 1, the last one of the run. With three phases it
    comes down to `start` by step 2·up·steps − 2 and from there to `end`. From turn to turn it is half a cosine or a
    line.

    Args:
        steps: of the whole run.
        up: the part of the run before the peak.
        start: factor at step 0.
        end: factor at the end.
        peak: factor at the peak; 1 makes the group's own rate the highest.
        anneal: "cosine" or "linear".
        three_phase: whether it comes down the way it rose first, as in the paper.

    Raises:
        ValueError: `up` is no part of the whole, or above one half where there are three phases.

    Example:
        >>> one_cycle(100)(np.array([0, 29, 99])).tolist()
        [0.04, 1.0, 4e-06]
        >>> momentum = one_cycle_momentum(100)  # for a group whose own momentum is 0.95
        >>> [round(0.95 * momentum(t), 4) for t in (0, 29, 99)]
        [0.95, 0.85, 0.95]

    Source:
        Smith & Topin, Super-convergence: very fast training of neural networks using large learning rates, 2018.
    """
    switch("one_cycle: three_phase", three_phase)
    return made(
        "one_cycle",
        steps=count("one_cycle: steps", steps),
        up=number("one_cycle: up", up, 0, 0.5 if three_phase else 1),
        start=number("one_cycle: start", start, 0),
        end=number("one_cycle: end", end, 0),
        peak=number("one_cycle: peak", peak, 0),
        anneal=choice("one_cycle: anneal", anneal, ("cosine", "linear")),
        three_phase=three_phase,
    )


def one_cycle_momentum(
    steps: int,
    low: float = 0.85 / 0.95,
    up: float = 0.3,
    anneal: Literal["cosine", "linear"] = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """What momentum does in one cycle: down while the rate goes up, and back.

    A factor of the group's own momentum, as all schedules are: with a momentum of 0.95 the default goes from 0.95 to
    0.85 and back to 0.95.

    Args:
        steps: of the whole run, as for `one_cycle`.
        low: factor where the rate is highest.
        up: the part of the run before that.
        anneal: "cosine" or "linear".
        three_phase: as for `one_cycle`; momentum stays up in the last phase.

    Example:
        >>> one_cycle_momentum(100, low=0.9)(np.array([0, 29, 99]))
        array([1. , 0.9, 1. ])
    """
    return one_cycle(steps, up, start=1.0, end=1.0, peak=low, anneal=anneal, three_phase=three_phase)


def _cyclical(t: Ints, up: int, down: int, start: float, peak: float, mode: str, gamma: float) -> Floats:
    cycle, at = np.divmod(t, up + down)
    height = np.where(at < up, at / up, (up + down - at) / down)
    if mode == "triangular2":
        height = height * 0.5**cycle
    elif mode == "exp_range":
        height = height * gamma**t
    return np.asarray(start + (peak - start) * height)


@shape(_cyclical)
def cyclical(
    up: int,
    down: int | None = None,
    start: float = 0.1,
    peak: float = 1.0,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """From `start` to `peak` and back, again and again, in straight lines.

    start + (peak − start)·h(t)·s(t) with the triangle h from 0 to 1 to 0. In mode "triangular" s = 1, in "triangular2"
    s = ½^cycle, in "exp_range" s = gamma^t. Momentum's counterpart is the same the other way round: `start=1.0,
    peak=0.85 / 0.95`.

    Args:
        up: steps from start to peak.
        down: steps from peak to start; None is as many as up.
        start: factor at step 0 and between two cycles.
        peak: factor at the peak of the first cycle.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: what each step multiplies the height with in "exp_range", in (0, 1].

    Example:
        >>> cyclical(2, start=0.0, mode="triangular2")(np.arange(9))
        array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25, 0.  ])

    Source:
        Smith, Cyclical learning rates for training neural networks, WACV 2017.
    """
    return made(
        "cyclical",
        up=count("cyclical: up", up),
        down=count("cyclical: down", up if down is None else down),
        start=number("cyclical: start", start, 0),
        peak=number("cyclical: peak", peak, 0),
        mode=choice("cyclical: mode", mode, ("triangular", "triangular2", "exp_range")),
        gamma=number("cyclical: gamma", gamma, 0, 1, above=True),
    )


@lru_cache(maxsize=64)
def _cycles(period: int, t_mult: int) -> tuple[Ints, Ints]:
    """Where each cycle begins, as far as steps can be counted, and how long it is."""
    starts, lengths = [0], [period]
    while t_mult > 1 and starts[-1] + lengths[-1] <= _LAST:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * t_mult)
    return np.array(starts), np.minimum(np.array(lengths, object), _LAST).astype(np.int64)


def _sgdr(t: Ints, period: int, t_mult: int, end: float, decay: float, cycles: int | None) -> Floats:
    if t_mult == 1:
        cycle, at = np.divmod(t, period)
        part = at / period
    else:
        starts, lengths = _cycles(period, t_mult)
        cycle = np.searchsorted(starts, t, side="right") - 1
        part = (t - starts[cycle]) / lengths[cycle]
    value = end + (1 - end) * decay**cycle * 0.5 * (1 + np.cos(np.pi * part))
    return np.asarray(value if cycles is None else np.where(cycle < cycles, value, end))


def _sgdr_length(arguments: Mapping[str, Any]) -> int | None:
    period, t_mult, cycles = (arguments[name] for name in ("period", "t_mult", "cycles"))
    return None if cycles is None else sum(period * t_mult**k for k in range(cycles))


@shape(_sgdr, _sgdr_length)
def sgdr(period: int, t_mult: int = 1, end: float = 0.0, decay: float = 1.0, cycles: int | None = None) -> Schedule:
    """A cosine from 1 to `end`, restarted at 1 whenever it arrives: warm restarts.

    In cycle i, which is n = period·t_mult^i steps long, at its step τ: end + (1 − end)·decay^i·½(1 + cos(π·τ/n)).
    Cycles are counted in integers, so that step 10⁹ is as exact as step 1.

    Args:
        period: steps of the first cycle.
        t_mult: how many times as long as the one before each cycle is.
        end: factor at the end of each cycle.
        decay: what each restart multiplies the height above `end` with, in (0, 1].
        cycles: after how many it stays at `end`; None goes on for ever.

    Example:
        >>> sgdr(1, t_mult=3)(121), sgdr(10, t_mult=2, decay=0.5)(30)
        (1.0, 0.25)

    Source:
        Loshchilov & Hutter, SGDR: Stochastic gradient descent with warm restarts, ICLR 2017.
    """
    return made(
        "sgdr",
        period=count("sgdr: period", period),
        t_mult=count("sgdr: t_mult", t_mult),
        end=number("sgdr: end", end, 0),
        decay=number("sgdr: decay", decay, 0, 1, above=True),
        cycles=None if cycles is None else count("sgdr: cycles", cycles),
    )
