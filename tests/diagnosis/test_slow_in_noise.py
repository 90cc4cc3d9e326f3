"""Slow runs whose few first and last losses are too noisy to tell a fall, and runs that swing without a slope."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from descent import descend, recording_of
from torch import Tensor, nn
from trained import Batches, fit, said, sgd

from gradwise.diagnosis.evidence import evidence_of
from gradwise.recording import signals
from gradwise.recording.recording import Series


def halves(eta: float, noise: float, seed: int, steps: int = 400) -> tuple[float, float]:
    """Both efficiencies of a fall of which each step is paid a share `eta`, and whose losses vary by `noise`."""
    rng = np.random.default_rng(seed)
    promised = 0.002 * np.exp(-np.arange(steps) / steps)
    losses = 1 - eta * np.cumsum(promised) + noise * rng.standard_normal(steps)
    rows = {
        signals.LOSS.name: list(enumerate(losses.tolist())),
        signals.TIME.name: [(t, 1e-3 * t) for t in range(steps)],
        **{s.name: [(t, float(promised[t])) for t in range(0, steps, 8)] for s in (signals.PROGRESS, signals.KEPT)},
        **{
            s.name: [(t, 1.0) for t in range(0, steps, 8)]
            for s in (signals.PARAMETER, signals.UPDATE, signals.TRAVEL, signals.GRADIENT, signals.COSINE)
        },
    }
    e = evidence_of(recording_of(rows), 0)
    return e.efficiency, e.middle_efficiency


@pytest.mark.parametrize("eta", [0.2, 0.5, 1.0])
def test_halves_tell_what_is_paid_as_ends_do(eta: float) -> None:
    ends, middle = halves(eta, 1e-6, 0)
    assert ends == pytest.approx(eta, rel=0.1)
    assert middle == pytest.approx(eta, rel=0.02)


def test_under_noise_halves_err_far_less_than_ends() -> None:
    found = np.array([halves(0.8, 0.15, seed) for seed in range(40)])
    ends, middle = np.sqrt(np.mean((found - 0.8) ** 2, axis=0))
    assert middle < 0.5 * ends


def _far_and_noisy(seed: int) -> tuple[nn.Module, Batches]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(16, 6, generator=generator)
        return x, 3 + x[:, :1] + torch.sin(2 * x[:, 1:2]) + torch.randn(16, 1, generator=generator)

    return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1)), batch


@pytest.mark.parametrize("seed", range(3))
def test_a_rate_far_too_low_is_told_through_the_noise_and_a_sound_one_is_not(seed: int) -> None:
    assert said(fit(*_far_and_noisy(seed), F.mse_loss, sgd(1.5e-4), 384))[:1] == ["lr-too-low"]
    assert not said(fit(*_far_and_noisy(seed), F.mse_loss, sgd(1e-2), 384))


def test_targets_far_away_need_longer_steps_though_weights_have_moved() -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 6, generator=generator)
        return x, 2e5 + 5e4 * x[:, :1]

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    found = fit(model, batch, F.mse_loss, lambda m: torch.optim.Adam(m.parameters(), 1e-3), 300)
    assert said(found)[0] == "lr-too-low"


def test_momentum_that_swings_at_a_standstill_leaves_no_slope() -> None:
    generator = torch.Generator().manual_seed(3)

    def batch() -> tuple[Tensor, Tensor]:
        x = 2 * torch.rand(32, 2, generator=generator) - 1
        return x, (x[:, 0] * x[:, 1] > 0).long()

    torch.manual_seed(0)
    found = fit(nn.Linear(2, 2), batch, lambda z, y: F.cross_entropy(z, y), sgd(0.1, 0.9), 500)
    assert said(found)[0] == "underfitting"


def test_no_slope_is_seen_in_swings_and_one_is_in_steps_downhill() -> None:
    recording = descend(0.01, 600, momentum=0.9, noise=0.5)
    e = evidence_of(recording, 0)
    swings = {**recording.series}
    steps = np.arange(0, 600, 8)
    swings[signals.PROGRESS.name, 0] = Series(steps, np.where(np.arange(len(steps)) % 2, 1.0, -0.9))
    swings[signals.COSINE.name, 0] = Series(steps, np.full(len(steps), 0.7))
    other = evidence_of(replace(recording, series=swings), 0)
    assert other.promised_late < 0.5
    assert not other.sloped
    assert e.promised_late > 0.5
