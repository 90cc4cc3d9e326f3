"""What loss functions are given, mended; and the record of the mended loss where training keeps its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from changing import Net, adam, changed, data, net, sgd, train
from torch import nn
from torch.nn import functional as F

from gradwise.interventions import Intervention

LOGITS, SHAPES = Intervention(fixes=("logits",)), Intervention(fixes=("match-shapes",))


class Squashed(Net):
    """A classifier that ends in what its loss applies by itself."""

    def __init__(self, how: str, squash: bool) -> None:
        super().__init__(classes=1 if how == "sigmoid" else 3)
        self.how, self.squash = how, squash
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x):
        out = super().forward(x)
        if self.how == "sigmoid":
            return (torch.sigmoid(out) if self.squash else out).squeeze(1)
        if not self.squash:
            return out
        return self.softmax(out) if self.how == "module" else F.softmax(out, dim=-1)


def squashed(how: str, squash: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return Squashed(how, squash)


def loss_of(how):
    if how != "sigmoid":
        return nn.CrossEntropyLoss()
    return lambda out, y: F.binary_cross_entropy_with_logits(out, (y > 0).float())


KINDS = pytest.mark.parametrize("how", ["module", "function", "sigmoid"])


@KINDS
def test_the_loss_is_given_logits(how):
    edited = squashed(how, False)
    expected = train(edited, sgd(edited), loss_of=loss_of(how))
    with changed(fixes=["logits"]) as run:
        model = squashed(how)
        assert train(model, sgd(model), loss_of=loss_of(how)) == pytest.approx(expected, rel=1e-6)
        assert run.losses == pytest.approx(expected, rel=1e-6)
        with torch.no_grad():
            assert model(data()[0]).min() >= 0  # the model still gives probabilities
    assert not run.refused


@KINDS
@pytest.mark.parametrize("whole", [lambda loss: loss, lambda loss: 0.5 * loss + 3.0, lambda loss: sum([loss, loss])])
def test_the_partner_trains_as_it_did_and_records_the_mended_loss(how, whole):
    def penalized(squash):
        loss = loss_of(how)
        return lambda out, y: whole(loss(out, y))

    untouched = squashed(how)
    own = train(untouched, sgd(untouched), loss_of=penalized(True))
    with changed(LOGITS) as run:
        model = squashed(how)
        optimizer = sgd(model)
        mended = []
        for step in range(6):
            x, y = data(seed=step)
            with torch.no_grad():
                h = model.squash = False
                mended.append(float(whole(loss_of(how)(Squashed.forward(model, x), y))))
                model.squash = True
            del h
            optimizer.zero_grad()
            loss = whole(loss_of(how)(model(x), y))
            assert loss.item() == own[step]
            loss.backward()
            optimizer.step()
        assert run.losses == pytest.approx(mended, rel=1e-5)
        assert run.losses != pytest.approx(own, rel=1e-3)
    assert all(map(torch.equal, model.parameters(), untouched.parameters()))


def test_the_partners_validation_is_recorded_mended_and_shown_as_it_was():
    x, y = data()
    model = squashed("function")
    with torch.no_grad():
        own, mended = F.cross_entropy(model(x), y), F.cross_entropy(Net.forward(model, x), y)
    with changed(LOGITS) as run, torch.no_grad():
        assert F.cross_entropy(model(x), y) == own
    assert run.validation == pytest.approx([mended.item()])


def test_running_sums_and_scaled_losses():
    with changed(LOGITS) as run:
        model = squashed("function")
        optimizer = sgd(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        x, y = data()
        total = torch.zeros(())
        loss = F.cross_entropy(model(x), y)
        with torch.no_grad():
            mended = F.cross_entropy(Net.forward(model, x), y)
        total += loss.detach()
        loss /= 2
        scaler.scale(loss).backward()
        scaler.step(optimizer)
    assert total.item() == pytest.approx(2 * loss.item())
    assert run.losses == pytest.approx([mended.item() / 2], rel=1e-6)


def test_what_needs_no_mending_is_refused():
    with changed(fixes=["logits"]) as run:
        model = net()
        train(model, adam(model))
    assert "no softmax or sigmoid" in run.refused


def test_a_softmax_on_the_way_is_none_before_the_loss():
    def attention(squashed):
        return lambda out, y: F.cross_entropy(out * F.softmax(out, 1), y)

    edited = net()
    expected = train(edited, sgd(edited), loss_of=attention(True))
    with changed(fixes=["logits"]) as run:
        model = net()
        assert train(model, sgd(model), loss_of=attention(True)) == expected
    assert run.refused


# shapes


def handwritten(out, y):
    return ((out - y) ** 2).mean()


REGRESSIONS = {
    "mse": lambda out, y: F.mse_loss(out, y),
    "module": nn.SmoothL1Loss(),
    "by hand": handwritten,
    "the other way": lambda out, y: (y - out).abs().mean(),
    "none": lambda out, y: F.mse_loss(out, y, reduction="none").mean(),
}


def column() -> nn.Module:
    torch.manual_seed(0)
    return Net(classes=1)


def rows(step, flat=True):
    x, _ = data(seed=step)
    y = x.sum(1) / 5
    return x, y if flat else y.unsqueeze(1)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", REGRESSIONS)
def test_targets_take_the_predictions_shape(name):
    loss = REGRESSIONS[name]
    edited = column()
    expected = train(edited, sgd(edited), loss_of=loss, batches=lambda step: rows(step, False))
    with changed(fixes=["match-shapes"]) as run:
        model = column()
        assert train(model, sgd(model), loss_of=loss, batches=rows) == pytest.approx(expected, rel=1e-6)
        assert run.losses == pytest.approx(expected, rel=1e-6)
    assert not run.refused


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", REGRESSIONS)
def test_the_partner_of_matched_shapes(name):
    loss = REGRESSIONS[name]
    untouched = column()
    own = train(untouched, sgd(untouched), loss_of=loss, batches=rows)
    mended = []

    def both(out, y):
        mended.append(loss(out.detach(), y.unsqueeze(1)).item())
        return loss(out, y)

    with changed(SHAPES) as run:
        model = column()
        assert train(model, sgd(model), loss_of=both, batches=rows) == own
        assert run.losses == pytest.approx(mended, rel=1e-6)
        assert run.losses != pytest.approx(own, rel=1e-3)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_pairwise_differences_are_meant():
    x, y = torch.randn(4, 1, requires_grad=True), torch.randn(4)
    centres = torch.randn(6)
    with changed(fixes=["match-shapes"]):
        assert (x - x.reshape(1, 4)).shape == (4, 4)
        assert (x - centres).shape == (4, 6)
        assert (y.reshape(4, 1) - y).shape == (4, 4)
        assert F.mse_loss(x, torch.zeros(1)).dim() == 0


def test_nothing_is_left_of_it():
    before = SimpleNamespace(sub=torch.Tensor.__sub__, loss=F.mse_loss, softmax=torch.Tensor.softmax)
    with changed(LOGITS, fixes=["logits", "match-shapes"]):
        assert F.mse_loss is not before.loss
    assert (torch.Tensor.__sub__, F.mse_loss, torch.Tensor.softmax) == (before.sub, before.loss, before.softmax)
    assert torch._C._len_torch_function_stack() == 0
