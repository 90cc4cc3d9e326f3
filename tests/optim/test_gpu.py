"""The GPU kernels against the reference: on a GPU where there is one, and on the CPU by Triton's interpreter.

The interpreter is chosen when Triton is imported, so it has a process of its own: `TRITON_INTERPRET=1 pytest` with this
file runs in it what `test_under_the_interpreter` runs.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwise.optim as ours
from gradwise.optim.kernels import gpu
from gradwise.optim.kernels.formula import take_apart
from gradwise.optim.rules import adam as rules

INTERPRETED, CUDA = gpu.interpreted(), torch.cuda.is_available()
DEVICE = "cuda" if CUDA and not INTERPRETED else "cpu"
runs = pytest.mark.skipif(not (INTERPRETED or CUDA), reason="no GPU; see test_under_the_interpreter")
on_cuda = pytest.mark.skipif(not CUDA or INTERPRETED, reason="no GPU")
compiles = pytest.mark.skipif(find_spec("triton") is None or INTERPRETED, reason="needs Triton's compiler")

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "dampening": 0.1},
    "Adagrad": {},
    "Adadelta": {},
    "RMSprop": {"centered": True, "momentum": 0.9},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "AdaBelief": {},
    "Lion": {},
    "LAMB": {"weight_decay": 0.1},
    "ASGD": {"t0": 1},
    "Rprop": {},
    "ScheduleFreeSGD": {"lr": 0.1, "weight_decay": 0.1},
    "ScheduleFreeAdamW": {"warmup_steps": 2},
}
SHAPES = [(7, 5), (), (0,), (1, 6), (3, 400)]  # the last needs more than one block


def network(dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=random).to(DEVICE, dtype)) for s in shapes]


def gradients(params: list[nn.Parameter], seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=random).to(DEVICE, p.dtype) for p in params]


class Pair:
    """The same optimizer twice, by the GPU kernel and by the reference."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32, shapes: Any = SHAPES, **kwargs: Any) -> None:
        self.mine, self.theirs = network(dtype, shapes), network(dtype, shapes)
        self.fused = getattr(ours, name)(self.mine, backend="gpu", **copy.deepcopy(kwargs))
        self.peer = getattr(ours, name)(self.theirs, backend="reference", **copy.deepcopy(kwargs))

    def step(self, seed: int, change: Callable[[Tensor], Any] = lambda g: None, **scaler: Tensor) -> None:
        for params, optimizer in ((self.mine, self.fused), (self.theirs, self.peer)):
            for p, g in zip(params, gradients(params, seed), strict=True):
                change(g)
                p.grad = g
            vars(optimizer).update(scaler)
            optimizer.step()

    def far(self) -> float:
        """Largest difference of parameters and states, relative to the tensor's size, in units of its last place."""
        worst = 0.0
        for p, q in zip(self.mine, self.theirs, strict=True):
            a, b = self.fused.state.get(p, {}), self.peer.state.get(q, {})
            assert a.keys() == b.keys()
            for x, y in ((p, q), *((a[k], b[k]) for k in b)):
                assert x.dtype == y.dtype
                if y.numel():
                    size = max(float(y.detach().abs().max()), 1e-30)
                    unit = torch.finfo(p.dtype).eps
                    worst = max(worst, float((x.detach().to(y.device) - y.detach()).abs().max()) / size / unit)
        return worst


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule(name: str, dtype: torch.dtype) -> None:
    pair = Pair(name, dtype, **OPTIMIZERS[name])
    for seed in range(3):
        pair.step(seed)
    assert pair.far() < 16


@runs
@pytest.mark.parametrize("master", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["SGD", "Adam", "Rprop"])
def test_sixteen_bits(name: str, dtype: torch.dtype, master: bool) -> None:
    pair = Pair(name, dtype, **{"ema": 0.9, "master_weights": master, **({"eps": 1e-4} if name == "Adam" else {})})
    for seed in range(2):
        pair.step(seed)
    assert pair.far() < 2  # a result between two neighbours may become either


@runs
@pytest.mark.parametrize(
    "options",
    [
        {"clip_value": 0.5, "maximize": True},
        {"clip_norm": 0.3, "telemetry": True},
        {"l1": 0.05, "ema": 0.9, "telemetry": True},
        {"weight_decay": 0.1, "clip_norm": 1e9},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "lr": lambda step: 0.1 / (1 + step)},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("name", ["Adam", "NAdam"])
def test_options(name: str, options: dict[str, Any]) -> None:
    pair = Pair(name, **{"lr": 0.1, **options})
    for seed in range(3):
        pair.step(seed)
    assert pair.far() < 16
    for p, q in zip(pair.mine, pair.theirs, strict=True):
        a, b = pair.fused.telemetry_of(p), pair.peer.telemetry_of(q)
        assert (a is None) == (b is None) == ("telemetry" not in options)
        if a is not None:
            assert list(a) == pytest.approx(list(b), rel=1e-4, abs=1e-6)


@runs
def test_of_tensors_of_any_length_and_place() -> None:
    """Whole chunks and odd rests, addresses that no vector begins at, elements in another order than the gradient."""
    pair = Pair("Adam", shapes=[(9000,), (4096,), (16,), (33,), (5, 40)], lr=0.1)
    for params, optimizer in ((pair.mine, pair.fused), (pair.theirs, pair.peer)):
        odd = nn.Parameter(torch.linspace(-1, 1, 100, device=DEVICE)[3:].detach())
        turned = nn.Parameter(torch.linspace(-1, 1, 60, device=DEVICE).view(6, 10).t().detach())
        params += [odd, turned]
        optimizer.add_param_group({"params": [odd, turned]})
    pair.step(0)
    pair.step(1, lambda g: g.set_(torch.cat([g.flatten()[:1], g.flatten()])[1:].view(g.shape)))
    assert pair.far() < 16


@runs
def test_tensors_at_different_steps() -> None:
    pair = Pair("NAdam", shapes=[(5,), (6,)])
    pair.step(0)
    for optimizer, params in ((pair.fused, pair.mine), (pair.peer, pair.theirs)):
        params[0].grad = None
        optimizer.step()
        params[0].grad = torch.ones_like(params[0])
        optimizer.step()
    assert [float(pair.fused.state[p]["step"]) for p in pair.mine] == [2, 3]
    assert pair.far() < 16


@runs
@pytest.mark.parametrize("name", ["Adam", "NAdam", "LAMB"])
def test_a_gradient_that_is_not_finite_changes_nothing(name: str) -> None:
    pair = Pair(name, finite_only=True, clip_norm=1.0, telemetry=True)
    pair.step(0)
    before = copy.deepcopy(pair.fused.state_dict()["state"])
    pair.step(1, lambda g: g.view(-1)[:1].fill_(float("nan")))
    torch.testing.assert_close(pair.fused.state_dict()["state"], before, rtol=0, atol=0)
    pair.step(2)
    assert pair.far() < 16
    assert pair.fused.skipped == pair.peer.skipped == 1
    assert float(pair.fused.state[pair.mine[0]]["step"]) == 2


@runs
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_under_a_gradient_scaler(name: str) -> None:
    pair = Pair(name, clip_norm=1.0, **({"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}))
    scale = torch.tensor(64.0, device=DEVICE)
    fine, spoiled = torch.zeros((), device=DEVICE), torch.ones((), device=DEVICE)
    for seed, found in enumerate((spoiled, fine, spoiled, fine, fine)):
        if seed != 0 or name == "Adam":  # the reference makes no state before its first step
            pair.step(seed, lambda g: g.mul_(64), grad_scale=scale, found_inf=found)
        elif name == "SGD":
            pair.step(seed, lambda g: g.fill_(float("inf")), grad_scale=scale, found_inf=found)
    assert pair.far() < 16
    assert pair.fused.skipped == pair.peer.skipped == 2


@runs
@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD", "LAMB", "RAdam", "ScheduleFreeAdamW"])
def test_rate_and_step_on_the_device(name: str) -> None:
    pair = Pair(name, lr=torch.tensor(0.1, device=DEVICE), weight_decay=0.1, l1=0.01)
    pair.fused.param_groups[0]["capturable"] = True
    for seed in range(3):
        pair.step(seed)
        for optimizer in (pair.fused, pair.peer):
            optimizer.param_groups[0]["lr"].mul_(0.5)
    assert all(pair.fused.state[p]["step"].device.type == DEVICE for p in pair.mine)
    assert pair.far() < 16


@runs
def test_counters_move_to_the_device_and_back() -> None:
    pair = Pair("Adam")
    pair.step(0)
    pair.step(1, found_inf=torch.zeros((), device=DEVICE))
    saved = copy.deepcopy(pair.fused.state_dict())
    pair.step(2)
    assert pair.far() < 16
    pair.fused.load_state_dict(saved)
    assert float(pair.fused.state[pair.mine[0]]["step"]) == 2
    del pair.fused.found_inf
    pair.fused.step()
    assert float(pair.fused.state[pair.mine[0]]["step"]) == 3


@runs
def test_stochastic_rounding_keeps_small_steps() -> None:
    """A quarter of a unit: lost when rounded to the nearest; a quarter of the elements move when rounded by chance."""
    p = nn.Parameter(torch.full((4096,), 1.0, dtype=torch.bfloat16, device=DEVICE))
    unit = torch.finfo(torch.bfloat16).eps
    optimizer = ours.SGD([p], lr=unit / 4, stochastic_rounding=True, maximize=True, backend="gpu")
    torch.manual_seed(0)
    p.grad = torch.ones_like(p)
    optimizer.step()
    moved = (p.detach().float() - 1) / unit
    assert set(moved.tolist()) == {0.0, 1.0}
    assert abs(float(moved.mean()) - 0.25) < 0.05
    first = p.detach().clone()
    optimizer.step()
    assert not torch.equal((p.detach() - first) > 0, first > 1), "each step draws anew"


@runs
def test_nothing_but_empty_tensors() -> None:
    pair = Pair("LAMB", shapes=[(0,), (3, 0)], telemetry=True, finite_only=True)
    pair.step(0)
    assert pair.fused.telemetry_of(pair.mine[0]) == (0, 0, 0, 0, 0)


@runs
def test_complex_parameters() -> None:
    pair = Pair("Adam", torch.complex64, shapes=[(4, 3)])
    for seed in range(2):
        pair.step(seed)
    a, b = (torch.view_as_real(ps[0].detach()) for ps in (pair.mine, pair.theirs))
    assert float((a - b).abs().max()) < 1e-6


def test_what_cannot_be_stepped_is_said() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = ours.Adam([p], backend="gpu")
    p.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="gradient is sparse" if INTERPRETED else "on cpu, not on a GPU"):
        optimizer.step()


@pytest.mark.skipif(find_spec("triton") is None or INTERPRETED, reason="needs Triton, once")
def test_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@compiles
@pytest.mark.parametrize("target", [("cuda", 90, 32), ("hip", "gfx942", 64)], ids=lambda t: t[0])
@pytest.mark.parametrize("master", [False, True])
def test_compiles_without_a_gpu_and_loads_whole_vectors(target: tuple[Any, ...], master: bool) -> None:
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    formula = take_apart(rules.adam, {"amsgrad": True})
    dtype = torch.bfloat16 if master else torch.float32
    kernel = gpu.compiled("adam", formula, [dtype] * 2 + [torch.float32] * 3, dtype, master)
    words = ("table", "gradients", "chunks", "seed")
    kinds = {n: "*i64" if n in words else "*fp64" for n in kernel.arg_names[:7]}
    kinds |= {"first": "i32", "stride": "i32", "flags": "i32", "ALIGNED": "constexpr"}
    made = compiled(
        ASTSource(kernel, kinds, constexprs={"ALIGNED": True}), GPUTarget(*target), {"enable_fp_fusion": True}
    )
    assert ("ld.global.v4.b32" if target[0] == "cuda" else "global_load_dwordx4") in str(
        made.asm["ptx" if target[0] == "cuda" else "amdgcn"]
    )


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@on_cuda
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_host_never_waits(name: str, no_waiting: None) -> None:
    torch.cuda.set_sync_debug_mode("default")
    pair = Pair(name, clip_norm=1.0, finite_only=True, telemetry=True, **OPTIMIZERS[name])
    scaler = {"grad_scale": torch.tensor(2.0, device=DEVICE), "found_inf": torch.zeros((), device=DEVICE)}
    pair.step(0, **scaler)
    vars(pair.fused).update(scaler)
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(2):
        pair.fused.step()


@on_cuda
@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "LAMB", "ScheduleFreeAdamW"])
def test_a_captured_graph_replays_with_the_right_step_and_rate(name: str) -> None:
    pair = Pair(name, lr=torch.tensor(0.1, device=DEVICE), clip_norm=1.0, ema=0.9)
    pair.fused.param_groups[0]["capturable"] = True
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for seed in range(3):
            pair.step(seed)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records, runs nothing
        pair.fused.step()
    for seed in range(3, 6):
        for optimizer in (pair.fused, pair.peer):
            optimizer.param_groups[0]["lr"].mul_(0.5)
        new = gradients(pair.mine, seed)
        for p, q, g in zip(pair.mine, pair.theirs, new, strict=True):
            p.grad.copy_(g)
            q.grad = g.clone()
        graph.replay()
        pair.peer.step()
    assert pair.far() < 16


@on_cuda
def test_auto_picks_the_kernel() -> None:
    p = nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = ours.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert type(next(iter(optimizer._plans[0].values()))[0]).__name__ == "Fused"
