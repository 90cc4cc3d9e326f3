"""Products with the Hessian are those with the matrix, and evaluating leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise.curvature import Hessian, critical_point


def exact(loss_fn: Callable[[], Tensor], parameters: list[Tensor]) -> Tensor:
    """The whole matrix, by differentiating each entry of the gradient."""
    gradients = torch.autograd.grad(loss_fn(), parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    rows = [
        torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for entry in flat
    ]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def net(seed: int = 0, **options: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).to(**options)


def batch(rows: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 2, (rows,), generator=generator)


def test_products_and_gradient_are_those_of_the_matrix() -> None:
    model, (x, y) = net(dtype=torch.float64), batch()
    hessian = Hessian(lambda: F.cross_entropy(model(x), y), model)
    whole = exact(lambda: F.cross_entropy(model(x), y), hessian.parameters)
    assert hessian.size == len(whole) == 32
    for seed in range(3):
        v = hessian.random_vector(seed)
        assert torch.allclose(hessian.product(v), whole @ v, atol=1e-12)
    F.cross_entropy(model(x), y).backward()
    assert torch.allclose(hessian.gradient(), hessian.flatten([p.grad for p in hessian.parameters]), atol=1e-14)
    assert hessian.products == 3


def test_torch_func_agrees() -> None:
    model, (x, y) = net(dtype=torch.float64), batch()
    names = [n for n, _ in model.named_parameters()]

    def of_flat(flat: Tensor) -> Tensor:
        parts = dict(zip(names, Hessian(lambda: flat.sum(), [flat]).split(flat), strict=True))
        return F.cross_entropy(torch.func.functional_call(model, parts, x), y)

    hessian = Hessian(lambda: F.cross_entropy(model(x), y), model)

    def loss_at(flat: Tensor) -> Tensor:
        parts = dict(zip(names, hessian.split(flat), strict=True))
        return F.cross_entropy(torch.func.functional_call(model, parts, (x,)), y)

    whole = torch.func.hessian(loss_at)(hessian.flatten(hessian.parameters))
    v = hessian.random_vector()
    assert torch.allclose(hessian.product(v), whole @ v, atol=1e-12)


def test_several_batches_are_averaged() -> None:
    model, data = net(dtype=torch.float64), [batch(seed=s) for s in range(3)]
    hessian = Hessian(lambda b: F.cross_entropy(model(b[0]), b[1]), model, data)
    v = hessian.random_vector()
    alone = [Hessian(lambda b=b: F.cross_entropy(model(b[0]), b[1]), model) for b in data]
    assert torch.allclose(hessian.product(v), sum(h.product(v) for h in alone) / 3, atol=1e-13)
    assert torch.allclose(hessian.gradient(), sum(h.gradient() for h in alone) / 3, atol=1e-14)
    assert torch.allclose(hessian.product(v, 1), alone[1].product(v), atol=1e-13)
    assert hessian.losses() == [h.losses()[0] for h in alone]


def test_of_a_loss_computed_before() -> None:
    model, (x, y) = net(dtype=torch.float64), batch()
    loss = F.cross_entropy(model(x), y)
    hessian, again = Hessian.of_loss(loss, model), Hessian(lambda: F.cross_entropy(model(x), y), model)
    v = hessian.random_vector()
    assert torch.equal(hessian.product(v), again.product(v))
    loss.backward()  # its graph is still there
    assert torch.allclose(hessian.gradient(), hessian.flatten([p.grad for p in hessian.parameters]))
    with pytest.raises(RuntimeError, match="can't be evaluated elsewhere"), hessian.moved(v):
        pass
    both = Hessian.of_loss([F.cross_entropy(model(x), y), 3 * F.cross_entropy(model(x), y)], model)
    assert torch.allclose(both.product(v), 2 * again.product(v), atol=1e-13)


def test_a_graph_kept_is_not_used_after_a_step() -> None:
    w = torch.tensor([2.0], requires_grad=True, dtype=torch.float64)
    hessian, one = Hessian(lambda: (w**3).sum(), [w]), torch.ones(1, dtype=torch.float64)
    assert hessian.product(one).item() == 12.0
    with torch.no_grad():
        w.add_(1.0)
    assert hessian.product(one).item() == 18.0


def test_elsewhere_and_exactly_back() -> None:
    w = torch.tensor([0.1, 0.7], requires_grad=True)
    before, version = w.detach().clone(), w._version
    hessian, one = Hessian(lambda: (w**3).sum(), [w]), torch.ones(2)
    here = hessian.product(one)
    with hessian.moved(torch.tensor([1e-3, 1.0])):
        assert torch.allclose(hessian.product(one), 6 * torch.tensor([0.101, 1.7]))
        assert hessian.losses()[0] == pytest.approx(0.101**3 + 1.7**3)
    assert torch.equal(w, before)
    assert w._version == version
    assert torch.equal(hessian.product(one), here)


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(4, 12), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inward(x).reshape(2, 6, 3, 2, 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.outward(y.transpose(1, 2).reshape(2, 6, 4))


def test_attention_has_a_second_derivative() -> None:
    torch.manual_seed(0)
    model, x = Attentive().double(), torch.randn(2, 6, 4, dtype=torch.float64)
    hessian = Hessian(lambda: model(x).square().mean(), model)
    v = hessian.random_vector()
    step = 1e-5
    with hessian.moved(step * v):
        ahead = hessian.gradient()
    with hessian.moved(-step * v):
        behind = hessian.gradient()
    assert torch.allclose(hessian.product(v), (ahead - behind) / (2 * step), atol=1e-6)


@pytest.mark.parametrize("layer", [nn.LSTM(3, 4), nn.GRU(3, 4), nn.TransformerEncoderLayer(3, 1, 4)])
def test_common_layers_have_second_derivatives(layer: nn.Module) -> None:
    layer, x = layer.double(), torch.randn(2, 5, 3, dtype=torch.float64)

    def loss() -> Tensor:
        out = layer(x)
        return (out[0] if isinstance(out, tuple) else out).pow(4).mean()

    hessian = Hessian(loss, layer)
    a, b = hessian.random_vector(1), hessian.random_vector(2)
    # Symmetry also shows that dropout draws the same masks each time.
    assert torch.dot(a, hessian.product(b)) == pytest.approx(float(torch.dot(b, hessian.product(a))), rel=1e-9)
    assert hessian.product(a).norm() > 0


class Lucky(nn.Module):
    """Draws from everything there is to draw from, and keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return self.inner(x + 0.1 * torch.rand_like(x)) * (1 + random.random() + np.random.rand())


@pytest.mark.parametrize("by_module", [True, False])
@pytest.mark.parametrize("batches", [1, 2])
def test_nothing_is_left_behind(by_module: bool, batches: int) -> None:
    torch.manual_seed(0)
    model = Lucky().train()
    model.inner[3].eval()
    data = [torch.randn(8, 3) for _ in range(batches)]
    model(data[0]).sum().backward()

    def loss(x: Tensor) -> Tensor:
        model.inner.train()
        return model(x).square().mean()

    def state() -> list[Any]:
        tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *model.state_dict().values()]
        luck = [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))]
        return [*(t.detach().clone() for t in [*tensors, *luck])]

    modes = [m.training for m in model.modules()]
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled, torch.is_grad_enabled()
    before, python, buffer = state(), random.getstate(), model.inner[1].running_mean
    with torch.no_grad():
        hessian = Hessian(loss, model if by_module else model.parameters(), data)
        v = hessian.random_vector(3)
        first = hessian.product(v)
        second = hessian.product(v)
        critical_point(hessian, products=4)
    assert torch.equal(first, second)  # the same luck each time
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert random.getstate() == python
    assert model.inner[1].running_mean is buffer
    if by_module:
        assert [m.training for m in model.modules()] == modes
    now = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    assert (*now, True) == flags


def test_a_graph_of_the_users_survives() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), torch.randn(8, 3)
    loss = model(x).square().mean()
    critical_point(lambda: model(x).pow(4).mean(), model, products=3)
    loss.backward()
    assert model[0].weight.grad is not None


def test_without_curvature_the_product_is_zero() -> None:
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    assert Hessian(lambda: w.abs().sum(), [w]).product(torch.ones(2)).tolist() == [0.0, 0.0]
    u = torch.zeros(3, requires_grad=True)  # not all parameters need take part
    assert Hessian(lambda: w.square().sum(), [u, w]).product(torch.ones(5)).tolist() == [0, 0, 0, 2, 2]


W = torch.ones(2, requires_grad=True)


@pytest.mark.parametrize(
    ("loss", "parameters", "batches", "kind", "words"),
    [
        (lambda: W.sum(), [], None, ValueError, "parameters is empty"),
        (lambda: W.sum(), nn.Linear(2, 1).requires_grad_(False), None, ValueError, "unfreeze"),
        (lambda: W.sum(), [torch.ones(2)], None, ValueError, r"parameters\[0\] of shape \(2,\) doesn't require"),
        (lambda: W.sum(), [W, "w"], None, TypeError, r"parameters\[1\] must be a tensor, but is a str"),
        (lambda: W.sum(), [torch.ones(2, dtype=torch.bfloat16, requires_grad=True)], None, ValueError, "bfloat16"),
        (lambda: W.sum(), [W, torch.ones(1, requires_grad=True).double().detach().requires_grad_()], None, ValueError,
         "all the same"),
        (lambda b: W.sum(), [W], [], ValueError, "batches is empty"),
        (W.sum(), [W], None, TypeError, "must be a function"),
        (lambda: W * 2, [W], None, ValueError, r"must be a scalar, but has shape \(2,\)"),
        (lambda: W.sum().item(), [W], None, TypeError, "must be a tensor, but is a float"),
        (lambda: W.sum() / 0, [W], None, ValueError, "the loss is inf"),
        (lambda b: W.sum() * b, [W], [1.0, float("nan")], ValueError, "the loss of batch 1 is nan"),
        (lambda: W.detach().sum(), [W], None, ValueError, "has no graph"),
        (lambda: W.sum(), [torch.ones(2, requires_grad=True)], None, ValueError, "depends on none"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(loss: Any, parameters: Any, batches: Any, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        Hessian(loss, parameters, batches).gradient()


def test_wrong_vectors_and_losses_given() -> None:
    with pytest.raises(ValueError, match=r"a vector of 2 entries, got \(3,\)"):
        Hessian(lambda: W.sum(), [W]).product(torch.ones(3))
    with pytest.raises(ValueError, match="there is no loss"):
        Hessian.of_loss([], [W])
    with pytest.raises(TypeError, match="don't give them again"):
        critical_point(Hessian(lambda: W.sum(), [W]), [W])
    with pytest.raises(TypeError, match="give the parameters"):
        critical_point(lambda: W.sum())


def test_what_has_no_second_derivative_is_named() -> None:
    q = torch.randn(1, 1, 4, 8, requires_grad=True)
    loss = F.scaled_dot_product_attention(q, q, q).square().mean()
    with pytest.raises(RuntimeError, match="can't be differentiated twice"):
        Hessian.of_loss(loss, [q]).product(torch.ones(32))
    table = nn.Embedding(4, 2, sparse=True)
    with pytest.raises((ValueError, RuntimeError), match="sparse"):
        Hessian(lambda: table(torch.tensor([1, 2])).square().sum(), table).product(torch.ones(8))


def test_a_second_derivative_that_does_not_exist_is_named() -> None:
    w = torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match="product 1 with the Hessian isn't finite"):
        critical_point(lambda: (w.square().sum() + 0 * w.sum()).sqrt() + w.sum(), [w])
