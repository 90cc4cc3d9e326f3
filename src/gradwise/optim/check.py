"""Whether every rule does on this machine, by every kernel it has, what its formula says.

`python -m gradwise.optim.check` steps each optimizer with all options on, in every number type, and holds each step
against the reference in float64 from the same state. The table has the worst difference of parameters and states, in
units of the last place of a tensor's largest element.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import gradwise.optim as optim
from gradwise.optim.kernels import cpu, gpu

# Units that a step may be off by: a few roundings in wide types, one in those that are only stored in.
WIDE, NARROW = 16.0, 1.0
STEPS = 3
SHAPES = ((33, 31), (), (5000,), (16,), (0,))
OPTIONS: dict[str, Any] = {"clip_value": 2.0, "clip_norm": 30.0, "l1": 1e-3, "ema": 0.9}
# What makes a rule keep all the states it can have.
SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"centered": True, "momentum": 0.9},
    "Adam": {"amsgrad": True},
    "ASGD": {"t0": 1},
    "ScheduleFreeAdamW": {"warmup_steps": 2},
}


@dataclass(frozen=True)
class Way:
    """A backend on a device for a number type, or why it can't be."""

    backend: str
    device: str
    dtype: torch.dtype
    obstacle: str | None = None

    @property
    def limit(self) -> float:
        """Units that are still right."""
        return WIDE if self.dtype in cpu.DTYPES else NARROW

    def __str__(self) -> str:
        return f"{self.backend} {str(self.dtype).removeprefix('torch.')}"


def names() -> list[str]:
    """All optimizers."""
    kinds = [getattr(optim, n) for n in optim.__all__]
    known = (k for k in kinds if isinstance(k, type) and issubclass(k, optim.Optimizer) and k is not optim.Optimizer)
    return [k.__name__ for k in known]


def ways() -> Iterator[Way]:
    """All backends, those that this machine can't run with the reason."""
    for dtype in gpu.DTYPES:
        yield Way("reference", "cpu", dtype)
    for dtype in cpu.DTYPES:
        yield Way("cpu", "cpu", dtype)
    kinds = [k for k in ("cuda", "xpu") if getattr(torch, k).is_available()]
    device = "cpu" if gpu.interpreted() or not kinds else kinds[0]
    for dtype in gpu.DTYPES:
        why = gpu.obstacle(torch.empty(0, dtype=dtype, device=device))
        yield Way("gpu", device, dtype, "no GPU that torch can use" if why and not kinds else why)


def worst(name: str, way: Way) -> float:
    """The largest difference from the reference in float64, over some steps from the same state each."""
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=random).to(way.dtype) for s in SHAPES]
    tried = [nn.Parameter(p.to(way.device, copy=True)) for p in start]
    right = [nn.Parameter(p.double()) for p in start]
    kwargs = {"lr": 0.01, **SETTINGS.get(name, {}), **OPTIONS}
    fused = getattr(optim, name)(tried, backend=way.backend, **kwargs)
    exact = getattr(optim, name)(right, backend="reference", **kwargs)
    found = 0.0
    for _ in range(STEPS):
        pairs = list(_pairs(tried, right, fused, exact))
        with torch.no_grad():
            for x, y in pairs:
                y.copy_(x)
        for p, q in zip(tried, right, strict=True):
            g = torch.randn(p.shape, generator=random).to(way.dtype)
            p.grad, q.grad = g.to(way.device), g.double()
        fused.step()
        exact.step()
        found = max(found, *(_units(x, y, way.dtype) for x, y in _pairs(tried, right, fused, exact)))
    return found


def _pairs(tried: Sequence[Tensor], right: Sequence[Tensor], fused: Any, exact: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters and states of both."""
    for p, q in zip(tried, right, strict=True):
        yield p.detach(), q.detach()
        for key, value in fused.state.get(p, {}).items():
            if value.shape == p.shape and value.is_floating_point() and key != "step":
                yield value, exact.state[q][key]


def _units(x: Tensor, y: Tensor, dtype: torch.dtype) -> float:
    if not y.numel():
        return 0.0
    difference = (x.detach().cpu().double() - y.detach()).abs().max()
    kind = torch.finfo(dtype)
    units = float(difference / max(float(y.detach().abs().max()), kind.tiny) / kind.eps)
    return units if math.isfinite(units) else math.inf


def table(rules: Sequence[str], columns: Sequence[Way], said: Any = print) -> bool:
    """Run and print, a line for each rule; whether all is right."""
    labels = list(map(str, columns))
    said(f"{'':18}" + "".join(f"{label:>20}" for label in labels))
    wrong: list[str] = []
    for name in rules:
        cells = []
        for way in columns:
            try:
                units = worst(name, way)
                good = units <= way.limit
                cells.append(f"{units:.2g} {'ok' if good else 'FAILED'}")
                wrong += [] if good else [f"{name}, {way}: off by {units:.3g} units, of {way.limit:g} allowed"]
            except Exception as error:  # one kernel that doesn't compile must not hide the others
                cells.append("FAILED")
                wrong.append(f"{name}, {way}: {type(error).__name__}: {error}")
        said(f"{name:18}" + "".join(f"{cell:>20}" for cell in cells))
    for line in wrong:
        said(f"FAILED {line}")
    return not wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 if all is right, 1 if not."""
    parser = argparse.ArgumentParser("python -m gradwise.optim.check", description=__doc__.splitlines()[0])
    parser.add_argument("--rule", action="append", choices=names(), help="only this optimizer (may be repeated)")
    parser.add_argument("--backend", action="append", choices=("reference", "cpu", "gpu"), help="only this backend")
    chosen = parser.parse_args(arguments)
    found = [w for w in ways() if w.backend in (chosen.backend or w.backend)]
    able = [w for w in found if w.obstacle is None]
    for name in dict.fromkeys(w.device for w in able):
        print(f"{name}: {_device(name)}")
    for name, why in dict.fromkeys((w.backend, w.obstacle) for w in found if w.obstacle):
        print(f"{name}: skipped, {why}")
    print("Worst difference from the reference in float64, in units of the last place\n")
    if not able:
        print("nothing to run")
        return 1
    good = table(chosen.rule or names(), able)
    print("\nall right" if good else "\nFAILED: please report the lines above with this table")
    return 0 if good else 1


def _device(name: str) -> str:
    if name == "cpu":
        how = "; GPU kernels by Triton's interpreter" if gpu.interpreted() else ""
        return f"{platform.processor() or platform.machine()}, torch {torch.__version__}{how}"
    return f"{torch.get_device_module(name).get_device_name()}, torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
