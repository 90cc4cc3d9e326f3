"""Probabilities where logits belong, and shapes that broadcast against each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from watching import batch
from wired import found

from gradwise.diagnosis.hypotheses import REPORT
from gradwise.probes.lossinputs import blown_up


def train(loss: Callable[[nn.Module, Tensor, Tensor], Tensor], outputs: int = 3) -> Callable[[], None]:
    def script() -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(30):
                x, y = batch(16 if step % 5 else 12, seed=step)
                optimizer.zero_grad()
                loss(model, x, y).backward()
                optimizer.step()

    return script


def written_out(z: Tensor, y: Tensor) -> Tensor:
    return (z.logsumexp(1) - z[torch.arange(len(y)), y]).mean()


DOUBLED = {
    "softmax": lambda m, x, y: F.cross_entropy(torch.softmax(m(x), 1), y),
    "module": lambda m, x, y: nn.CrossEntropyLoss()(nn.Softmax(dim=1)(m(x)), y),
    "reshaped": lambda m, x, y: F.cross_entropy(m(x).softmax(-1).clamp(1e-6, 1).view(-1, 3), y),
    "sigmoid": lambda m, x, y: F.cross_entropy(torch.sigmoid(m(x)), y),
    "soft targets": lambda m, x, y: F.cross_entropy(m(x).softmax(1), F.one_hot(y, 3).float()),
    "by hand": lambda m, x, y: -(F.one_hot(y, 3) * F.log_softmax(m(x).softmax(1), 1)).sum(1).mean(),
    "by hand, written out": lambda m, x, y: written_out(m(x).softmax(1), y),
    "binary": lambda m, x, y: F.binary_cross_entropy_with_logits(m(x)[:, 0].sigmoid(), (y > 0).float()),
    "nll": lambda m, x, y: F.nll_loss(m(x).softmax(1), y),
    "an own function": lambda m, x, y: F.cross_entropy(OwnSoftmax.apply(m(x)), y),
}
LOGITS = {
    "logits": lambda m, x, y: F.cross_entropy(m(x), y),
    "log softmax": lambda m, x, y: F.nll_loss(F.log_softmax(m(x), 1), y),
    "log softmax twice": lambda m, x, y: F.cross_entropy(F.log_softmax(m(x), 1), y),
    "logits, written out": lambda m, x, y: written_out(m(x), y),
    "log of softmax": lambda m, x, y: F.nll_loss(m(x).softmax(1).log(), y),
    "attention": lambda m, x, y: F.cross_entropy(m(x * x.softmax(1)), y),
    "gate": lambda m, x, y: F.cross_entropy(m(x) * torch.sigmoid(m(x)), y),
    "scaled": lambda m, x, y: F.cross_entropy(10 * torch.sigmoid(m(x)), y),
    "distillation": lambda m, x, y: F.kl_div(F.log_softmax(m(x) / 2, 1), F.softmax(x[:, :3] / 2, 1)),
    "binary": lambda m, x, y: F.binary_cross_entropy(m(x)[:, 0].sigmoid(), (y > 0).float()),
    "entropy beside it": lambda m, x, y: F.cross_entropy(m(x), y) - 0.01 * (m(x).softmax(1) ** 2).sum(1).mean(),
    "positive logits": lambda m, x, y: F.cross_entropy(0.01 * m(x).relu(), y),
}


class OwnSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        y = x.softmax(1)
        ctx.save_for_backward(y)  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return y * (g - (g * y).sum(1, keepdim=True))


@pytest.mark.parametrize("how", DOUBLED)
def test_probabilities_into_a_loss_of_logits(how: str) -> None:
    result = found(train(DOUBLED[how]))
    assert list(result) == ["probabilities-into-logit-loss"]
    finding = result["probabilities-into-logit-loss"]
    assert finding.confidence > REPORT
    assert finding.place is not None
    assert finding.place.file.endswith("test_loss_inputs.py")
    if "by hand" not in how:
        assert finding.place.text.startswith(f'"{how}"')


@pytest.mark.parametrize("how", LOGITS)
def test_logits(how: str) -> None:
    assert found(train(LOGITS[how])) == {}


def target(x: Tensor) -> Tensor:
    return x.sum(1)


def by_huber(error: Tensor) -> Tensor:
    size = error.abs()
    return torch.where(size < 1.0, 0.5 * size**2, size - 0.5)


CROSSED = {
    "mse": lambda m, x, y: F.mse_loss(m(x), target(x)),
    "mse, target wider": lambda m, x, y: F.mse_loss(m(x).squeeze(1), target(x)[:, None]),
    "module": lambda m, x, y: nn.MSELoss()(m(x), target(x)),
    "l1": lambda m, x, y: F.l1_loss(m(x), target(x)),
    "smooth l1": lambda m, x, y: F.smooth_l1_loss(m(x), target(x)),
    "huber": lambda m, x, y: F.huber_loss(m(x), target(x)),
    "by hand": lambda m, x, y: ((m(x) - target(x)) ** 2).mean(),
    "by hand, other way": lambda m, x, y: (target(x) - m(x)).pow(2).sum() / len(x),
    "by hand, absolute": lambda m, x, y: (m(x) - target(x)).abs().mean(),
    "by hand, squared": lambda m, x, y: (m(x).squeeze(-1) - target(x)[:, None]).square().mean(),
    "by hand, Huber's": lambda m, x, y: by_huber(m(x) - target(x)).mean(),
    "weighted": lambda m, x, y: (F.mse_loss(m(x), target(x), reduction="none") * 2).mean(),
}
FITTING = {
    "same": lambda m, x, y: F.mse_loss(m(x).squeeze(1), target(x)),
    "columns": lambda m, x, y: F.mse_loss(m(x), target(x)[:, None]),
    "by hand": lambda m, x, y: ((m(x).squeeze(1) - target(x)) ** 2).mean(),
    "a number": lambda m, x, y: F.mse_loss(m(x), torch.tensor(1.0)),
    "against the mean": lambda m, x, y: ((m(x) - target(x).mean()) ** 2).mean(),
    "all pairs, explicit": lambda m, x, y: (m(x)[:, 0].unsqueeze(1) - target(x)[None, :]).abs().mean(),
    "all pairs of predictions": lambda m, x, y: (m(x) - m(x).T).abs().mean() + F.mse_loss(m(x)[:, 0], target(x)),
    "energy distance": lambda m, x, y: (m(x) - target(x)).abs().mean() - 0.5 * (m(x) - m(x).T).abs().mean(),
    "kernel": lambda m, x, y: -torch.exp(-((m(x) - target(x)) ** 2)).mean(),
    "a matrix of targets": lambda m, x, y: ((m(x) - torch.cdist(x, x)) ** 2).mean(),
    "all pairs to a loss function": lambda m, x, y: F.mse_loss(m(x)[:, None], x[None, :, :1]),
}


@pytest.mark.parametrize("how", CROSSED)
def test_prediction_and_target_broadcast(how: str) -> None:
    result = found(train(CROSSED[how], outputs=1))
    assert list(result) == ["loss-shape-broadcast"]
    finding = result["loss-shape-broadcast"]
    assert finding.evidence["result"] == [12, 12]
    assert sorted(map(len, (finding.evidence["prediction"], finding.evidence["target"]))) == [1, 2]
    assert finding.place is not None
    if "hand" not in how:
        assert finding.place.text.startswith(f'"{how}"')


@pytest.mark.parametrize("how", FITTING)
def test_shapes_that_are_meant(how: str) -> None:
    assert found(train(FITTING[how], outputs=1)) == {}


def test_the_line_of_a_loss_written_out_by_hand() -> None:
    def script() -> None:
        model = nn.Linear(6, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(30):
            x, _ = batch(seed=step)
            loss = ((model(x) - target(x)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    place = found(script)["loss-shape-broadcast"].place
    assert place is not None
    assert place.text == "loss = ((model(x) - target(x)) ** 2).mean()"


def test_quantiles() -> None:
    def pinball(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        error = target(x)[:, None] - model(x)
        levels = torch.tensor([0.1, 0.5, 0.9])
        return torch.maximum(levels * error, (levels - 1) * error).mean()

    assert found(train(pinball)) == {}


@pytest.mark.parametrize(
    ("given", "target", "result"),
    [
        ((8, 1), (8,), (8, 8)),
        ((8,), (8, 1), (8, 8)),
        ((4, 1, 5, 5), (4, 5, 5), (4, 4, 5, 5)),
        ((1, 1), (1,), ()),
        ((8,), (8,), ()),
        ((8, 3), (3,), ()),
        ((8, 1), (1, 8), ()),
        ((8, 3), (), ()),
        ((8, 1), (8, 3), ()),
        ((8, 2), (3,), ()),
    ],
)
def test_what_blows_up(given: tuple[int, ...], target: tuple[int, ...], result: tuple[int, ...]) -> None:
    assert blown_up(given, target) == result
