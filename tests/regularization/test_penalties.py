"""Penalties, the proximal step, and what it leaves: real zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradwise.regularization import decay_groups, penalty, prox_l1_, sparsity


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


def test_the_elastic_net_is_what_its_formula_says() -> None:
    model = net()
    weights = torch.cat([model[0].weight.flatten(), model[2].weight.flatten()])
    expected = 0.3 * weights.abs().sum() + 0.2 * (weights**2).sum()
    for given_ in (model, decay_groups(model), [model[0].weight, model[2].weight]):
        assert torch.allclose(penalty(given_, l1=0.3, l2=0.2), expected)
    everything = torch.cat([p.flatten() for p in model.parameters()])
    for given_ in (model, decay_groups(model)):
        assert torch.allclose(penalty(given_, l1=0.3, everything=True), 0.3 * everything.abs().sum())


def test_l2_has_no_half_so_weight_decay_is_twice_as_much() -> None:
    by_term, by_decay = net(), net()
    x = torch.randn(7, 5, dtype=torch.float64)
    first = torch.optim.SGD(by_term.parameters(), lr=0.1)
    second = torch.optim.SGD(decay_groups(by_decay, weight_decay=2 * 0.05), lr=0.1)
    for _ in range(5):
        first.zero_grad()
        (by_term(x).square().mean() + penalty(by_term, l2=0.05)).backward()
        first.step()
        second.zero_grad()
        by_decay(x).square().mean().backward()
        second.step()
    for p, q in zip(by_term.parameters(), by_decay.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12)


def test_penalties_of_half_precision_are_summed_in_single() -> None:
    big = torch.full((4096,), 30.0, dtype=torch.float16, requires_grad=True)
    total = penalty([big], l1=1.0, l2=1.0)
    assert total.dtype == torch.float32
    assert total.item() == 4096 * (30 + 900)
    total.backward()
    assert big.grad is not None
    assert big.grad.dtype == torch.float16
    assert penalty([torch.tensor([3 + 4j])], l1=1.0, l2=1.0).item() == 30.0


def test_nothing_to_penalize_is_zero() -> None:
    assert penalty(nn.LayerNorm(3), l1=1.0).item() == 0.0
    assert penalty(net()).item() == 0.0
    with pytest.raises(ValueError, match="l1 and l2 must be at least 0, got l1=-1"):
        penalty(net(), l1=-1)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9), st.floats(0, 5))
def test_the_proximal_step_minimizes_what_it_should(values: list[float], amount: float) -> None:
    w = torch.tensor(values, dtype=torch.float64)
    before = w.clone()
    prox_l1_([w], amount)

    def objective(v: torch.Tensor) -> torch.Tensor:
        return 0.5 * (v - before) ** 2 + amount * v.abs()

    for nearby in (w - 1e-3, w + 1e-3, torch.zeros_like(w), before):
        assert (objective(w) <= objective(nearby) + 1e-12).all()
    assert torch.equal(w == 0, before.abs() <= amount)
    assert not (torch.signbit(w) & (w == 0)).any()  # no minus zero


def test_the_proximal_step_hides_no_nan() -> None:
    w = torch.tensor([float("nan"), 0.1])
    prox_l1_(w, 0.5)
    assert w.isnan().tolist() == [True, False]
    with pytest.raises(ValueError, match="amount must be at least 0"):
        prox_l1_(w, -0.1)


def test_l1_selects_the_features_that_matter() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 8)
    y = x[:, [2]] * 3 - x[:, [5]] * 2 + 0.01 * torch.randn(200, 1)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        prox_l1_([model.weight], 0.1 * 0.2)
    report = sparsity(model)
    assert report.dropped == (0, 1, 3, 4, 6, 7)
    assert (report.zeros, report.total) == (6, 8)
    assert str(report).splitlines()[0] == "weight  6 of 8 zero (75 %), 6 of 8 inputs dropped: 0, 1, 3, 4, 6, 7"


def dropped(layer: nn.Module, name: str = "0.weight") -> tuple[int | None, tuple[int, ...]]:
    (found,) = [z for z in sparsity(nn.Sequential(layer)).layers if z.name == name]
    return found.inputs, found.dropped


def test_inputs_are_told_layer_by_layer() -> None:
    with torch.no_grad():
        conv = nn.Conv2d(4, 6, 3)
        conv.weight[:, 1] = 0
        assert dropped(conv) == (4, (1,))
        grouped = nn.Conv1d(4, 6, 3, groups=2)  # inputs 2 and 3 are read by outputs 3 to 5 only
        grouped.weight[3:, 1] = 0
        assert dropped(grouped) == (4, (3,))
        transposed = nn.ConvTranspose1d(3, 5, 2)
        transposed.weight[2] = 0
        assert dropped(transposed) == (3, (2,))
        lstm = nn.LSTM(3, 2)
        lstm.weight_ih_l0[:, 0] = 0
        assert dropped(lstm, "0.weight_ih_l0") == (3, (0,))
        assert dropped(lstm, "0.weight_hh_l0") == (None, ())
        assert dropped(nn.Embedding(3, 2)) == (None, ())


def test_a_model_without_weights_has_an_empty_report() -> None:
    report = sparsity(nn.ReLU())
    assert (report.layers, report.zeros, report.total, report.dropped) == ((), 0, 0, ())
    assert "0 of 0" in str(report)
