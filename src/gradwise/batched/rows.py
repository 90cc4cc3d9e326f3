"""Many optimizers of one kind as one: parameters stacked along a first dimension, a row for each optimizer.

The rule is the one that a single optimizer runs (`gradwise.optim.rules`). On the CPU its compiled kernel makes one pass
over all rows, each with coefficients of its own; elsewhere the rule's function itself is called, on tensors of settings
that broadcast over the rows, in double precision: 1−β₂ᵗ in float32 would be off by 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwise.batched.stack import BatchError
from gradwise.optim.kernels import cpu, reference
from gradwise.optim.kernels.formula import Formula, take_apart
from gradwise.optim.kernels.reference import Around
from gradwise.optim.optimizer import Optimizer
from gradwise.optim.rules.rule import Rule
from gradwise.optim.settings import around
from gradwise.schedules import Schedule

# What an optimizer can be asked for beside its rule, and that rows don't do.
_OPTIONS = ("finite_only", "master_weights", "stochastic_rounding", "telemetry")
# Steps of a schedule that are worked out at a time.
_AHEAD = 512

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def kind(optimizer: Optimizer, places: Mapping[Tensor, int]) -> tuple[Any, ...]:
    """What optimizers must have in common to be rows of one: all but numbers.

    Args:
        optimizer: over the parameters of one model.
        places: each parameter's place among them.

    Raises:
        BatchError: it can't be a row, and why.
    """
    if not isinstance(optimizer, Optimizer):
        raise BatchError(
            f"the optimizer is {type(optimizer).__module__}.{type(optimizer).__name__}: rows are stepped by "
            "gradwise's rules, so take gradwise.optim's of the same name"
        )
    name = type(optimizer).__name__
    wrong = next((o for o in _OPTIONS if getattr(optimizer, o)), None)
    if wrong is not None:
        raise BatchError(f"{name}({wrong}=True) can't be a row of many")
    if hasattr(optimizer, "eval"):
        raise BatchError(f"{name} evaluates at an average of its steps, which rows don't keep")
    groups = []
    for group in optimizer.param_groups:
        if group.get("ema") is not None:
            raise BatchError(f"{name}(ema=…) can't be a row of many: rows keep no averages")
        unknown = [p for p in group["params"] if p not in places]
        if unknown:
            raise BatchError(f"{name} steps a parameter of shape {tuple(unknown[0].shape)} that is not the model's")
        groups.append((tuple(places[p] for p in group["params"]), _kinds(optimizer.settings(group), optimizer.rule)))
    return (optimizer.rule.name, id(optimizer.rule), optimizer.clip_norm is not None, tuple(groups))


def _kinds(settings: Mapping[str, Any], rule: Rule) -> tuple[Any, ...]:
    found = []
    for name, value in sorted(settings.items()):
        number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
        what = ("number", bool(value) if name in rule.static else None) if number else ("is", value)
        found.append((name, *what))
    return tuple(found)


class Rows:
    """Steps the rows of stacked parameters, each as its own optimizer would.

    Args:
        optimizers: one for each row, all of one `kind`.
        places: of each optimizer's parameters among those of its model, one mapping for each.
        params: stacked parameters, with the rows first, in that order.
        compiled: whether the compiled kernel may be used where there is one.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        places: Sequence[Mapping[Tensor, int]],
        params: Sequence[Tensor],
        compiled: bool = True,
    ) -> None:
        first = optimizers[0]
        self.rule, self.params = first.rule, list(params)
        self.calls = 0
        clip = first.clip_norm is not None
        self._clip = np.array([o.clip_norm for o in optimizers], np.float64) if clip else None
        self._groups = [_Group(optimizers, i, places[0]) for i in range(len(first.param_groups))]
        for group in self._groups:
            group.begin(self.rule, self.params)
        able = all(p.device.type == "cpu" and p.dtype in cpu.DTYPES for p in self.params)
        if any(p.is_complex() for p in self.params):
            raise BatchError("complex parameters can't be rows of many")
        self._compiled = compiled and able and not self.rule.layerwise

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor | None]) -> None:
        """One step of every row; `grads` are stacked like the parameters, None for what had no part in the loss."""
        held = [None if g is None else g.contiguous() for g in grads]
        scale = self._scale(held)
        for group in self._groups:
            settings = group.now(self.calls)
            about: Any = around(settings, self.rule.decays)
            if scale is not None:
                about = about._replace(grad_scale=scale * about.grad_scale)
            # Those without a gradient are passed over, and have made fewer steps from then on.
            cohorts: dict[int, list[int]] = {}
            for k in group.places:
                if held[k] is not None:
                    cohorts.setdefault(group.taken[k], []).append(k)
            for taken, moved in cohorts.items():
                stepped = _compiled_step if self._compiled else _reference_step
                stepped(
                    self.rule, group, moved, self.params, held, {**settings, "t": taken + 1, "first": not taken}, about
                )
                group.taken.update(dict.fromkeys(moved, taken + 1))
        self.calls += 1

    def _scale(self, grads: Sequence[Tensor | None]) -> Tensor | None:
        """What clipping by norm multiplies the gradients of each row by; the norm is over all of a row's tensors."""
        if self._clip is None:
            return None
        own = {k for group in self._groups for k in group.places}
        found = [_flat(g) for k, g in enumerate(grads) if g is not None and k in own]
        norm = torch.stack([g.double().square().sum(1) for g in found]).sum(0).sqrt().cpu()
        scale = (torch.from_numpy(self._clip) / (norm + 1e-6)).clamp(max=1.0)
        # Where a norm isn't finite, as torch's clip_grad_norm_ has it: 0 if infinite, else NaN.
        return torch.where(norm.isfinite(), scale, torch.where(norm.isinf(), 0.0, math.nan))

    def keep(self, rows: Sequence[int], params: Sequence[Tensor]) -> None:
        """Go on with these rows only, in this order; their parameters are elsewhere now."""
        self.params = list(params)
        self._clip = None if self._clip is None else self._clip[list(rows)]
        for group in self._groups:
            group.keep(torch.as_tensor(rows))


class _Group:
    """One parameter group of all rows.

    Attributes:
        places: of its parameters among all.
        values: its settings: what all rows have in common, or an array with a number for each.
        states: by place, the rule's states, stacked like the parameter; None for one that is not there.
        scalars: by place and name, the rule's states that are one number for a whole tensor: a number for each row.
        taken: by place, how many steps were made.
    """

    def __init__(self, optimizers: Sequence[Optimizer], i: int, places: Mapping[Tensor, int]) -> None:
        groups = [o.param_groups[i] for o in optimizers]
        self.places = [places[p] for p in groups[0]["params"]]
        given = [o.settings(g) for o, g in zip(optimizers, groups, strict=True)]
        self.values: dict[str, Any] = {name: _together([g[name] for g in given]) for name in given[0]}
        schedules = [o._schedules[i] for o in optimizers]
        self._schedules = schedules if any(s is not None for s in schedules) else None
        self._rates: tuple[int, Numbers] = (0, np.empty((len(groups), 0)))
        self.states: dict[int, list[Tensor | None]] = {}
        self.scalars: dict[int, dict[str, Tensor]] = {k: {} for k in self.places}
        self.taken = dict.fromkeys(self.places, 0)
        self.jobs: dict[tuple[int, ...], _Job] = {}

    def begin(self, rule: Rule, params: Sequence[Tensor]) -> None:
        """Make the states."""
        self.formula = _formula(rule, tuple((s, bool(np.all(self.values[s]))) for s in rule.static))
        present = rule.present({k: bool(np.all(v)) for k, v in self.values.items() if k in rule.static})
        rows = len(params[0])
        for state in rule.states:
            fill = self.values[state.fill] if isinstance(state.fill, str) else state.fill
            filled = torch.as_tensor(fill, dtype=torch.float64).expand(rows)
            for k in self.places:
                p = params[k]
                if state.scalar:
                    self.scalars[k][state.name] = filled
                made = torch.empty_like(p, requires_grad=False) if state in present and not state.scalar else None
                if made is not None:
                    made.copy_(filled.view(-1, *[1] * (p.dim() - 1)).expand_as(p))
                self.states.setdefault(k, []).append(made)

    def now(self, step: int) -> dict[str, Any]:
        """The settings at a step (from 0): numbers, or float64 tensors with one for each row."""
        found = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in self.values.items()}
        if self._schedules is not None:
            begun, rates = self._rates
            if not begun <= step < begun + rates.shape[1]:
                begun, rates = self._rates = step, self._ahead(step)
            found["lr"] = torch.from_numpy(rates[:, step - begun].copy())
        return found

    def _ahead(self, step: int) -> Numbers:
        assert self._schedules is not None
        own = np.broadcast_to(self.values["lr"], len(self._schedules))
        steps = np.arange(step, step + _AHEAD)
        known: dict[Any, Any] = {}

        def at(schedule: Any, rate: float) -> Any:
            if schedule is None:
                return np.full(_AHEAD, rate)
            if not isinstance(schedule, Schedule):
                return [float(schedule(int(t))) for t in steps]
            if schedule not in known:
                known[schedule] = schedule(steps)
            return known[schedule]

        return np.array([at(s, r) for s, r in zip(self._schedules, own, strict=True)], np.float64)

    def keep(self, chosen: Tensor) -> None:
        """Go on with these rows only."""
        rows = chosen.numpy()
        self.values = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in self.values.items()}
        if self._schedules is not None:
            self._schedules = [self._schedules[r] for r in rows]
            self._rates = (self._rates[0], self._rates[1][rows])
        self.states = {k: [None if s is None else _taken(s, chosen) for s in each] for k, each in self.states.items()}
        self.scalars = {k: {n: v[chosen] for n, v in each.items()} for k, each in self.scalars.items()}
        self.jobs.clear()


def _together(values: Sequence[Any]) -> Any:
    """One value where all rows have the same, else an array of numbers."""
    plain = [float(v) if isinstance(v, Tensor) else v for v in values]
    if all(v == plain[0] for v in plain) or not isinstance(plain[0], int | float):
        return plain[0]
    return np.array(plain, np.float64)


def _taken(stacked: Tensor, chosen: Tensor) -> Tensor:
    return stacked.index_select(0, chosen.to(stacked.device))


# by the compiled kernel


@dataclass
class _Job:
    """Tensors of a group that are stepped together by the compiled kernel: an entry for each row of each.

    Attributes:
        job: the kernel's.
        kernel: what runs it.
        offsets: of each row from a stacked tensor's own address, by tensor.
    """

    job: cpu.Job
    kernel: cpu.Kernel
    offsets: list[np.ndarray[Any, np.dtype[np.int64]]] = field(default_factory=list)


def _compiled_step(
    rule: Rule,
    group: _Group,
    moved: Sequence[int],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    settings: Mapping[str, Any],
    about: Around,
) -> None:
    key = tuple(moved)
    made = group.jobs.get(key)
    if made is None:
        made = group.jobs[key] = _job(rule, group, moved, params)
    addresses = [(g.data_ptr(), o) for k, o in zip(moved, made.offsets, strict=True) if (g := grads[k]) is not None]
    made.job.table[:, 1] = np.concatenate([pointer + offsets for pointer, offsets in addresses])
    names = [s.name for s in rule.states if s.scalar]
    given = {**settings, **group.scalars[moved[0]], "trust": 1.0}
    coefficients, kept = group.formula.coefficients(*(given[name] for name in (*rule.settings, *names)))
    rows = len(params[moved[0]])
    for column, value in enumerate((*about, *coefficients)):
        made.job.coefficients[:rows, column] = value.numpy() if isinstance(value, Tensor) else value
    made.job.run(made.kernel.step)
    for name, value in zip(names, kept, strict=True):
        for k in moved:
            group.scalars[k][name] = torch.as_tensor(value, dtype=torch.float64).expand(rows)


_FORMULAS: dict[Any, Formula] = {}
_KERNELS: dict[Any, cpu.Kernel] = {}


def _formula(rule: Rule, static: tuple[tuple[str, bool], ...]) -> Formula:
    """A rule taken apart, once and for all batches; its function is kept, so that no other gets its identity."""
    key = (rule.update, static)
    if key not in _FORMULAS:
        _FORMULAS[key] = take_apart(rule, dict(static))
    return _FORMULAS[key]


def _kernel(rule: Rule, formula: Formula, dtype: torch.dtype) -> cpu.Kernel:
    key = (rule.update, formula.text, dtype)
    if key not in _KERNELS:
        _KERNELS[key] = cpu.compiled(rule.name, formula, dtype)
    return _KERNELS[key]


def _job(rule: Rule, group: _Group, moved: Sequence[int], params: Sequence[Tensor]) -> _Job:
    formula, rows, dtype = group.formula, len(params[moved[0]]), params[moved[0]].dtype
    if any(params[k].dtype != dtype for k in moved):
        raise BatchError("a group has parameters of several number types")
    sizes = [params[k][0].numel() for k in moved for _ in range(rows)]
    kept = [i for i, s in enumerate(group.states[moved[0]]) if s is not None]
    job = cpu.Job(sizes, 2 + len(kept), formula.count, dtype)
    made = _Job(job, _kernel(rule, formula, dtype))
    made.offsets = [np.arange(rows) * params[k][0].numel() * params[k].element_size() for k in moved]

    def addresses(of: Callable[[int], Tensor | None]) -> np.ndarray[Any, np.dtype[np.int64]]:
        stacked = [of(k) for k in moved]
        return np.concatenate([t.data_ptr() + o for t, o in zip(stacked, made.offsets, strict=True) if t is not None])

    job.table[:, 0] = addresses(lambda k: params[k])
    for column, i in enumerate(kept):
        job.table[:, 2 + column] = addresses(lambda k, i=i: group.states[k][i])  # type: ignore[misc]
    # Each entry reads the coefficients of its row.
    job.table[:, -1] = job.coefficients.ctypes.data + job.coefficients.strides[0] * np.tile(np.arange(rows), len(moved))
    return made


# by the rule's own function


class _Each(Tensor):
    """A setting of which each row has its own. Rules may ask whether it is set, which is the same for all rows."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool((self != 0).any())


def _reference_step(
    rule: Rule,
    group: _Group,
    moved: Sequence[int],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    settings: Mapping[str, Any],
    about: Around,
) -> None:
    device = params[moved[0]].device

    def column(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(device)[:, None].as_subclass(_Each)

    given = {k: column(v) for k, v in settings.items()}
    there = Around(*map(column, about))
    for k in moved:
        p, g = _flat(params[k].detach()), grads[k]
        assert g is not None
        states = [
            column(group.scalars[k][s.name]) if s.scalar else None if kept is None else _flat(kept)
            for s, kept in zip(rule.states, group.states[k], strict=True)
        ]
        new, results = reference.apply(rule, p, _flat(g), states, given, there, _row_norms)
        p.copy_(new)
        for state, result, about_state in zip(states, results, rule.states, strict=True):
            if about_state.scalar:
                group.scalars[k][about_state.name] = torch.as_tensor(result).reshape(-1).double().cpu().expand(len(p))
            elif state is not None:
                state.copy_(result)


def _flat(stacked: Tensor) -> Tensor:
    return stacked.reshape(len(stacked), -1)


def _row_norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.double(), dim=1, keepdim=True)
    return norms
