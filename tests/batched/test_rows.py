"""Many optimizers as rows of one: each row goes where its optimizer alone would take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gradwise import optim
from gradwise.batched.rows import Rows, kind
from gradwise.batched.stack import BatchError
from gradwise.schedules import cosine, step, warmup

SHAPES = [(3, 4), (4,), ()]
Make = Callable[[list[Tensor]], Any]

# Per rule, what each of three rows has.
OURS: dict[str, list[Make]] = {
    "sgd": [lambda p, r=r: optim.SGD(p, lr=0.1 * r, weight_decay=0.1 * (r - 1)) for r in (1, 2, 3)],
    "momentum": [lambda p, r=r: optim.SGD(p, lr=0.1, momentum=0.3 * r, dampening=0.1 * r) for r in (1, 2, 3)],
    "nesterov": [lambda p, r=r: optim.SGD(p, lr=0.1, momentum=0.3 * r, nesterov=True) for r in (1, 2, 3)],
    "keras": [lambda p, r=r: optim.SGD(p, lr=0.1 * r, momentum=0.9, convention="keras") for r in (1, 2, 3)],
    "adagrad": [lambda p, r=r: optim.Adagrad(p, lr=0.1 * r, initial_accumulator_value=0.1 * r) for r in (1, 2, 3)],
    "rmsprop": [lambda p, r=r: optim.RMSprop(p, lr=0.01, alpha=0.3 * r, momentum=0.2 * r) for r in (1, 2, 3)],
    "centered": [lambda p, r=r: optim.RMSprop(p, lr=0.01, alpha=0.3 * r, centered=True) for r in (1, 2, 3)],
    "adadelta": [lambda p, r=r: optim.Adadelta(p, rho=0.3 * r) for r in (1, 2, 3)],
    "rprop": [lambda p, r=r: optim.Rprop(p, lr=0.01 * r) for r in (1, 2, 3)],
    "adam": [lambda p, r=r: optim.Adam(p, lr=0.1, betas=(0.3 * r, 0.9 + 0.03 * r), eps=10.0**-r) for r in (1, 2, 3)],
    "amsgrad": [lambda p, r=r: optim.Adam(p, lr=0.1 * r, amsgrad=True, weight_decay=0.1 * r) for r in (1, 2, 3)],
    "adamw": [lambda p, r=r: optim.AdamW(p, lr=0.1 / r, weight_decay=0.1 * r) for r in (1, 2, 3)],
    "adamax": [lambda p, r=r: optim.Adamax(p, lr=0.1 * r) for r in (1, 2, 3)],
    "nadam": [lambda p, r=r: optim.NAdam(p, lr=0.1, momentum_decay=0.004 * r) for r in (1, 2, 3)],
    "radam": [lambda p, r=r: optim.RAdam(p, lr=0.1, betas=(0.9, 0.2 + 0.25 * r)) for r in (1, 2, 3)],
    "adabelief": [lambda p, r=r: optim.AdaBelief(p, lr=0.1 * r) for r in (1, 2, 3)],
    "lion": [lambda p, r=r: optim.Lion(p, lr=0.01 * r) for r in (1, 2, 3)],
    "lamb": [lambda p, r=r: optim.LAMB(p, lr=0.01 * r, weight_decay=0.1 * r) for r in (1, 2, 3)],
    "around": [
        lambda p, r=r: optim.SGD(p, lr=0.1 * r, clip_norm=0.5 * r, clip_value=0.1 * r, l1=0.01 * (r - 1))
        for r in (1, 2, 3)
    ],
    "ascent": [lambda p, r=r: optim.Adam(p, lr=0.1 * r, maximize=True) for r in (1, 2, 3)],
    "scheduled": [
        lambda p: optim.SGD(p, lr=0.1 * cosine(4)),
        lambda p: optim.SGD(p, lr=warmup(2) >> step(2, 0.5)),
        lambda p: optim.SGD(p, lr=0.2),
    ],
}  # fmt: skip
# Torch's own of the same names, where settings mean the same.
THEIRS: dict[str, list[Make]] = {
    "sgd": [lambda p, r=r: torch.optim.SGD(p, lr=0.1 * r, weight_decay=0.1 * (r - 1)) for r in (1, 2, 3)],
    "nesterov": [lambda p, r=r: torch.optim.SGD(p, lr=0.1, momentum=0.3 * r, nesterov=True) for r in (1, 2, 3)],
    "rmsprop": [lambda p, r=r: torch.optim.RMSprop(p, lr=0.01, alpha=0.3 * r, momentum=0.2 * r) for r in (1, 2, 3)],
    "adagrad": [
        lambda p, r=r: torch.optim.Adagrad(p, lr=0.1 * r, initial_accumulator_value=0.1 * r) for r in (1, 2, 3)
    ],
    "adam": [
        lambda p, r=r: torch.optim.Adam(p, lr=0.1, betas=(0.3 * r, 0.9 + 0.03 * r), eps=10.0**-r) for r in (1, 2, 3)
    ],
    "adamw": [lambda p, r=r: torch.optim.AdamW(p, lr=0.1 / r, weight_decay=0.1 * r) for r in (1, 2, 3)],
}  # fmt: skip


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """As torch does, an optimizer alone keeps its counters in the default number type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def draw(rows: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    luck = torch.Generator().manual_seed(0)
    return [torch.randn(rows, *shape, generator=luck, dtype=torch.float64).to(dtype) for shape in SHAPES]


def models(makes: list[Make], stacked: list[Tensor]) -> tuple[list[Any], list[dict[Tensor, int]]]:
    """One optimizer for each row, over parameters of its own."""
    own = [[torch.nn.Parameter(p[r].clone()) for p in stacked] for r in range(len(makes))]
    return [m(p) for m, p in zip(makes, own, strict=True)], [{p: k for k, p in enumerate(ps)} for ps in own]


def grads(step: int, rows: int, dtype: torch.dtype) -> list[Tensor]:
    luck = torch.Generator().manual_seed(100 + step)
    return [torch.randn(rows, *shape, generator=luck, dtype=torch.float64).to(dtype) for shape in SHAPES]


def compare(makes: list[Make], oracle: list[Make], compiled: bool, dtype: torch.dtype, tolerance: float) -> None:
    stacked = draw(len(makes), dtype)
    optimizers, places = models(makes, stacked)
    alone, _ = models(oracle, stacked)
    assert len({kind(o, p) for o, p in zip(optimizers, places, strict=True)}) == 1
    rows = Rows(optimizers, places, stacked, compiled)
    for t in range(6):
        given = grads(t, len(makes), dtype)
        rows.step(given)
        for r, optimizer in enumerate(alone):
            own = [p for group in optimizer.param_groups for p in group["params"]]
            for p, g in zip(own, given, strict=True):
                p.grad = g[r].clone()
            optimizer.step()
            for p, together in zip(own, rows.params, strict=True):
                torch.testing.assert_close(together[r], p.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "reference"])
@pytest.mark.parametrize("name", OURS)
def test_a_row_goes_where_its_optimizer_alone_would_go(name: str, compiled: bool) -> None:
    compare(OURS[name], OURS[name], compiled, torch.float64, 1e-12)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "reference"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_row_goes_where_torchs_optimizer_goes(name: str, compiled: bool) -> None:
    compare(OURS[name], THEIRS[name], compiled, torch.float64, 1e-10)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "reference"])
def test_single_precision_loses_no_more_than_rounding(compiled: bool) -> None:
    compare(OURS["adam"], OURS["adam"], compiled, torch.float32, 2e-6)


def test_rows_that_leave_don_t_change_the_others() -> None:
    makes = [*OURS["adam"], *OURS["adam"]]
    stacked = draw(6)
    whole, part = (Rows(*models(makes, stacked), [p.clone() for p in stacked]) for _ in range(2))
    for t in range(3):
        whole.step(grads(t, 6, torch.float64))
        part.step(grads(t, 6, torch.float64))
    staying = [1, 2, 5]
    part.keep(staying, [p[staying] for p in part.params])
    for t in range(3, 6):
        given = grads(t, 6, torch.float64)
        whole.step(given)
        part.step([g[staying] for g in given])
    for one, other in zip(whole.params, part.params, strict=True):
        torch.testing.assert_close(one[staying], other, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "reference"])
@pytest.mark.parametrize("name", ["adam", "around", "lamb"])
def test_a_row_that_diverged_doesn_t_disturb_the_others(name: str, compiled: bool) -> None:
    stacked = draw(3)
    sound, sick = (Rows(*models(OURS[name], stacked), [p.clone() for p in stacked], compiled) for _ in range(2))
    for t in range(3):
        given = grads(t, 3, torch.float64)
        sound.step(given)
        sick.step([g.index_fill(0, torch.tensor([1]), float("nan" if t else "inf")) for g in given])
    for one, other in zip(sound.params, sick.params, strict=True):
        torch.testing.assert_close(one[[0, 2]], other[[0, 2]], rtol=0, atol=0)
        assert not other[1].isfinite().any()


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "reference"])
def test_groups_and_parameters_without_a_gradient(compiled: bool) -> None:
    def make(r: float) -> Make:
        return lambda p: optim.AdamW([{"params": p[:1], "weight_decay": 0.1 * r}, {"params": p[1:]}], lr=0.1 * r)

    makes = [make(1), make(2)]
    stacked = draw(2)
    rows = Rows(*models(makes, stacked), stacked, compiled)
    alone, _ = models(makes, stacked)
    for t in range(4):
        given: list[Tensor | None] = [*grads(t, 2, torch.float64)]
        given[1] = None if t % 2 else given[1]
        rows.step(given)
        for r, optimizer in enumerate(alone):
            own = [p for group in optimizer.param_groups for p in group["params"]]
            for p, g in zip(own, given, strict=True):
                p.grad = None if g is None else g[r].clone()
            optimizer.step()
            assert all(torch.allclose(a[r], p, rtol=1e-12) for a, p in zip(rows.params, own, strict=True))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: torch.optim.Adam(p), "take gradwise.optim's of the same name"),
        (lambda p: optim.SGD(p, finite_only=True), r"SGD\(finite_only=True\) can't be a row"),
        (lambda p: optim.SGD(p, ema=0.9), "rows keep no averages"),
        (lambda p: optim.ScheduleFreeSGD(p, lr=0.1), "evaluates at an average"),
        (lambda p: optim.SGD([torch.nn.Parameter(torch.ones(7))]), r"shape \(7,\) that is not the model's"),
    ],
)
def test_what_can_t_be_a_row_is_refused(make: Make, said: str) -> None:
    params = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(BatchError, match=said):
        kind(make(params), {params[0]: 0})
