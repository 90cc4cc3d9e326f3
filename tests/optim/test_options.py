"""What every optimizer here can do beside its rule, on both backends, against torch doing it in separate steps."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

import gradwise.optim as ours
from gradwise.schedules import cosine, warmup

CLASSES = [getattr(ours, n) for n in ours.__all__ if isinstance(getattr(ours, n), type)]
CLASSES = [c for c in CLASSES if issubclass(c, ours.Optimizer) and c is not ours.Optimizer]
BACKENDS = ["auto", "reference"]


def weights(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=random, dtype=torch.float64).to(dtype)) for s in shapes]


def grade(params: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    random = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=random, dtype=torch.float64)).to(p.dtype)


def same(a: list[Any], b: list[Any], tolerance: float = 1e-12) -> bool:
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_rule_is_the_same_on_every_backend(cls: Any, dtype: torch.dtype) -> None:
    shapes = [(5, 3), (), (0, 4), (7,), (2, 3, 4)]
    a, b = weights(*shapes, dtype=dtype), weights(*shapes, dtype=dtype)
    one, other = cls(a, lr=0.01), cls(b, lr=0.01, backend="reference")
    for step in range(8):
        grade(a, step)
        grade(b, step)
        one.step()
        other.step()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 1e-2)
    assert same(a, b, tolerance)
    assert all(torch.isfinite(p).all() for p in a)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_clipping_by_norm_is_torchs(cls: Any, backend: str) -> None:
    a, b = weights((5, 3), (7,)), weights((5, 3), (7,))
    one = cls([{"params": a[:1]}, {"params": a[1:], "lr": 0.02}], lr=0.01, clip_norm=0.5, backend=backend)
    other = cls([{"params": b[:1]}, {"params": b[1:], "lr": 0.02}], lr=0.01, backend="reference")
    for step in range(6):
        grade(a, step)
        grade(b, step)
        one.step()
        nn.utils.clip_grad_norm_(b, 0.5)
        other.step()
    assert same(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_clipping_by_value_maximizing_and_decay(cls: Any, backend: str) -> None:
    a, b = weights((5, 3), (7,)), weights((5, 3), (7,))
    decay = {} if cls is ours.Rprop else {"weight_decay": 0.1}
    one = cls(a, lr=0.01, clip_value=0.3, maximize=True, backend=backend, **decay)
    other = cls(b, lr=0.01, backend="reference", **decay)
    for step in range(6):
        grade(a, step)
        grade(b, step, scale=-1.0)
        one.step()
        nn.utils.clip_grad_value_(b, 0.3)
        other.step()
    assert same(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_l1_makes_real_zeros_and_is_the_proximal_step(backend: str) -> None:
    (p,) = weights((200,))
    start, threshold = p.detach().clone(), 0.1 * 3.0
    grade([p], 0)
    gradient = p.grad.clone()
    ours.SGD([p], lr=0.1, l1=3.0, backend=backend).step()
    moved = start - 0.1 * gradient
    expected = torch.sign(moved) * (moved.abs() - threshold).clamp(min=0)
    assert torch.allclose(p, expected, rtol=0, atol=1e-15)
    assert int((p == 0).sum()) == int((moved.abs() <= threshold).sum()) > 10


def test_l1_selects_the_features_that_matter() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 20, dtype=torch.float64)
    y = x[:, :3] @ torch.tensor([3.0, -2.0, 1.5], dtype=torch.float64)
    w = nn.Parameter(torch.randn(20, dtype=torch.float64))
    optimizer = ours.SGD([w], lr=0.05, l1=0.2)
    for _ in range(400):
        optimizer.zero_grad()
        F.mse_loss(x @ w, y).backward()
        optimizer.step()
    assert (w[3:] == 0).all()
    assert (w[:3] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_averages_are_those_of_the_weights_after_each_step(cls: Any, backend: str) -> None:
    params = weights((5, 3), (7,))
    average = [p.detach().clone() for p in params]
    optimizer = cls(params, lr=0.05, ema=0.9, backend=backend)
    for step in range(6):
        grade(params, step)
        optimizer.step()
        for e, p in zip(average, params, strict=True):
            e.lerp_(p.detach(), 0.1)
    own = [p.detach().clone() for p in params]
    with optimizer.averaged():
        assert same(params, average)
    assert same(params, own, 0.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_gradients_leave_everything_as_it_is(backend: str, bad: float) -> None:
    params, others = weights((5, 3), (7,)), weights((5, 3), (7,))
    optimizer = ours.Adam(params, finite_only=True, ema=0.9, backend=backend)
    peer = ours.Adam(others, ema=0.9, backend=backend)
    grade(params, 0)
    params[1].grad[3] = bad
    optimizer.step()
    assert (optimizer.skipped, optimizer.steps) == (1, 0)
    for step in range(3):
        grade(params, step)
        grade(others, step)
        optimizer.step()
        peer.step()
        before = [p.detach().clone() for p in params]
        state = copy.deepcopy(optimizer.state_dict()["state"])
        params[0].grad[0, 0] = bad
        optimizer.step()
        assert same(params, before, 0.0)
        now = optimizer.state_dict()["state"]
        assert all(torch.equal(state[k][n], now[k][n]) for k in state for n in state[k])
    assert same(params, others, 0.0)
    assert optimizer.skipped == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_telemetry_is_what_the_step_did(backend: str) -> None:
    params = weights((5, 3), (40_000,))
    optimizer = ours.Adam(params, lr=0.01, telemetry=True, clip_norm=0.1, backend=backend)
    for step in range(3):
        grade(params, step)
        before = [p.detach().clone() for p in params]
        moments = [optimizer.state[p]["exp_avg"].clone() if step else torch.zeros_like(p) for p in params]
        optimizer.step()
        for p, old, m in zip(params, before, moments, strict=True):
            told = optimizer.telemetry_of(p)
            assert told is not None
            expected = (
                p.grad.square().sum(),
                old.square().sum(),
                (p.detach() - old).square().sum(),
                (p.grad * m).sum(),
            )
            assert told[:4] == pytest.approx([float(e) for e in expected], rel=1e-9)
            assert told.nonfinite == 0
    params[0].grad[0, 0] = math.nan
    optimizer.clip_norm = None
    optimizer.step()
    assert [optimizer.telemetry_of(p).nonfinite for p in params] == [1, 0]  # type: ignore[union-attr]


def test_a_grad_scalers_scale_is_taken_out_and_a_bad_step_left_out() -> None:
    params, others = weights((5, 3)), weights((5, 3))
    optimizer, peer = ours.AdamW(params), ours.AdamW(others)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert optimizer._step_supports_amp_scaling
    for step in range(4):
        loss = sum((p * torch.linspace(-1, 1 + step, p.numel(), dtype=p.dtype).view_as(p)).sum() for p in params)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        peer.zero_grad()
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad / float(scaler.get_scale())
        if step == 2:
            params[0].grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        if step != 2:
            peer.step()
    assert optimizer.skipped == 1
    assert same(params, others)


@pytest.mark.parametrize("cls", [ours.SGD, ours.Adagrad, ours.Adam, ours.AdamW])
def test_sparse_gradients_step_their_rows_only(cls: Any) -> None:
    torch.manual_seed(0)
    table = nn.Embedding(10, 3, sparse=True, dtype=torch.float64)
    before = table.weight.detach().clone()
    optimizer = cls(table.parameters(), lr=0.1, weight_decay=0)
    for rows in ([1, 4, 4], [4, 7]):
        optimizer.zero_grad()
        table(torch.tensor(rows)).pow(2).sum().backward()
        optimizer.step()
    changed = (table.weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [1, 4, 7]
    if cls in (ours.SGD, ours.Adagrad):
        torch.manual_seed(0)
        other = nn.Embedding(10, 3, sparse=True, dtype=torch.float64)
        peer = getattr(torch.optim, cls.__name__)(other.parameters(), lr=0.1)
        for rows in ([1, 4, 4], [4, 7]):
            peer.zero_grad()
            other(torch.tensor(rows)).pow(2).sum().backward()
            peer.step()
        assert same([table.weight], [other.weight])


def test_sparse_gradients_elsewhere_are_an_error() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="RMSprop does not support sparse gradients"):
        ours.RMSprop(table.parameters()).step()
    with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse gradients"):
        ours.SGD(table.parameters(), weight_decay=0.1).step()


def test_small_steps_in_bfloat16_add_up_with_stochastic_rounding_or_wide_weights() -> None:
    def train(**options: Any) -> float:
        torch.manual_seed(0)
        p = nn.Parameter(torch.ones(2000, dtype=torch.bfloat16))
        optimizer = ours.SGD([p], lr=1e-4, **options)
        for _ in range(100):
            p.grad = torch.ones_like(p)
            optimizer.step()
        return float(p.detach().float().mean())

    assert train() == 1.0  # each step is lost in rounding
    assert train(stochastic_rounding=True) == pytest.approx(0.99, abs=2e-3)
    assert train(master_weights=True) == pytest.approx(0.99, abs=2e-3)


def test_wide_weights_survive_a_state_dict() -> None:
    p = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = ours.Adam([p], master_weights=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    q = nn.Parameter(p.detach().clone())
    other = ours.Adam([q], master_weights=True)
    other.load_state_dict(optimizer.state_dict())
    for name in ("master", "exp_avg", "exp_avg_sq"):
        assert other.state[q][name].dtype == torch.float32
        assert torch.equal(other.state[q][name], optimizer.state[p][name])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_schedule_as_rate(backend: str) -> None:
    factor = 0.1 * (warmup(3) >> cosine(5))
    params, others = weights((4,)), weights((4,))
    optimizer = ours.SGD(params, lr=factor, backend=backend)
    peer = torch.optim.SGD(others, lr=1.0)
    for step in range(10):
        grade(params, step)
        grade(others, step)
        peer.param_groups[0]["lr"] = factor(step)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == factor(step)
        peer.step()
    assert same(params, others)
    resumed = ours.SGD(params, lr=factor)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.steps == 10
    bare = ours.SGD(params, lr=1.0)
    bare.load_state_dict(optimizer.state_dict())
    assert bare._schedules == [factor]


def test_torchs_schedulers_work() -> None:
    params, others = weights((4,)), weights((4,))
    optimizer, peer = ours.Adam(params, lr=0.1), torch.optim.Adam(others, lr=0.1)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, 0.2, 12) for o in (optimizer, peer)]
    for step in range(12):
        grade(params, step)
        grade(others, step)
        for o, s in zip((optimizer, peer), schedulers, strict=True):
            o.step()
            if step < 11:
                s.step()
    assert same(params, others)


def test_parameters_and_states_may_be_exchanged_under_way() -> None:
    """As when points are added to a scene: another parameter takes over another's place, with a state of its own."""
    params, others = weights((6,)), weights((6,))
    optimizer, peer = ours.Adam(params, lr=0.1), torch.optim.Adam(others, lr=0.1)
    for o, held in ((optimizer, params), (peer, others)):
        for step in range(3):
            grade(held, step)
            o.step()
        old = o.param_groups[0]["params"][0]
        state = o.state.pop(old)
        new = nn.Parameter(torch.cat([old.detach(), torch.ones(2, dtype=old.dtype)]))
        grown = {k: torch.cat([v, torch.zeros(2, dtype=v.dtype)]) if v.dim() else v for k, v in state.items()}
        o.param_groups[0]["params"][0] = held[0] = new
        o.state[new] = grown
        for step in range(3):
            grade(held, step)
            o.step()
        new.data = new.data.clone()  # other memory
        o.state[new]["exp_avg"] = torch.zeros_like(new)
        grade(held, 9)
        o.step()
    assert same(params, others)


def test_gradients_come_and_go() -> None:
    params, others = weights((6,), (3,), (2,)), weights((6,), (3,), (2,))
    optimizer, peer = ours.NAdam(params), torch.optim.NAdam(others)
    torch.manual_seed(0)
    for step in range(12):
        grade(params, step)
        grade(others, step)
        for i in range(3):
            if (step >> i) & 1:
                params[i].grad = others[i].grad = None
        optimizer.step()
        peer.step()
    assert same(params, others, 1e-7)  # torch keeps the product of its momenta in float32, and so do we


@pytest.mark.parametrize("layout", ["transposed", "channels last", "a slice", "expanded gradient", "strided gradient"])
def test_memory_in_another_order(layout: str) -> None:
    def make() -> tuple[nn.Parameter, Tensor]:
        torch.manual_seed(0)
        x, g = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
        if layout == "transposed":
            return nn.Parameter(x.permute(3, 1, 0, 2)), g.permute(3, 1, 0, 2).contiguous()
        if layout == "channels last":
            return nn.Parameter(x.to(memory_format=torch.channels_last)), g
        if layout == "a slice":
            return nn.Parameter(x[:, 1:, ::2]), g[:, 1:, ::2]
        if layout == "expanded gradient":
            return nn.Parameter(x), g[:, :, :1, :1].expand(2, 3, 4, 5)
        return nn.Parameter(x), g.transpose(0, 3).contiguous().transpose(0, 3)

    (p, g), (q, h) = make(), make()
    optimizer, peer = ours.Adam([p]), torch.optim.Adam([q], foreach=False)
    for _ in range(4):
        p.grad, q.grad = g, h
        optimizer.step()
        peer.step()
    assert same([p], [q])
    assert optimizer.state[p]["exp_avg"].stride() == peer.state[q]["exp_avg"].stride()


@pytest.mark.parametrize("loaded", ["contiguous", "channels last"])
def test_a_state_saved_in_another_order_is_put_into_the_parameters(loaded: str) -> None:
    orders = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    other = next(order for name, order in orders.items() if name != loaded)

    def steps(optimizer: Any, p: nn.Parameter, seeds: range) -> None:
        for seed in seeds:
            p.grad = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)).to(memory_format=other)
            optimizer.step()

    weights = []
    for kind in (ours.Adam, torch.optim.Adam):
        p = nn.Parameter(torch.ones(2, 3, 4, 5).to(memory_format=other))
        optimizer = kind([p], lr=0.1)
        steps(optimizer, p, range(3))
        saved = optimizer.state_dict()
        for name in ("exp_avg", "exp_avg_sq"):
            saved["state"][0][name] = saved["state"][0][name].contiguous(memory_format=orders[loaded])
        q = nn.Parameter(p.detach().clone())
        fresh = kind([q], lr=0.1)
        fresh.load_state_dict(saved)
        steps(fresh, q, range(3, 5))
        weights.append(q)
    assert same(weights[:1], weights[1:], 1e-6)


def test_copies_and_checkpoints_go_on_alike(tmp_path: Any) -> None:
    model = nn.Linear(3, 2)
    optimizer = ours.RMSprop(model.parameters(), momentum=0.9, clip_norm=1.0, lr=0.1 * cosine(50))

    def train(m: nn.Module, o: Any, steps: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            o.zero_grad()
            m(torch.randn(4, 3, generator=random)).square().sum().backward()
            o.step()

    train(model, optimizer, 5, 0)
    twin_model, twin = copy.deepcopy((model, optimizer))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    third_model = copy.deepcopy(model)
    third = ours.RMSprop(third_model.parameters(), momentum=0.9, clip_norm=1.0, lr=0.1 * cosine(50))
    third.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for m, o in ((model, optimizer), (twin_model, twin), (third_model, third)):
        train(m, o, 5, 1)
    for other in (twin_model, third_model):
        assert same(list(model.parameters()), list(other.parameters()), 0.0)
    assert (twin.clip_norm, twin.steps, third.steps) == (1.0, 10, 10)


def test_hooks_and_closures() -> None:
    (p,) = weights((3,))
    optimizer = ours.SGD([p], lr=0.1)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *a: called.append("before"))
    optimizer.register_step_post_hook(lambda *a: called.append("after"))
    handle = register_optimizer_step_post_hook(lambda *a: called.append("everywhere"))

    def closure() -> Tensor:
        called.append("closure")
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    try:
        loss = optimizer.step(closure)
    finally:
        handle.remove()
    assert called == ["before", "closure", "after", "everywhere"]
    assert float(loss.detach()) > float(p.detach().square().sum())


def test_of_compiled_models() -> None:
    model = nn.Linear(3, 2)
    compiled = torch.compile(model, backend="eager")
    optimizer = ours.Adam(compiled.parameters(), lr=0.1)
    x = torch.randn(16, 3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = compiled(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]


def test_under_distributed_data_parallel() -> None:
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        torch.manual_seed(0)
        model, other = nn.Linear(3, 2), nn.Linear(3, 2)
        other.load_state_dict(model.state_dict())
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer, peer = ours.Adam(wrapped.parameters()), torch.optim.Adam(other.parameters())
        for _ in range(3):
            x = torch.randn(4, 3)
            for m, o in ((wrapped, optimizer), (other, peer)):
                o.zero_grad()
                m(x).square().sum().backward()
                o.step()
        assert same(list(model.parameters()), list(other.parameters()), 1e-6)
    finally:
        torch.distributed.destroy_process_group()


def test_accumulated_gradients_and_parameters_shared_by_layers() -> None:
    def train(make: Any) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        optimizer = make(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            for _ in range(2):
                model(torch.randn(5, 4)).square().mean().backward()
            optimizer.step()
        return model

    assert same(list(train(ours.SGD).parameters()), list(train(torch.optim.SGD).parameters()), 1e-6)


SETTINGS = {
    ours.SGD: st.fixed_dictionaries({"momentum": st.sampled_from([0.0, 0.5, 0.99]), "weight_decay": st.floats(0, 0.5)}),
    ours.Adam: st.fixed_dictionaries(
        {"betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)), "eps": st.floats(1e-12, 1e-2)}
    ),
    ours.RMSprop: st.fixed_dictionaries({"alpha": st.floats(0.01, 0.999), "centered": st.booleans()}),
    ours.Adadelta: st.fixed_dictionaries({"rho": st.floats(0.01, 0.99), "eps": st.floats(1e-9, 1e-2)}),
}


@given(st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_shapes_layouts_and_settings_against_torch(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(list(SETTINGS)))
    kwargs = data.draw(SETTINGS[cls])
    shapes = data.draw(st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=4))
    lr = data.draw(st.floats(1e-6, 1.0))
    params, others = weights(*shapes), weights(*shapes)
    optimizer = cls(params, lr=lr, **kwargs)
    peer = getattr(torch.optim, cls.__name__)(others, lr=lr, foreach=False, **kwargs)
    for step in range(5):
        grade(params, step)
        grade(others, step)
        optimizer.step()
        peer.step()
    # Centred: the difference of two nearly equal numbers under a root keeps few digits.
    assert same(params, others, 1e-6 if kwargs.get("centered") else 1e-10)


def test_bad_options_are_told() -> None:
    params = weights((2,))
    for kwargs, said in (
        ({"clip_norm": 0}, "clip_norm"),
        ({"clip_value": -1.0}, "clip_value"),
        ({"ema": 1.0}, "ema"),
        ({"l1": -0.1}, "l1"),
        ({"backend": "tpu"}, "backend"),
        ({"differentiable": True}, "differentiable"),
    ):
        with pytest.raises(ValueError, match=said):
            ours.Adam(params, **kwargs)
    with pytest.raises(ValueError, match="Momentum must be between 0 and 1"):
        ours.ScheduleFreeAdamW(params, betas=(0.0, 0.999))
    with pytest.raises(ValueError, match="Momentum must be between 0 and 1"):
        ours.ScheduleFreeSGD(params, momentum=0.0)
    with pytest.raises(TypeError, match="clipnorm"):
        ours.Adam(params, clipnorm=1.0)
