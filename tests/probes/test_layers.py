"""What examinations see of layers and activations, beside what torch itself says of them."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from watching import batch, mlp, watched

Loss = Callable[[], Tensor]


def examined(model: nn.Module, loss: Loss, steps: int = 2, lr: float = 0.0) -> list[dict[str, Any]]:
    """The events of a training that changes nothing (unless `lr` says so)."""
    with watched() as seen:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    return [dict(event.data) for event in seen.recording.happened("layers")]


def units(event: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["layer"]: entry for entry in event["units"]}


def test_layers_in_forward_order_with_scale_spread_and_gradient() -> None:
    x, y = batch(rows=40)
    model = mlp()
    (event,) = examined(model, lambda: F.cross_entropy(model(x * 3 + 1), y))
    first, last = event["layers"]
    assert [first["name"], first["bias"], last["name"]] == ["0.weight", "0.bias", "2.weight"]
    assert [first["depth"], last["depth"]] == [1, 2]
    assert [first["raw"], last["raw"]] == [True, False]
    for entry, given in ((first, x * 3 + 1), (last, model[1](model[0](x * 3 + 1)))):
        assert entry["rms"] == pytest.approx(float(given.detach().square().mean().sqrt()), rel=1e-4)
        assert entry["spread"] == pytest.approx(float(given.detach().var(0, correction=0).mean().sqrt()), rel=1e-4)
    out = model[0](x * 3 + 1)
    out.retain_grad()
    F.cross_entropy(model[2](model[1](out)), y).backward()
    assert out.grad is not None
    assert first["gradients"] == [pytest.approx(float(out.grad.norm()), rel=1e-4)]


def test_a_recurrence_is_one_layer_called_ever_deeper() -> None:
    torch.manual_seed(0)
    rnn, head = nn.RNN(3, 8), nn.Linear(8, 1)
    model = nn.ModuleList([rnn, head])
    x = torch.randn(30, 4, 3)
    (event,) = examined(model, lambda: head(rnn(x)[0][-1]).square().mean())
    entries = {entry["name"]: entry for entry in event["layers"]}
    again = entries["0.weight_hh_l0"]
    assert again["calls"] == 30
    assert again["deepest"] - again["depth"] == 29
    gradients = again["gradients"]
    assert gradients == sorted(gradients)
    assert gradients[0] < 1e-4 * gradients[-1]
    assert entries["0.weight_ih_l0"]["calls"] == 1
    assert entries["1.weight"]["depth"] == 31


def test_units_that_never_fire() -> None:
    x, y = batch(rows=64)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias[:6] = -100.0
        model[0].bias[6:] = 100.0
    events = examined(model, lambda: F.cross_entropy(model(x), y), steps=90)
    assert len(events) >= 3
    entry = units(events[0])["0.weight"]
    assert entry["units"] == 8
    assert entry["hidden"]
    assert [entry["silent"], entry["never"], entry["dead"]] == [0.75, 0.75, 0.0]
    assert entry["flat"] == pytest.approx(0.75)
    entry = units(events[2])["0.weight"]
    assert [entry["silent"], entry["never"], entry["dead"], entry["seen"]] == [0.75, 0.75, 0.75, 192]


def test_a_unit_that_fires_once_in_a_while_is_alive() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    calls = []

    def loss() -> Tensor:
        calls.append(1)
        x = torch.full((20, 2), -1.0)
        x[:, len(calls) % 2] = 1.0
        return model(x).square().mean()

    events = examined(model, loss, steps=300)
    seen = [units(event)["0.weight"] for event in events]
    assert all(entry["silent"] == 0.5 for entry in seen)
    assert seen[-1]["never"] == 0.0


@pytest.mark.parametrize("inplace", [False, True])
def test_units_of_a_convolution_are_its_channels(inplace: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 2, 9, 9)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(4 * 49, 2))
    with torch.no_grad():
        model[0].bias[1:] = -100.0
        model[0].bias[0] = 100.0
    (event,) = examined(model, lambda: model(x).square().mean())
    assert units(event)["0.weight"]["silent"] == 0.75


@pytest.mark.parametrize(("activation", "far"), [(nn.Tanh(), 50.0), (nn.Sigmoid(), -50.0)])
def test_outputs_at_flat_ends(activation: nn.Module, far: float) -> None:
    x, y = batch(rows=64)
    model = nn.Sequential(nn.Linear(6, 10), activation, nn.Linear(10, 3))
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
        model[0].bias.zero_()
        model[0].bias[:3] = far
    (event,) = examined(model, lambda: F.cross_entropy(model(x), y))
    assert units(event)["0.weight"]["flat"] == pytest.approx(0.3)


def test_gates_and_outputs_are_told_from_hidden_activations() -> None:
    torch.manual_seed(0)

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value, self.drop = nn.Linear(4, 5), nn.Linear(4, 5), nn.Dropout(0.5)
            self.mix, self.out = nn.Linear(5, 5), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.sigmoid(self.gate(x)) * self.value(x)
            return torch.sigmoid(self.out(self.drop(torch.tanh(self.mix(x)))))

    model = Gated()
    x, y = torch.randn(16, 4), torch.rand(16, 1)
    (event,) = examined(model, lambda: F.binary_cross_entropy(model(x), y))
    seen = units(event)
    assert {name: (entry["hidden"], entry["gate"]) for name, entry in seen.items()} == {
        "gate.weight": (True, True),
        "mix.weight": (True, False),
        "out.weight": (False, False),
    }


def test_a_cell_written_by_hand_has_gates() -> None:
    cell = nn.LSTMCell(3, 4)
    head = nn.Linear(4, 1)

    def loss() -> Tensor:
        h = c = torch.zeros(5, 4)
        for _ in range(4):
            gates = torch.randn(5, 3) @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return head(h).square().mean()

    (event,) = examined(nn.ModuleList([cell, head]), loss)
    assert event["units"]
    assert all(entry["gate"] for entry in event["units"])


def test_what_follows_a_computed_weight_is_not_the_layer_before() -> None:
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 5))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), normed, nn.ReLU(), nn.Linear(5, 3))
    x, y = batch(rows=20)
    (event,) = examined(model, lambda: F.cross_entropy(model(x), y))
    assert list(units(event)) == ["0.weight"]
    assert units(event)["0.weight"]["seen"] == 20
    assert [entry["name"] for entry in event["layers"]] == ["0.weight", "4.weight"]


def test_not_a_number_is_not_silent() -> None:
    x, y = batch(rows=20)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    events = examined(model, lambda: F.cross_entropy(model(x * math.nan), y))
    assert [(u["silent"], u["flat"]) for u in events[0]["units"]] == [(0, 0)]


def test_equal_rows_and_columns() -> None:
    x, y = batch()
    model = mlp()
    nn.init.constant_(model[0].weight, 0.3)
    (event,) = examined(model, lambda: F.cross_entropy(model(x), y))
    first, last = event["layers"]
    assert first["rows_differ"] == first["columns_differ"] == 0.0
    assert last["rows_differ"] > 0 < last["columns_differ"]


def test_each_optimizer_of_a_cycle_is_seen() -> None:
    torch.manual_seed(0)
    one, two = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), nn.Linear(3, 2)
    with watched() as seen:
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (one, two)]
        for _ in range(3):
            for model, optimizer in zip((one, two), optimizers, strict=True):
                optimizer.zero_grad()
                model(torch.randn(7, 3)).square().mean().backward()
                optimizer.step()
    events = seen.recording.happened("layers")
    assert {event.source for event in events if event.data["number"] == 0} == {0, 1}
    assert [entry["name"] for entry in events[0].data["layers"]] == ["Sequential.0.weight", "Sequential.2.weight"]


def test_gradients_are_those_of_the_unwatched_script_and_nothing_stays_alive() -> None:
    x, y = batch()
    alive: list[weakref.ref[Tensor]] = []

    def gradients() -> list[Tensor]:
        model = mlp()
        hidden = model[1](model[0](x))
        alive.append(weakref.ref(hidden))
        loss = F.cross_entropy(model[2](hidden), y)
        loss.backward(retain_graph=True)
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    plain = gradients()
    with watched() as seen:
        of_watched = gradients()
        gc.collect()
        assert alive[-1]() is None
    assert all(torch.equal(a, b) for a, b in zip(plain, of_watched, strict=True))
    events = seen.recording.happened("layers")
    assert len(events[0].data["layers"][0]["gradients"]) == 1  # the second pass over the same graph adds nothing


def test_nothing_to_see_is_no_failure() -> None:
    empty = nn.Linear(3, 2)
    events = examined(empty, lambda: empty(torch.zeros(0, 3)).sum())
    assert "rms" not in events[0]["layers"][0]
    broken = mlp()
    (event,) = examined(broken, lambda: F.cross_entropy(broken(torch.full((4, 6), math.nan)), torch.zeros(4).long()))
    assert event["layers"][0]["rms"] is None
    scalar = nn.Parameter(torch.tensor(2.0))
    assert examined(nn.ParameterList([scalar]), lambda: scalar.square()) == []


@pytest.mark.parametrize("classes", [2, 10])
def test_the_first_loss_beside_a_guess_of_classes(classes: int) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, classes)
    x, y = torch.randn(50, 5), torch.randint(0, classes, (50,))
    y[:10] = -100
    (event,) = examined(model, lambda: 0.5 * F.cross_entropy(model(x), y) + 1.0)
    loss = event["loss"]
    assert loss["classes"] == classes
    assert loss["guess"] == pytest.approx(math.log(classes))
    assert loss["value"] == pytest.approx(float(F.cross_entropy(model(x), y)), rel=1e-5)


def test_the_first_loss_of_yes_and_no() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 1)
    x, y = torch.randn(50, 5), torch.rand(50, 1).round()
    (event,) = examined(model, lambda: F.binary_cross_entropy_with_logits(model(x), y))
    assert event["loss"]["value"] == pytest.approx(float(F.binary_cross_entropy_with_logits(model(x), y)), rel=1e-5)
    (event,) = examined(model, lambda: F.binary_cross_entropy(torch.sigmoid(model(x)), y))
    assert event["loss"]["value"] == pytest.approx(float(F.binary_cross_entropy_with_logits(model(x), y)), rel=1e-4)
    assert event["loss"]["guess"] == pytest.approx(math.log(2))


def huber(out: Tensor, target: Tensor) -> Tensor:
    return F.huber_loss(out, target, delta=0.5)


def smooth(out: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(out, target, beta=2.0)


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss, huber, smooth])
def test_the_first_loss_of_a_regression(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 1)
    x, y = torch.randn(50, 5), 3 * torch.randn(50, 1) + 20
    (event,) = examined(model, lambda: loss(model(x), y))
    found = event["loss"]
    assert found["value"] == pytest.approx(float(loss(model(x), y)), rel=1e-4)
    assert found["guess"] == pytest.approx(float(loss(y.mean().expand_as(y), y)), rel=1e-4)
    assert found["target"] == pytest.approx(float(y.square().mean().sqrt()), rel=1e-4)


def test_a_loss_written_by_hand_is_not_guessed_at() -> None:
    model = nn.Linear(5, 1)
    (event,) = examined(model, lambda: (model(torch.ones(4, 5)) - 2).abs().mean())
    assert "loss" not in event
