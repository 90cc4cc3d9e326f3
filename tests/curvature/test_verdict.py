"""Each kind of point is told right, from small analytic surfaces to networks; nothing is claimed that isn't shown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise.curvature import Hessian, critical_point, edge_of_stability, newton_step, try_escape
from gradwise.curvature.newton import Newton
from gradwise.curvature.verdict import End, Measured, judge

SURFACES: dict[str, tuple[Callable[[Tensor], Tensor], list[float], str]] = {
    "bowl, at its bottom": (lambda w: 1 + w[0] ** 2 + 50 * w[1] ** 2, [0.0, 0.0], "minimum"),
    "bowl, nearly": (lambda w: 1 + w[0] ** 2 + 50 * w[1] ** 2, [1e-3, 1e-3], "minimum"),
    "bowl, on its wall": (lambda w: 1 + w[0] ** 2 + 50 * w[1] ** 2, [1.0, 1.0], "not critical"),
    "bowl without a constant, near": (lambda w: w[0] ** 2 + 50 * w[1] ** 2, [1e-3, 1e-3], "not critical"),
    "saddle": (lambda w: 1 + w[0] ** 2 - 0.5 * w[1] ** 2, [0.0, 0.0], "saddle"),
    "saddle, nearly": (lambda w: 1 + w[0] * w[1], [1e-3, -1e-3], "saddle"),
    "saddle with hardly a way down": (lambda w: 1 + 100 * w[0] ** 2 - 0.1 * w[1] ** 2, [0.0, 0.0], "saddle"),
    "saddle with a flat direction": (lambda w: 1 + w[0] ** 2 - w[1] ** 2 + 0 * w[2], [0.0, 0.0, 5.0], "saddle"),
    "monkey saddle": (lambda w: w[0] ** 3 - 3 * w[0] * w[1] ** 2, [0.0, 0.0], "degenerate"),
    "hilltop": (lambda w: 3 - w[0] ** 2 - 2 * w[1] ** 2, [0.0, 0.0], "maximum"),
    "valley": (lambda w: (w[0] * w[1] - 1) ** 2, [2.0, 0.5], "degenerate"),
    "straight valley": (lambda w: 1 + (w[0] - w[1]) ** 2, [3.0, 3.0], "degenerate"),
    "quartic": (lambda w: 1 + w[0] ** 4 + w[1] ** 2, [0.0, 0.0], "degenerate"),
    "constant": (lambda w: 1 + 0 * w.square().sum(), [1.0, 2.0], "degenerate"),
    "exponential tail": (lambda w: 1 + torch.exp(-w[0]) + w[1] ** 2, [12.0, 0.0], "not critical"),
    "two saturated units": (lambda w: 1 + torch.sigmoid(w).sum(), [-9.0, -10.0], "not critical"),
    "tail of a power": (lambda w: 1 + w[0] ** -2, [100.0], "not critical"),
    "slope": (lambda w: 1 + 1e-6 * w.sum(), [1.0, 1.0], "not critical"),
    "ravine": (lambda w: 1 + 1e-3 * w[0] + 1000 * w[1] ** 2, [0.0, 0.0], "not critical"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SURFACES)
def test_surfaces(name: str, dtype: torch.dtype) -> None:
    surface, at, expected = SURFACES[name]
    w = torch.tensor(at, dtype=dtype, requires_grad=True)
    found = critical_point(lambda: surface(w), [w])
    assert found.kind == expected, str(found)
    assert w.tolist() == torch.tensor(at, dtype=dtype).tolist()
    if expected in ("saddle", "maximum"):
        assert found.escape is not None
        assert found.escape.lowers
        # With the constant term the third order decides, and may well do better.
        assert found.escape.drop == pytest.approx(found.escape.expected, rel=0.2)
    else:
        assert found.escape is None


def test_the_figures_are_those_of_the_surface() -> None:
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = critical_point(lambda: 2 + 30 * w[0] ** 2 + 50 * w[1] ** 2 - 0.5 * w[2] ** 2, [w])
    m = found.measured
    assert (m.loss, m.gradient_norm, m.gradient_noise, found.batches) == (2.0, 0.0, None, 1)
    assert m.smallest.value == pytest.approx(-1)
    assert m.largest.value == pytest.approx(100)
    assert found.products == 3
    assert found.escape.direction.abs().tolist() == pytest.approx([0, 0, 1], abs=1e-9)
    assert found.sharpness(lr=0.01) == pytest.approx(0.5)
    assert found.sharpness(lr=0.01, momentum=0.9) == pytest.approx(0.5 / 1.9)


def zeros(model: nn.Module) -> nn.Module:
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def task() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    return x, (x @ torch.tensor([1.0, -2.0, 0.5, 0.0])).unsqueeze(1)


def test_a_network_of_zeros_is_at_a_saddle_and_its_way_out_leads_on() -> None:
    x, y = task()
    model = zeros(nn.Sequential(nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 1, bias=False)))
    data = list(zip(x.split(8), y.split(8), strict=True))
    found = critical_point(lambda b: F.mse_loss(model(b[0]), b[1]), model, data)
    assert found.kind == "saddle"
    assert found.measured.gradient_norm == 0
    assert found.escape.lowers
    before = F.mse_loss(model(x), y).item()
    hessian = Hessian(lambda: F.mse_loss(model(x), y), model)
    parts = hessian.split(found.escape.length * found.escape.direction)
    with torch.no_grad():
        for p, part in zip(model.parameters(), parts, strict=True):
            p.add_(part)
    assert before - F.mse_loss(model(x), y).item() == pytest.approx(found.escape.drop, rel=1e-3)


def test_a_trained_regression_is_at_its_minimum() -> None:
    x, y = task()
    y = y + 0.3 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(4, 1)
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(64, 1)], 1), y).solution
    with torch.no_grad():
        model.weight.copy_(solution[:4].T)
        model.bias.copy_(solution[4])
    assert critical_point(lambda: F.mse_loss(model(x), y), model).kind == "minimum"
    # The same by batches, which disagree: at the mean of their losses the gradient is zero all the same.
    data = list(zip(x.split(8), y.split(8), strict=True))
    found = critical_point(lambda b: F.mse_loss(model(b[0]), b[1]), model, data)
    assert found.kind == "minimum"
    assert found.measured.gradient_noise > 0.01
    assert found.measured.smallest.noise > 0


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_network_is_nowhere_in_particular(seed: int) -> None:
    x, y = task()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    data = list(zip(x.split(16), y.split(16), strict=True))
    assert critical_point(lambda b: F.mse_loss(model(b[0]), b[1]), model, data).kind == "not critical"


def test_training_on_its_way_is_not_critical() -> None:
    x, y = task()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(200):
        if step % 50 == 49:
            assert critical_point(lambda: F.mse_loss(model(x), y), model).kind == "not critical"
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()


def test_a_saturated_network_is_on_a_plateau() -> None:
    x, _ = task()
    model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    nn.init.constant_(model[0].bias, 8.0)
    found = critical_point(lambda: model(x).square().mean(), model)
    assert found.measured.gradient_norm < 0.01
    assert found.kind == "not critical"


def test_a_deep_linear_network_ends_in_a_valley() -> None:
    x, _ = task()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    y = model(x).detach()  # rescaling one layer against the other changes nothing
    found = critical_point(lambda: F.mse_loss(model(x), y), model)
    assert found.kind == "degenerate"
    assert found.measured.largest.value > 0.1


def test_a_dead_network_is_degenerate() -> None:
    x, y = task()
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1, bias=False))
    nn.init.constant_(model[0].bias, -100.0)
    assert critical_point(lambda: F.mse_loss(model(x), y), model).kind == "degenerate"


def test_a_gradient_lost_in_noise_decides_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    pulls = [10 * torch.randn(4, generator=generator) for _ in range(4)]
    w = torch.ones(4, requires_grad=True)
    found = critical_point(lambda pull: 1 + 0.05 * w.square().sum() + (pull * w).sum(), [w], pulls)
    assert found.kind == "inconclusive"
    assert "batches' noise" in found.why
    assert found.measured.gradient_noise == pytest.approx(10 * 2 / 2, rel=0.6)  # σ√n/√B


def test_curvature_lost_in_noise_decides_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    bends = [torch.randn(2, generator=generator) for _ in range(4)]
    w = torch.zeros(2, requires_grad=True)
    found = critical_point(lambda b: 1 + (b * w.square()).sum() - b.mean() * 0.0, [w], bends)
    mean = 2 * torch.stack(bends).mean(0)
    assert found.measured.smallest.value == pytest.approx(mean.min().item(), rel=1e-4)
    assert found.measured.smallest.noise == pytest.approx(
        2 * torch.stack(bends).std(0)[int(mean.argmin())].item() / 2, rel=1e-4
    )
    assert found.kind == "inconclusive"


def test_of_a_loss_computed_before() -> None:
    w = torch.zeros(2, requires_grad=True)
    found = critical_point(Hessian.of_loss(1 + w[0] ** 2 - w[1] ** 2, [w]))
    assert found.kind == "saddle"
    assert found.escape is None


def test_it_reads_and_stores() -> None:
    w = torch.zeros(2, requires_grad=True)
    found = critical_point(lambda b: 1 + b * w[0] ** 2 - w[1] ** 2, [w], [1.0, 2.0])
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert stored["kind"] == "saddle"
    assert stored["smallest"]["value"] == pytest.approx(-2)
    assert stored["escape"]["lowers"] is True
    text = str(found)
    assert text.startswith("saddle: the gradient is zero, and there is a direction in which the loss falls (λ_min -2")
    assert "escape    a step of 0.1 of the weights' scale lowers the loss by 0.02" in text
    slope = torch.ones(1, requires_grad=True)
    flat = critical_point(lambda: 1 + slope.sum(), [slope])
    assert json.loads(json.dumps(flat.to_json(), allow_nan=False))["newton"]["length"] is None
    assert "not critical" in str(flat)


# the verdict as a function of what was measured


def measured(low: float = 1.0, high: float = 10.0, noise: float | None = None, residual: float = 0.0) -> Measured:
    return Measured(1.0, 0.0, noise, End(low, residual, noise), End(high, residual, noise), Newton(0, 0, 0, 0, 0), 1e-7)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (measured(1.0), "minimum"),
        (measured(0.0011), "minimum"),
        (measured(0.0009), "degenerate"),
        (measured(-0.0009), "degenerate"),
        (measured(-0.0011), "saddle"),
        (measured(-0.5, residual=1.0), "saddle"),  # curvature along a direction bounds the least from above
        (measured(0.5, residual=1.0), "inconclusive"),
        (measured(0.5, noise=0.3), "inconclusive"),
        (measured(0.7, noise=0.3), "minimum"),
        (measured(-0.7, noise=0.3), "saddle"),
        (measured(-5.0, -1.0), "maximum"),
        (measured(-5.0, -1.0, residual=2.0), "saddle"),
        (measured(0.01, noise=0.02), "degenerate"),
        (measured(0.0, 0.0), "degenerate"),
    ],
)
def test_kinds_by_figures(given: Measured, kind: str) -> None:
    assert judge(given)[0] == kind


@pytest.mark.parametrize(
    ("newton", "noise", "kind"),
    [
        (Newton(1, 0.009, 0.009, 0.1, 0.1), None, "minimum"),
        (Newton(1, 0.011, 0.009, 0.1, 0.1), None, "not critical"),  # far
        (Newton(1, 0.009, 0.011, 0.1, 0.1), None, "not critical"),  # worth going
        (Newton(1, 0.009, 0.009, 0.1, 0.37), None, "not critical"),  # flat, and doesn't arrive
        (Newton(1, 0.009, 0.009, 0.3, None), None, "not critical"),  # the model itself doesn't
        (Newton(1, 0.009, 0.009, 0.1, None), None, "minimum"),
        (Newton(1, 0.009, 1e-8, 0.1, 1.0), None, "minimum"),  # not to be seen in the loss
        (Newton(1, 1e-7, 0.5, 0.1, 1.0), None, "minimum"),  # nor in the weights
        (Newton(1, 0.09, 0.009, 0.1, 0.1), 0.6, "minimum"),  # noise puts it anywhere around
        (Newton(1, 0.11, 0.009, 0.1, 0.1), 0.6, "inconclusive"),
        (Newton(1, 0.09, 0.011, 0.1, 0.1), 0.6, "inconclusive"),
        (Newton(1, 0.09, 0.009, 0.1, 0.3), 0.6, "inconclusive"),
        (Newton(1, 0.011, 0.009, 0.1, 0.1), 0.4, "not critical"),
        (Newton(math.inf, math.inf, math.inf, 1.0, None), None, "not critical"),
    ],
)
def test_critical_by_figures(newton: Newton, noise: float | None, kind: str) -> None:
    given = replace(measured(), gradient_norm=1.0, gradient_noise=noise, newton=newton)
    assert judge(given)[0] == kind


def test_the_edge_of_stability() -> None:
    # By simulation: descent on ½λx² is stable just below, and not just above.
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        for share, stable in ((0.99, True), (1.01, False)):
            x = torch.ones(1, dtype=torch.float64, requires_grad=True)
            optimizer = torch.optim.SGD([x], lr=0.1, momentum=momentum, nesterov=nesterov and momentum > 0)
            curvature = share * edge_of_stability(0.1, momentum, nesterov)
            for _ in range(3000):
                x.grad = curvature * x.detach()
                optimizer.step()
            assert (abs(x.item()) < 1) is stable
    for lr, momentum in ((0.0, 0.0), (-1.0, 0.0), (0.1, 1.0), (0.1, -0.1), (math.nan, 0.0)):
        with pytest.raises(ValueError, match="edge_of_stability: lr must be above 0"):
            edge_of_stability(lr, momentum)


def test_the_newton_step_solves_a_quadratic_exactly() -> None:
    torch.manual_seed(0)
    half = torch.randn(6, 6, dtype=torch.float64)
    matrix, w = half + half.T, torch.randn(6, dtype=torch.float64, requires_grad=True)
    hessian = Hessian(lambda: 0.5 * w @ matrix @ w, [w])
    gradient = hessian.gradient()
    step = newton_step(hessian, gradient)
    values, vectors = torch.linalg.eigh(matrix)
    gain = 0.5 * ((vectors.T @ gradient) ** 2 / values.abs()).sum().item()
    assert step.left < 0.02
    assert step.found == pytest.approx(step.left, abs=1e-6)
    assert step.length == pytest.approx(w.detach().norm().item(), rel=0.05)  # the critical point is 0
    assert step.gain == pytest.approx(gain, rel=0.05)


def test_where_nothing_lowers_the_loss_no_escape_is_claimed() -> None:
    w = torch.zeros(2, requires_grad=True)
    escape = try_escape(Hessian(lambda: 1 + w.square().sum(), [w]), torch.tensor([1.0, 0.0]), 2.0)
    assert not escape.lowers
    assert "lowers the loss clearly" in str(escape)
    # Batches that disagree: the mean falls, but not clearly.
    hessian = Hessian(lambda b: 1 + b * w.sum(), [w], [1.0, -1.0, 0.9, -1.0])
    assert not try_escape(hessian, torch.tensor([1.0, 0.0]), 0.0).lowers


def test_a_step_to_where_the_loss_is_not_finite_is_no_escape() -> None:
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    hessian = Hessian(lambda: -torch.log(1e-6 - w).sum().square(), [w])
    escape = try_escape(hessian, torch.ones(1, dtype=torch.float64), -1.0)
    assert math.isfinite(escape.drop)
    assert w.item() == 0.0
