"""Shapes held against torch's schedulers where these are right, and Keras's and Optax's formulas written out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_lr

from gradwise import schedules as s
from gradwise.schedules import Schedule

GRID = np.arange(400)
FAR = [10**9 - 1, 10**9, 10**9 + 1, 2**62]


def torch_rates(make: Callable[[torch.optim.Optimizer], torch_lr.LRScheduler], n: int, key: str = "lr") -> list[float]:
    """What one of torch's schedulers sets for steps 0 … n − 1, of an own rate and momentum of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(n):
        rates.append(optimizer.param_groups[0][key])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if len(rates) < n:
                scheduler.step()
    return rates


TORCH = [
    (s.step(30, 0.5), lambda o: torch_lr.StepLR(o, 30, 0.5)),
    (s.multi_step([30, 80], 0.3), lambda o: torch_lr.MultiStepLR(o, [30, 80], 0.3)),
    (s.exponential(0.97), lambda o: torch_lr.ExponentialLR(o, 0.97)),
    (s.polynomial(250, power=1.7), lambda o: torch_lr.PolynomialLR(o, 250, 1.7)),
    (s.warmup(40, start=1 / 3), lambda o: torch_lr.LinearLR(o, 1 / 3, total_iters=40)),
    (s.warmup(40, start=0.2, kind="constant"), lambda o: torch_lr.ConstantLR(o, 0.2, total_iters=40)),
    (s.sgdr(37, end=0.01), lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 37, 1, eta_min=0.01)),
    (s.sgdr(10, 2, end=0.01), lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 10, 2, eta_min=0.01)),
    (s.cyclical(20, 35), lambda o: torch_lr.CyclicLR(o, 0.1, 1, 20, 35, cycle_momentum=False)),
    (
        s.cyclical(20, 35, mode="triangular2"),
        lambda o: torch_lr.CyclicLR(o, 0.1, 1, 20, 35, mode="triangular2", cycle_momentum=False),
    ),
    (
        s.cyclical(20, mode="exp_range", gamma=0.99),
        lambda o: torch_lr.CyclicLR(o, 0.1, 1, 20, mode="exp_range", gamma=0.99, cycle_momentum=False),
    ),
    (
        s.constant(0.5, 30) >> s.exponential(0.9),
        lambda o: torch_lr.SequentialLR(
            o, [torch_lr.ConstantLR(o, 0.5, 10**6), torch_lr.ExponentialLR(o, 0.9)], milestones=[30]
        ),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), TORCH, ids=lambda v: repr(v)[:40] if isinstance(v, Schedule) else "")
def test_as_torch(ours: Schedule, theirs: Callable[[torch.optim.Optimizer], torch_lr.LRScheduler]) -> None:
    assert ours(GRID) == pytest.approx(torch_rates(theirs, len(GRID)), rel=1e-9, abs=1e-12)


def test_a_cosine_as_torch_until_it_ends() -> None:
    theirs = torch_rates(lambda o: torch_lr.CosineAnnealingLR(o, 100, eta_min=0.01), 201)
    ours = s.cosine(100, end=0.01)
    assert ours(np.arange(101)) == pytest.approx(theirs[:101], rel=1e-9)
    # From there on torch's climbs again, back to the full rate.
    assert theirs[200] == pytest.approx(1.0)
    assert ours(200) == ours(10**9) == 0.01


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize(("steps", "up"), [(100, 0.3), (97, 0.3), (10, 0.1), (250, 0.45)])
def test_one_cycle_as_torch(steps: int, up: float, three: bool, anneal: str) -> None:
    def make(optimizer: torch.optim.Optimizer) -> torch_lr.LRScheduler:
        return torch_lr.OneCycleLR(
            optimizer, 1.0, steps, pct_start=up, three_phase=three, anneal_strategy=anneal[:6].replace("cosine", "cos"),
            base_momentum=0.85, max_momentum=1.0,
        )  # fmt: skip

    grid = np.arange(steps)
    if up * steps > 1:  # torch divides by zero where the peak comes at step 0
        ours = s.one_cycle(steps, up, anneal=anneal, three_phase=three)  # type: ignore[arg-type]
        assert ours(grid) == pytest.approx(torch_rates(make, steps), rel=1e-9)
        momentum = s.one_cycle_momentum(steps, 0.85, up, anneal=anneal, three_phase=three)  # type: ignore[arg-type]
        assert momentum(grid) == pytest.approx(torch_rates(make, steps, "momentum"), rel=1e-9)
    else:
        assert s.one_cycle(steps, up)(0) == 1.0


def test_momentum_of_triangles_as_torch() -> None:
    theirs = torch_rates(
        lambda o: torch_lr.CyclicLR(o, 0.1, 1, 20, 35, base_momentum=0.8, max_momentum=1), 200, "momentum"
    )
    assert s.cyclical(20, 35, start=1.0, peak=0.8)(np.arange(200)) == pytest.approx(theirs, rel=1e-9)


# Keras 3, keras.optimizers.schedules, with an initial rate of 1.


def keras_exponential(t: int, decay_steps: int, rate: float, staircase: bool) -> float:
    p = t / decay_steps
    return rate ** (math.floor(p) if staircase else p)


def keras_inverse_time(t: int, decay_steps: int, rate: float, staircase: bool) -> float:
    p = t / decay_steps
    return 1 / (1 + rate * (math.floor(p) if staircase else p))


def keras_polynomial(t: int, decay_steps: int, end: float, power: float) -> float:
    return (1 - end) * (1 - min(t, decay_steps) / decay_steps) ** power + end


def keras_cosine(t: int, decay_steps: int, alpha: float) -> float:
    return (1 - alpha) * 0.5 * (1 + math.cos(math.pi * min(t, decay_steps) / decay_steps)) + alpha


def keras_restarts(t: int, first: int, t_mul: float, m_mul: float, alpha: float) -> float:
    completed = t / first
    if t_mul == 1:
        i = math.floor(completed)
        completed -= i
    else:
        i = math.floor(math.log(1 - completed * (1 - t_mul)) / math.log(t_mul))
        completed = (completed - (1 - t_mul**i) / (1 - t_mul)) / t_mul**i
    return (1 - alpha) * 0.5 * m_mul**i * (1 + math.cos(math.pi * completed)) + alpha


# TensorFlow 1's natural_exp_decay; Optax's schedules, with an initial value of 1.


def natural(t: int, decay_steps: int, rate: float, staircase: bool) -> float:
    p = t / decay_steps
    return math.exp(-rate * (math.floor(p) if staircase else p))


def optax_warmup_cosine(t: int, init: float, warm: int, total: int, end: float) -> float:
    if t < warm:
        return init + (1 - init) * t / warm
    part = min(t - warm, total - warm) / (total - warm)
    return (1 - end) * 0.5 * (1 + math.cos(math.pi * part)) + end


def optax_piecewise(t: int, boundaries_and_scales: dict[int, float]) -> float:
    return math.prod(scale for boundary, scale in boundaries_and_scales.items() if t >= boundary)


def transformers_inverse_sqrt(t: int, warm: int) -> float:
    return t / warm if t < warm else 1 / math.sqrt(t / warm)


FORMULAS: list[tuple[Schedule, Callable[[int], float]]] = [
    (s.exponential(0.5, 70), lambda t: keras_exponential(t, 70, 0.5, False)),
    (s.exponential(0.5, 70, staircase=True), lambda t: keras_exponential(t, 70, 0.5, True)),
    (s.natural_exponential(0.5, 70), lambda t: natural(t, 70, 0.5, False)),
    (s.natural_exponential(0.5, 70, staircase=True), lambda t: natural(t, 70, 0.5, True)),
    (s.inverse_time(0.5, 70), lambda t: keras_inverse_time(t, 70, 0.5, False)),
    (s.inverse_time(0.5, 70, staircase=True), lambda t: keras_inverse_time(t, 70, 0.5, True)),
    (s.polynomial(250, 0.1, 2.5), lambda t: keras_polynomial(t, 250, 0.1, 2.5)),
    (s.cosine(250, 0.1), lambda t: keras_cosine(t, 250, 0.1)),
    (s.sgdr(30, end=0.1, decay=0.8), lambda t: keras_restarts(t, 30, 1, 0.8, 0.1)),
    (s.warmup(50, start=0.1) >> s.cosine(200, 0.05), lambda t: optax_warmup_cosine(t, 0.1, 50, 250, 0.05)),
    (s.multi_step([30, 80], [0.5, 0.1]), lambda t: optax_piecewise(t, {30: 0.5, 80: 0.1})),
    (s.warmup(50, start=0.0) >> s.inverse_time(1, 50, power=0.5), lambda t: transformers_inverse_sqrt(t, 50)),
    (s.square_root(100, 0.1), lambda t: 1 - 0.9 * math.sqrt(min(t, 100) / 100)),
    (s.warmup(5), lambda t: min((t + 1) / 5, 1)),
]


@pytest.mark.parametrize(("ours", "formula"), FORMULAS, ids=lambda v: repr(v)[:60] if isinstance(v, Schedule) else "")
def test_as_the_formula(ours: Schedule, formula: Callable[[int], float]) -> None:
    for t in [*GRID.tolist(), *FAR[:3]]:
        assert ours(t) == pytest.approx(formula(t), rel=1e-9, abs=1e-14), t


def test_restarts_as_keras_but_exact_where_it_restarts() -> None:
    ours = s.sgdr(30, 2, end=0.1, decay=0.8)
    starts = {30 * (2**k - 1) for k in range(6)}
    for t in set(GRID.tolist()) - starts:  # there the logarithm of Keras's formula rounds down or up by chance
        assert ours(t) == pytest.approx(keras_restarts(t, 30, 2, 0.8, 0.1), rel=1e-9), t
    for k, t in enumerate(sorted(starts)):
        assert ours(t) == pytest.approx(0.1 + 0.9 * 0.8**k)


def test_restarts_where_torch_loses_count() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch_lr.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=3)
    theirs.step(121)
    assert theirs.get_last_lr() == [pytest.approx(0.0)]  # the defect: 121 plain steps lead to 1
    assert s.sgdr(1, 3)(121) == 1.0


@pytest.mark.parametrize(("period", "t_mult"), [(1, 2), (1, 3), (7, 2), (10, 10), (3, 7)])
def test_every_restart_is_at_the_peak_however_late(period: int, t_mult: int) -> None:
    ours, start, length = s.sgdr(period, t_mult), 0, period
    while start + length < 2**63:
        assert ours(start) == 1.0
        assert ours(start + length // 2) == pytest.approx(0.5 * (1 + math.cos(math.pi * (length // 2) / length)))
        start, length = start + length, length * t_mult
    assert 0 <= ours(2**63 - 1) <= 1


def test_a_billion_steps_are_as_exact_as_one() -> None:
    # What a cycle holds at its start and in its middle, it holds there after any number of cycles.
    for t in FAR:
        t -= t % 7000
        assert s.sgdr(1000)(t) == 1.0
        assert s.sgdr(1000)(t + 1) == s.sgdr(1000)(1)
        assert s.cyclical(300, 700)(t + 300) == 1.0
        assert s.cyclical(300, 700)(t + 299) == s.cyclical(300, 700)(299)
    assert s.step(10**8, 0.5)(10**9 - 1) == 0.5**9
    assert s.step(10**8, 0.5)(10**9) == 0.5**10
    assert s.exponential(0.5, 10**8, staircase=True)(10**9 - 1) == 0.5**9
    assert s.polynomial(2 * 10**9)(10**9) == 0.5
    assert (s.constant(1.0, 10**9) >> s.step(1, 0.5))(10**9 + 1) == 0.5


def test_restarts_that_end() -> None:
    ours = s.sgdr(10, 2, end=0.1, cycles=2)
    assert ours.length == 30
    assert ours(29) > 0.1
    assert ours(30) == ours(10**9) == 0.1


def test_what_grows_without_bounds_is_infinite_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert s.exponential(1.1)(10**9) == math.inf
        assert s.exponential(0.9)(10**9) == 0.0


@pytest.mark.parametrize("steps", [20, 100, 12_345])
def test_the_rule_of_thumb_ends_a_hundred_times_lower(steps: int) -> None:
    ours = s.rule_of_thumb(steps)
    assert ours(0) == ours(steps // 10) == 1.0
    assert ours(steps - 1) < 1 / 100
    assert ours.length == steps
    assert ours(steps) == pytest.approx(1 / 200)


@pytest.mark.parametrize("decay", ["linear", "cosine", "1-sqrt"])
def test_warmup_stable_decay(decay: str) -> None:
    ours = s.warmup_stable_decay(100, 10, 20, end=0.1, decay=decay)  # type: ignore[arg-type]
    assert ours.length == 100
    assert ours(np.array([0, 9, 50, 80])) == pytest.approx([0.1, 1, 1, 1])
    assert ours(81) < 1
    assert ours(100) == pytest.approx(0.1)
    longer = s.warmup_stable_decay(200, 10, 20, end=0.1, decay=decay)  # type: ignore[arg-type]
    assert (longer(np.arange(80)) == ours(np.arange(80))).all()
