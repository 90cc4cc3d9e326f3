"""X2, X7, X11 and X12: their parts against arithmetic and recurrences done here."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from gradwise import optim
from gradwise.lab import x02_race, x07_worked_table, x11_ravine, x12_bias_correction
from gradwise.lab.experiment import Bench
from gradwise.lab.surfaces import SURFACES
from gradwise.optim import Optimizer


def test_x7_intervals_are_what_rounding_leaves() -> None:
    assert x07_worked_table.printed("0.0315") == (Fraction("0.03145"), Fraction("0.03155"))
    assert x07_worked_table.printed("100") == (Fraction("99.5"), Fraction("100.5"))
    low, high = x07_worked_table.root(Fraction("1e-7"))
    assert low**2 < Fraction("1e-7") < high**2
    assert float(low) == pytest.approx(1e-7**0.5, rel=1e-8)


def test_x7_no_alpha_gives_all_three_rows_but_one_gives_two() -> None:
    found = [x07_worked_table.alpha(row) for row in x07_worked_table.TABLE]
    # By decimals, at the ends of each interval and beyond them: what α rounds to the printed figures?
    for row, interval in zip(x07_worked_table.TABLE, found, strict=True):
        assert interval is not None
        for alpha, fits in (
            (sum(interval) / 2, True),
            (interval[0] * Fraction("0.99"), False),
            (interval[1] * Fraction("1.01"), False),
        ):
            rate = Decimal(alpha.numerator) / Decimal(alpha.denominator) / Decimal(row.s).sqrt()
            printed = [
                value.quantize(Decimal(1).scaleb(Decimal(text).as_tuple().exponent)) == Decimal(text)  # type: ignore[arg-type]
                for value, text in ((rate, row.step), (rate * Decimal(row.g), row.update))
            ]
            assert all(printed) == fits, (row, float(alpha))
    first, second, third = found
    assert first is not None
    assert second is not None
    assert third is not None
    assert first[1] < second[0], "the first row's α is too small for the others"
    assert max(second[0], third[0]) <= min(second[1], third[1])


def test_x7_recomputes_by_the_rule_itself() -> None:
    printed = x07_worked_table.measure({"squared": False}, 0, Bench())
    assert printed["0.012"]["steps"] == pytest.approx([0.01, 0.012 / 1e-7**0.5, 0.4])
    assert printed["0.0315"]["steps"] == pytest.approx([0.02625, 0.0315 / 1e-7**0.5, 1.05])
    squared = x07_worked_table.measure({"squared": True}, 0, Bench())
    assert squared["0.012"]["updates"] == pytest.approx([0.012] * 3)  # every gradient over itself
    verdict = x07_worked_table.judge(
        {cell.name: {0: x07_worked_table.measure(cell.settings, 0, Bench())} for cell in x07_worked_table.cells(True)}
    )
    assert [s.held for s in verdict.statements] == [False, False, True]


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("sharp", [0.015, 1.5, 1.99])
def test_x11_gains_are_those_of_the_recurrence(sharp: float, averaged: bool) -> None:
    c = 0.1 if averaged else 1.0
    theta, b, slopes, steps = 1.0, 0.0, [], []
    for _ in range(400):
        g = sharp * theta
        b = 0.9 * b + c * g
        theta -= b
        slopes.append(g)
        steps.append(b)
    # Sums over a swing in a well-mixed phase: the ratio of both swings, weighted by its decay.
    measured = np.linalg.norm(steps[100:]) / np.linalg.norm(slopes[100:])
    assert x11_ravine.gain_by_theory(sharp, averaged=averaged) == pytest.approx(measured, rel=0.15)


def test_x11_the_steepest_direction_is_that_of_the_whole_matrix() -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(6, 2, bias=False).double()
    x = torch.randn(40, 6, dtype=torch.float64) * torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.1], dtype=torch.float64)
    sharp, vectors = x11_ravine._steepest(lambda: net(x).square().mean(), net, 12, 0)
    matrix = torch.kron(torch.eye(2, dtype=torch.float64), x.T @ x / 40)  # of the mean over 40 × 2 squares
    values, found = torch.linalg.eigh(matrix)
    assert sharp == pytest.approx(float(values[-1]), rel=1e-6)
    assert vectors @ vectors.T == pytest.approx(torch.eye(5, dtype=torch.float64).numpy(), abs=1e-9)
    assert float((found[:, -2:].T @ vectors[0]).norm()) == pytest.approx(1, abs=1e-6)  # a pair of equal eigenvalues


def test_x12_without_correction_is_adam_less_two_divisions() -> None:
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    p = torch.nn.Parameter(start.clone())
    optimizer = Optimizer([p], x12_bias_correction.uncorrected, {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8})
    theta, m, v = start.numpy().copy(), np.zeros(3), np.zeros(3)
    for k in range(20):
        g = np.cos(theta + k)
        p.grad = torch.cos(p.detach() + k)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta = theta - 0.01 * m / (np.sqrt(v) + 1e-8)
        assert p.detach().numpy() == pytest.approx(theta, abs=1e-12)


def test_x12_shares_are_those_of_the_definition() -> None:
    cell = x12_bias_correction.cells(True)[0]
    found = x12_bias_correction.measure({**cell.settings, "steps": 40}, 0, Bench(quick=True))
    assert found["marks"][:11] == [*range(1, 11), 15]
    for k, step in enumerate(found["marks"]):
        b1, b2 = 1 - 0.9**step, 1 - cell.settings["beta2"] ** step
        assert found["m"][k] / found["m̂"][k] == pytest.approx(b1, rel=1e-4)
        assert found["v"][k] / found["v̂"][k] == pytest.approx(b2, rel=1e-3)
        assert found["factor"][k] == pytest.approx(math.sqrt(b2) / b1, rel=1e-3)
    # The first gradient is all there is to average, and Adam's first step is η in every weight that has a gradient.
    assert (found["m̂"][0], found["v̂"][0]) == pytest.approx((1, 1), rel=1e-4)
    assert 0.8 < found["step"][0] <= 1.001


def test_x2_directions_and_detours() -> None:
    saddle, turned, beale = (SURFACES[name] for name in ("saddle", "turned-saddle", "beale"))
    along = np.array([[1, 0.01], [0.9, 0.02], [0.8, 0.03], [0.7, 0.03]])
    assert x02_race._direct(along, saddle) == pytest.approx(0.02 / math.hypot(0.3, 0.02))
    assert x02_race._direct(along * [1, -1], saddle) == pytest.approx(0.02 / math.hypot(0.3, 0.02)), "either side"
    root = math.sqrt(0.5)
    rotated = along @ np.array([[root, root], [-root, root]])
    assert x02_race._direct(rotated, turned) == pytest.approx(x02_race._direct(along, saddle))
    assert x02_race._direct(np.array([[1, 1], [1.2, 0.95], [1.4, 0.9], [1.8, 0.8]]), beale) == pytest.approx(1)
    assert x02_race._detour(np.array([[0, 0], [1, 0], [1, 1]])) == pytest.approx(math.sqrt(2))
    assert x02_race._detour(np.array([[2, 2], [2, 2]])) == 1


def test_x2_the_turned_saddle_is_the_saddle_turned() -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    root = math.sqrt(0.5)
    turned = points @ torch.tensor([[root, root], [-root, root]], dtype=torch.float64)
    assert SURFACES["turned-saddle"].at(turned) == pytest.approx(SURFACES["saddle"].at(points).numpy(), abs=1e-12)
    assert SURFACES["turned-saddle"].start == pytest.approx((root * 0.99, root * 1.01))


def test_x2_plain_descent_does_not_care_how_axes_lie_and_adagrad_does() -> None:
    lanes = {}
    root = math.sqrt(0.5)
    turn = torch.tensor([[root, root], [-root, root]], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.01]], dtype=torch.float64)
    for rule in ("sgd", "adagrad"):
        plain, _, _ = x02_race.sweep(rule, SURFACES["saddle"], [0.2], start, 15)[0]
        turned, _, _ = x02_race.sweep(rule, SURFACES["turned-saddle"], [0.2], start @ turn, 15)[0]
        lanes[rule] = np.abs(turned[0] - plain[0] @ turn.numpy()).max()
    assert lanes["sgd"] < 1e-9
    assert lanes["adagrad"] > 0.5


def test_adams_moments_are_those_that_the_experiment_reads() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0]))
    adam = optim.Adam([p], lr=0.1)
    p.grad = torch.tensor([3.0])
    adam.step()
    first, second = adam.moments(p)
    assert first is not None
    assert second is not None
    assert (float(first), float(second)) == pytest.approx((3, 9))
