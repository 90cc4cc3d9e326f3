"""Options of ours against the definitions of Keras, Optax and the papers, each written out in float64 NumPy.

The oracles are closed forms, or the formulas as they stand. What isn't offered, the last test says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import gradwise.optim as optim
from gradwise.schedules import exponential

Array = NDArray[np.float64]
Oracle = Callable[[Array, list[Array]], Array]

STEPS, SHAPE = 12, (5, 3)
random = np.random.default_rng(0)
START: Array = random.standard_normal(SHAPE)
GRADS: list[Array] = [10.0 ** random.uniform(-3, 1, SHAPE) * random.standard_normal(SHAPE) for _ in range(STEPS)]
ETA = 0.05


def rate(step: int) -> float:
    """A schedule, by which the conventions part."""
    return ETA * exponential(0.7)(step)


ETAS = [rate(t) for t in range(STEPS)]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """In which torch's counters are kept then."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def ours(name: str, backend: str = "reference", **settings: Any) -> Array:
    """Where our optimizer gets to with the given gradients."""
    w = nn.Parameter(torch.tensor(START))
    optimizer = getattr(optim, name)([w], **{"lr": ETA, **settings}, backend=backend)
    for g in GRADS:
        w.grad = torch.tensor(g)
        optimizer.step()
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    return w.detach().numpy()


def same(a: Array, b: Array) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def mean(values: list[Array], beta: float, t: int) -> Array:
    """The exponential average of the first t values in closed form, (1−β) Σ βᵗ⁻ᵏ x_k."""
    return sum(((1 - beta) * beta ** (t - k) * values[k - 1] for k in range(1, t + 1)), np.zeros(SHAPE))


SQUARES = [g * g for g in GRADS]
T = range(1, STEPS + 1)


def moved(step: Callable[[int], Array]) -> Array:
    """θ₀ − Σ step(t)."""
    return START - sum((step(t) for t in T), np.zeros(SHAPE))


# Momentum: three conventions, in closed form; μ = 0.9.


def buffer(t: int, weigh: Callable[[int], float]) -> Array:
    return sum((0.9 ** (t - k) * weigh(k) * GRADS[k - 1] for k in range(1, t + 1)), np.zeros(SHAPE))


@pytest.mark.parametrize("scheduled", [False, True], ids=["constant", "scheduled"])
@pytest.mark.parametrize("nesterov", [False, True], ids=["plain", "nesterov"])
@pytest.mark.parametrize("convention", ["torch", "keras", "ema"])
def test_momentum(convention: str, nesterov: bool, scheduled: bool) -> None:
    eta = ETAS if scheduled else [ETA] * STEPS
    enters: dict[str, Callable[[int], float]] = {
        "torch": lambda k: 1.0, "keras": lambda k: eta[k - 1], "ema": lambda k: 1 - 0.9,
    }  # fmt: skip
    weigh = enters[convention]

    def step(t: int) -> Array:
        b = buffer(t, weigh)
        return (1.0 if convention == "keras" else eta[t - 1]) * (weigh(t) * GRADS[t - 1] + 0.9 * b if nesterov else b)

    lr = rate if scheduled else ETA
    same(ours("SGD", lr=lr, momentum=0.9, convention=convention, nesterov=nesterov), moved(step))


def test_keras_sgd_as_its_source_has_it() -> None:
    for nesterov in (False, True):
        w, v = START.copy(), np.zeros(SHAPE)
        for g, eta in zip(GRADS, ETAS, strict=True):
            v = 0.9 * v - eta * g
            w = w + 0.9 * v - eta * g if nesterov else w + v
        same(ours("SGD", lr=rate, momentum=0.9, convention="keras", nesterov=nesterov), w)


def test_conventions_agree_at_a_constant_rate_and_part_under_a_schedule() -> None:
    def way(convention: str, lr: Any) -> Array:
        return ours("SGD", lr=lr, momentum=0.9, convention=convention)

    same(way("torch", ETA), way("keras", ETA))
    same(way("torch", ETA), way("ema", ETA / (1 - 0.9)))
    same(way("torch", rate), way("ema", lambda t: rate(t) / (1 - 0.9)))  # these two agree under any schedule
    assert np.abs(way("torch", rate) - way("keras", rate)).max() > 0.01


def test_the_keras_convention_is_torchs_with_the_momentum_of_a_scheduled_rate() -> None:
    """b_keras = η_t b with b ← μ (η_{t−1}/η_t) b + g: torch's form under a momentum that follows the schedule."""
    w = nn.Parameter(torch.tensor(START))
    optimizer = optim.SGD([w], lr=ETA, momentum=0.9)
    for t, g in enumerate(GRADS):
        group = optimizer.param_groups[0]
        group["lr"], group["momentum"] = rate(t), 0.9 * rate(max(t - 1, 0)) / rate(t)
        w.grad = torch.tensor(g)
        optimizer.step()
    same(w.detach().numpy(), ours("SGD", lr=rate, momentum=0.9, convention="keras"))


def test_dampening_spares_the_first_gradient() -> None:
    same(ours("SGD", momentum=0.9, dampening=0.3), moved(lambda t: ETA * buffer(t, lambda k: 1.0 if k == 1 else 0.7)))


# RMSprop, β = 0.9.


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("eps_at", ["outside", "inside", "none"])
def test_rmsprop(eps_at: str, centered: bool) -> None:
    eps = 1e-3
    over: dict[str, Callable[[Array], Array]] = {
        "outside": lambda s: np.sqrt(s) + eps,  # torch
        "inside": lambda s: np.sqrt(s + eps),  # Keras; Optax by default
        "none": np.sqrt,  # D1
    }

    def step(t: int) -> Array:
        s = mean(SQUARES, 0.9, t) - (mean(GRADS, 0.9, t) ** 2 if centered else 0)
        return ETA * GRADS[t - 1] / over[eps_at](s)

    same(ours("RMSprop", alpha=0.9, eps=eps, eps_at=eps_at, centered=centered), moved(step))


def test_rmsprop_with_momentum_at_a_constant_rate() -> None:
    """As torch's η·b and Keras' and Optax' η inside agree there."""
    normed = [g / np.sqrt(mean(SQUARES, 0.9, t) + 1e-3) for t, g in zip(T, GRADS, strict=True)]
    b = [sum(0.8 ** (t - k) * normed[k - 1] for k in range(1, t + 1)) for t in T]
    same(ours("RMSprop", alpha=0.9, eps=1e-3, eps_at="inside", momentum=0.8), START - ETA * sum(b))


# Adagrad.


@pytest.mark.parametrize("initial", [0.0, 0.1])
def test_adagrad_with_the_sum_of_squares(initial: float) -> None:
    def step(t: int) -> Array:
        return ETA * GRADS[t - 1] / (np.sqrt(initial + np.sum(SQUARES[:t], axis=0)) + 1e-3)

    same(ours("Adagrad", initial_accumulator_value=initial, eps=1e-3), moved(step))


def test_adagrad_with_the_mean_of_squares() -> None:
    """D1's σ_t, without ε (O5)."""
    same(
        ours("Adagrad", accumulator="mean", eps=0.0),
        moved(lambda t: ETA * GRADS[t - 1] / np.sqrt(np.mean(SQUARES[:t], axis=0))),
    )


def test_adagrads_own_decay() -> None:
    same(
        ours("Adagrad", lr_decay=0.1),
        moved(lambda t: ETA / (1 + 0.1 * (t - 1)) * GRADS[t - 1] / (np.sqrt(np.sum(SQUARES[:t], axis=0)) + 1e-10)),
    )


# Adadelta: Zeiler's algorithm; Keras and Optax have the same, with other defaults.


def test_adadelta() -> None:
    w, steps = START.copy(), [np.zeros(SHAPE)]
    for t in T:
        e = mean([d * d for d in steps[1:]], 0.95, t - 1)
        delta = np.sqrt(e + 1e-6) / np.sqrt(mean(SQUARES, 0.95, t) + 1e-6) * GRADS[t - 1]
        steps.append(delta)
        w = w - 0.5 * delta
    same(ours("Adadelta", lr=0.5, rho=0.95, eps=1e-6), w)


def test_adadelta_is_not_rmsprop() -> None:
    assert np.abs(ours("Adadelta", rho=0.9) - ours("RMSprop", alpha=0.9)).max() > 0.1


# The Adam family; β₁ = 0.9, β₂ = 0.999.


def hat(values: list[Array], beta: float, t: int) -> Array:
    return mean(values, beta, t) / (1 - beta**t)


def adam_step(t: int, eps: float) -> Array:
    return hat(GRADS, 0.9, t) / (np.sqrt(hat(SQUARES, 0.999, t)) + eps)


def test_adam_adds_epsilon_after_the_correction() -> None:
    """Torch's and Optax' ε."""
    same(ours("Adam", eps=1e-2), moved(lambda t: ETA * adam_step(t, 1e-2)))


def test_kerass_epsilon_is_ours_over_the_roots_correction() -> None:
    """Keras: η√(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε̂). With ε = ε̂/√(1−β₂ᵗ), step by step, it is the same."""

    def keras(t: int) -> Array:
        alpha = ETA * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return alpha * mean(GRADS, 0.9, t) / (np.sqrt(mean(SQUARES, 0.999, t)) + 1e-3)

    w = nn.Parameter(torch.tensor(START))
    optimizer = optim.Adam([w], lr=ETA)
    for t, g in zip(T, GRADS, strict=True):
        optimizer.param_groups[0]["eps"] = 1e-3 / (1 - 0.999**t) ** 0.5
        w.grad = torch.tensor(g)
        optimizer.step()
    same(w.detach().numpy(), moved(keras))


def test_amsgrad_takes_the_largest_before_the_correction() -> None:
    """Torch's and Keras' way; Optax corrects first."""

    def step(t: int) -> Array:
        largest = np.max([mean(SQUARES, 0.999, k) for k in range(1, t + 1)], axis=0) / (1 - 0.999**t)
        return ETA * hat(GRADS, 0.9, t) / (np.sqrt(largest) + 1e-8)

    same(ours("Adam", amsgrad=True), moved(step))


def test_adamax_has_epsilon_in_the_maximum() -> None:
    """Torch's and Optax' way."""

    def step(t: int) -> Array:
        u = np.max([0.999 ** (t - k) * (np.abs(GRADS[k - 1]) + 1e-2) for k in range(1, t + 1)], axis=0)
        return ETA * hat(GRADS, 0.9, t) / u

    same(ours("Adamax", eps=1e-2), moved(step))


@pytest.mark.parametrize("decay", [0.004, 1.0], ids=["torch", "keras"])
def test_nadam(decay: float) -> None:
    mu = [0.9 * (1 - 0.5 * 0.96 ** (decay * t)) for t in range(STEPS + 2)]

    def step(t: int) -> Array:
        now, then = np.prod(mu[1 : t + 1]), np.prod(mu[1 : t + 2])
        ahead = mu[t + 1] * mean(GRADS, 0.9, t) / (1 - then) + (1 - mu[t]) * GRADS[t - 1] / (1 - now)
        return ETA * ahead / (np.sqrt(hat(SQUARES, 0.999, t)) + 1e-8)

    same(ours("NAdam", momentum_decay=decay), moved(step))


def test_adamw_decays_apart_from_the_gradient() -> None:
    w = START.copy()
    for t, eta in zip(T, ETAS, strict=True):
        w = w * (1 - eta * 0.1) - eta * adam_step(t, 1e-8)
    same(ours("AdamW", lr=rate, weight_decay=0.1), w)


def test_lion() -> None:
    """Chen et al.: c ← β₁m + (1−β₁)g; θ ← θ − η(sign c + λθ); m ← β₂m + (1−β₂)g."""
    w = START.copy()
    for t in T:
        m = mean(GRADS, 0.99, t - 1)
        w = w - ETA * (np.sign(0.9 * m + 0.1 * GRADS[t - 1]) + 0.1 * w)
    same(ours("Lion", weight_decay=0.1), w)


def test_adabelief() -> None:
    """Zhuang et al., algorithm 2: ε is added to s at every step, and to its root."""

    def step(t: int) -> Array:
        around = [(GRADS[k - 1] - mean(GRADS, 0.9, k)) ** 2 for k in range(1, t + 1)]
        s = mean(around, 0.999, t) + 1e-4 * sum(0.999 ** (t - k) for k in range(1, t + 1))
        return ETA * hat(GRADS, 0.9, t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-4)

    same(ours("AdaBelief", eps=1e-4), moved(step))


def test_radam() -> None:
    """Liu et al., algorithm 2, with torch's ε added to √v."""
    beta, longest = 0.999, 2 / (1 - 0.999) - 1

    def step(t: int) -> Array:
        rho = longest - 2 * t * beta**t / (1 - beta**t)
        if rho <= 5:
            return ETA * hat(GRADS, 0.9, t)
        r = np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
        return ETA * hat(GRADS, 0.9, t) * r * np.sqrt(1 - beta**t) / (np.sqrt(mean(SQUARES, beta, t)) + 1e-8)

    same(ours("RAdam"), moved(step))


def test_lamb() -> None:
    """You et al., algorithm 2: u = m̂/(√v̂ + ε) + λθ, as long as θ itself."""
    w = START.copy()
    for t in T:
        u = adam_step(t, 1e-6) + 0.1 * w
        w = w - ETA * np.linalg.norm(w) / np.linalg.norm(u) * u
    same(ours("LAMB", weight_decay=0.1), w)


@pytest.mark.parametrize("adaptive", [False, True], ids=["sgd", "adamw"])
@pytest.mark.parametrize(("warmup", "falls"), [(0, False), (4, False), (0, True)])
def test_schedule_free(adaptive: bool, warmup: int, falls: bool) -> None:
    """Defazio et al.: three sequences, y = (1−β)z + βx; z ← z − γ(g(y) + λy); x ← (1−c)x + cz, c = γ²/Σγ².

    Their package weighs by the largest γ so far, which only a falling rate can tell.
    """
    beta, decay = 0.9, 0.1
    x, z, total, largest = START.copy(), START.copy(), 0.0, 0.0
    for t, g in zip(T, GRADS, strict=True):
        y = (1 - beta) * z + beta * x
        eta = rate(t - 1) if falls else ETA
        gamma = eta * min(1.0, t / warmup) if warmup else eta
        scaled = g / (np.sqrt(hat(SQUARES, 0.999, t)) + 1e-8) if adaptive else g
        z = z - gamma * (scaled + decay * y)
        largest = max(largest, gamma)
        total += largest**2
        x = (1 - largest**2 / total) * x + largest**2 / total * z
    name, settings = ("ScheduleFreeAdamW", {}) if adaptive else ("ScheduleFreeSGD", {"momentum": beta})
    lr = rate if falls else ETA
    same(ours(name, lr=lr, weight_decay=decay, warmup_steps=warmup, **settings), x)


def test_asgd() -> None:
    """Bottou's decay: η_t = η/(1 + ληt)^α, and weights (1 − λη_t)θ."""
    w, eta = START.copy(), ETA
    for t, g in zip(T, GRADS, strict=True):
        w = (1 - 0.1 * eta) * w - eta * g
        eta = ETA / (1 + 0.1 * ETA * t) ** 0.75
    same(ours("ASGD", lambd=0.1), w)


def test_rprop() -> None:
    """Riedmiller & Braun, without stepping back: an element whose gradient turned stays for a step."""
    w, size, last = START.copy(), np.full(SHAPE, ETA), np.zeros(SHAPE)
    for g in GRADS:
        turned = g * last < 0
        size = np.clip(np.where(g * last > 0, 1.2 * size, np.where(turned, 0.5 * size, size)), 1e-6, 50)
        last = np.where(turned, 0, g)
        w = w - np.sign(last) * size
    same(ours("Rprop"), w)


# What a compiled step does is the same (every rule and option: `test_conformance`).


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"momentum": 0.9, "convention": "keras", "nesterov": True, "lr": rate}),
        ("RMSprop", {"eps_at": "inside", "eps": 1e-3, "centered": True}),
        ("Adagrad", {"accumulator": "mean"}),
        ("LAMB", {"weight_decay": 0.1}),
        ("ScheduleFreeAdamW", {"weight_decay": 0.1, "warmup_steps": 4}),
    ],
)
def test_options_are_the_same_when_compiled(name: str, settings: dict[str, Any]) -> None:
    same(ours(name, **settings, backend="cpu"), ours(name, **settings))


def test_what_is_not_offered() -> None:
    """Keras' and Optax' Adagrad (ε in the root), Optax' AMSGrad and Keras' ε in Adam and Adamax: ours are torch's."""
    for name in ("Adagrad", "Adam", "Adamax"):
        with pytest.raises(TypeError, match="unexpected keyword argument 'eps_at'"):
            ours(name, eps_at="inside")
