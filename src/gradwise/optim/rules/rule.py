"""What a rule is: one function of scalars, and the state and settings that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Fill = float | str


@dataclass(frozen=True)
class State:
    """A number kept for every element of a parameter from step to step.

    Attributes:
        name: its key in `optimizer.state[p]`.
        fill: what it begins with: a number, or the name of a setting that holds it.
        when: the setting it exists for (None: always).
        scalar: whether it is one number for the whole tensor, computed from settings alone.
    """

    name: str
    fill: Fill = 0.0
    when: str | None = None
    scalar: bool = False


@dataclass(frozen=True)
class View:
    """What a rule's states mean, to whoever looks at a live optimizer: functions of its states and settings, by name.

    Attributes:
        first: the first moment, bias-corrected where the rule corrects it.
        second: the second moment, likewise; what the step is divided by the root of.
        rate: what the first moment (or gradient) of an element is multiplied by; may also ask for `second`.
        windows: for "first" and "second", the setting that is the decay of its average.
    """

    first: Callable[..., Any] | None = None
    second: Callable[..., Any] | None = None
    rate: Callable[..., Any] = lambda lr: lr
    windows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        update: the mathematics, `(p, g, *states, *settings) -> (p, *states)`, on numbers or tensors alike. A setting
            `t` is the number of the step, from 1; `first` is whether it is the first; `trust` is ‖p‖/‖Δp/lr‖ of the
            whole tensor, which makes it a layer-wise rule.
        states: in the order in which `update` takes and returns them.
        counts: whether `optimizer.state[p]["step"]` counts steps.
        decays: whether `weight_decay` belongs to the rule, and is not handled around it.
        view: what its states mean (`Optimizer.effective_lr`, `moments`, `windows`).
        arguments: what its function calls parameter, gradient and states.
        settings: what else it is given.
    """

    update: Callable[..., Any]
    states: tuple[State, ...] = ()
    counts: bool = True
    decays: bool = False
    view: View | None = None
    arguments: tuple[str, ...] = field(init=False)
    settings: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.update).parameters)
        wanted = 2 + len(self.states)
        if len(parameters) < wanted or any(p == s for p in parameters[:2] for s in parameters[2:]):
            raise ValueError(
                f"rule {self.name}: its function takes a parameter, a gradient, one argument for each of its "
                f"{len(self.states)} states, then settings; got {', '.join(parameters) or 'nothing'}"
            )
        object.__setattr__(self, "arguments", tuple(parameters[:wanted]))
        object.__setattr__(self, "settings", tuple(parameters[wanted:]))

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.update.__name__

    @property
    def static(self) -> tuple[str, ...]:
        """Settings on which it depends which states there are."""
        return tuple(dict.fromkeys(s.when for s in self.states if s.when is not None))

    @property
    def layerwise(self) -> bool:
        """Whether a step depends on norms of the whole tensor."""
        return "trust" in self.settings

    def present(self, settings: Mapping[str, Any]) -> tuple[State, ...]:
        """The states that exist under these settings."""
        return tuple(s for s in self.states if s.when is None or settings[s.when])


def rule(
    *states: State | str, counts: bool = True, decays: bool = False, view: View | None = None
) -> Callable[[Callable[..., Any]], Rule]:
    """Make a rule of a function; `states` name what it keeps, in order; the rest is as in `Rule`.

    >>> from gradwise.optim.rules.scalars import ema, sign
    >>> @rule("momentum")
    ... def signum(p, g, m, lr, beta):
    ...     m = ema(m, g, beta)
    ...     return p - lr * sign(m), m
    >>> signum.settings
    ('lr', 'beta')
    >>> signum.update(1.0, 2.0, 0.0, lr=0.1, beta=0.9)
    (0.9, 0.19999999999999996)
    """
    kept = tuple(s if isinstance(s, State) else State(s) for s in states)
    return lambda update: Rule(update, kept, counts, decays, view)
