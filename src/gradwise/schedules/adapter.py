"""Schedules on any `torch.optim` optimizer, as one of torch's own schedulers. The only part that needs torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gradwise.schedules.checks import count
from gradwise.schedules.plateau import Plateau, PlateauState
from gradwise.schedules.schedule import Schedule

Rule = Schedule | Plateau
Rules = Mapping[str, Rule | tuple[Rule, ...]]  # by setting: one for all groups, or one for each


class ScheduledLR(LRScheduler):
    """Sets each group's rate, and what else is scheduled, to its own value times the factor of the step.

    What is the group's own stands in the group itself, as `initial_lr` (torch's name for it), `initial_momentum` and so
    on, and travels with the optimizer's state. What this adds to it is the number of steps.

    Attributes:
        last_epoch: the step that the groups are set for; torch's name for it.
    """

    def __init__(self, optimizer: Optimizer, rules: Rules, absolute: Collection[str], step: int) -> None:
        self._rules, self._absolute = dict(rules), frozenset(absolute)
        for group in optimizer.param_groups:
            self._own(group)
        LRScheduler.__init__(self, optimizer, step - 1)  # not super(): PlateauLR has another parent in between

    def step(self, epoch: int | None = None) -> None:
        """One step further; with `epoch` to that step."""
        if epoch is None:
            LRScheduler.step(self)  # which knows whether the optimizer stepped before, and sets the rates
            self._set_others()
        else:
            self._move_to(epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the groups at the present step."""
        return self._values("lr")

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, `{"last_epoch": 1000}`; the schedules themselves are the program's."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there: every group is set for that step at once.

        The state of one of torch's own schedulers will do too.

        Raises:
            TypeError: there is no number of steps in it.
        """
        self._move_to(count("the state's last_epoch", state_dict.get("last_epoch"), 0))

    def _move_to(self, step: int) -> None:
        self.last_epoch = step
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            _put(group, "lr", rate)
        self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]
        self._set_others()

    def _set_others(self) -> None:
        for setting in self._rules:
            if setting != "lr":
                for group, value in zip(self.optimizer.param_groups, self._values(setting), strict=True):
                    _write(group, setting, value)

    def _values(self, setting: str) -> list[Any]:
        """What a setting shall be in each group, at the present step."""
        groups, rules = self.optimizer.param_groups, self._rules.get(setting)
        if rules is None:  # torch's base class sets rates in any case
            return [group[setting] for group in groups]
        if isinstance(rules, tuple) and len(rules) < len(groups):
            raise ValueError(
                f"{setting}: group {len(rules)} came later and has no schedule; attach anew, with one for each group"
            )
        factors = [self._factor(r) for r in rules] if isinstance(rules, tuple) else [self._factor(rules)] * len(groups)
        if setting in self._absolute:
            return factors
        for group in groups:
            self._own(group)
        return [group[f"initial_{setting}"] * factor for group, factor in zip(groups, factors, strict=True)]

    def _factor(self, rule: Rule) -> float:
        assert isinstance(rule, Schedule)
        return rule(self.last_epoch)

    def _own(self, group: dict[str, Any]) -> None:
        """Keep in the group what is its own, if that wasn't done before."""
        for setting in {"lr", *self._rules}:
            if f"initial_{setting}" not in group:
                group[f"initial_{setting}"] = _copy(_read(group, setting))


class PlateauLR(ScheduledLR, ReduceLROnPlateau):
    """The same with `reduce_on_plateau` among the schedules; to frameworks it is torch's ReduceLROnPlateau.

    `step(metric)` hands over a metric, `step()` counts a step: schedules multiplied with a plateau go by steps.
    """

    def __init__(self, optimizer: Optimizer, rules: Rules, absolute: Collection[str], step: int) -> None:
        self._states: dict[Plateau, PlateauState] = {}
        ScheduledLR.__init__(self, optimizer, rules, absolute, step)

    def step(self, metrics: Any = None, epoch: int | None = None) -> None:  # type: ignore[override]
        """After an optimizer step: `step()`. After an evaluation: `step(metric)`, which counts no step."""
        if metrics is None:
            ScheduledLR.step(self, epoch)
            return
        for rule in self._plateaus():
            self._states[rule], _ = rule(self._states.get(rule, rule.start), float(metrics))
        self._move_to(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, and the state of each plateau in the order of the schedules."""
        states = [self._states.get(rule, rule.start).to_json() for rule in self._plateaus()]
        return {**ScheduledLR.state_dict(self), "plateaus": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there: every group is set for that step and these states at once.

        Raises:
            ValueError: the state is not that of as many plateaus.
        """
        states, rules = state_dict.get("plateaus"), self._plateaus()
        if not isinstance(states, list) or len(states) != len(rules):
            raise ValueError(f"the state of {len(rules)} plateaus is needed, under 'plateaus'; got {states!r}")
        self._states = {rule: PlateauState.from_json(state) for rule, state in zip(rules, states, strict=True)}
        ScheduledLR.load_state_dict(self, state_dict)

    def _factor(self, rule: Rule) -> float:
        if isinstance(rule, Schedule):
            return rule(self.last_epoch)
        return rule.factor(self._states.get(rule, rule.start), self.last_epoch)

    def _plateaus(self) -> list[Plateau]:
        """Each plateau once, in the order of the schedules."""
        return list(dict.fromkeys(r for rules in self._rules.values() for r in _each(rules) if isinstance(r, Plateau)))


def attach(
    optimizer: Optimizer,
    lr: Rule | Sequence[Rule] | None = None,
    *,
    momentum: Rule | Sequence[Rule] | None = None,
    beta2: Rule | Sequence[Rule] | None = None,
    weight_decay: Rule | Sequence[Rule] | None = None,
    absolute: Collection[str] = (),
    step: int = 0,
) -> ScheduledLR:
    """Put schedules on an optimizer; what comes back is used as any of torch's schedulers.

    At each step a group's setting is its own value, the one it was made with, times the factor.

    Args:
        optimizer: any `torch.optim.Optimizer`. Each group must have what is scheduled.
        lr: for the learning rate; one for all groups, or a sequence with one for each. None leaves rates alone.
        momentum: for `momentum`, or the first of `betas`.
        beta2: for the second of `betas`.
        weight_decay: for the weight decay.
        absolute: which of "lr", "momentum", "beta2", "weight_decay" are meant as they are rather than as factors:
            `attach(optimizer, 3e-4 * cosine(10_000), absolute=["lr"])`.
        step: the optimizer steps taken so far; to resume, this or `load_state_dict`.

    Returns:
        A `torch.optim.lr_scheduler.LRScheduler`, which PyTorch Lightning, the Trainer of Transformers and Accelerate
        take as one of torch's own. Call its `step()` after each optimizer step. With `reduce_on_plateau` it is a
        `ReduceLROnPlateau` as well: `step(metric)` after each evaluation.

    Raises:
        TypeError: what is given is no optimizer or no schedule.
        ValueError: there are more or fewer schedules than groups, or a group lacks what is to be scheduled.

    Example:
        >>> import torch
        >>> from gradwise.schedules import attach, cosine, warmup
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
        >>> scheduler = attach(optimizer, warmup(2) >> cosine(100))
        >>> for _ in range(52):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> scheduler.get_last_lr(), scheduler.state_dict()
        ([0.05], {'last_epoch': 52})
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"attach: a torch.optim.Optimizer is needed, got {type(optimizer).__name__}")
    given = {"lr": lr, "momentum": momentum, "beta2": beta2, "weight_decay": weight_decay}
    rules = {name: _checked(name, rule, optimizer) for name, rule in given.items() if rule is not None}
    plain = {absolute} if isinstance(absolute, str) else set(absolute)
    if not plain <= set(rules):
        raise ValueError(f"attach: absolute is {sorted(plain)}, but scheduled are {list(rules)}")
    plateau = any(isinstance(r, Plateau) for rule in rules.values() for r in _each(rule))
    return (PlateauLR if plateau else ScheduledLR)(optimizer, rules, plain, count("attach: step", step, 0))


def _checked(setting: str, given: Any, optimizer: Optimizer) -> Rule | tuple[Rule, ...]:
    rules: Rule | tuple[Rule, ...] = tuple(given) if isinstance(given, list | tuple) else given
    for one in _each(rules):
        if not isinstance(one, Schedule | Plateau):
            raise TypeError(f"attach: {setting} must be a schedule (of a number: constant({one!r})), got {one!r}")
    if isinstance(rules, tuple) and len(rules) != len(optimizer.param_groups):
        raise ValueError(f"attach: {setting} has {len(rules)} schedules for {len(optimizer.param_groups)} groups")
    for k, group in enumerate(optimizer.param_groups):
        if setting not in group and not (setting in _BETAS and "betas" in group):
            raise ValueError(f"attach: group {k} of {type(optimizer).__name__} has no {setting} to schedule")
    return rules


def _each(rules: Rule | tuple[Rule, ...]) -> tuple[Rule, ...]:
    return rules if isinstance(rules, tuple) else (rules,)


_BETAS = {"momentum": 0, "beta2": 1}  # where they stand in `betas`


def _read(group: dict[str, Any], setting: str) -> Any:
    return group[setting] if setting in group else group["betas"][_BETAS[setting]]


def _write(group: dict[str, Any], setting: str, value: Any) -> None:
    if setting in group:
        _put(group, setting, value)
    else:
        betas = list(group["betas"])
        betas[_BETAS[setting]] = value
        group["betas"] = tuple(betas)


def _put(group: dict[str, Any], key: str, value: Any) -> None:
    """A tensor keeps its identity: captured graphs read it."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
