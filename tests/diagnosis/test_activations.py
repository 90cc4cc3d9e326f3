"""Units that are dead or saturated: where it matters, and where it doesn't."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest
import torch
import torch.nn.functional as F
from descent import descend
from test_scale import silent
from torch import Tensor, nn
from trained import adam, blobs, fit, mlp, said, sgd, suspected

from gradwise.diagnosis.activations import saturated
from gradwise.diagnosis.case import Case
from gradwise.diagnosis.depth import Look, Plight, Units
from gradwise.diagnosis.evidence import evidence_of
from gradwise.diagnosis.hypotheses import REPORT


def test_a_layer_that_is_dead_from_the_beginning() -> None:
    model = mlp(8, 32, 4)
    nn.init.constant_(model[0].bias, -60.0)
    found = fit(model, blobs(), F.cross_entropy, sgd(0.05))
    assert said(found)[0] == "dead-units"
    first = found.findings[0]
    assert first.where.parameter == "0.weight"
    assert first.where.step == 0
    assert first.evidence["dead_share"] == 1.0
    assert first.remedies[0].intervention.init == "he"


def test_units_that_die_of_a_step_too_long() -> None:
    """Targets far from zero throw the biases below zero in the first steps; what is left is a constant."""
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(50, 4, generator=generator)
        return x, 380 + 25 * torch.tanh(x[:, :1])

    found = fit(mlp(4, 32, 32, 1), batch, F.mse_loss, sgd(0.005))
    causes = said(found)
    assert "dead-units" in causes or "dead-units" in found.findings[0].evidence["explains"]


def test_many_dead_units_in_a_net_that_learns() -> None:
    model = mlp(8, 64, 4)
    with torch.no_grad():
        model[0].bias[:48] = -60.0
    assert silent(fit(model, blobs(), F.cross_entropy, sgd(0.05)))


def test_a_sparse_autoencoder() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(4, 16, generator=generator)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 4, generator=generator) @ basis
        return x, x

    model = mlp(16, 64, 16)
    with torch.no_grad():
        model[0].bias[:40] = -30.0

    def loss(out: Tensor, x: Tensor) -> Tensor:
        return F.mse_loss(out, x)

    assert silent(fit(model, batch, loss, adam(1e-2), steps=300))


def test_tanhs_at_their_ends() -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.rand(64, 2, generator=generator) * 2 - 1
        return x, torch.sin(3 * x[:, :1]) * torch.cos(2 * x[:, 1:])

    model = mlp(2, 32, 32, 32, 1, activation=nn.Tanh)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(60.0 if parameter.dim() > 1 and len(parameter) > 1 else 1.0)
    found = fit(model, batch, F.mse_loss, sgd(0.01))
    assert suspected(found)[0] == "saturated-activations"  # it learns a little: a trial has to decide
    assert found.verdict == "inconclusive"
    assert found.suspicions[0].evidence["flat_share"] > 0.9


def test_gates_that_are_open_or_shut() -> None:
    """Most of a forget gate at 1 is what it is for."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.gate, self.value, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 4)
            nn.init.constant_(self.gate.bias, 20.0)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(torch.sigmoid(self.gate(x)) * self.value(x))
            return out

    # The classes overlap, so that the loss stays high.
    assert silent(fit(Gated(), blobs(spread=6.0), F.cross_entropy, sgd(0.05)))


def test_an_output_s_sigmoid_may_be_sure() -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 6, generator=generator)
        return x, (x[:, :1] > 0).float()

    model = nn.Sequential(*mlp(6, 16, 1), nn.Sigmoid())
    assert silent(fit(model, batch, F.binary_cross_entropy, adam(2e-2)))


@pytest.mark.parametrize(
    ("first", "kept", "travel", "cause"),
    [
        (0.02, -0.2, 15.0, "lr-too-high"),
        (0.02, 0.7, 15.0, "saturated-activations"),
        (0.02, -0.2, 0.5, "saturated-activations"),
        (0.9, -0.2, 15.0, "saturated-activations"),
    ],
)
def test_steps_that_drove_tanhs_to_their_ends_are_the_cause(
    first: float, kept: float, travel: float, cause: str
) -> None:
    recording = descend(0.05, 300)
    case = Case(recording, replace(evidence_of(recording, 0), kept_early=kept, travel=travel))
    looks = [
        Look(step, number, (), (Units("0.weight", "Tanh", 1, True, False, flat, 0, nan, nan, nan, 0),), ())
        for number, (step, flat) in enumerate([(0, first), (100, 0.95), (290, 0.95)])
    ]
    found = saturated(case, looks, Plight(False, False))
    assert found is not None
    assert found.id == cause
    assert found.confidence < REPORT
