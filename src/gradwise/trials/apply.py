"""An intervention applied to live training: rates and gradients are changed around each step, and put back after it.

Rates, clipping and another rule are here; all else is a `Change` of `gradwise.trials.changes`, told from here of what
the script does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gradwise.interventions import Intervention
from gradwise.probes.tracked import Tracked
from gradwise.probes.watcher import Watcher
from gradwise.trials.changes import changes_of, scores_of
from gradwise.trials.changes.base import Closure, Loan, Stage, parameters_of
from gradwise.trials.replace import Replacement


class Applier:
    """Changes every step of the optimizers an intervention touches; between steps the script sees its own values.

    Args:
        torch: the module.
        intervention: what to change.
        watcher: installed before, so that it sees the values in use.
        seed: the trial's, for random numbers that a change needs.
        score: the intervention whose loss is to be recorded in place of the script's own; training keeps that.

    Attributes:
        stage: what the changes share; `stage.refused` says why the intervention can't be made in this script.
    """

    def __init__(
        self,
        torch: ModuleType,
        intervention: Intervention,
        watcher: Watcher,
        seed: int = 0,
        score: Intervention | None = None,
    ) -> None:
        self.torch, self.intervention, self.watcher = torch, intervention, watcher
        self.stage = Stage(torch, intervention, watcher, seed)
        self.changes = [*changes_of(self.stage), *(scores_of(self.stage, score) if score is not None else [])]
        self._loan = Loan()
        self._within: set[int] = set()
        self._shares: dict[int, list[float]] = {}
        self._rules = (
            None if intervention.rule is None else Replacement(torch, intervention.rule, watcher.registry.disown)
        )

    def install(self) -> None:
        """Begin to apply."""
        hooks, patches = __import__("torch.optim.optimizer", fromlist=["optimizer"]), self.stage.patches
        patches.on_undo(hooks.register_optimizer_step_pre_hook(self._before_step).remove)
        patches.on_undo(hooks.register_optimizer_step_post_hook(self._after_step).remove)
        patches.replace(self.torch.autograd, "backward", self._wrap_backward)
        patches.replace(self.torch.optim.Optimizer, "__init__", self._wrap_init)
        self.watcher.after_step.append(self._stepped)
        for change in self.changes:
            change.install()

    def remove(self) -> None:
        """Stop: put torch back as it was."""
        self.stage.patches.undo()
        self.watcher.after_step.remove(self._stepped)

    def _stepped(self, _optimizer: int, steps: int) -> None:
        for change in self.changes:
            self.stage.attempt(change.check, steps)

    def _wrap_init(self, original: Callable[..., None]) -> Callable[..., None]:
        def init(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            for change in self.changes:
                self.stage.attempt(change.made, optimizer)

        return init

    # steps

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        if id(optimizer) in self._within:
            self._end(optimizer, None)
        tracked = self.watcher.find(optimizer)
        if tracked is None or not self.intervention.touches(tracked.index):
            return None
        self._within.add(id(optimizer))
        for group, rate in zip(optimizer.param_groups, self._rates(optimizer, tracked), strict=True):
            if "lr" in group and rate is not None:
                self._loan.set(optimizer, group, "lr", rate)
        # The step of an optimizer that another one steps is part of that one's.
        own = self.changes if not tracked.inner else []
        for change in own:
            self.stage.attempt(change.before_step, optimizer, tracked)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        given = args, kwargs
        if closure is None:
            self._prepare(optimizer, tracked)
        elif own or self.intervention.clip_norm is not None:
            given = _handing(self._preparing(closure, optimizer, tracked), args, kwargs)
        if self._rules is not None and not tracked.inner:
            given = self._rules.before(optimizer, *given) or given
        return None if given[0] is args and given[1] is kwargs else given

    def _prepare(self, optimizer: Any, tracked: Tracked) -> None:
        """The gradients are there: change them before the step uses them."""
        if not tracked.inner:
            for change in self.changes:
                self.stage.attempt(change.gradients, optimizer, tracked)
        if self.intervention.clip_norm is not None:
            self._clip(parameters_of(optimizer), optimizer)

    def _preparing(self, closure: Closure, optimizer: Any, tracked: Tracked) -> Closure:
        @functools.wraps(closure)
        def prepared() -> Any:
            for change in self.changes:
                self.stage.attempt(change.before_closure, optimizer)
            loss = closure()
            self._prepare(optimizer, tracked)
            return loss

        return prepared

    def _rates(self, optimizer: Any, tracked: Tracked) -> list[Any]:
        """The rate of each group at its coming step; None leaves the script's own."""
        groups, factor = optimizer.param_groups, self.intervention.lr_factor(tracked.steps)
        if self.intervention.lr is None:
            return [None if factor == 1.0 else g.get("lr", 0.0) * factor for g in groups]
        shares = self._shares.setdefault(tracked.index, _shares(groups))
        rate = self.intervention.lr(tracked.steps) * factor
        return [rate * share for share in (*shares, *[1.0] * len(groups))][: len(groups)]

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if id(optimizer) in self._within:
            tracked = self.watcher.find(optimizer)
            if self._rules is not None and tracked is not None and not tracked.inner:
                self._rules.after(optimizer)
            self._end(optimizer, tracked)

    def _end(self, optimizer: Any, tracked: Tracked | None) -> None:
        self._within.discard(id(optimizer))
        tracked = tracked or self.watcher.find(optimizer)
        if tracked is not None and not tracked.inner:
            for change in reversed(self.changes):
                self.stage.attempt(change.after_step, optimizer, tracked)
        self._loan.give_back(optimizer)

    def _clip(self, parameters: list[Any], optimizer: Any = None) -> None:
        limit = self.intervention.clip_norm
        assert limit is not None
        scale = getattr(optimizer, "grad_scale", None)
        self.torch.nn.utils.clip_grad_norm_(parameters, limit if scale is None else limit * float(scale))

    # backward passes

    def _wrap_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        """Changes see what is differentiated; a script that steps by hand has its gradients changed at once."""

        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if self.changes and not self.watcher.stepping.differentiating:
                listed = [tensors] if isinstance(tensors, self.torch.Tensor) else list(tensors)
                before = listed
                for change in self.changes:
                    changed = self.stage.attempt(change.before_backward, listed)
                    listed = listed if changed is None else changed
                if listed is not before:
                    tensors = listed[0] if isinstance(tensors, self.torch.Tensor) else listed
            original(tensors, *args, **kwargs)
            self._by_hand()

        return backward

    def _by_hand(self) -> None:
        """Scaling the gradient is scaling its rate (E1), clipping follows at once."""
        manual = self.watcher.manual
        if manual is None or not self.intervention.touches(manual.index):
            return
        for change in self.changes:
            self.stage.attempt(change.after_backward, manual.leaves)
        gradients = [p.grad for p in manual.leaves if p.grad is not None]
        if self.intervention.clip_norm is not None:
            self._clip(manual.leaves)
        factor = self.intervention.lr_factor(manual.steps)
        if self.intervention.lr is not None:  # what its own rate is, isn't known: it is a factor here
            factor *= self.intervention.lr(manual.steps)
        if gradients and factor != 1.0:
            with self.torch.no_grad():
                self.torch._foreach_mul_(gradients, factor)


def _handing(closure: Closure, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of a step with another closure in place of the script's."""
    return ((args[0],), {**kwargs, "closure": closure}) if args else (args, {**kwargs, "closure": closure})


def _shares(groups: list[dict[str, Any]]) -> list[float]:
    """Each group's rate as a share of the first one's, by the rates they were made with (a warm-up begins at 0)."""
    base = [float(group.get("initial_lr", group.get("lr", 1.0))) for group in groups]
    return [rate / base[0] if base[0] > 0 else 1.0 for rate in base]
