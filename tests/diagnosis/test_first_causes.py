"""Which of two causes that look alike comes first: small trainings whose fault is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from descent import recording_of
from torch import Tensor, nn
from trained import adam, blobs, fit, mlp, recorded, said, sgd, suspected

from gradwise.diagnosis import diagnose
from gradwise.diagnosis.findings import Diagnosis
from gradwise.recording import signals
from gradwise.recording.recording import Event, Recording, Series


class Block(nn.Module):
    def __init__(self, width: int, gain: float, branch: float) -> None:
        super().__init__()
        self.first, self.second, self.branch = nn.Linear(width, width), nn.Linear(width, width), branch
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=gain / width**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch * self.second(torch.relu(self.first(x)))


def tower(gain: float, branch: float = 1.0, depth: int = 8) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 48), *[Block(48, gain, branch) for _ in range(depth)], nn.Linear(48, 4))


def test_sound_weights_that_add_up_over_residual_blocks_are_the_depths_doing() -> None:
    found = fit(tower(2**0.5), blobs(spread=0.3), F.cross_entropy, sgd(0.05))
    assert said(found)[0] == "exploding-gradients"
    assert found.findings[0].evidence["input_of_last_layer_over_first"] > 10


def test_weights_that_are_too_large_themselves_are_the_initializations() -> None:
    found = fit(tower(4.0), blobs(spread=0.3), F.cross_entropy, sgd(0.05))
    assert said(found)[0] == "bad-initialization"


def test_scaled_branches_are_sound() -> None:
    assert not said(fit(tower(2**0.5, 0.2), blobs(spread=0.3), F.cross_entropy, sgd(0.05)))


def _large_last(steps: int, lr: float, size: float) -> Diagnosis:
    model = mlp(8, 64, 12, seed=2)
    with torch.no_grad():
        model[2].weight.mul_(size)
    hard = blobs(classes=12, spread=2.5, seed=4)

    def small() -> tuple[Tensor, Tensor]:
        x, y = hard()
        return x / 4, y

    return fit(model, small, F.cross_entropy, adam(lr), steps)


def test_a_wrong_start_that_costs_steps_the_run_would_have_needed() -> None:
    found = _large_last(150, 3e-3, 100)
    assert said(found)[0] == "bad-initialization"
    assert found.findings[0].evidence["share_of_run_above_a_guess"] > 0.1


def test_a_wrong_start_that_is_forgotten_by_the_end() -> None:
    assert "bad-initialization" not in said(_large_last(1500, 1e-2, 40))


def _stuck(travel: float, promise: float) -> Recording:
    """Ten classes that neighbours tell apart and the net does not: the loss ends at nine tenths of knowing nothing."""
    rng = np.random.default_rng(0)
    steps, looks = np.arange(300), np.arange(0, 300, 8)
    losses = 2.05 + 8 * np.exp(-steps / 6) * (steps > 0) + 0.1 * rng.standard_normal(300)
    losses[0] = 2.31
    told = {
        signals.LOSS: list(zip(steps.tolist(), losses.tolist(), strict=True)),
        signals.TIME: [(t, 1e-3 * t) for t in range(300)],
        **{s: [(t, 1.0) for t in looks.tolist()] for s in (signals.PARAMETER, signals.GRADIENT)},
        signals.UPDATE: [(t, 0.02) for t in looks.tolist()],
        signals.PROGRESS: [(t, promise) for t in looks.tolist()],
        signals.TRAVEL: [(t, travel * t / 300) for t in looks.tolist()],
        signals.KEPT: [(t + 1, -0.1 * promise) for t in looks.tolist()],
    }
    recording = recording_of({signal.name: points for signal, points in told.items()})
    classes = Series(steps[:60], rng.multinomial(32, [0.1] * 10, 60).astype(float), tuple("0123456789"))
    events = (
        Event("targets", 0, 0, {"loss": "cross_entropy", "classes": 10, "width": 1, "plain": True}),
        Event("pairs", 0, 299, {"rows": 400, "classes": 10, "chance": 0.12, "neighbours": 0.95, "linear": 0.9}),
    )
    series = {**recording.series, (signals.CLASSES.name, 0): classes}
    return replace(recording, series=series, events=events)


def test_steps_that_throw_the_weights_away_are_no_lack_of_capacity() -> None:
    thrown = diagnose(_stuck(travel=10.0, promise=20.0))
    assert said(thrown)[0] == "lr-too-high"
    assert thrown.findings[0].evidence["loss_of_simple_predictor"] < 1
    # Inputs of a wrong scale would make the steps that long: no one run tells the two apart.
    recording = _stuck(travel=10.0, promise=20.0)
    raw = Event("input", 0, 0, {"usual": 80.0, "largest": 250.0, "samples": 400, "features": 64, "rms": 80.0})
    assert "lr-too-high" not in said(diagnose(replace(recording, events=(*recording.events, raw))))
    recording = _stuck(travel=0.5, promise=1e-3)
    assert said(diagnose(recording))[:1] == ["underfitting"]
    unseen = {key: series for key, series in recording.series.items() if key[0] != signals.KEPT.name}
    assert not said(diagnose(replace(recording, series=unseen)))


def test_not_finite_out_of_the_blue_is_no_running_off() -> None:
    """A distance of exactly zero has no gradient."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def training() -> None:
        for step in range(80):
            x = torch.randn(32, 6, generator=generator)
            other = x if step == 16 else x + 0.3 * torch.randn(32, 6, generator=generator)
            loss = ((model(x) - model(other)) ** 2).sum(1).sqrt().mean() + torch.rand((), generator=generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert said(diagnose(recorded(training)))[0] == "non-finite-loss"


def _two_numbers(related: bool) -> Diagnosis:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(600, 6, generator=generator)
    y = torch.stack([x[:, 0] + x[:, 1], x[:, 2]], dim=1) + 0.3 * torch.randn(600, 2, generator=generator)
    if not related:
        y = y[torch.randperm(600, generator=generator)]
    model = mlp(6, 48, 2)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def training() -> None:
        for _ in range(30):
            for rows in torch.randperm(450, generator=generator).split(30):
                optimizer.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                F.mse_loss(model(x[450:]), y[450:])

    return diagnose(recorded(training))


def test_targets_of_several_numbers_that_belong_to_other_rows() -> None:
    found = _two_numbers(related=False)
    assert said(found)[0] == "labels-mismatched"
    assert found.findings[0].evidence["columns"] == 2


def test_targets_of_several_numbers_that_belong() -> None:
    found = _two_numbers(related=True)
    assert "labels-mismatched" not in said(found) + suspected(found)


def test_weights_under_a_strong_penalty_show_in_two_looks() -> None:
    """On a busy machine a short run is hardly looked at; what is left of its weights shows all the same."""
    batches, model = blobs(spread=0.5), mlp(8, 32, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.5)

    def training() -> None:
        for _ in range(300):
            x, y = batches()
            optimizer.zero_grad()
            F.cross_entropy(model(x / 4), y).backward()
            optimizer.step()

    recording = recorded(training)
    looked = {s.name for s in (signals.PARAMETER, signals.UPDATE, signals.TRAVEL, signals.GRADIENT, signals.PULL)}
    few = {
        key: Series(s.steps[[0, -1]], s.values[[0, -1]], s.labels) if key[0] in looked and len(s) > 2 else s
        for key, s in recording.series.items()
    }
    assert said(diagnose(recording))[0] == "over-regularized"
    assert said(diagnose(replace(recording, series=few)))[0] == "over-regularized"
