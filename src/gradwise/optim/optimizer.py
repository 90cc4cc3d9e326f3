"""An optimizer over any rule: a true `torch.optim.Optimizer`, whose step is one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, repeat
from operator import is_
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

from gradwise.optim.batch import AVERAGE, MASTER, Batch, Compiled, Counters, Eager, Held, Totals
from gradwise.optim.inspection import Inspection
from gradwise.optim.kernels import cpu
from gradwise.optim.kernels.formula import Formula, take_apart
from gradwise.optim.kernels.reference import Around
from gradwise.optim.rules.rule import Rule
from gradwise.schedules import Schedule

Schedulable = float | Tensor | Callable[[int], float]
BACKENDS = ("auto", "cpu", "gpu", "reference")
_PAIRS = {"betas": ("beta1", "beta2"), "etas": ("etaminus", "etaplus"), "step_sizes": ("step_min", "step_max")}
_RANGES = {
    "lr": (0, math.inf, "learning rate"),
    "eps": (0, math.inf, "epsilon value"),
    "weight_decay": (0, math.inf, "weight_decay value"),
    "momentum": (0, math.inf, "momentum value"),
    "lr_decay": (0, math.inf, "lr_decay value"),
    "initial_accumulator_value": (0, math.inf, "initial_accumulator_value value"),
    "rho": (0, 1, "rho value"),
    "alpha": (0, math.inf, "alpha value"),
    "momentum_decay": (0, math.inf, "momentum_decay value"),
    "l1": (0, math.inf, "l1 value"),
}
_AROUND = ("lr", "weight_decay", "decoupled_weight_decay", "maximize", "clip_value", "l1", "ema")
# Plans kept for different sets of parameters that have gradients (a GAN's halves, frozen layers).
_REMEMBERED = 16


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


class Settled(NamedTuple):
    """A group's settings as they are in use.

    Attributes:
        values: as the group holds them.
        settings: as the rule names them.
        around: what is done around the rule.
        wanted: those on which it depends how tensors are batched.
    """

    values: list[Any]
    settings: dict[str, Any]
    around: Around
    wanted: tuple[bool, ...]


class Optimizer(Inspection):
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
        backend: "auto", or "cpu", "gpu" or "reference" for one of the ways to run a rule.

    Group settings beside the rule's own: `weight_decay`, `decoupled_weight_decay`, `maximize`, `clip_value`
    (elementwise), `l1` (proximal: elements reach 0 exactly), `ema` (decay of an average of the weights: `averaged`).

    Raises:
        ValueError: for a setting out of range, naming it.
    """

    _step_supports_amp_scaling = True
    sparse = False  # whether it takes sparse gradients, stepping only the rows they have

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
        self._counters: list[dict[str, Counters]] = []
        self._plans: list[dict[Any, list[Batch]]] = []
        self._seen: dict[Tensor, Telemetry] = {}
        fills = (s.fill for s in self.rule.states if isinstance(s.fill, str))
        self._read = tuple(dict.fromkeys((*self.rule.settings, *fills, *_AROUND, *_PAIRS)))
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
        rate = group["lr"]
        if isinstance(rate, Tensor) and rate.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        for name, (low, high, what) in _RANGES.items():
            value = group.get(name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"Invalid {what}: {value}")
        betas = group.get("betas", ())
        if len({isinstance(b, Tensor) for b in betas}) > 1:
            raise ValueError("betas must be either both floats or both Tensors")
        for i, beta in enumerate(betas):
            if isinstance(beta, Tensor) and group.get("foreach") and not group.get("capturable", True):
                raise ValueError(f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True")
            if isinstance(beta, Tensor) and beta.numel() != 1:
                raise ValueError(f"Tensor betas[{i}] must be 1-element")
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        if group.get("clip_value") is not None and not group["clip_value"] > 0:
            raise ValueError(f"Invalid clip_value value: {group['clip_value']}")
        if group.get("ema") is not None and not 0 <= group["ema"] < 1:
            raise ValueError(f"Invalid ema value: {group['ema']} (a decay below 1, such as 0.999)")
        if group.get("fused") and group.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        if isinstance(rate, Tensor) and group.get("foreach") and not group.get("capturable", True):
            raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
        if group.get("differentiable"):
            raise ValueError("differentiable=True: steps here are compiled, autograd can't see them; use torch.optim")

    def settings(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """A group's settings as the rule names them, and those around it."""
        found = {key: group[key] for key in self._read if key in group}
        for key, names in _PAIRS.items():
            if key in found:
                found[names[0]], found[names[1]] = found.pop(key)
        for key, value in found.items():
            if isinstance(value, Tensor):
                found[key] = float(value)
        return found

    def _around(self, settings: Mapping[str, Any]) -> Around:
        get = settings.get
        lr, decay, decoupled = settings["lr"], get("weight_decay", 0.0), get("decoupled_weight_decay", False)
        clip, average = get("clip_value"), get("ema")
        if self.rule.decays:
            decay = 0.0
        return Around(
            -1.0 if get("maximize") else 1.0,
            math.inf if clip is None else clip,
            0.0 if decoupled else decay,
            1 - lr * decay if decoupled else 1.0,
            lr * get("l1", 0.0),
            0.0 if average is None else 1 - average,
        )

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
        if found is not None and float(found) > 0:
            self.skipped += 1
            return
        unscale = 1.0 if scale is None else 1.0 / float(scale)
        for group, schedule in zip(self.param_groups, self._schedules, strict=True):
            if schedule is not None:
                group["lr"] = float(schedule(self.steps))
        if not self._same():
            self._plans = [{} for _ in self.param_groups]
            self._settled = [None] * len(self.param_groups)
        settled = [self._settle(i, group) for i, group in enumerate(self.param_groups)]
        work = [self._batches(i, group, settled[i]) for i, group in enumerate(self.param_groups)]
        factor = unscale
        if self.clip_norm is not None or self.finite_only:
            sums = [batch.measure().sum(0) for batches in work for batch in batches]
            if self.finite_only and any(bad > 0 for _, bad in sums):
                self.skipped += 1
                for batch in (b for batches in work for b in batches if b.fresh):
                    for p in batch.params:
                        self.state.pop(p, None)
                return
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
                        self._keep(totals, factor / unscale)
        self.steps += 1
        if self._snapshot is None:
            self._snapshot = self._parts()

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
        wanted = (*(bool(settings[s]) for s in self.rule.static), group.get("ema") is not None)
        made = Settled(values, settings, self._around(settings), wanted)
        # A tensor may change in place, which values don't show.
        self._settled[i] = None if any(isinstance(v, Tensor) for v in (*values, *group.get("betas", ()))) else made
        return made

    def _keep(self, totals: Totals, clipped: float) -> None:
        """Telemetry as of the gradient that came: the pass saw it scaled by `clipped`."""
        for p, (g, w, d, a, bad) in zip(totals.parameters, totals.sums.tolist(), strict=True):
            self._seen[p] = Telemetry(g / clipped**2, w, d, a / clipped, int(bad))

    def telemetry_of(self, param: Tensor) -> Telemetry | None:
        """What the latest step that moved `param` found of it; None without `telemetry=True`."""
        return self._seen.get(param)

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
        counters = self._counted(i, group)
        held = Held(self.rule, self._formula, self.state, counters, self.stochastic_rounding)
        names = [s.name for s in self.rule.present(known.settings) if not s.scalar]
        names += [AVERAGE] if group.get("ema") is not None else []
        kinds: dict[Any, list[int]] = {}
        for k, (p, g) in enumerate(zip(group["params"], grads, strict=True)):
            if g is None:
                continue
            if g.is_sparse:
                self._check_sparse(known.settings)
            fresh = self._make_state(p, k, known.settings, counters, group)
            way = self._way(p, g)
            kinds.setdefault((way, p.device, p.dtype, fresh), []).append(k)
        return [
            way(held, [group["params"][k] for k in places], places, names, fresh)
            for (way, *_, fresh), places in kinds.items()
        ]

    def _check_sparse(self, settings: Mapping[str, Any]) -> None:
        if not self.sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        if settings.get("weight_decay") and not settings.get("decoupled_weight_decay"):
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")

    def _way(self, p: Tensor, g: Tensor) -> type[Batch]:
        wide = self.master_weights and MASTER in self.state.get(p, ())
        if self.backend == "reference" or g.layout != torch.strided or wide:
            return Eager
        if p.device.type == "cpu" and p.dtype.to_real() in cpu.DTYPES and _dense(p):
            return Compiled
        return Eager

    def _counted(self, i: int, group: Mapping[str, Any]) -> dict[str, Counters]:
        """The group's counters, grown with it."""
        names = [*(["step"] if self.rule.counts else []), *(s.name for s in self.rule.states if s.scalar)]
        while len(self._counters) <= i:
            self._counters.append({})
        held = self._counters[i]
        size = len(group["params"])
        if names and (not held or len(held[names[0]].views) != size):
            held.clear()
            held.update({n: Counters(size, scalar_dtype()) for n in names})
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

    def _formula(self, static: Mapping[str, bool]) -> Formula:
        key = tuple(sorted(static.items()))
        if key not in self._formulas:
            self._formulas[key] = take_apart(self.rule, static)
        return self._formulas[key]

    # averaged weights

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

    # saving and loading

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with one more entry, `gradwise`: how many steps were made, and schedules as JSON."""
        saved: dict[str, Any] = super().state_dict()
        saved["gradwise"] = {"steps": self.steps, "schedules": [_as_json(s) for s in self._schedules]}
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what this class or torch's of the same name saved.

        Settings that the dict lacks stay as they are, and so does a schedule that it holds none for.
        """
        saved = dict(state_dict)
        groups = saved["param_groups"]
        if len(groups) == len(self.param_groups):
            mine = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
            saved["param_groups"] = [own | dict(theirs) for own, theirs in zip(mine, groups, strict=True)]
        ours = saved.pop("gradwise", None)
        super().load_state_dict(saved)
        self._restore_dtypes(state_dict)
        self._begin()
        if ours is not None:
            self.steps = int(ours["steps"])
            for i, data in enumerate(ours["schedules"]):
                if data is not None:
                    self._schedules[i] = Schedule.from_json(data)
        else:
            counted = [float(s["step"]) for s in self.state.values() if "step" in s]
            self.steps = int(max(counted, default=self.steps))

    def _restore_dtypes(self, state_dict: Mapping[str, Any]) -> None:
        """Undo a cast: torch gives every state its parameter's dtype, and master weights are wider."""
        if not self.master_weights:
            return
        indices = [k for g in state_dict["param_groups"] for k in g["params"]]
        params = [p for g in self.param_groups for p in g["params"]]
        for k, p in zip(indices, params, strict=True):
            for name, value in state_dict["state"].get(k, {}).items():
                if isinstance(value, Tensor) and value.dtype == torch.float32 and value.shape == p.shape:
                    self.state[p][name] = value.to(p.device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("rule", "clip_norm", "finite_only", "telemetry", "stochastic_rounding", "master_weights", "backend")
        return {
            **super().__getstate__(),
            "gradwise": {**{k: getattr(self, k) for k in kept}, "steps": self.steps, "skipped": self.skipped},
            "schedules": list(self._schedules),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        for name, value in state.pop("gradwise", {}).items():
            setattr(self, name, value)
        self._schedules = state.pop("schedules", getattr(self, "_schedules", []))
        super().__setstate__(state)
        self._begin()


def _scheduled(rate: Any) -> bool:
    return callable(rate) and not isinstance(rate, Tensor)


def scalar_dtype() -> torch.dtype:
    """In which torch keeps counters in states."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def _spoiled(norm: float) -> float:
    """What torch's clip_grad_norm_ scales by where the norm isn't finite: 0 if infinite, else NaN."""
    return 0.0 if norm == math.inf else math.nan


def _as_json(schedule: Any) -> Any:
    """A schedule as data; None for one with Python code in it, which the program itself has to bring along."""
    try:
        return schedule.to_json() if isinstance(schedule, Schedule) else None
    except TypeError:
        return None


def _dense(p: Tensor) -> bool:
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
