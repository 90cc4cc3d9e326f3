"""How rules are compiled: what is taken out of them, what ends up on disk, threads and forks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradwise.optim as ours
from gradwise.optim import Optimizer, State, rule
from gradwise.optim.kernels import cpu, generated, threads
from gradwise.optim.kernels.formula import RuleError, take_apart
from gradwise.optim.rules.adam import adam
from gradwise.optim.rules.scalars import ema, sign, sqrt, where

GAIN = 2.0


@rule("momentum")
def signum(p: Any, g: Any, m: Any, lr: Any, beta: Any) -> Any:
    m = ema(m, g, beta)
    return p - lr * sign(m), m


@rule("v", State("peak", when="keep"))
def of_all_kinds(p: Any, g: Any, v: Any, peak: Any, lr: Any, keep: Any, mode: Any, t: Any) -> Any:
    scale = GAIN if mode == "double" else 1.0
    g *= scale
    v = v + abs(g) ** 2 / t
    if keep:
        peak = where(peak > v, peak, v)
        step = g / (sqrt(peak) + 1)
    elif mode == "half":
        step = 0.5 * g
    else:
        step = g / (sqrt(v) + 1)
    return p - lr * step, v, peak


class OfAllKinds(Optimizer):
    def __init__(self, params: Any, lr: float = 0.1, keep: bool = False, mode: str = "", **options: Any) -> None:
        super().__init__(params, of_all_kinds, {"lr": lr, "keep": keep, "mode": mode}, **options)


def test_what_is_the_same_for_all_elements_is_computed_once_in_double() -> None:
    formula = take_apart(adam, {"amsgrad": False})
    coefficients, scalars = formula.coefficients(1e-3, 0.9, 0.999, 1e-8, False, 3)
    assert scalars == ()
    assert set(coefficients) == {1 - 0.9, 1 - 0.999, 1e-3, 1 / (1 - 0.9**3), 1 / (1 - 0.999**3), 1e-8}
    assert "beta" not in formula.text.split("def coefficients")[0]


@pytest.mark.parametrize("kwargs", [{}, {"keep": True}, {"mode": "half"}, {"mode": "double"}])
def test_a_rule_of_ones_own_runs_on_every_backend(kwargs: Any) -> None:
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(50, dtype=torch.float64))
    b = nn.Parameter(a.detach().clone())
    one, other = OfAllKinds([a], **kwargs), OfAllKinds([b], backend="reference", **kwargs)
    for _ in range(5):
        a.grad = b.grad = torch.randn(50, dtype=torch.float64)
        one.step()
        other.step()
    assert torch.allclose(a, b, rtol=1e-13, atol=0)
    assert set(one.state[a]) == {"step", "v", *(["peak"] if kwargs.get("keep") else [])}


def test_ten_lines_are_enough() -> None:
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Optimizer([p], signum, {"lr": 0.05, "beta": 0.5}, clip_norm=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        p.square().sum().backward()
        optimizer.step()
    assert float(p.detach().abs().max()) < 0.2


def bad(body: str) -> Any:
    """A rule with this body, in a file of its own, for its source to be found."""
    path = Path(os.environ["PYTEST_RULES"], f"bad_{abs(hash(body))}.py")
    path.write_text(
        "from gradwise.optim import rule\nimport math\n\n@rule('m')\ndef bad(p, g, m, lr):\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
    )
    namespace: dict[str, Any] = {}
    sys.path.insert(0, str(path.parent))
    try:
        namespace = vars(__import__(path.stem))
    finally:
        sys.path.pop(0)
    return namespace["bad"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return p", "returns 1 values; needs p, m"),
        ("m = math.tanh(g)\nreturn p, m", "calls math.tanh"),
        ("if g > 0:\n    m = g\nelse:\n    m = -g\nreturn p, m", "on elements use where"),
        ("m = g if g > 0 else -g\nreturn p, m", "on elements use where"),
        ("for _ in range(3):\n    m = g\nreturn p, m", "only `name = …`"),
        ("m = unknown * g\nreturn p, m", "'unknown' is not known"),
        ("m = g", "must end with one `return`"),
    ],
)
def test_what_a_rule_cannot_do_is_told(body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_RULES", str(tmp_path))
    with pytest.raises(RuleError, match="rule bad") as caught:
        take_apart(bad(body), {})
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_large_tensors_on_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "BYTES", 1 << 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    shapes = [(cpu.CHUNK,), (3, 2 * cpu.CHUNK + 1), (7,), (cpu.CHUNK - 1,)]
    torch.manual_seed(0)
    a = [nn.Parameter(torch.randn(s)) for s in shapes]
    b = [nn.Parameter(p.detach().clone()) for p in a]
    one, other = ours.LAMB(a, telemetry=True), ours.LAMB(b, backend="reference")
    for _ in range(3):
        for p, q in zip(a, b, strict=True):
            p.grad = q.grad = torch.randn(p.shape)
        one.step()
        other.step()
    for p, q in zip(a, b, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)
        told = one.telemetry_of(p)
        assert told is not None
        assert told.gradient == pytest.approx(float(p.grad.double().square().sum()), rel=1e-4)


PROGRAM = """
    import sys
    from gradwise.trials.compiler import put_off

    put_off()  # of no matter here, and slow to import
    import torch
    from torch import nn
    from gradwise.optim import Optimizer, rule

    @rule(counts=False)
    def mine(p, g, lr):
        return p - lr * g * {factor}

    p = nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    Optimizer([p], mine, {{"lr": 0.5}}).step()
    print(float(p[0]), "numba" in sys.modules)
"""


def program(folder: Path, factor: str, **environment: str) -> tuple[float, bool]:
    path = folder / "mine.py"
    path.write_text(textwrap.dedent(PROGRAM.format(factor=factor)))
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GRADWISE_CACHE": str(folder / "cache"), **environment},
    )
    value, compiled = done.stdout.split()
    return float(value), compiled == "True"


def test_processes_share_compiled_rules_and_never_mix_them_up(tmp_path: Path) -> None:
    assert program(tmp_path, "1") == (0.5, True)
    (kernel,) = (tmp_path / "cache" / "kernels").glob("*.kernel")
    assert generated._read(kernel)[1]
    kernel.chmod(0o666)  # others could have written it: it is not run
    assert generated._read(kernel) == ({}, b"")
    kernel.chmod(0o600)
    assert program(tmp_path, "1") == (0.5, False)  # loaded, without Numba
    assert program(tmp_path, "2") == (0.0, True)  # edited: another kernel
    assert program(tmp_path, "1") == (0.5, False)
    (kernel, *_) = sorted((tmp_path / "cache" / "kernels").glob("*.kernel"))
    whole = kernel.read_bytes()
    for spoiled in (b"", b"nonsense", whole[:-7]):
        kernel.write_bytes(spoiled)
        assert generated._read(kernel) == ({}, b"")
    assert {program(tmp_path, f)[0] for f in ("1", "2")} == {0.5, 0.0}
    assert generated._read(kernel)[1]


def test_no_cache_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert program(tmp_path, "1", GRADWISE_CACHE=str(tmp_path / "file" / "below")) == (0.5, True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_steps_too() -> None:
    """After torch's threads have run in the parent, a parallel region in a child would never return."""
    code = """
        import os, torch
        from torch import nn
        import gradwise.optim as ours
        torch.set_num_threads(2)
        p = nn.Parameter(torch.ones(2_000_000))
        optimizer = ours.Adam([p], lr=0.1)
        p.grad = torch.ones_like(p)
        optimizer.step()
        p.sum()
        child = os.fork()
        if child == 0:
            optimizer.step()
            os._exit(0 if abs(float(p[-1]) - 0.8) < 1e-3 else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "0"


def test_weights_shared_between_processes_are_stepped_in_place() -> None:
    p = nn.Parameter(torch.ones(4).share_memory_())
    address = p.data_ptr()
    optimizer = ours.SGD([p], lr=0.5)
    p.grad = torch.ones(4)
    optimizer.step()
    assert p.data_ptr() == address
    assert p.is_shared()
    assert p.tolist() == [0.5] * 4


def test_steps_from_several_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def train(seed: int) -> float:
        p = nn.Parameter(torch.full((70_000,), float(seed)))
        optimizer = ours.Adam([p], lr=0.1)
        for _ in range(20):
            p.grad = p.detach().clone()
            optimizer.step()
        return float(p.detach().mean())

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(train, [1, 2, 3, 4] * 3))
    assert found == [train(s) for s in [1, 2, 3, 4] * 3]


def test_nan_is_not_lost() -> None:
    for cls in (ours.SGD, ours.Adam, ours.Lion, ours.Rprop, ours.RMSprop):
        p = nn.Parameter(torch.ones(5))
        optimizer = cls([p], clip_value=1.0, l1=0.1)
        p.grad = torch.tensor([1.0, math.nan, 1.0, 1.0, 1.0])
        optimizer.step()
        assert p.isnan().tolist() == [False, True, False, False, False], cls.__name__
