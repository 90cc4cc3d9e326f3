"""An optimizer over any rule: a true `torch.optim.Optimizer`, whose step is one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from operator import is_
from threading import Lock
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

from gradwise.optim.batch import AVERAGE, MASTER, Batch, Compiled, Counters, Eager, Held, Totals
from gradwise.optim.gpu_batch import Fused, step_there
from gradwise.optim.inspection import Inspection
from gradwise.optim.kernels import cpu, gpu
from gradwise.optim.kernels.formula import Formula, take_apart
from gradwise.optim.rules.rule import Rule
from gradwise.optim.saving import Saving
from gradwise.optim.settings import AROUND, PAIRS, Settled, check
from gradwise.optim.states import States, dense

Schedulable = float | Tensor | Callable[[int], float]
BACKENDS = ("auto", "cpu", "gpu", "reference")
# Plans kept for different sets of parameters that have gradients (a GAN's halves, frozen layers).
_REMEMBERED = 16
# Kernels are made by one thread at a time: Python's own parser is not safe in several (before 3.12).
_MAKING = Lock()


class Options(TypedDict, total=False):
    """What every optimizer here takes beside its torch namesake's arguments; see `Optimizer`."""

    clip_norm: float | None
    clip_value: float | None
    l1: float
    ema: float | None
    finite_only: bool
    telemetry: bool
    stochastic_rounding: bool
    master_weights: bool
    backend: str


class Telemetry(NamedTuple):
    """What the latest step found out about one tensor in its pass: sums over its elements, in its own precision.

    Attributes:
        gradient: Σg², of the gradient as it came (unscaled, before clipping and decay).
        parameter: Σθ², before the step.
        update: ΣΔ², of what the step changed.
        along: Σg·m, of the gradient and the rule's first state before the step.
        nonfinite: how many elements of the gradient are not finite.
    """

    gradient: float
    parameter: float
    update: float
    along: float
    nonfinite: int


class Optimizer(States, Saving, Inspection):
    """Steps parameters by a rule.

    Args:
        params: parameters, or parameter groups (dicts), as for any optimizer of torch.
        rule: the update rule.
        defaults: its settings, with `lr`; each can be set per group. `lr` is a number, a tensor of one, or a schedule:
            a function of the step (from 0), also one that `gradwise.schedules` makes.
        clip_norm: scales all gradients down when their norm, over all groups, is above this.
        finite_only: leaves parameters and states as they are where a gradient isn't finite; counted in `skipped`.
        telemetry: each step keeps what it found of every tensor (`telemetry_of`).
        stochastic_rounding: rounds bfloat16 parameters up or down by chance, in proportion: small steps aren't lost.
        master_weights: keeps float32 weights and states for 16-bit parameters.
        backend: "auto", or "cpu", "gpu" (an error where it can't be) or "reference" for one of the ways to run a rule.

    Group settings beside the rule's own: `weight_decay`, `decoupled_weight_decay`, `maximize`, `clip_value`
    (elementwise), `l1` (proximal: elements reach 0 exactly), `ema` (decay of an average of the weights: `averaged`).

    On a GPU no step waits for the device. With `capturable` steps are also counted there, so that a captured CUDA graph
    replays with the right one; a rate to be changed between replays is a tensor there. (A schedule is a function on the
    host, which a replay doesn't call.) Under a gradient scaler or `finite_only` the device decides by itself whether
    to step, and `step` in the state counts those made; schedules go by calls of `step()`.

    Raises:
        ValueError: for a setting out of range, naming it.
    """

    _step_supports_amp_scaling = True
    sparse = False  # whether it takes sparse gradients, stepping only the rows they have
    _stopped: Tensor | None = None  # how many steps a device decided not to make: known to the device

    def __init__(self, params: Any, rule: Rule, defaults: dict[str, Any], **options: Unpack[Options]) -> None:
        unknown = sorted(set(options) - set(Options.__annotations__))
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {unknown[0]!r}")
        backend, clip_norm = options.get("backend", "auto"), options.get("clip_norm")
        if backend not in BACKENDS:
            raise ValueError(f"Invalid backend: {backend!r} (one of {', '.join(BACKENDS)})")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"Invalid clip_norm value: {clip_norm}")
        for name, value in (("clip_value", None), ("l1", 0.0), ("ema", None)):
            defaults.setdefault(name, options.get(name, value))
        self.rule = rule
        self.clip_norm, self.backend = clip_norm, backend
        self.finite_only = options.get("finite_only", False)
        self.telemetry = options.get("telemetry", False)
        self.stochastic_rounding = options.get("stochastic_rounding", False)
        self.master_weights = options.get("master_weights", False)
        self.steps = 0
        self.skipped = 0
        self._schedules: list[Callable[[int], float] | None] = []
        self._begin()
        rate = defaults["lr"]
        self.check({**defaults, "lr": float(rate(0))} if _scheduled(rate) else defaults)
        super().__init__(params, defaults)

    def _begin(self) -> None:
        self._formulas: dict[tuple[tuple[str, bool], ...], Formula] = {}
        self._counters: list[dict[Any, dict[str, Counters]]] = []
        self._plans: list[dict[Any, list[Batch]]] = []
        self._told: list[Totals] = []
        self._captured: list[Any] = []
        self._scaled = False
        fills = (s.fill for s in self.rule.states if isinstance(s.fill, str))
        self._read = tuple(dict.fromkeys((*self.rule.settings, *fills, *AROUND, *PAIRS)))
        self._snapshot: list[Any] | None = None
        self._settled: list[Settled | None] = []

    # groups and settings

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; settings it doesn't give are the defaults."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        rate = group["lr"]
        schedule = rate if _scheduled(rate) else None
        if schedule is not None:
            group["lr"] = float(schedule(self.steps))
        self._schedules.append(schedule)
        try:
            self.check(group)
        except (ValueError, TypeError):
            self.param_groups.pop()
            self._schedules.pop()
            raise

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a setting of the group is out of range."""
        check(group)

    def settings(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """A group's settings as the rule names them, and those around it; tensors stay tensors."""
        found = {key: group[key] for key in self._read if key in group}
        for key, names in PAIRS.items():
            if key in found:
                found[names[0]], found[names[1]] = found.pop(key)
        return found

    # the step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss, if there is one."""
        arguments: tuple[Any, ...] = (self,) if closure is None else (self, closure)
        keywords: dict[str, Any] = {}
        before, after = torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks
        if before or self._optimizer_step_pre_hooks:
            for hook in (*before.values(), *self._optimizer_step_pre_hooks.values()):
                changed = hook(self, arguments, keywords)
                if changed is not None:
                    if len(changed) != 2:
                        raise RuntimeError(f"{hook} must return None or (new_args, new_kwargs), but got {changed}.")
                    arguments, keywords = changed
            closure = arguments[1] if len(arguments) > 1 else keywords.get("closure", closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step()
        if after or self._optimizer_step_post_hooks:
            for hook in (*self._optimizer_step_post_hooks.values(), *after.values()):
                hook(self, arguments, keywords)
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # hooks are called here: torch needn't wrap it

    def _step(self) -> None:
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if found is not None:
            if not self._scaled:  # from now on the device alone decides, and counts, steps of the tensors it has
                self._scaled, self._snapshot = True, None
            if self.backend != "gpu" and found.device.type == "cpu" and float(found) > 0:
                self.skipped += 1
                return
        self._schedule()
        settled, work = self._work()
        batches = [b for each in work for b in each]
        self._told = []
        if batches and all(isinstance(b, Fused) for b in batches):
            self._step_there(settled, work, scale, found)
        elif not self._step_here(settled, work, scale, found):
            self.skipped += 1
            return
        self.steps += 1
        if self._snapshot is None:
            self._snapshot = self._parts()

    def _schedule(self) -> None:
        for group, schedule in zip(self.param_groups, self._schedules, strict=True):
            if schedule is not None:
                group["lr"] = float(schedule(self.steps))

    def _work(self) -> tuple[list[Settled], list[list[Batch]]]:
        """Each group's settings and batches."""
        if not self._same():
            self._plans = [{} for _ in self.param_groups]
            self._settled = [None] * len(self.param_groups)
        settled = [self._settle(i, group) for i, group in enumerate(self.param_groups)]
        return settled, [self._batches(i, group, settled[i]) for i, group in enumerate(self.param_groups)]

    def _step_here(
        self, settled: Sequence[Settled], work: Sequence[Sequence[Batch]], scale: Tensor | None, found: Tensor | None
    ) -> bool:
        """The step, decided on by the host; False if it was not made."""
        if found is not None and float(found) > 0:
            return False
        unscale = 1.0 if scale is None else 1.0 / float(scale)
        factor = unscale
        if self.clip_norm is not None or self.finite_only:
            sums = [batch.measure().sum(0) for batches in work for batch in batches]
            if self.finite_only and any(bad > 0 for _, bad in sums):
                for batch in (b for batches in work for b in batches if b.fresh):
                    for p in batch.params:
                        self.state.pop(p, None)
                return False
            if self.clip_norm is not None:
                norm = math.sqrt(sum(squares for squares, _ in sums)) * factor
                factor *= min(1.0, self.clip_norm / (norm + 1e-6)) if math.isfinite(norm) else _spoiled(norm)
        for batches, known in zip(work, settled, strict=True):
            if batches:
                around = known.around
                if factor != 1.0:
                    around = around._replace(grad_scale=factor * around.grad_scale)
                for batch in batches:
                    totals = batch.step(known.settings, around, self.telemetry)
                    if totals is not None:
                        totals.clipped = factor / unscale
                        self._told.append(totals)
        return True

    def _step_there(
        self, settled: Sequence[Settled], work: Sequence[Sequence[Any]], scale: Tensor | None, found: Tensor | None
    ) -> None:
        """The step, with all that decides about it left on the device: the host never waits."""
        made = [(batch, *known.there) for batches, known in zip(work, settled, strict=True) for batch in batches]
        totals, stopped = step_there(made, scale, found, self.clip_norm, self.finite_only, self.telemetry)
        self._told += totals
        if stopped is not None:
            self._stopped = stopped if self._stopped is None else self._stopped + stopped

    @property
    def skipped(self) -> int:
        """How many steps were not made because of a non-finite gradient."""
        return self._skipped + (0 if self._stopped is None else int(self._stopped))

    @skipped.setter
    def skipped(self, count: int) -> None:
        """Count on from here."""
        self._skipped = count
        self._stopped = None

    def _parts(self) -> list[Any]:
        """All that batches were made of: parameters, their states, and what is in these."""
        states = self.state.values()
        groups = (group["params"] for group in self.param_groups)
        return [*chain.from_iterable(groups), *states, *chain.from_iterable(map(dict.values, states))]

    def _same(self) -> bool:
        """Whether parameters and states are still those that batches were made of; anyone may exchange them."""
        if self._snapshot is None:
            return False
        parts = self._parts()
        if len(parts) == len(self._snapshot) and all(map(is_, parts, self._snapshot)):
            return True
        self._snapshot = None
        return False

    def _settle(self, i: int, group: dict[str, Any]) -> Settled:
        """The group's settings, read anew where they have changed."""
        values = list(map(group.get, self._read))
        known = self._settled[i]
        if known is not None and known.values == values:
            return known
        settings = self.settings(group)
        counted = self._scaled or self.finite_only or bool(group.get("capturable"))
        wanted = (*(bool(settings[s]) for s in self.rule.static), group.get("ema") is not None, counted)
        made = Settled(values, settings, self.rule.decays, wanted)
        # A tensor may change in place, which values don't show.
        self._settled[i] = None if any(isinstance(v, Tensor) for v in (*values, *group.get("betas", ()))) else made
        return made

    def telemetry_of(self, param: Tensor) -> Telemetry | None:
        """What the latest step found of `param`; None without `telemetry=True`, or if that step didn't move it."""
        for totals in self._told:
            if param in totals.places:
                gradient, parameter, update, along, bad = totals.of(param)
                return Telemetry(gradient, parameter, update, along, int(bad))
        return None

    # which tensors go together

    def _batches(self, i: int, group: Mapping[str, Any], known: Settled) -> list[Batch]:
        """The group's batches, with their gradients taken in."""
        grads = [p.grad for p in group["params"]]
        key = (known.wanted, *map(is_, grads, repeat(None)))
        plans = self._plans[i]
        batches = plans.get(key)
        if batches is not None and all(b.refresh(grads) for b in batches):
            return batches
        if len(plans) >= _REMEMBERED:
            plans.clear()
        self._snapshot = None
        plans[key] = made = self._plan(i, group, grads, known)
        for batch in made:
            if not batch.refresh(grads):
                raise RuntimeError("a parameter's gradient doesn't fit it in shape or number type")
        return made

    def _plan(self, i: int, group: Mapping[str, Any], grads: list[Tensor | None], known: Settled) -> list[Batch]:
        names = [s.name for s in self.rule.present(known.settings) if not s.scalar]
        names += [AVERAGE] if group.get("ema") is not None else []
        there = known.wanted[-1]
        kinds: dict[Any, list[int]] = {}
        for k, (p, g) in enumerate(zip(group["params"], grads, strict=True)):
            if g is None:
                continue
            if g.is_sparse:
                self._check_sparse(known.settings)
            way = self._way(p, g)
            device = p.device if there and way is Fused else None
            fresh = self._make_state(p, k, known.settings, self._counted(i, group, device), group)
            state = self.state.get(p, {})
            own = (*names, MASTER) if MASTER in state else tuple(names)
            dtypes = tuple(state[name].dtype for name in own)
            kinds.setdefault((way, device, own, p.device, p.dtype, dtypes, fresh), []).append(k)
        made: list[Batch] = []
        for (way, device, own, *_, fresh), places in kinds.items():
            counters = self._counted(i, group, device)
            held = Held(self.rule, self._formula, self.state, counters, self.stochastic_rounding, self._captured)
            with _MAKING:
                made.append(way(held, [group["params"][k] for k in places], places, own, fresh))
        return made

    def _check_sparse(self, settings: Mapping[str, Any]) -> None:
        if not self.sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        if settings.get("weight_decay") and not settings.get("decoupled_weight_decay"):
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")

    def _way(self, p: Tensor, g: Tensor) -> type[Batch]:
        if self.backend == "gpu":
            why = gpu.obstacle(p) or self._awkward(p, g)
            if why:
                raise RuntimeError(f"backend='gpu' can't step a parameter of shape {tuple(p.shape)}: {why}")
            return Fused
        if self.backend == "reference" or self._awkward(p, g):
            return Eager
        if p.device.type == "cpu":
            wide = self.master_weights and MASTER in self.state.get(p, ())
            return Compiled if p.dtype.to_real() in cpu.DTYPES and not wide else Eager
        return Fused if self.backend == "auto" and gpu.obstacle(p) is None else Eager

    def _awkward(self, p: Tensor, g: Tensor) -> str | None:
        """Why no kernel can step it."""
        if g.layout != torch.strided:
            return f"its gradient is {str(g.layout).removeprefix('torch.')}"
        return None if dense(p) else f"its elements don't lie side by side (strides {p.stride()})"

    def _formula(self, static: Mapping[str, bool]) -> Formula:
        key = tuple(sorted(static.items()))
        if key not in self._formulas:
            self._formulas[key] = take_apart(self.rule, static)
        return self._formulas[key]


def _scheduled(rate: Any) -> bool:
    return callable(rate) and not isinstance(rate, Tensor)


def _spoiled(norm: float) -> float:
    """What torch's clip_grad_norm_ scales by where the norm isn't finite: 0 if infinite, else NaN."""
    return 0.0 if norm == math.inf else math.nan
