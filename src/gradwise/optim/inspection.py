"""What a live optimizer knows of a parameter: its moments, their windows, and each element's effective rate (O10)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwise.optim.rules.rule import Rule, View


class Moments(NamedTuple):
    """A parameter's moments, elementwise; None where the rule keeps none."""

    first: Tensor | None
    second: Tensor | None


class Windows(NamedTuple):
    """Over how many steps a rule averages: 1/(1−β); None where it doesn't average.

    A window holds 1 − 1/e ≈ 63 % of an exponential average's weight.
    """

    first: float | None
    second: float | None


class Inspection(torch.optim.Optimizer):
    """The part of an optimizer that is for looking at it."""

    rule: Rule

    def settings(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """A group's settings as the rule names them."""
        raise NotImplementedError

    def effective_lr(self, param: Tensor) -> Tensor:
        """The rate of each element, η/(√v̂ + ε): what the rule multiplies its first moment, or the gradient, by.

        It is η itself everywhere for rules without a second moment (SGD, Lion), the step's length for Rprop, and what
        LAMB has before it sets the length of the whole tensor's step. Multiplying η multiplies it all.

        Args:
            param: one of the optimizer's parameters, after its first step.

        Returns:
            A tensor of the parameter's shape; of a complex one, the rates of its real and imaginary parts.

        Raises:
            ValueError: if `param` is not the optimizer's, or hasn't been stepped.

        >>> import torch, gradwise.optim
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = gradwise.optim.Adam([w], lr=0.001)
        >>> w.grad = torch.tensor([10.0, 0.1])
        >>> optimizer.step()
        >>> optimizer.effective_lr(w)
        tensor([0.0001, 0.0100])
        """
        view, state, settings = self._looked_at(param)
        values, shape = meanings(view, self.rule, state, settings)
        return _shaped(values["rate"], param, shape)

    def moments(self, param: Tensor) -> Moments:
        """The first and second moment, m̂ and v̂, bias-corrected where the rule corrects them.

        A second moment is what the step is divided by the root of: a sum for Adagrad, the largest for AMSGrad, u² for
        Adamax, a variance for AdaBelief and centred RMSprop. SGD's first moment is its buffer, under any convention.

        Args:
            param: one of the optimizer's parameters, after its first step.

        Returns:
            `(first, second)`, tensors of the parameter's shape or None where the rule keeps no such moment.

        Raises:
            ValueError: if `param` is not the optimizer's, or hasn't been stepped.

        >>> import torch, gradwise.optim
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = gradwise.optim.Adam([w], lr=0.001)
        >>> w.grad = torch.tensor([10.0, 0.5])
        >>> optimizer.step()
        >>> first, second = optimizer.moments(w)
        >>> first, second.sqrt()
        (tensor([10.0000,  0.5000]), tensor([10.0000,  0.5000]))
        """
        view, state, settings = self._looked_at(param)
        values, shape = meanings(view, self.rule, state, settings)
        return Moments(*(None if values[k] is None else _shaped(values[k], param, shape) for k in Moments._fields))

    def windows(self, param: Tensor) -> Windows:
        """How many steps the moments of a parameter average over, 1/(1−β).

        Args:
            param: one of the optimizer's parameters.

        Returns:
            `(first, second)`, in steps; None where there is no average, as in Adagrad, which forgets nothing.

        Raises:
            ValueError: if `param` is not the optimizer's.

        >>> import torch, gradwise.optim
        >>> w = torch.nn.Parameter(torch.zeros(3))
        >>> gradwise.optim.RMSprop([w], alpha=0.75).windows(w)
        Windows(first=None, second=4.0)
        """
        view, settings = self._view(), self.settings(self._group_of(param))
        decays = [float(settings.get(view.windows.get(k, ""), 0.0)) for k in Windows._fields]
        return Windows(*((1 / (1 - d) if d < 1 else float("inf")) if d else None for d in decays))

    def _view(self) -> View:
        if self.rule.view is None:
            raise ValueError(f"rule {self.rule.name} doesn't say what its states mean: give it rule(…, view=View(…))")
        return self.rule.view

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(p is param for p in group["params"]):
                return group
        raise ValueError(f"not a parameter of this {type(self).__name__}: a tensor of shape {tuple(param.shape)}")

    def _looked_at(self, param: Tensor) -> tuple[View, Mapping[str, Any], dict[str, Any]]:
        settings = self.settings(self._group_of(param))
        state = self.state.get(param, {})
        if stepless(self.rule, state, settings):
            raise ValueError(
                f"{type(self).__name__} has not stepped this parameter of shape {tuple(param.shape)} yet, so it has no "
                f"moments: call step() with a gradient first"
            )
        return self._view(), state, settings


def stepless(rule: Rule, state: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a parameter with this state has had no step yet, as far as its state can tell."""
    if rule.counts:
        return not float(state.get("step", 0))
    return any(s.name not in state for s in rule.present(settings))


def meanings(
    view: View, rule: Rule, state: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], torch.Size | None]:
    """`first`, `second` and `rate` of a state, and the shape of what is complex in it, seen as pairs of reals."""
    present = {s.name for s in rule.present(settings)}
    known: dict[str, Any] = {k: float(v) if isinstance(v, Tensor) else v for k, v in settings.items()}
    known["t"] = int(state.get("step", 0))
    pairs = None
    for argument, s in zip(rule.arguments[2:], rule.states, strict=True):
        value = state.get(s.name) if s.name in present else None
        if value is not None and s.scalar:
            value = float(value)
        elif value is not None:
            pairs = value.shape if value.is_complex() else pairs
            value = torch.view_as_real(value) if value.is_complex() else value
            value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
        known[argument] = value
    for name in ("first", "second", "rate"):
        function = getattr(view, name)
        names = inspect.signature(function).parameters if function else ()
        known[name] = function(**{n: known[n] for n in names}) if function else None
    return known, pairs


def _shaped(value: Any, param: Tensor, pairs: torch.Size | None) -> Tensor:
    """A value for the whole tensor, or for its elements, as a tensor of its own in the parameter's shape."""
    if not isinstance(value, Tensor):
        whole = complex(value, value) if param.is_complex() else value
        return torch.full_like(param, whole, dtype=_wide(param.dtype), requires_grad=False)
    return torch.view_as_complex(value.contiguous()).clone() if pairs is not None else value.detach().clone()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
