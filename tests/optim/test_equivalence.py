"""Verdicts on loss × c hold on real training: paired trajectories on the handwritten digits (E1, E2, E3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradwise
import gradwise.optim as optim
from gradwise.optim.equivalence import GROWS, STAYS
from gradwise.schedules import cosine

sklearn = pytest.importorskip("sklearn.datasets")

STEPS = 30
Make = Callable[..., torch.optim.Optimizer]


def made(name: str, module: Any = optim, **settings: Any) -> Make:
    """The class with its settings, but for parameters and the factor of its rate."""

    def make(params: Any, factor: float = 1.0) -> torch.optim.Optimizer:
        rate = settings.get("lr", 0.01)
        scaled = (lambda t: factor * rate(t)) if callable(rate) else factor * rate
        optimizer: torch.optim.Optimizer = getattr(module, name)(params, **{**settings, "lr": scaled})
        return optimizer

    return make


def decaying(step: int) -> float:
    return 0.05 * cosine(40)(step)


def called(settings: dict[str, Any]) -> str:
    """The same in every process that runs tests: no addresses."""
    return ", ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in settings.items())


A, N, E = "approximate", "no", "exact"
# optimizer, settings, is loss × c the same as lr × c, the same as before, and what breaks the more interesting of both
CASES: list[tuple[str, dict[str, Any], str, str, tuple[str, ...]]] = [
    ("SGD", {}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9, "nesterov": True}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9, "convention": "keras"}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9, "convention": "keras", "lr": decaying}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9, "convention": "ema", "lr": decaying}, E, N, (GROWS,)),
    ("SGD", {"momentum": 0.9, "lr": decaying}, E, N, (GROWS,)),
    ("SGD", {"weight_decay": 0.1}, N, N, ("coupled weight decay",)),
    ("SGD", {"clip_norm": 0.5}, N, N, ("gradient clipping by norm",)),
    ("SGD", {"clip_value": 0.01}, N, N, ("gradient clipping by value",)),
    ("SGD", {"l1": 0.1}, N, N, ("l1",)),
    ("ASGD", {"lambd": 0.1}, N, N, ("the decay λ of the weights",)),
    ("ASGD", {"lambd": 0.0}, E, N, (GROWS,)),
    ("Adagrad", {}, N, A, ("ε",)),
    ("Adagrad", {"eps": 0.0}, N, E, (STAYS,)),
    ("Adagrad", {"initial_accumulator_value": 0.1}, N, A, ("ε", "the accumulator's initial value")),
    ("Adagrad", {"accumulator": "mean"}, N, A, ("ε",)),
    ("Adadelta", {"lr": 1.0}, N, A, ("ε",)),
    ("RMSprop", {}, N, A, ("ε",)),
    ("RMSprop", {"eps_at": "inside", "momentum": 0.5}, N, A, ("ε",)),
    ("RMSprop", {"eps_at": "none", "eps": 0.0}, N, E, (STAYS,)),
    ("RMSprop", {"centered": True}, N, A, ("ε",)),
    ("Rprop", {}, N, E, (STAYS,)),
    ("Adam", {}, N, A, ("ε",)),
    ("Adam", {"amsgrad": True}, N, A, ("ε",)),
    ("Adam", {"eps": 0.0}, N, E, (STAYS,)),
    ("Adam", {"weight_decay": 0.1}, N, N, ("ε", "coupled weight decay")),
    ("Adam", {"clip_norm": 0.5}, N, N, ("ε", "gradient clipping by norm")),
    ("Adam", {"l1": 0.01}, N, A, ("ε",)),
    ("Adam", {"lr": decaying}, N, A, ("ε",)),
    ("AdamW", {"weight_decay": 0.1}, N, A, ("ε",)),
    ("NAdam", {}, N, A, ("ε",)),
    ("RAdam", {}, N, N, ("the first 5 steps grow with the gradient, later ones don't",)),
    ("Adamax", {}, N, A, ("ε",)),
    ("Lion", {"lr": 0.001}, N, E, (STAYS,)),
    ("Lion", {"lr": 0.001, "weight_decay": 0.1}, N, E, (STAYS,)),
    ("Lion", {"lr": 0.001, "weight_decay": 0.1, "decoupled_weight_decay": False}, N, N, ("coupled weight decay",)),
    ("AdaBelief", {}, N, A, ("ε",)),
    ("LAMB", {"weight_decay": 0.1}, N, A, ("ε",)),
    ("ScheduleFreeSGD", {"warmup_steps": 5}, E, N, (GROWS,)),
    ("ScheduleFreeSGD", {"weight_decay": 0.1}, N, N, ("weight decay",)),
    ("ScheduleFreeAdamW", {"weight_decay": 0.1}, N, A, ("ε",)),
]
OWN = {"clip_norm", "clip_value", "l1", "accumulator", "eps_at", "convention"}
BOTH = [
    pytest.param(module, *case, id=f"{module.__name__.partition('.')[0]}-{case[0]}-{called(case[1])}")
    for module in (optim, torch.optim)
    for case in CASES
    if module is optim or (hasattr(torch.optim, case[0]) and not OWN & set(case[1]) and not callable(case[1].get("lr")))
]


@cache
def digits() -> tuple[Tensor, Tensor]:
    data = sklearn.load_digits()
    # No input is 0, so no gradient is: without ε a step would be 0/0.
    return torch.tensor(data.data[:480] / 16 + 0.1, dtype=torch.float64), torch.tensor(data.target[:480])


def trained(make: Make, loss: float = 1.0, rate: float = 1.0, since: int = 0) -> Tensor:
    """Where training gets to, in double precision, with the loss or the rate multiplied from some step on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)).double()
    optimizer = make(model.parameters(), rate if since == 0 else 1.0)
    x, y = digits()
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    for step in range(STEPS):
        if step == since > 0:
            optimizer.param_groups[0]["lr"] *= rate
        rows = slice(step * 16 % 480, step * 16 % 480 + 16)
        optimizer.zero_grad()
        (cross_entropy(model(x[rows]), y[rows]) * (loss if step >= since else 1.0)).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach() - start


def apart(a: Tensor, b: Tensor) -> float:
    """Distance of two ways, relative to how long they are."""
    return float((a - b).norm() / torch.maximum(a.norm(), b.norm()))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Or ASGD's rate and NAdam's product would be kept in single precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def holds(answer: str, distance: float, effect: float = 0.0) -> bool:
    """Whether a distance of trajectories is what an answer promises, with the largest effect measured on an element.

    Training magnifies differences: here, over 30 steps, twentyfold, and for AdaBelief seventyfold.
    """
    return {E: distance < 1e-9, A: 1e-15 < distance < 100 * effect, N: distance > 1e-4}[answer]


@pytest.mark.parametrize("factor", [0.1, 10.0])
@pytest.mark.parametrize(("module", "name", "settings", "as_lr", "as_before", "because"), BOTH)
def test_verdicts_hold_on_real_training(
    module: Any,
    name: str,
    settings: dict[str, Any],
    as_lr: str,
    as_before: str,
    because: tuple[str, ...],
    factor: float,
) -> None:
    make = made(name, module, **settings)
    kept: list[torch.optim.Optimizer] = []
    before = trained(lambda *a: kept.append(make(*a)) or kept[-1])
    (verdict,) = gradwise.equivalent(kept[0], factor).groups
    assert (verdict.as_lr.answer, verdict.as_before.answer) == (as_lr, as_before)
    assert because in (verdict.as_lr.because, verdict.as_before.because)
    changed = trained(make, loss=factor)
    assert holds(as_lr, apart(changed, trained(make, rate=factor)))
    assert holds(as_before, apart(changed, before), verdict.measured.largest if verdict.measured else 0.0)


@pytest.mark.parametrize(
    ("name", "settings", "answer"),
    [
        ("SGD", {}, E),
        ("SGD", {"momentum": 0.9}, N),
        ("SGD", {"momentum": 0.9, "convention": "keras"}, E),
        ("SGD", {"momentum": 0.9, "convention": "ema"}, N),
        ("SGD", {"momentum": 0.9, "nesterov": True, "convention": "keras"}, E),
    ],
)
def test_a_change_midway_tells_the_momentum_conventions_apart(name: str, settings: dict[str, Any], answer: str) -> None:
    make = made(name, **settings)
    (verdict,) = gradwise.equivalent(make([nn.Parameter(torch.zeros(3))])).groups
    assert (verdict.as_lr.answer, verdict.as_lr.midway) == (E, answer)
    assert holds(answer, apart(trained(make, loss=0.1, since=15), trained(make, rate=0.1, since=15)))


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Lion"])
def test_what_does_not_depend_on_the_loss_still_remembers_its_old_scale(name: str) -> None:
    make = made(name, lr=0.001)
    (verdict,) = gradwise.equivalent(make([nn.Parameter(torch.zeros(3))]), 10.0).groups
    assert verdict.as_before.midway == N
    assert holds(N, apart(trained(make, loss=10.0, since=15), trained(make)))


@pytest.mark.parametrize("name", ["Adagrad", "Adam", "Adamax", "AdaBelief", "NAdam"])
def test_the_bound_is_a_bound(name: str) -> None:
    """Gradients a little above it change steps by less than 1 %, and a little below by more."""
    optimizer = getattr(optim, name)([nn.Parameter(torch.zeros(4))], lr=0.01)
    above = gradwise.equivalent(optimizer).groups[0].above
    for size, within in ((2 * above, True), (above / 2, False)):
        ends = []
        for factor in (0.1, 1.0):
            w = nn.Parameter(torch.zeros(4))
            one = type(optimizer)([w], lr=0.01)
            for t in range(24):
                w.grad = torch.full((4,), size * factor * (-1) ** (t // 5))
                one.step()
            ends.append(w.detach())
        assert (apart(*ends) < 0.01) == within


def test_the_effect_of_epsilon_is_measured_on_the_live_state() -> None:
    weights = {name: nn.Parameter(torch.zeros(5)) for name in ("large", "small", "unused")}
    optimizer = torch.optim.Adam(weights.values())
    assert gradwise.equivalent(optimizer).groups[0].measured is None
    for _ in range(3):
        weights["large"].grad, weights["small"].grad = torch.full((5,), 1.0), torch.full((5,), 1e-7)
        optimizer.step()
    before = {k: v.clone() for k, v in weights.items()}
    measured = gradwise.equivalent(optimizer).groups[0].measured
    assert measured is not None
    assert (measured.elements, measured.noticed) == (10, 0.5)
    # (s + ε)/(s + ε/c) for s = 1e-7 is 0.55.
    assert measured.largest == pytest.approx(2 * 0.45 / 1.55, rel=0.1)
    assert all(torch.equal(before[k], v) for k, v in weights.items())


def test_elements_without_gradients_are_not_counted() -> None:
    w = nn.Parameter(torch.zeros(3))
    optimizer = optim.Adam([w])
    for gradient, elements in ((torch.zeros(3), None), (torch.tensor([0.0, 0.0, 1.0]), 1)):
        w.grad = gradient
        optimizer.step()
        measured = gradwise.equivalent(optimizer).groups[0].measured
        assert (measured.elements if measured else None) == elements


def test_each_group_has_its_verdict() -> None:
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "weight_decay": 0.1}], lr=0.1)
    said = gradwise.equivalent(optimizer)
    assert [g.as_lr.answer for g in said.groups] == [E, N]
    assert json.loads(json.dumps(said.to_json()))["groups"][1]["as_lr"]["because"] == ["coupled weight decay"]
    assert str(said).splitlines()[1:3] == ["  group 0 (sgd)", "    the same as lr × 0.1?  exact"]


def test_many_groups_that_share_their_settings_are_judged_once() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.1 * (i + 1)} for i in range(50)]
    said = gradwise.equivalent(torch.optim.Adam(groups))
    assert [g.group for g in said.groups] == list(range(50))
    assert len({(g.as_lr, g.as_before, g.above) for g in said.groups}) == 1


def test_decoupled_decay_goes_with_the_rate() -> None:
    def make(params: Any, factor: float = 1.0) -> torch.optim.Optimizer:
        group = {"params": list(params), "decoupled_weight_decay": True}
        return optim.SGD([group], lr=0.05 * factor, weight_decay=0.1)

    (verdict,) = gradwise.equivalent(make([nn.Parameter(torch.zeros(3))])).groups
    assert (verdict.as_lr.answer, verdict.as_lr.because) == (N, ("decoupled weight decay",))
    assert holds(N, apart(trained(make, loss=0.1), trained(make, rate=0.1)))


def test_clipping_by_hand_can_be_told() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    assert gradwise.equivalent(optimizer, clip_norm=1.0).groups[0].as_lr.because == ("gradient clipping by norm",)
    assert gradwise.equivalent(optimizer, clip_value=1.0).groups[0].as_lr.because == ("gradient clipping by value",)
    assert "clip_value" not in optimizer.param_groups[0]


def test_a_rule_of_ones_own() -> None:
    @optim.rule("m")
    def normed(p: Any, g: Any, m: Any, lr: Any, eps: Any) -> Any:
        m = 0.9 * m + g
        return p - lr * m / (abs(m) + eps), m

    optimizer = optim.Optimizer([nn.Parameter(torch.zeros(2))], normed, {"lr": 0.1, "eps": 1e-3})
    (verdict,) = gradwise.equivalent(optimizer).groups
    assert (verdict.as_before.answer, verdict.as_before.because) == (A, ("ε",))


def test_what_it_can_not_judge() -> None:
    w = nn.Parameter(torch.zeros(2))
    with pytest.raises(TypeError, match="LBFGS has a rule that isn't known here"):
        gradwise.equivalent(torch.optim.LBFGS([w]))
    for scale in (1.0, 0.0, -2.0):
        with pytest.raises(ValueError, match="loss_scale is a positive number other than 1"):
            gradwise.equivalent(torch.optim.SGD([w]), scale)
