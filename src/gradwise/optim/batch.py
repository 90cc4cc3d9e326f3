"""Tensors of one group that are stepped together, by one backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwise.optim.kernels import cpu, reference
from gradwise.optim.kernels.formula import Formula
from gradwise.optim.kernels.reference import Around
from gradwise.optim.rules.rule import Rule

AVERAGE, MASTER = "ema", "master"
_ONE = (1.0,)
_DTYPE = attrgetter("dtype")


@dataclass
class Totals:
    """What one pass found of each tensor of a batch.

    Attributes:
        places: the row of each tensor.
        found: sums over the elements of each, a row for each tensor; made of the pass' own when asked for.
        clipped: what the gradients had been scaled by for the pass, beside being unscaled.
    """

    places: Mapping[Tensor, int]
    found: np.ndarray[Any, np.dtype[np.float64]] | Callable[[], np.ndarray[Any, np.dtype[np.float64]]]
    clipped: float = 1.0

    def of(self, p: Tensor) -> tuple[float, float, float, float, float]:
        """A tensor's Σg², Σθ², ΣΔ², Σg·m of its gradient as it came, and how many of that aren't finite."""
        if callable(self.found):
            self.found = self.found()
        g, w, d, a, bad = self.found[self.places[p]].tolist()
        return g / self.clipped**2, w, d, a / self.clipped, bad


class Counters:
    """One number for each parameter of a group, also seen as 0-d tensors in `state[p][name]`.

    All are one array underneath, so that a step counts all tensors up at once. With a `device` it lies there, for steps
    that don't let the host know (`there`), and `numbers` are a tensor.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.flat = torch.zeros(size, dtype=dtype, device=device)
        self.there = device is not None
        self.numbers: Any = self.flat if self.there else self.flat.numpy()
        self.views = list(self.flat.unbind()) if size else []
        self.writes = 0

    def stamp(self) -> tuple[int, int]:
        """Changes with every change: ours, and those made through the tensors."""
        return self.writes, self.flat._version


@dataclass
class Held:
    """What a batch needs to know of its optimizer.

    Attributes:
        rule: the update rule.
        formula: `(static settings) -> Formula`, kept by the optimizer.
        state: the optimizer's state.
        counters: the group's numbers, by state name.
        bf16_stochastic: whether 16-bit parameters are rounded up or down by chance.
        captured: what must live as long as the optimizer, since a captured graph uses it.
    """

    rule: Rule
    formula: Callable[[Mapping[str, bool]], Formula]
    state: Mapping[Tensor, dict[str, Any]]
    counters: Mapping[str, Counters]
    bf16_stochastic: bool = False
    captured: list[Any] = field(default_factory=list)


class Batch:
    """Tensors of a group that have the same states; `fresh` while these are new."""

    def __init__(
        self, held: Held, params: Sequence[Tensor], places: Sequence[int], names: Sequence[str], fresh: bool
    ) -> None:
        self.held, self.params, self.names, self.fresh = held, list(params), list(names), fresh
        in_a_row = list(places) == list(range(places[0], places[0] + len(places)))
        self.index: Any = slice(places[0], places[-1] + 1) if in_a_row else np.array(places)
        self.take = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
        kept = names or held.counters or any(MASTER in held.state.get(p, ()) for p in params)
        self.dicts = [held.state[p] for p in params] if kept else []
        self.states = [[d[name] for d in self.dicts] for name in names]
        self._scalar = list(held.counters.items())
        self.places = {p: i for i, p in enumerate(params)}
        self._rows: list[dict[str, Any]] = []
        self._stamps: list[tuple[int, int]] = []

    def refresh(self, grads: Sequence[Tensor]) -> bool:
        """Take this step's of the group's gradients; False if the batch no longer fits them."""
        raise NotImplementedError

    def measure(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Σg² and the number of non-finite gradients, a row for each tensor."""
        raise NotImplementedError

    def step(self, settings: Mapping[str, Any], around: Around, want: bool) -> Totals | None:
        """One step of all tensors; what it found, if that is wanted."""
        raise NotImplementedError

    def numbers(self) -> list[dict[str, Any]]:
        """`t`, `first` and scalar states: one dict if they are the same for all tensors, else one for each."""
        if self._stamps == [c.stamp() for _, c in self._scalar] and self._rows:
            return self._rows
        values: dict[str, Any] = {name: c.numbers[self.index] for name, c in self._scalar}
        same = all((v == v[0]).all() for v in values.values())
        rows = [{k: float(v[i]) for k, v in values.items()} for i in range(1 if same else len(self.params))]
        for row in rows:
            step = row.pop("step", None)
            row["t"] = 1 if step is None else int(step) + 1
            row["first"] = self.fresh if step is None else row["t"] == 1
        return rows

    def count(self, rows: Sequence[dict[str, Any]], new: Sequence[Mapping[str, float]]) -> None:
        """A step was made with `rows`; keep its scalar states."""
        for name, counter in self._scalar:
            if name == "step":
                counter.numbers[self.index] += 1
            else:
                values = [row[name] for row in new]
                counter.numbers[self.index] = values if len(values) > 1 else values[0]
            counter.writes += 1
        self.fresh = False
        if new:
            return  # they are rounded where they are kept: read anew
        for row in rows:
            row["t"] += 1
            row["first"] = False
        self._rows, self._stamps = list(rows), [c.stamp() for _, c in self._scalar]


class Eager(Batch):
    """By the reference: any device, number type and layout."""

    def refresh(self, grads: Sequence[Tensor]) -> bool:
        """Take this step's of the group's gradients; False if the batch no longer fits them."""
        self.grads = self.take(grads)
        return True

    def measure(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Σg² and the number of non-finite gradients, a row for each tensor."""
        rows = []
        for g in self.grads:
            values = _dense_values(g)
            rows.append((float(values.double().square().sum()), int((~values.isfinite()).sum())))
        return np.array(rows).reshape(-1, 2)

    @torch.no_grad()
    def step(self, settings: Mapping[str, Any], around: Around, want: bool) -> Totals | None:
        """One step of all tensors."""
        rows, rule, sums = self.numbers(), self.held.rule, []
        made: list[dict[str, float]] = []
        for i, p in enumerate(self.params):
            numbers = rows[i if len(rows) > 1 else 0]
            kept = self.dicts[i] if self.dicts else {}
            given = [numbers[s.name] if s.scalar else kept.get(s.name) for s in rule.states]
            new, old = self._stepped(p, self.grads[i], given, {**settings, **numbers}, around, kept)
            if any(s.scalar for s in rule.states):
                made.append({s.name: float(v) for s, v in zip(rule.states, old, strict=True) if s.scalar})
            if want:
                sums.append(new)
        self.count(rows, made if len(rows) > 1 else made[:1])
        return Totals(self.places, np.array(sums).reshape(-1, cpu.SUMS + 1)) if want else None

    def _stepped(
        self,
        p: Tensor,
        g: Tensor,
        given: Sequence[Any],
        settings: Mapping[str, Any],
        around: Around,
        kept: dict[str, Any],
    ) -> tuple[tuple[float, ...], list[Any]]:
        if g.is_sparse:
            return self._sparse(p, g.coalesce(), given, settings, around)
        master = kept.get(MASTER)
        target = p if master is None else master
        compute = _computed_in(target.dtype)
        old = _real(target).to(compute)
        gradient = _real(g.to_dense() if g.layout != torch.strided else g).to(compute)
        states = [_real(s).to(compute) if isinstance(s, Tensor) else s for s in given]
        new, results = reference.apply(self.held.rule, old, gradient, states, settings, around)
        x = gradient * around.grad_scale
        first = next((s for s in states if isinstance(s, Tensor)), None)
        sums = (
            float(x.double().square().sum()),
            float(old.double().square().sum()),
            float((new - old).double().square().sum()),
            0.0 if first is None else float((x.double() * first.double()).sum()),
            float((~x.isfinite()).sum()),
        )
        for state, result in zip(given, results, strict=True):
            if isinstance(state, Tensor):
                _real(state).copy_(result)
        _real(target).copy_(self._rounded(new, target.dtype))
        if master is not None:
            _real(p).copy_(self._rounded(new, p.dtype))
        if AVERAGE in kept:
            reference.average(_real(kept[AVERAGE]), new, around.ema)
        return sums, results

    def _rounded(self, new: Tensor, dtype: torch.dtype) -> Tensor:
        if not self.held.bf16_stochastic or dtype != torch.bfloat16 or new.dtype != torch.float32:
            return new
        # bfloat16 is the upper half of float32: a random lower half added carries over as often as it is large.
        bits = new.view(torch.int32)
        noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device)
        up = (bits + noise).bitwise_and(~0xFFFF).view(torch.float32)
        return torch.where(new.isfinite(), up, new)

    def _sparse(
        self, p: Tensor, g: Tensor, given: Sequence[Any], settings: Mapping[str, Any], around: Around
    ) -> tuple[tuple[float, ...], list[Any]]:
        """A sparse gradient: only the rows it has are stepped, states included."""
        where, values = tuple(g.indices()), g.values()
        states = [s[where] if isinstance(s, Tensor) else s for s in given]
        around = around._replace(l2=0.0)
        old = p[where]
        new, results = reference.apply(self.held.rule, old, values, states, settings, around)
        p[where] = new
        for state, result in zip(given, results, strict=True):
            if isinstance(state, Tensor):
                state[where] = result
        x = (values * around.grad_scale).double()
        moved = (new - old).double()
        bad = float((~values.isfinite()).sum())
        return (float(x.square().sum()), math.nan, float(moved.square().sum()), math.nan, bad), results


class Addressed(Batch):
    """By a compiled kernel, which is given addresses: dense tensors of one number type on one device."""

    def __init__(
        self, held: Held, params: Sequence[Tensor], places: Sequence[int], names: Sequence[str], fresh: bool
    ) -> None:
        super().__init__(held, params, places, names, fresh)
        self.dtype = params[0].dtype.to_real()
        rule = held.rule
        self.kept = [n for n in names if n not in (AVERAGE, MASTER)]
        static = {s: any(n.when == s and n.name in self.kept for n in rule.states) for s in rule.static}
        self.formula = held.formula(static)
        self._complex = params[0].is_complex()
        factor = 2 if self._complex else 1
        self._elements = list(map(Tensor.numel, params))
        self.sizes = [factor * n for n in self._elements]
        self._pointers = list(map(Tensor.data_ptr, params))
        self.gradients: list[int] = []
        self._dtypes = [p.dtype for p in params]
        self._contiguous = all(map(Tensor.is_contiguous, params))
        self._scalar_names = [s.name for s in rule.states if s.scalar]
        self._wanted = (*rule.settings, *self._scalar_names)
        self._copies: list[Tensor] = []

    def addresses(self, name: str) -> list[int]:
        """Of a state, in each tensor's; 0 where there is none."""
        if name not in self.names:
            return [0] * len(self.params)
        return list(map(Tensor.data_ptr, self.states[self.names.index(name)]))

    def refresh(self, grads: Sequence[Tensor]) -> bool:
        """Take this step's of the group's gradients; False if the batch no longer fits them."""
        self._all = grads
        grads = self.take(grads)
        try:
            pointers = list(map(Tensor.data_ptr, grads))
        except RuntimeError:  # sparse: has none
            return False
        if (
            list(map(Tensor.data_ptr, self.params)) != self._pointers
            or list(map(Tensor.numel, grads)) != self._elements
            or list(map(_DTYPE, grads)) != self._dtypes
        ):
            return False
        if not self._contiguous or self._complex or not all(map(Tensor.is_contiguous, grads)):
            pointers = self._laid_out(grads, pointers)
        if pointers != self.gradients:
            self.gradients = pointers
            self.moved()
        return True

    def moved(self) -> None:
        """The gradients are elsewhere than at the last step."""

    def _laid_out(self, grads: Sequence[Tensor], pointers: list[int]) -> list[int]:
        """Addresses of the gradients with elements in their parameters' order, of copies where they are not."""
        self._copies.clear()
        for i, (g, p) in enumerate(zip(grads, self.params, strict=True)):
            if g.stride() != p.stride() or g.is_conj() or g.is_neg():
                self._copies.append(torch.empty_like(p, requires_grad=False).copy_(g))
                pointers[i] = self._copies[-1].data_ptr()
        return pointers

    def coefficients(
        self, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], trusts: Sequence[Any]
    ) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
        """The rule's coefficients and new scalar states: once if they are the same for all tensors, else for each."""
        found, new = [], []
        for i in range(max(len(rows), len(trusts))):
            given = {**settings, **rows[i if len(rows) > 1 else 0], "trust": trusts[i if len(trusts) > 1 else 0]}
            coefficients, kept = self.formula.coefficients(*map(given.__getitem__, self._wanted))
            found.append(coefficients)
            if kept:
                new.append(dict(zip(self._scalar_names, kept, strict=True)))
        return found, new if len(rows) > 1 else new[:1]


class Compiled(Addressed):
    """By the compiled CPU kernel: dense parameters of float32 or float64 (and their complex kinds)."""

    def __init__(
        self, held: Held, params: Sequence[Tensor], places: Sequence[int], names: Sequence[str], fresh: bool
    ) -> None:
        super().__init__(held, params, places, names, fresh)
        self.kernel = cpu.compiled(held.rule.name, self.formula, self.dtype, held.rule.layerwise)
        self.job = cpu.Job(self.sizes, 2 + len(self.kept), self.formula.count, self.dtype)
        self.job.table[:, 0] = self._pointers
        for at, name in enumerate((*self.kept, AVERAGE)):
            self.job.table[:, 2 + at] = self.addresses(name)
        self._norms: Any = None

    def moved(self) -> None:
        """The gradients are elsewhere than at the last step."""
        self.job.table[:, 1] = self.gradients

    def measure(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Σg² and the number of non-finite gradients, a row for each tensor."""
        if self._norms is None:
            self._norms = cpu.Job(self.sizes, 1, 0, self.dtype)
        self._norms.table[:, 0] = self.job.table[:, 1]
        self._norms.run(cpu.norms(self.dtype))
        return _counted(self._norms.totals()[:, 0], self.take(self._all))

    def step(self, settings: Mapping[str, Any], around: Around, want: bool) -> Totals | None:
        """One step of all tensors."""
        rows = self.numbers()
        coefficients, new = self.coefficients(settings, rows, _ONE)
        if self.held.rule.layerwise:
            bare = around._replace(threshold=0.0)  # what is measured is the rule's own step
            self.job.set([(*bare, *c) for c in coefficients])
            self.job.run(self.kernel.measure)
            totals = self.job.totals()
            lr = float(settings["lr"])
            ratios = [reference.trust(math.sqrt(a), math.sqrt(b), lr) for a, b in totals[:, 1:3]]
            coefficients, new = self.coefficients(settings, rows, ratios)
        self.job.set([(*around, *c) for c in coefficients])
        self.job.run(self.kernel.step)
        self.count(rows, new)
        if not want:
            return None
        # Until the next step the sums stay where they are; gradients don't.
        finite = bool(np.isfinite(self.job.sums[:, 0]).all())
        return Totals(self.places, self._found if finite else self._found())

    def _found(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        sums = self.job.totals()
        return np.column_stack([sums, _counted(sums[:, 0], self.take(self._all))[:, 1]])


def _counted(squares: Any, grads: Sequence[Tensor]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Σg² and the number of non-finite elements of each gradient; these are only looked for where the sum isn't."""
    counts = np.zeros(len(squares))
    for i in np.flatnonzero(~np.isfinite(squares)):
        counts[i] = int((~_real(grads[int(i)]).isfinite()).sum())
    return np.column_stack([squares, counts])


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype.to_real()


def _dense_values(g: Tensor) -> Tensor:
    return _real(g.coalesce().values() if g.is_sparse else g)
