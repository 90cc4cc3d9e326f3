"""Which rescalings leave an optimizer's path unchanged (E1, E2): is loss × c the same as lr × c, or as nothing at all?

Nothing here knows a rule. A twin of the optimizer, with its own settings, steps a few numbers of very different size in
double precision, once under each of the two changes, and the paths are compared. Equal for random gradients of all
sizes they are equal for any, by induction over steps: from the same place, loss × c only multiplies the next gradient
by c. For these verdicts c is a power of two, with which rounding commutes, so that equal means equal. Where paths
differ, terms are switched off and on again one at a time: what breaks it on its own is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradwise.optim import adam, adaptive, averaging, sgd
from gradwise.optim.inspection import meanings, stepless
from gradwise.optim.optimizer import Optimizer

STEPS = 24
RATE = 2.0**-7
# Relative difference of steps up to which two paths are the same, in double precision.
SAME = 1e-9
NOTICED = 0.01
# How many elements are looked at; of layer-wise rules each takes a tensor of its own.
MOST, FEW = 4096, 25
GROWS = "the step grows with the gradient"
STAYS = "the step doesn't grow with the gradient"
# What each term is set to where it is switched off; ε stays positive, since Adadelta moves by nothing else at first.
_OFF: dict[str, Any] = {
    "eps": 1e-200, "initial_accumulator_value": 0.0, "weight_decay": 0.0, "lambd": 0.0, "l1": 0.0, "clip_value": None,
    "clip_norm": None,
}  # fmt: skip
_SAID = {
    "eps": "ε", "initial_accumulator_value": "the accumulator's initial value", "lambd": "the decay λ of the weights",
    "l1": "l1", "clip_value": "gradient clipping by value", "clip_norm": "gradient clipping by norm",
}  # fmt: skip
# Settings that verdicts don't depend on: a constant rate is replaced.
_NOT_ASKED = {"params", "lr", "initial_lr"}
# Added to sums of squared gradients: without weight where gradients are large.
_SMALL = {"eps", "initial_accumulator_value"}


@dataclass(frozen=True)
class Verdict:
    """Whether two ways to train are the same way.

    Attributes:
        answer: "exact"; "approximate" if only constants beside squared gradients (ε) break it; or "no".
        because: what breaks it.
        midway: the answer where the change comes while training is under way, so that averages hold older gradients.
    """

    answer: str
    because: tuple[str, ...]
    midway: str


@dataclass(frozen=True)
class Effect:
    """How much ε matters: relative change of an element's steps under loss × c.

    Attributes:
        median, largest: over the elements looked at.
        noticed: share of elements whose steps change by more than 1 %.
        elements: how many were looked at: a sample of those that have had gradients.
    """

    median: float
    largest: float
    noticed: float
    elements: int


@dataclass(frozen=True)
class GroupEquivalence:
    """What holds for one parameter group.

    Attributes:
        group: its index.
        rule: the update rule.
        as_lr: whether loss × c is lr × c.
        as_before: whether loss × c changes nothing.
        above: where that is approximate, the root mean square of an element's gradients above which its steps change
            by less than 1 %.
        measured: the same, for the gradients that the optimizer has seen; None before its first step.
    """

    group: int
    rule: str
    as_lr: Verdict
    as_before: Verdict
    above: float | None = None
    measured: Effect | None = None


@dataclass(frozen=True)
class Equivalence:
    """What multiplying the loss by a constant does under an optimizer; prints as text.

    Attributes:
        optimizer: name of its class.
        loss_scale: the constant c.
        groups: one entry for each parameter group.
    """

    optimizer: str
    loss_scale: float
    groups: tuple[GroupEquivalence, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join([f"{self.optimizer}, loss × {self.loss_scale:g}", *self._lines()])

    def _lines(self) -> Iterator[str]:
        for g in self.groups:
            yield f"  group {g.group} ({g.rule})"
            yield f"    the same as lr × {self.loss_scale:g}?  {_said(g.as_lr)}"
            yield f"    the same as before?  {_said(g.as_before)}"
            if g.above is not None:
                yield f"      steps change by less than 1 % where an element's gradients are above {g.above:.1g} (rms)"
            if g.measured is not None:
                m = g.measured
                yield (
                    f"      here: by {m.median:.2g} in the median of {m.elements:,} elements, at most by "
                    f"{m.largest:.2g}; {m.noticed:.1%} of them by more than 1 %"
                )


def equivalent(
    optimizer: torch.optim.Optimizer,
    loss_scale: float = 0.1,
    *,
    clip_norm: float | None = None,
    clip_value: float | None = None,
) -> Equivalence:
    """Say what multiplying the loss by a constant does under a configured optimizer.

    Two questions, for every parameter group: is loss × c the same as lr × c, as for plain SGD; and is it the same as
    leaving the loss alone, as, up to ε, for Adam?

    Args:
        optimizer: of `gradwise.optim` (also with a rule of one's own) or the class of the same name in `torch.optim`.
            It isn't changed.
        loss_scale: the constant c.
        clip_norm: the norm to which the training loop itself clips gradients, if it does.
        clip_value: likewise, the value.

    Returns:
        The verdicts, which print as text.

    Raises:
        TypeError: for an optimizer whose rule isn't known here.
        ValueError: for a constant that isn't positive, or is 1.

    >>> import torch, gradwise
    >>> model = torch.nn.Linear(3, 1)
    >>> print(gradwise.equivalent(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)))
    SGD, loss × 0.1
      group 0 (sgd)
        the same as lr × 0.1?  exact; but no, if changed midway
        the same as before?  no: the step grows with the gradient
    >>> gradwise.equivalent(torch.optim.AdamW(model.parameters())).groups[0].as_before.because
    ('ε',)
    """
    if not 0 < loss_scale < float("inf") or loss_scale == 1:
        raise ValueError(f"loss_scale is a positive number other than 1, got {loss_scale}")
    groups: list[GroupEquivalence] = []
    known: dict[str, GroupEquivalence] = {}  # by settings, which many groups share
    for i, group in enumerate(optimizer.param_groups):
        twin = _twin(optimizer, i)
        twin.clip_norm = clip_norm or twin.clip_norm
        if clip_value is not None:
            twin.param_groups[0]["clip_value"] = clip_value
        probe = _Probe(twin, loss_scale)
        if probe.key not in known:
            known[probe.key] = _judge(probe)
        sizes = torch.cat([torch.zeros(0, dtype=torch.float64), *_seen_sizes(twin, group, optimizer.state)])
        groups.append(replace(known[probe.key], group=i))
        if len(sizes) and groups[-1].above is not None:
            groups[-1] = replace(groups[-1], measured=_measured(probe.effect(sizes)))
    return Equivalence(type(optimizer).__name__, loss_scale, tuple(groups))


def _judge(probe: _Probe) -> GroupEquivalence:
    as_lr, as_before = probe.verdict(lr=True), probe.verdict(lr=False)
    above = None
    if as_before.answer == "approximate":
        grid = torch.logspace(-24, 12, 37 if probe.twin.rule.layerwise else 361, dtype=torch.float64)
        noticed = (probe.effect(grid) >= NOTICED).nonzero()
        last = int(noticed.max()) if len(noticed) else -1
        above = float(grid[last + 1]) if last + 1 < len(grid) else math.inf
    return GroupEquivalence(0, probe.twin.rule.name, as_lr, as_before, above)


def _measured(effect: Tensor) -> Effect:
    noticed = float((effect > NOTICED).double().mean())
    return Effect(float(effect.median()), float(effect.max()), noticed, len(effect))


@dataclass(frozen=True)
class _Probe:
    """A twin of an optimizer, whose paths are compared."""

    twin: Optimizer
    factor: float

    @property
    def key(self) -> str:
        """What verdicts depend on."""
        group = self.twin.param_groups[0]
        return repr((sorted((k, repr(v)) for k, v in group.items() if k not in _NOT_ASKED), self.twin._schedules))

    def verdict(self, lr: bool) -> Verdict:
        """Is loss × c the same as lr × c (`lr`), or as nothing?"""
        terms = [name for name in _OFF if self._setting(name) not in (None, 0)]
        if self._breaks((), lr):
            return Verdict("no", (self._structure(),), "no")
        because = [name for name in terms if self._breaks((name,), lr)]
        if not because and self._breaks(terms, lr):
            because = terms
        answer = "exact" if not because else "approximate" if set(because) <= _SMALL else "no"
        midway = "no" if answer == "no" or self._breaks((), lr, since=STEPS // 2) else answer
        return Verdict(answer, tuple(self._said(name) for name in because), midway)

    def effect(self, sizes: Tensor) -> Tensor:
        """Relative change of each element's steps under loss × c, for gradients of these sizes, by ε alone."""
        small = [name for name in _SMALL if self._setting(name)]
        return _difference(*self._paths(self.factor, small, False, 0, torch.zeros_like(sizes), sizes))

    def _structure(self) -> str:
        """Why it is broken with every term switched off."""
        if not self._breaks((), lr=True):
            return GROWS
        if not self._breaks((), lr=False):
            return STAYS
        changed, before = (path.diff(dim=0)[:, 0] for path in self._paths(self._power, (), False, 0, *_sizes()))
        kept = ((changed / before - 1).abs() < 1e-6).tolist()
        first = kept.index(True) if True in kept else STEPS
        if 0 < first < STEPS and all(kept[first:]):
            return f"the first {first} steps grow with the gradient, later ones don't"
        return "the step grows with the gradient, but not in proportion"

    def _breaks(self, terms: Sequence[str], lr: bool, since: int = 0) -> bool:
        """Whether the two paths differ if only these terms are switched on."""
        difference = _difference(*self._paths(self._power, terms, lr, since, *_sizes()))
        return not bool((difference < SAME).all())

    def _paths(
        self, factor: float, terms: Sequence[str], lr: bool, since: int, start: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The path under loss × factor, and that under lr × factor or under neither, from some step on."""
        random = torch.Generator().manual_seed(0)
        noise = torch.randn(STEPS, len(sizes), generator=random, dtype=torch.float64)
        noise += noise.sign()  # none is near 0
        gradients = sizes * noise / noise.square().mean(0).sqrt()
        factors = [factor if t >= since else 1.0 for t in range(STEPS)]
        scaled = gradients * torch.tensor(factors, dtype=torch.float64)[:, None]
        ones = [1.0] * STEPS
        bounds = {"clip_value": gradients.abs().median(), "clip_norm": gradients.norm(dim=1).median()}
        on = {name: float(bounds[name]) if name in bounds else self._setting(name) for name in terms}
        return self._path(on, scaled, ones, start), self._path(on, gradients, factors if lr else ones, start)

    @property
    def _power(self) -> float:
        """A power of two near c, and not 1."""
        near = round(math.log2(self.factor))
        return 2.0 ** (near or math.copysign(1, self.factor - 1))

    @torch.no_grad()
    def _path(self, on: Mapping[str, Any], gradients: Tensor, rates: Sequence[float], start: Tensor) -> Tensor:
        """Where the twin goes, step by step; bounds of clipping are set so that they bind at times."""
        layerwise = self.twin.rule.layerwise  # then each element is a tensor of its own
        params = [nn.Parameter(p.clone()) for p in (start.unbind() if layerwise else [start])]
        settings = {**self.twin.param_groups[0], **_OFF, **on}
        twin = _copy(self.twin, {k: settings[k] for k in self.twin.param_groups[0]} | {"params": params})
        twin.clip_norm = settings["clip_norm"]
        (schedule,) = self.twin._schedules
        path = [start]
        for t, factor in enumerate(rates):
            twin.param_groups[0]["lr"] = factor * (RATE if schedule is None else float(schedule(t)))
            for p, g in zip(params, gradients[t].unbind() if layerwise else [gradients[t]], strict=True):
                p.grad = g.clone()
            twin._step()
            path.append(torch.stack([p.detach() for p in params]) if layerwise else params[0].detach().clone())
        return torch.stack(path)

    def _setting(self, name: str) -> Any:
        return self.twin.clip_norm if name == "clip_norm" else self.twin.param_groups[0].get(name)

    def _said(self, name: str) -> str:
        if name != "weight_decay":
            return _SAID[name]
        if self.twin.rule.decays:
            return "weight decay"
        return ("decoupled" if self._setting("decoupled_weight_decay") else "coupled") + " weight decay"


def _sizes() -> tuple[Tensor, Tensor]:
    """Where elements start, and the sizes of their gradients: all combinations of none or 1, and tiny to large."""
    sizes = torch.logspace(2, -12, 15, dtype=torch.float64)
    return torch.cat([torch.zeros_like(sizes), torch.ones_like(sizes)]), sizes.repeat(2)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Of two paths, element by element: lengths of the differences of their steps over lengths of the steps."""
    apart = (a.diff(dim=0) - b.diff(dim=0)).abs().sum(0)
    rounding = 1e-15 * len(a) * torch.maximum(a.abs(), b.abs()).amax(0)
    length = (a.diff(dim=0).abs().sum(0) + b.diff(dim=0).abs().sum(0)) / 2
    return torch.where(apart <= rounding, 0.0, (apart - rounding) / length)


def _twin(optimizer: torch.optim.Optimizer, i: int) -> Optimizer:
    """An optimizer of ours with the settings of one group."""
    group = optimizer.param_groups[i]
    if isinstance(optimizer, Optimizer):
        twin = _copy(optimizer, dict(group))
        twin._schedules = [optimizer._schedules[i]]
        return twin
    ours = {name: kind for m in (sgd, adaptive, adam, averaging) for name, kind in vars(m).items()}
    for kind in type(optimizer).__mro__:
        if kind.__module__.startswith("torch.optim.") and kind.__name__ in ours and kind is not torch.optim.Optimizer:
            made: Optimizer = ours[kind.__name__]([nn.Parameter(torch.zeros(1))])
            made.param_groups[0].update({k: v for k, v in group.items() if k != "params"})
            return _copy(made, made.param_groups[0])
    raise TypeError(
        f"{type(optimizer).__name__} has a rule that isn't known here; known are gradwise.optim's optimizers and those "
        f"of the same names in torch.optim"
    )


def _copy(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    """A new optimizer with the same rule and one group, run by the reference."""
    twin = type(optimizer).__new__(type(optimizer))
    twin.__setstate__({**optimizer.__getstate__(), "state": _State(), "param_groups": [group], "schedules": [None]})
    twin.backend, twin.telemetry, twin.master_weights = "reference", False, False
    group["ema"] = None
    return twin


class _State(dict[Tensor, dict[str, Any]]):
    def __missing__(self, key: Tensor) -> dict[str, Any]:
        return self.setdefault(key, {})


def _seen_sizes(twin: Optimizer, group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> Iterator[Tensor]:
    """Root mean squares of the gradients that elements of the group have had, a sample."""
    rule, settings = twin.rule, twin.settings(twin.param_groups[0])
    stepped = [p for p in group["params"] if p in state and not stepless(rule, state[p], settings)]
    most = FEW if rule.layerwise else MOST
    for p in stepped:
        second = meanings(rule.view, rule, state[p], settings)[0]["second"] if rule.view else None
        if second is not None:
            second = second.detach().flatten()
            second = second[:: max(1, len(second) * len(stepped) // most)].double().cpu()
            yield second[second > 0].sqrt()


def _said(verdict: Verdict) -> str:
    text = ": ".join(filter(None, (verdict.answer, ", ".join(verdict.because))))
    return text if verdict.midway == verdict.answer else f"{text}; but {verdict.midway}, if changed midway"
