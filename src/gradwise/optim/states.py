"""The states of an optimizer's parameters: made where they lack, laid out for kernels, borrowed as averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gradwise.optim.batch import AVERAGE, MASTER, Counters
from gradwise.optim.rules.rule import Rule


class States(torch.optim.Optimizer):
    """The part of an optimizer that makes states."""

    rule: Rule
    master_weights: bool
    _counters: list[dict[Any, dict[str, Counters]]]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context, parameters hold their averages (`ema=`); afterwards their own values again."""
        pairs = [(p, s[AVERAGE]) for p, s in self.state.items() if AVERAGE in s]
        own = [p.detach().clone() for p, _ in pairs]
        with torch.no_grad():
            for p, average in pairs:
                p.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for (p, _), value in zip(pairs, own, strict=True):
                    p.copy_(value)

    def _counted(self, i: int, group: Mapping[str, Any], device: torch.device | None) -> dict[str, Counters]:
        """The group's counters on the host, or on a device; grown with the group."""
        names = [*(["step"] if self.rule.counts else []), *(s.name for s in self.rule.states if s.scalar)]
        while len(self._counters) <= i:
            self._counters.append({})
        held = self._counters[i].setdefault(device, {})
        size = len(group["params"])
        if names and (not held or len(held[names[0]].views) != size):
            held.clear()
            held.update({n: Counters(size, scalar_dtype(), device) for n in names})
        return held

    @torch.no_grad()
    def _make_state(
        self, p: Tensor, k: int, settings: Mapping[str, Any], counters: Mapping[str, Counters], group: Mapping[str, Any]
    ) -> bool:
        """Give `p` the state it lacks; whether it had none."""
        if not (self.rule.counts or self.rule.present(settings) or self.master_weights or group.get("ema") is not None):
            return True
        state = self.state[p]
        fresh = not any(s.name in state for s in self.rule.states) and "step" not in state
        if self.rule.counts:
            self._bind(state, "step", counters["step"], k, 0.0)
        for s in self.rule.present(settings):
            fill = settings[s.fill] if isinstance(s.fill, str) else s.fill
            if s.scalar:
                self._bind(state, s.name, counters[s.name], k, fill)
            elif state.get(s.name) is None:
                state[s.name] = self._tensor(p, fill)
        if self.master_weights and p.dtype in (torch.bfloat16, torch.float16) and MASTER not in state:
            state[MASTER] = p.detach().float()
        if group.get("ema") is not None and AVERAGE not in state:
            state[AVERAGE] = p.detach().clone(memory_format=torch.preserve_format)
        for name, value in state.items():  # kernels go through memory, and a loaded state may lie in another order
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride() and dense(p):
                state[name] = torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)
        return fresh

    def _tensor(self, p: Tensor, fill: float) -> Tensor:
        wide = self.master_weights and p.dtype in (torch.bfloat16, torch.float16)
        value = complex(fill, fill) if p.is_complex() and fill else fill
        return torch.full_like(
            p, value, dtype=torch.float32 if wide else None, memory_format=torch.preserve_format, requires_grad=False
        )

    def _bind(self, state: dict[str, Any], name: str, counter: Counters, k: int, fill: float) -> None:
        """Make `state[name]` a view of its counter, keeping its value."""
        view = counter.views[k]
        if state.get(name) is not view:
            counter.numbers[k] = float(state[name]) if name in state else fill
            state[name] = view


def scalar_dtype() -> torch.dtype:
    """In which torch keeps counters in states."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def dense(p: Tensor) -> bool:
    """Whether its elements fill a stretch of memory, in whatever order."""
    if p.is_contiguous():
        return True
    expected = 1
    for size, stride in sorted(zip(p.shape, p.stride(), strict=True), key=lambda d: d[1]):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
