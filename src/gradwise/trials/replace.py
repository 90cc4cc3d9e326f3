"""Another update rule in place of a script's own: the script's optimizer goes on being called, and does nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Rules by name: torch's class, and what of its settings is not the default.
_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", {}),
    "adagrad": ("Adagrad", {}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
}


class Replacement:
    """Steps by another rule whenever one of the script's optimizers does.

    Every optimizer passes over parameters without a gradient. So before its step the gradients are taken away, and
    after it they are back, and the other rule steps, at the rates that the groups have then. Both rules see the same
    parameters, and the script's own weight decay does not count.

    Args:
        torch: the module.
        rule: a name out of `gradwise.interventions.RULES`.
        disown: called with each optimizer made here, which is not to be taken for the script's.
    """

    def __init__(self, torch: ModuleType, rule: str, disown: Callable[[Any], None]) -> None:
        self.torch, self._disown = torch, disown
        name, self._options = _KINDS[rule]
        self._kind = getattr(torch.optim, name)
        self._made: dict[int, tuple[Any, Any]] = {}
        self._gradients: dict[int, list[tuple[Any, Any]]] = {}

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """Take the gradients away; a closure is wrapped, so that it leaves none either."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._take(optimizer)
            return None

        @functools.wraps(closure)
        def emptied() -> Any:
            loss = closure()
            self._take(optimizer)
            return loss

        return ((args[0],), {**kwargs, "closure": emptied}) if args else (args, {**kwargs, "closure": emptied})

    def after(self, optimizer: Any) -> None:
        """Give the gradients back and step by the rule."""
        for parameter, gradient in self._gradients.pop(id(optimizer), ()):
            parameter.grad = gradient
        made = self._made.get(id(optimizer))
        if made is None or made[0] is not optimizer:
            made = self._made[id(optimizer)] = optimizer, self._make(optimizer)
        other = made[1]
        for group, own in zip(other.param_groups, optimizer.param_groups, strict=False):
            group["lr"] = own.get("lr", group["lr"])
        step = type(other).step
        # Without the hooks around it: for the watcher and the script this is the same step.
        with self.torch.no_grad():
            getattr(step, "__wrapped__", step)(other)

    def _make(self, optimizer: Any) -> Any:
        groups = [{"params": group["params"], "lr": group.get("lr", 1e-3)} for group in optimizer.param_groups]
        made = self._kind(groups, **self._options)
        self._disown(made)
        return made

    def _take(self, optimizer: Any) -> None:
        taken = self._gradients.setdefault(id(optimizer), [])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    taken.append((parameter, parameter.grad))
                    parameter.grad = None
