"""What a live optimizer says of a parameter is what its next step would use (O10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradwise.optim as optim

# Rules whose step is the rate times the first moment, both as they are after the step.
PLAIN = [
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "convention": "ema"}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True}),
    ("Adamax", {}),
    ("RAdam", {}),
    ("AdaBelief", {"eps": 1e-8}),
]
# Rules whose step is the rate times the gradient.
MEMORYLESS = [
    ("SGD", {}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adagrad", {"accumulator": "mean"}),
    ("RMSprop", {}),
    ("RMSprop", {"eps_at": "inside"}),
    ("RMSprop", {"eps_at": "none"}),
    ("RMSprop", {"centered": True}),
]
EVERY = [name for name in optim.__all__ if isinstance(getattr(optim, name), type) and name not in {
    "Optimizer", "Rule", "State", "View", "Telemetry"}]  # fmt: skip


def stepped(name: str, steps: int = 9, dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    """An optimizer after some steps, its parameter, what the last step changed, and the last gradient."""
    random = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3, generator=random, dtype=dtype))
    optimizer = getattr(optim, name)([w], lr=0.01, **settings)
    sizes = 10.0 ** torch.randn(4, 3, generator=random)
    for _ in range(steps):
        before = w.detach().clone()
        w.grad = (sizes * torch.randn(4, 3, generator=random, dtype=dtype)).to(dtype)
        optimizer.step()
    return optimizer, w, w.detach() - before, w.grad


@pytest.mark.parametrize(("name", "settings"), PLAIN)
def test_a_step_is_the_effective_rate_times_the_first_moment(name: str, settings: dict[str, Any]) -> None:
    optimizer, w, change, _ = stepped(name, **settings)
    first, _ = optimizer.moments(w)
    torch.testing.assert_close(change, -optimizer.effective_lr(w) * first, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "settings"), MEMORYLESS)
def test_a_step_is_the_effective_rate_times_the_gradient(name: str, settings: dict[str, Any]) -> None:
    optimizer, w, change, g = stepped(name, **settings)
    torch.testing.assert_close(change, -optimizer.effective_lr(w) * g, rtol=1e-9, atol=0)


def test_the_formula_of_the_documents() -> None:
    optimizer, w, _, _ = stepped("Adam", steps=5, eps=1e-3)
    m, v = (optimizer.state[w][k] for k in ("exp_avg", "exp_avg_sq"))
    first, second = optimizer.moments(w)
    torch.testing.assert_close(first, m / (1 - 0.9**5))
    torch.testing.assert_close(second, v / (1 - 0.999**5))
    torch.testing.assert_close(optimizer.effective_lr(w), 0.01 / (second.sqrt() + 1e-3))


def test_rates_and_betas_that_are_tensors() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = optim.Adam([w], lr=torch.tensor(0.25), betas=(torch.tensor(0.5), torch.tensor(0.75)))
    w.grad = torch.tensor([2.0, 0.5])
    optimizer.step()
    torch.testing.assert_close(optimizer.effective_lr(w), torch.tensor([0.125, 0.5]))
    assert optimizer.windows(w) == (2.0, 4.0)


def test_adadeltas_rate_is_its_ratio_of_roots() -> None:
    optimizer, w, _, _ = stepped("Adadelta")
    v, u = (optimizer.state[w][k] for k in ("square_avg", "acc_delta"))
    torch.testing.assert_close(optimizer.effective_lr(w), 0.01 * (u + 1e-6).sqrt() / (v + 1e-6).sqrt())


@pytest.mark.parametrize(
    ("name", "settings", "windows"),
    [
        ("SGD", {}, (None, None)),
        ("SGD", {"momentum": 0.9}, (10, None)),
        ("Adam", {}, (10, 1000)),
        ("RMSprop", {"alpha": 0.9}, (None, 10)),
        ("Adadelta", {}, (None, 10)),
        ("Adagrad", {}, (None, None)),
        ("Lion", {}, (100, None)),
        ("ScheduleFreeAdamW", {}, (None, 1000)),
        ("ScheduleFreeSGD", {}, (None, None)),
    ],
)
def test_windows(name: str, settings: dict[str, Any], windows: tuple[float | None, float | None]) -> None:
    w = nn.Parameter(torch.zeros(2))
    assert getattr(optim, name)([w], **settings).windows(w) == pytest.approx(windows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_can_be_looked_at(name: str, dtype: torch.dtype) -> None:
    w = nn.Parameter(torch.ones(4, 3, dtype=dtype))
    other = nn.Parameter(torch.ones(2, dtype=dtype))
    optimizer = getattr(optim, name)([{"params": [w]}, {"params": [other], "lr": 0.5}], lr=0.01)
    w.grad = torch.full_like(w, 2.0)
    kept = optimizer.state_dict()["state"]
    if optimizer.rule.counts:
        with pytest.raises(ValueError, match="has not stepped this parameter of shape \\(4, 3\\)"):
            optimizer.effective_lr(w)
    optimizer.step()
    kept = {k: v.clone() if isinstance(v, Tensor) else v for k, v in optimizer.state[w].items()}
    rate = optimizer.effective_lr(w)
    assert rate.shape == w.shape
    assert rate.is_complex() == w.is_complex()
    assert bool(torch.view_as_real(rate).isfinite().all() if w.is_complex() else rate.isfinite().all())
    assert (rate.real > 0).all()
    for moment in optimizer.moments(w):
        assert moment is None or moment.shape == w.shape
        moment.zero_() if moment is not None else None  # a copy: nothing of the optimizer's is touched
    rate.zero_()
    assert all(torch.equal(kept[k], v) for k, v in optimizer.state[w].items() if isinstance(v, Tensor))
    if optimizer.rule.counts:
        with pytest.raises(ValueError, match="has not stepped"):
            optimizer.moments(other)
    with pytest.raises(ValueError, match="not a parameter of this"):
        optimizer.windows(nn.Parameter(torch.ones(1)))


def test_a_rule_that_says_nothing_of_its_states() -> None:
    @optim.rule("m")
    def heavy(p: Any, g: Any, m: Any, lr: Any) -> Any:
        m = 0.9 * m + g
        return p - lr * m, m

    w = nn.Parameter(torch.ones(2))
    optimizer = optim.Optimizer([w], heavy, {"lr": 0.1}, backend="reference")
    w.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(ValueError, match="rule heavy doesn't say what its states mean"):
        optimizer.effective_lr(w)


def test_a_window_has_63_percent_of_an_averages_weight() -> None:
    assert abs(1 - 0.999**1000 - 0.632) < 1e-3
    assert abs(1 - 0.9**10 - 0.651) < 1e-3


def described(gradients: Iterator[Tensor], w: nn.Parameter, optimizer: Any, at: set[int]) -> dict[int, Tensor]:
    """√v̂ over the root mean square of the last 1000 gradients, element by element, at some steps."""
    squares, ratios = [], {}
    for step, g in enumerate(gradients, 1):
        squares.append(g.square())
        if step in at:
            ratios[step] = optimizer.moments(w)[1].sqrt() / torch.stack(squares[-1000:]).mean(0).sqrt()
    return ratios


def test_the_last_thousand_gradients_describe_the_second_moment_of_gradients_that_keep_their_size() -> None:
    random = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.zeros(200))
    optimizer = optim.Adam([w])

    def gradients() -> Iterator[Tensor]:
        for _ in range(4000):
            w.grad = torch.randn(200, generator=random)
            optimizer.step()
            yield w.grad

    ratio = described(gradients(), w, optimizer, {4000})[4000]
    assert float((ratio - 1).abs().median()) < 0.02
    assert float((ratio - 1).abs().max()) < 0.06


def test_but_not_that_of_gradients_that_shrink_in_training() -> None:
    """On the handwritten digits: what is older than the window weighs e⁻¹, and holds √v̂ up by a third."""
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    w = model[2].weight
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def gradients() -> Iterator[Tensor]:
        for _ in range(3000):
            rows = torch.randint(0, len(x), (32,))
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            yield w.grad

    ratios = described(gradients(), w, optimizer, {1, 10, 1000, 3000})
    assert float((ratios[1] - 1).abs().median()) < 1e-4  # bias correction makes the first steps right
    assert float((ratios[10] - 1).abs().median()) < 1e-2
    assert 0.85 < float(ratios[1000].median()) < 0.98  # measured 0.94: the recent, smaller ones weigh more
    assert 1.15 < float(ratios[3000].median()) < 1.5  # measured 1.33
