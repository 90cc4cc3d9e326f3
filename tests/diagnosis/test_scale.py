"""Scales of inputs, initial weights and gradients: sick trainings, and sound ones that look like them from inside."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trained import Batches, adam, blobs, fit, mlp, recorded, said, sgd, suspected

from gradwise.diagnosis.case import Case
from gradwise.diagnosis.causes import weigh
from gradwise.diagnosis.depth import looks_of
from gradwise.diagnosis.evidence import evidence_of
from gradwise.diagnosis.findings import Diagnosis
from gradwise.diagnosis.gradients import disparity_sources
from gradwise.diagnosis.hypotheses import Hypothesis

IDS = {
    "unnormalized-inputs", "bad-initialization", "vanishing-gradients", "exploding-gradients",
    "gradient-scale-disparity", "dead-units", "saturated-activations", "stuck-at-saddle",
}  # fmt: skip


def silent(diagnosis: Diagnosis) -> bool:
    """No finding at all, and no suspicion of this kind."""
    return not diagnosis.findings and not IDS & set(suspected(diagnosis))


# inputs


def scaled(batches: Batches, factor: Tensor) -> Batches:
    def batch() -> tuple[Tensor, Tensor]:
        x, y = batches()
        return x * factor, y

    return batch


def test_features_of_very_different_scale_under_one_rate() -> None:
    factor = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 800.0])
    found = fit(mlp(8, 32, 4), scaled(blobs(), factor), F.cross_entropy, sgd(0.05))
    assert said(found)[0] == "unnormalized-inputs"
    first = found.findings[0]
    assert first.where.parameter == "0.weight"
    assert "standardize" in first.remedies[0].intervention.fixes
    assert first.evidence["largest_input_size"] > 100


@pytest.mark.parametrize(("size", "suspects"), [(1e4, True), (1.0, False)])
def test_inputs_that_shut_the_first_layer_under_a_loss_written_by_hand(size: float, suspects: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(40, 5, generator=generator)
        return size * (x + 3.0 * (size > 1)), x[:, :1] + torch.sin(x[:, 1:2])

    found = fit(mlp(5, 32, 1, activation=nn.Tanh), batch, lambda z, y: (z - y).pow(2).mean(), sgd(0.01, 0.9))
    assert ("unnormalized-inputs" in suspected(found) + said(found)) == suspects


def test_large_inputs_that_train_well() -> None:
    """Adam does not care for the gradients' scale, and the task is easy."""
    found = fit(mlp(8, 32, 4), scaled(blobs(), torch.full((8,), 50.0)), F.cross_entropy, adam(3e-3))
    assert silent(found)


def test_large_inputs_that_are_normalized_first() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), *mlp(8, 32, 4))
    noise = blobs(spread=8.0)  # classes overlap: the loss stays high
    assert silent(fit(model, scaled(noise, torch.full((8,), 500.0)), F.cross_entropy, sgd(0.05)))


def test_hard_tasks_on_sound_inputs() -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 10, generator=generator)
        return x, (x[:, 0] + 4 * torch.randn(64, generator=generator) > 0).long()

    assert silent(fit(mlp(10, 16, 2), batch, F.cross_entropy, sgd(0.02)))


def test_one_of_many_is_no_small_input() -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        i = torch.randint(0, 3000, (64,), generator=generator)
        return F.one_hot(i, 3000).float(), torch.randint(0, 3, (64,), generator=generator)

    found = fit(mlp(3000, 8, 3), batch, F.cross_entropy, sgd(0.1), steps=60)
    assert "unnormalized-inputs" not in said(found) + suspected(found)


# initial weights


def drawn(model: nn.Module, std: float) -> nn.Module:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
        else:
            nn.init.zeros_(parameter)
    return model


def test_weights_too_large() -> None:
    model = drawn(mlp(8, 64, 64, 64, 64, 4), 1.0)
    found = fit(model, blobs(classes=4, spread=4.0), F.cross_entropy, adam(1e-4), steps=100)
    assert said(found)[0] == "bad-initialization"
    evidence = found.findings[0].evidence
    assert evidence["first_loss_over_a_guess"] > 30
    assert evidence["weight_times_root_fan_in"] > 3
    assert found.findings[0].remedies[0].intervention.init == "he"


def test_weights_too_small() -> None:
    found = fit(drawn(mlp(8, 32, 32, 32, 4), 0.01), blobs(), F.cross_entropy, sgd(0.05))
    assert said(found)[0] == "bad-initialization"
    assert found.findings[0].evidence["signal_factor_per_layer"] < 0.2


@pytest.mark.parametrize("init", ["he", "default"])
def test_weights_drawn_soundly(init: str) -> None:
    model = mlp(8, 32, 32, 32, 4)
    if init == "he":
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
    assert silent(fit(model, blobs(), F.cross_entropy, sgd(0.05)))


def test_units_that_begin_equal() -> None:
    model = mlp(8, 16, 4)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    found = fit(model, blobs(), F.cross_entropy, sgd(0.05))
    assert said(found)[0] == "stuck-at-saddle"
    assert found.findings[0].where.parameter == "0.weight"
    assert "break-symmetry" in found.findings[0].remedies[0].intervention.fixes


def test_zeros_that_are_meant() -> None:
    """A last layer of zeros, a residual branch that begins as nothing, a linear model from zero."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.inner, self.out, self.head = (
                nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4),
            )  # fmt: skip
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.head(x + self.out(torch.relu(self.inner(x))))

    linear = nn.Linear(8, 4)
    nn.init.zeros_(linear.weight)
    for model in (Residual(), linear):
        assert silent(fit(model, blobs(), F.cross_entropy, sgd(0.05)))


# gradients


def test_gradients_die_in_a_deep_net_of_sigmoids() -> None:
    model = mlp(8, *[16] * 7, 4, activation=nn.Sigmoid)
    found = fit(model, blobs(), F.cross_entropy, sgd(0.1))
    assert said(found)[0] == "vanishing-gradients"
    first = found.findings[0]
    assert first.where.parameter == "0.weight"
    assert first.evidence["gradient_input_over_output"] < 1e-3
    assert first.remedies[0].intervention.activation == "relu"


def test_gradients_that_differ_in_a_net_that_learns() -> None:
    """Two sigmoid layers with their weights scaled down pass on less than a thousandth, which is enough for Adam."""
    model = mlp(8, 16, 16, 16, 4, activation=nn.Tanh)
    with torch.no_grad():
        for layer in (model[2], model[4], model[6]):
            layer.weight.mul_(0.15)
    assert silent(fit(model, blobs(), F.cross_entropy, adam(1e-2)))


class Recall(nn.Module):
    """Reads a sequence, and tells its first entry from the last state."""

    def __init__(self, scale: float, kind: str = "tanh", hidden: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.out = nn.RNN(2, hidden, nonlinearity=kind), nn.Linear(hidden, 2)
        nn.init.orthogonal_(self.rnn.weight_hh_l0, gain=scale)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.rnn(x)[0][-1])
        return out


def sequences(length: int) -> Batches:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(length, 32, 2, generator=generator)
        return x, (x[0, :, 0] > 0).long()

    return batch


def test_gradients_die_over_a_long_sequence() -> None:
    found = fit(Recall(0.4), sequences(25), F.cross_entropy, adam(1e-3), steps=60)
    assert said(found)[0] == "vanishing-gradients"
    assert found.findings[0].where.parameter == "rnn.weight_hh_l0"


def test_what_a_recurrence_forgets_without_harm() -> None:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(25, 32, 2, generator=generator)
        return x, (x[-1, :, 0] > 0).long()

    assert silent(fit(Recall(0.4), batch, F.cross_entropy, adam(2e-2), steps=80))


def test_gradients_grow_over_a_long_sequence() -> None:
    found = fit(Recall(2.0, "relu"), sequences(30), F.cross_entropy, sgd(0.01), steps=60)
    causes = said(found)
    assert "exploding-gradients" in causes or "exploding-gradients" in found.findings[0].evidence["explains"]


class Curve(nn.Module):
    """a·exp(-k·t) with parameters in different units."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.k = nn.Parameter(torch.tensor(300.0)), nn.Parameter(torch.tensor(0.5))

    def forward(self, t: Tensor) -> Tensor:
        return self.a * torch.exp(-self.k * t)


def decay() -> tuple[Tensor, Tensor]:
    t = torch.rand(64)
    return t, 500 * torch.exp(-0.9 * t) + torch.randn(64)


def test_one_rate_for_parameters_of_different_units() -> None:
    torch.manual_seed(0)
    found = fit(Curve(), decay, F.mse_loss, sgd(1e-5), steps=400)
    assert said(found)[0] == "gradient-scale-disparity"
    first = found.findings[0]
    assert first.where.parameter == "a"
    assert first.remedies[0].intervention.rule == "adam"
    assert first.evidence["ratio_for_their_lengths"] > 1000


def test_biases_before_batch_normalization_get_no_gradient_and_need_none() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    assert silent(fit(model, blobs(), F.cross_entropy, sgd(0.1)))


def test_evidence_is_finite() -> None:
    found = fit(drawn(mlp(8, 64, 64, 64, 4), 1.0), blobs(), F.cross_entropy, sgd(10.0), steps=60)
    for finding in (*found.findings, *found.suspicions):
        assert all(math.isfinite(v) for v in finding.evidence.values() if isinstance(v, float))


# what is made of it


def items(diagnosis: Diagnosis) -> dict[str, tuple[str, bool | None]]:
    return {item.topic: (item.found, item.ok) for item in diagnosis.checklist}


def test_the_checklist_tells_of_inputs_and_weights() -> None:
    """C7: the four things to go through, each with what was found."""
    found = fit(drawn(mlp(8, 64, 64, 64, 64, 4), 1.0), blobs(spread=4.0), F.cross_entropy, adam(1e-4), steps=60)
    text, ok = items(found)["weight initialization"]
    assert not ok
    assert "a uniform guess makes 1.39" in text
    assert "changes the signal" in text
    assert items(found)["input normalization"][1]

    factor = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 800.0])
    found = fit(mlp(8, 32, 4), scaled(blobs(), factor), F.cross_entropy, sgd(0.05), steps=60)
    text, ok = items(found)["input normalization"]
    assert not ok
    assert "one feature is of size" in text


def test_the_checklist_of_a_model_that_normalizes_first() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), *mlp(8, 32, 4))
    found = fit(model, scaled(blobs(), torch.full((8,), 500.0)), F.cross_entropy, sgd(1e-9), steps=60)
    assert items(found)["input normalization"] == (items(found)["input normalization"][0], True)


@pytest.mark.parametrize("initial", [False, True])
def test_what_was_so_before_the_first_step_no_rate_explains(initial: bool) -> None:
    dead = Hypothesis("dead-units", 0.7, "warning", "", initial=initial)
    high = Hypothesis("lr-too-high", 0.95, "error", "")
    assert [h.id for h in weigh([dead, high])] == ["dead-units" if initial else "lr-too-high"]


def test_what_was_so_before_the_first_step_explains_a_rate_that_seems_too_high() -> None:
    vanished = Hypothesis("vanishing-gradients", 0.7, "warning", "", initial=True)
    high = Hypothesis("lr-too-high", 0.95, "error", "")
    (root,) = weigh([vanished, high])
    assert root.id == "vanishing-gradients"
    assert root.evidence["explains"] == ["lr-too-high"]


def test_the_sources_of_disparity_are_told_apart() -> None:
    """C11: (a) input scale, (b) depth, (c) weights against biases."""

    def sources(model: nn.Module, batches: Batches) -> dict[str, float]:
        def training() -> None:
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
            for _ in range(40):
                x, y = batches()
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

        recording = recorded(training)
        case = Case(recording, evidence_of(recording, 0))
        return disparity_sources(case, looks_of(case))

    plain = sources(mlp(8, 32, 32, 4), blobs())
    large = sources(mlp(8, 32, 32, 4), scaled(blobs(), torch.full((8,), 1000.0)))
    deep = sources(mlp(8, *[16] * 6, 4, activation=nn.Sigmoid), blobs())
    assert large["input_scale"] > 100 * plain["input_scale"] > 100
    assert deep["depth"] > 100 * plain["depth"]
    assert 0.05 < plain["weight_over_bias"] < 2 < large["weight_over_bias"]
