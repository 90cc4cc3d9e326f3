"""Drop-ins: torch's own table of configurations and errors, run against our classes of the same names."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwise.optim as ours

try:  # private, but the only table of all configurations
    from torch.testing._internal.common_optimizers import optim_db
except ImportError:  # pragma: no cover
    optim_db = []

TABLE = {info.optim_cls.__name__: info for info in optim_db if hasattr(ours, info.optim_cls.__name__)}
# What has no meaning here, or is about ways of running and not about what is computed.
WAYS = ("foreach", "fused", "capturable", "differentiable")
CASES = [
    pytest.param(name, i, id=f"{name}-{i}")
    for name, info in TABLE.items()
    for i, _ in enumerate(info.optim_inputs_func(device="cpu"))
]
BACKENDS = ("auto", "reference")


def settings(name: str, i: int) -> dict[str, Any]:
    kwargs = TABLE[name].optim_inputs_func(device="cpu")[i].kwargs
    return {k: v for k, v in kwargs.items() if k not in WAYS}


def network(dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (5,), (3, 4, 2), (), (1, 6)]
    return [nn.Parameter(torch.randn(s, generator=random, dtype=dtype)) for s in shapes]


def gradients(params: list[nn.Parameter], steps: int, seed: int = 1) -> Iterator[list[Tensor]]:
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        sizes = [10.0 ** float(torch.randn((), generator=random)) for _ in params]
        new = [s * torch.randn(p.shape, generator=random, dtype=p.dtype) for s, p in zip(sizes, params, strict=True)]
        yield [g if step % 7 else 0 * g for g in new]


def train(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], grads: list[list[Tensor]]) -> None:
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = g.clone()
        optimizer.step()


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the tensor's size."""
    scale = max(float(b.detach().abs().max()), 1e-300) if b.numel() else 1.0
    return float((a.detach() - b.detach()).abs().max()) / scale if b.numel() else 0.0


def pair(name: str, kwargs: dict[str, Any], dtype: torch.dtype, backend: str = "auto") -> tuple[Any, ...]:
    mine, theirs = network(dtype), network(dtype)
    kwargs = copy.deepcopy(kwargs)
    peer = getattr(torch.optim, name)(theirs, foreach=False, **copy.deepcopy(kwargs))
    return getattr(ours, name)(mine, backend=backend, **kwargs), mine, peer, theirs


@pytest.fixture
def double() -> Iterator[None]:
    """Torch keeps some of its numbers in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not TABLE, reason="this torch has no table of optimizers")
def test_the_table_is_there() -> None:
    assert len(TABLE) >= 11
    assert len(CASES) >= 60


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "i"), CASES)
def test_fifty_steps_in_double(name: str, i: int, backend: str) -> None:
    optimizer, mine, peer, theirs = pair(name, settings(name, i), torch.float64, backend)
    grads = list(gradients(mine, 50))
    train(optimizer, mine, grads)
    train(peer, theirs, grads)
    for p, q in zip(mine, theirs, strict=True):
        assert far(p, q) < 1e-12
        for key, value in peer.state.get(q, {}).items():
            assert far(optimizer.state[p][key], value) < 1e-11, key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "i"), CASES)
def test_each_step_in_single(name: str, i: int, backend: str) -> None:
    """From the same state, one step differs from torch's in double by a few units in the last place."""
    optimizer, mine, peer, theirs = pair(name, settings(name, i), torch.float32, backend)
    unit = torch.finfo(torch.float32).eps
    for step in gradients(mine, 12):
        train(optimizer, mine, [step])
        train(peer, theirs, [step])
        for p, q in zip(mine, theirs, strict=True):
            assert far(p, q) < 16 * unit
            # On from the same place: what is tested is a step, not how differences grow.
            with torch.no_grad():
                q.copy_(p)
        for p, q in zip(mine, theirs, strict=True):
            for key, value in peer.state.get(q, {}).items():
                value.copy_(optimizer.state[p][key])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", TABLE)
def test_complex_parameters(name: str) -> None:
    shape, dtype = (4, 3), torch.complex128
    random = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=random, dtype=dtype)
    grads = [[torch.randn(shape, generator=random, dtype=dtype)] for _ in range(20)]
    p, q = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    train(getattr(ours, name)([p], lr=0.01), [p], grads)
    train(getattr(torch.optim, name)([q], lr=0.01, foreach=False), [q], grads)
    assert far(torch.view_as_real(p), torch.view_as_real(q)) < 1e-12


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("way", ["torch to ours", "ours to torch"])
@pytest.mark.parametrize(("name", "i"), CASES)
def test_state_dicts_go_both_ways_in_mid_training(name: str, i: int, way: str) -> None:
    kwargs = settings(name, i)
    optimizer, mine, peer, theirs = pair(name, kwargs, torch.float64)
    grads = list(gradients(mine, 30))
    first, then = (optimizer, peer) if way == "ours to torch" else (peer, optimizer)
    weights, others = (mine, theirs) if way == "ours to torch" else (theirs, mine)
    train(first, weights, grads[:17])
    with torch.no_grad():
        for a, b in zip(others, weights, strict=True):
            a.copy_(b)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    then.load_state_dict(torch.load(file, weights_only=True))
    train(first, weights, grads[17:])
    train(then, others, grads[17:])
    for p, q in zip(others, weights, strict=True):
        assert far(p, q) < 1e-12


@pytest.mark.parametrize(("name", "i"), CASES)
def test_states_look_like_torchs(name: str, i: int) -> None:
    optimizer, mine, peer, theirs = pair(name, settings(name, i), torch.float32)
    grads = list(gradients(mine, 3))
    train(optimizer, mine, grads)
    train(peer, theirs, grads)
    a, b = optimizer.state_dict(), peer.state_dict()

    def looks(state: Any) -> Any:
        return {k: {n: (v.dtype, v.shape, v.device) for n, v in s.items() if v is not None} for k, s in state.items()}

    assert looks(a["state"]) == looks(b["state"])
    for mine_group, their_group in zip(a["param_groups"], b["param_groups"], strict=True):
        assert {k: mine_group[k] for k in their_group if k != "foreach"} == {
            k: v for k, v in their_group.items() if k != "foreach"
        }


ERRORS = [
    pytest.param(name, i, id=f"{name}-{i}")
    for name, info in TABLE.items()
    for i, _ in enumerate(info.optim_error_inputs_func(device="cpu", dtype=torch.float32))
]


@pytest.mark.parametrize(("name", "i"), ERRORS)
def test_errors_are_torchs(name: str, i: int) -> None:
    error = TABLE[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)[i]
    given = error.optimizer_error_input
    if error.error_on.name == "CONSTRUCTION_ERROR":
        told = pytest.warns if issubclass(error.error_type, Warning) else pytest.raises
        with told(error.error_type, match=error.error_regex):
            getattr(ours, name)(given.params, **given.kwargs)
    else:
        optimizer = getattr(ours, name)(given.params, **given.kwargs)
        with pytest.raises(error.error_type, match=error.error_regex):
            optimizer.step()
