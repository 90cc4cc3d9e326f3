"""An intervention applied to live training: rates and gradients are changed around each step, and put back after it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gradwise.interventions import Intervention
from gradwise.probes.tracked import Tracked
from gradwise.probes.watcher import Watcher
from gradwise.trials.replace import Replacement


class Applier:
    """Changes every step of the optimizers an intervention touches; between steps the script sees its own values."""

    def __init__(self, torch: ModuleType, intervention: Intervention, watcher: Watcher) -> None:
        self.torch, self.intervention, self.watcher = torch, intervention, watcher
        self._saved: dict[int, list[tuple[dict[str, Any], Any]]] = {}
        self._changed: set[int] = set()
        self._shares: dict[int, list[float]] = {}
        self._rules = (
            None if intervention.rule is None else Replacement(torch, intervention.rule, watcher.registry.disown)
        )

    def install(self) -> None:
        """Begin to apply. The watcher must be installed before, so that it sees the values in use."""
        hooks = __import__("torch.optim.optimizer", fromlist=["optimizer"])
        hooks.register_optimizer_step_pre_hook(self._before_step)
        hooks.register_optimizer_step_post_hook(self._after_step)
        autograd = self.torch.autograd
        autograd.backward = self._wrap_backward(autograd.backward)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        self._restore(optimizer)
        tracked = self.watcher.find(optimizer)
        if tracked is None or not self.intervention.touches(tracked.index):
            return None
        saved = self._saved[id(optimizer)] = []
        for group, rate in zip(optimizer.param_groups, self._rates(optimizer, tracked), strict=True):
            # A wrapper may share its groups with the optimizer inside it: once is enough.
            if "lr" in group and id(group) not in self._changed and rate is not None:
                self._changed.add(id(group))
                saved.append((group, group["lr"]))
                group["lr"] = rate
        if self._rules is not None and not tracked.inner:
            return self._rules.before(optimizer, args, kwargs)
        if self.intervention.clip_norm is None:
            return None
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._clip(parameters, optimizer)
            return None
        clipped = self._clipping(closure, parameters, optimizer)
        return ((args[0],), {**kwargs, "closure": clipped}) if args else (args, {**kwargs, "closure": clipped})

    def _rates(self, optimizer: Any, tracked: Tracked) -> list[Any]:
        """The rate of each group at its coming step; None leaves the script's own."""
        groups, factor = optimizer.param_groups, self.intervention.lr_factor(tracked.steps)
        if self.intervention.lr is None:
            return [None if factor == 1.0 else g.get("lr", 0.0) * factor for g in groups]
        shares = self._shares.setdefault(tracked.index, _shares(groups))
        rate = self.intervention.lr(tracked.steps) * factor
        return [rate * share for share in (*shares, *[1.0] * len(groups))][: len(groups)]

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._rules is not None and id(optimizer) in self._saved:
            self._rules.after(optimizer)
        self._restore(optimizer)

    def _restore(self, optimizer: Any) -> None:
        for group, rate in self._saved.pop(id(optimizer), ()):
            group["lr"] = rate
            self._changed.discard(id(group))

    def _clip(self, parameters: list[Any], optimizer: Any = None) -> None:
        limit = self.intervention.clip_norm
        assert limit is not None
        scale = getattr(optimizer, "grad_scale", None)
        self.torch.nn.utils.clip_grad_norm_(parameters, limit if scale is None else limit * float(scale))

    def _clipping(self, closure: Callable[[], Any], parameters: list[Any], optimizer: Any) -> Callable[[], Any]:
        @functools.wraps(closure)
        def clipped() -> Any:
            loss = closure()
            self._clip(parameters, optimizer)
            return loss

        return clipped

    def _wrap_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        """For a script that steps by hand: scaling the gradient is scaling its rate (E1), clipping follows at once."""

        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            original(tensors, *args, **kwargs)
            manual = self.watcher.manual
            if manual is None or not self.intervention.touches(manual.index):
                return
            gradients = [p.grad for p in manual.leaves if p.grad is not None]
            if self.intervention.clip_norm is not None:
                self._clip(manual.leaves)
            factor = self.intervention.lr_factor(manual.steps)
            if self.intervention.lr is not None:  # what its own rate is, isn't known: it is a factor here
                factor *= self.intervention.lr(manual.steps)
            if gradients and factor != 1.0:
                with self.torch.no_grad():
                    self.torch._foreach_mul_(gradients, factor)

        return backward


def _shares(groups: list[dict[str, Any]]) -> list[float]:
    """Each group's rate as a share of the first one's, by the rates they were made with (a warm-up begins at 0)."""
    base = [float(group.get("initial_lr", group.get("lr", 1.0))) for group in groups]
    return [rate / base[0] if base[0] > 0 else 1.0 for rate in base]
