"""Initial weights, hidden layers and inputs changed from outside, against models edited by hand."""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from changing import SEED, Net, adam, changed, data, net, sgd, stack, train
from torch import nn
from torch.nn import functional as F

from gradwise.trials.changes.base import Stage


def drawn(purpose: str) -> torch.Generator:
    """The random numbers that a trial uses for a purpose."""
    return Stage(torch, None, None, SEED).generator(purpose)  # type: ignore[arg-type]


class Hand(nn.Module):
    """`Net` or `stack` with other activations and with something after them."""

    def __init__(self, layers: list[nn.Linear], act=F.relu, then=lambda k, h: h) -> None:
        super().__init__()
        self.layers, self.act, self.then = nn.ModuleList(layers), act, then

    def forward(self, x):
        *hidden, out = self.layers
        for k, layer in enumerate(hidden):
            x = self.then(k, self.act(layer(x)))
        return out(x)


def by_hand(make, **more) -> Hand:
    return Hand([m for m in make().modules() if isinstance(m, nn.Linear)], **more)


MODELS = pytest.mark.parametrize("make", [net, stack], ids=["functional", "modules"])


# initial weights


@MODELS
@pytest.mark.parametrize("kind", ["he", "xavier"])
def test_weights_drawn_anew(make, kind):
    generator, edited = drawn("init"), make()
    for layer in (m for m in edited.modules() if isinstance(m, nn.Linear)):
        if kind == "he":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        else:
            nn.init.xavier_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    expected = train(edited, sgd(edited))
    with changed(init=kind) as run:
        model = make()
        before = torch.get_rng_state()
        optimizer = sgd(model)
        assert torch.equal(torch.get_rng_state(), before)
        assert train(model, optimizer) == pytest.approx(expected, rel=1e-6)
    assert not run.refused


@MODELS
def test_a_small_last_layer(make):
    edited = make()
    last = [m for m in edited.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
    expected = train(edited, adam(edited))
    with changed(init="small-last"):
        model = make()
        assert train(model, adam(model)) == expected


def test_what_the_script_fills_later_is_drawn_anew_all_the_same():
    with changed(init="he"):
        model = net()
        optimizer = sgd(model)
        for p in model.parameters():
            nn.init.constant_(p, 7.0)
        train(model, optimizer, 1)
    assert model.one.weight.std() > 0.1


@pytest.mark.parametrize("late", [False, True])
def test_loaded_weights_are_no_initial_ones(late):
    trained = net(5).state_dict()
    with changed(init="he") as run:
        model = net()
        if not late:
            model.load_state_dict(trained)
        optimizer = sgd(model)
        if late:
            model.load_state_dict(trained)
        train(model, optimizer, 1)
    assert "loaded" in run.refused


def test_a_script_without_optimizer():
    with changed(init="he"):
        model = net()
        model(data()[0])
        assert not model.one.bias.any()


def test_bare_tensors_have_no_layers_to_draw():
    w = torch.randn(5, 3, requires_grad=True)
    with changed(init="he") as run:
        optimizer = torch.optim.SGD([w], lr=0.1)
        x, y = data()
        F.cross_entropy(x @ w, y).backward()
        optimizer.step()
    assert "no Linear" in run.refused


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_symmetry_is_broken(value):
    with changed(fixes=["break-symmetry"]) as run:
        model = net()
        for p in model.parameters():
            nn.init.constant_(p, value)
        optimizer = sgd(model)
        noise = model.one.weight - value
        assert model.one.weight.unique().numel() == 40
        expected = 1 / math.sqrt(5) if value == 0.0 else 0.05
        assert 0.7 * expected < noise.std() < 1.4 * expected
        assert (model.one.bias == value).all()
        train(model, optimizer, 1)
    assert not run.refused


# hidden layers


@MODELS
@pytest.mark.parametrize("name", ["gelu", "tanh", "leaky_relu"])
def test_another_activation(make, name):
    edited = by_hand(make, act=getattr(F, name))
    expected = train(edited, sgd(edited))
    with changed(activation=name) as run:
        model = make()
        before = torch.get_rng_state()
        losses = train(model, sgd(model))
        assert torch.equal(torch.get_rng_state(), before)
        assert losses == pytest.approx(expected, rel=1e-6)
        with torch.no_grad():
            assert torch.allclose(copy.deepcopy(model)(data()[0]), edited(data()[0]))
    assert not run.refused


class Gated(nn.Module):
    """Gates, an output activation, and one hidden layer among them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.gate, self.out = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x, act=None):
        h = (act or torch.tanh)(self.one(x))
        h = h * torch.sigmoid(self.gate(h))
        return torch.sigmoid(self.out(h))


def test_gates_and_outputs_keep_their_activation():
    x = data()[0]
    with changed(activation="relu"):
        torch.manual_seed(0)
        model = Gated()
        out = model(x)
    # What `one` gives goes into the gate's layer, so it is hidden; the gate and the output are not.
    assert torch.equal(out, model(x, act=torch.relu))


def test_lstm_cells_written_by_hand_are_left_alone():
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Linear(7, 8)
            self.out = nn.Linear(2, 3)

        def forward(self, x):
            h = c = torch.zeros(len(x), 2)
            for _ in range(3):
                i, f, o, g = self.both(torch.cat([x, h], 1)).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            return self.out(h)

    with changed(activation="relu") as run:
        torch.manual_seed(0)
        model = Cell()
        changed_out = model(data()[0])
        train(model, sgd(model), 1)
    assert torch.equal(changed_out, run_plain(Cell))
    assert "no" in run.refused or "none" in run.refused


def run_plain(kind) -> torch.Tensor:
    torch.manual_seed(0)
    return kind()(data()[0])


def test_finding_the_activations_leaves_no_trace():
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    edited = make()
    expected, after = train(edited, sgd(edited)), torch.rand(1)
    random.seed(0)
    number = random.random()
    with changed(activation="relu") as run:
        model = make()
        random.seed(0)
        assert train(model, sgd(model)) == expected
        assert (random.random(), torch.rand(1)) == (number, after)
    assert model[1].num_batches_tracked == 6
    assert not run.refused  # it has that one already: a search may ask for what is there


def test_transformers_hidden_layers_are_found():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 8)
    expected = copy.deepcopy(layer)
    expected.activation = F.gelu
    with changed(activation="gelu"):
        torch.manual_seed(0)
        model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        out = model(x)
        model.eval()
        with torch.no_grad():
            assert torch.allclose(model(x), expected(x), atol=1e-6)
    assert torch.allclose(out, expected(x), atol=1e-6)


@MODELS
def test_batch_normalization_inserted(make):
    norms = nn.ModuleList([nn.BatchNorm1d(8), nn.BatchNorm1d(8)])
    edited = by_hand(make, then=lambda k, h: norms[k](h))
    edited.norms = norms
    expected = train(edited, adam(edited))
    edited.eval()
    with changed(fixes=["batch-norm"]) as run:
        model = make()
        optimizer = adam(model)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
        assert train(model, optimizer) == pytest.approx(expected, rel=1e-5)
        scheduler.step()
        model.eval()
        with torch.no_grad():
            assert torch.allclose(model(data()[0]), edited(data()[0]), atol=1e-5)
        assert list(model.state_dict()) == list(make().state_dict())
    assert not run.refused


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.NAdam])
def test_any_optimizer_takes_what_was_inserted(kind):
    with changed(fixes=["batch-norm"]):
        model = net()
        optimizer = kind(model.parameters(), lr=0.01)
        train(model, optimizer)
        assert len(optimizer.param_groups[0]["params"]) == 10


def test_batch_normalization_of_channels():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.Linear(16, 2)
    images = torch.randn(6, 1, 4, 4)
    expected = layers[1](nn.BatchNorm2d(4)(layers[0](images).relu()).flatten(1))
    with changed(fixes=["batch-norm"]):
        model = nn.Sequential(layers[0], nn.ReLU(), nn.Flatten(), layers[1])
        out = model(images)
    assert torch.allclose(out, expected, atol=1e-5)


@MODELS
def test_dropout_inserted(make):
    generator = drawn("dropout")

    def drop(k, h):
        return h * torch.empty_like(h).bernoulli_(0.75, generator=generator) / 0.75

    edited = by_hand(make, then=drop)
    expected = train(edited, sgd(edited))
    with changed(dropout=0.25):
        model = make()
        assert train(model, sgd(model)) == pytest.approx(expected, rel=1e-5)
        model.eval()
        plain = make()
        plain.load_state_dict(model.state_dict())
        assert torch.equal(model(data()[0]), run_eval(plain))


def run_eval(model) -> torch.Tensor:
    h = data()[0]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return linear[2](linear[1](linear[0](h).relu()).relu())


class Dropping(Net):
    def forward(self, x):
        return self.out(F.dropout(torch.relu(self.two(torch.relu(self.one(x)))), self.p, self.training))


@pytest.mark.parametrize("scale", [0.5, 0.0])
@pytest.mark.parametrize("functional", [False, True])
def test_dropout_scaled(scale, functional):
    def make(p):
        if functional:
            torch.manual_seed(0)
            model = Dropping()
            model.p = p
            return model
        return stack(0, nn.Dropout(p))

    edited = make(0.6 * scale)
    if scale:
        torch.manual_seed(7)
        expected = train(edited, sgd(edited))
    else:
        expected = train(edited, sgd(edited))
    untouched = make(0.6)
    torch.manual_seed(7)
    train(untouched, sgd(untouched))
    after = torch.rand(1)
    with changed(dropout_scale=scale) as run:
        model = make(0.6)
        optimizer = sgd(model)
        torch.manual_seed(7)
        assert train(model, optimizer) == pytest.approx(expected, rel=1e-6)
        assert torch.equal(torch.rand(1), after)
    assert not run.refused


def test_dropout_of_recurrent_layers_is_scaled_too():
    with changed(dropout_scale=0.0):
        torch.manual_seed(0)
        model = nn.GRU(5, 4, num_layers=2, dropout=0.9)
        x = torch.randn(3, 2, 5)
        assert torch.equal(model(x)[0], model(x)[0])
        assert model.dropout == 0.9


# inputs


@MODELS
def test_inputs_standardized_in_training_and_validation(make):
    x, _ = data(2000)
    mean, spread = x.mean(0), x.std(0, correction=0)

    def batches(step):
        return data(2000) if step == 0 else data(seed=step)

    edited = make()
    expected = train(edited, sgd(edited), batches=lambda step: ((batches(step)[0] - mean) / spread, batches(step)[1]))
    with changed(fixes=["standardize"]) as run:
        model = make()
        assert train(model, sgd(model), batches=batches) == pytest.approx(expected, rel=1e-4)
        with torch.no_grad():
            out = model(data(seed=99)[0])
    assert torch.allclose(out, edited((data(seed=99)[0] - mean) / spread), atol=1e-4)
    assert not run.refused


def test_a_feature_that_never_changes_is_only_centred():
    x = torch.ones(8, 5)
    with changed(fixes=["standardize"]):
        model = net()
        out = model(x)
    assert torch.allclose(out, model(torch.zeros(8, 5)))


def test_what_a_model_makes_is_no_input():
    """Of an encoder and a decoder that the script calls one after the other, only the first is given data."""
    x = data(2000)[0]
    with changed(fixes=["standardize"]):
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(5, 2), nn.Linear(2, 5)
        out = decoder(encoder(x).detach() + 5)
    expected = decoder(encoder((x - x.mean(0)) / x.std(0, correction=0)) + 5)
    assert torch.allclose(out, expected, atol=1e-4)


def test_channels_of_images():
    images = 3 * torch.randn(400, 2, 4, 4) + torch.tensor([1.0, 9.0]).reshape(2, 1, 1)
    with changed(fixes=["standardize"]):
        torch.manual_seed(0)
        model = nn.Conv2d(2, 1, 1)
        out = model(images)
    mean, spread = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), correction=0, keepdim=True)
    assert torch.allclose(out, model((images - mean) / spread), atol=1e-4)


@MODELS
def test_noise_in_units_of_each_features_spread(make):
    generator, (x, y) = drawn("input noise"), data(2000)
    spread = x.std(0, correction=0)
    edited = make()
    expected = train(
        edited, sgd(edited), 3,
        batches=lambda _: (x + 0.3 * spread * torch.empty_like(x).normal_(generator=generator), y),
    )  # fmt: skip
    with changed(noise=0.3):
        model = make()
        assert train(model, sgd(model), 3, batches=lambda _: (x, y)) == pytest.approx(expected, rel=1e-4)
        with torch.no_grad():
            model.eval()
            assert torch.equal(model(x), model(x))


@MODELS
def test_inputs_cleaned(make):
    def batches(step, clean):
        x, y = data(seed=step)
        x[0, 1], x[3, 2], x[4, 0] = (0.0, 0.0, 0.0) if clean else (math.nan, math.inf, -math.inf)
        return x, y

    edited = make()
    expected = train(edited, sgd(edited), batches=lambda step: batches(step, True))
    with changed(fixes=["clean-inputs"]) as run:
        model = make()
        assert train(model, sgd(model), batches=lambda step: batches(step, False)) == expected
    assert not run.refused


@pytest.mark.parametrize("fix", ["standardize", "clean-inputs"])
def test_bare_tensors_have_no_door_to_stand_at(fix):
    w = torch.randn(5, 3, requires_grad=True)
    with changed(fixes=[fix]) as run:
        optimizer = torch.optim.SGD([w], lr=0.1)
        x, y = data()
        F.cross_entropy(x @ w, y).backward()
        optimizer.step()
    assert run.refused == "the script hands no real-valued data to a module"


def test_tokens_are_no_measurements():
    with changed(fixes=["standardize"]) as run:
        model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3))
        tokens = torch.arange(72).reshape(24, 3) % 9
        train(model, sgd(model), 1, batches=lambda _: (tokens, data()[1]))
    assert "real-valued" in run.refused
