"""Changes between the loss and the step: what is differentiated, and what becomes of the gradients."""

from __future__ import annotations

import weakref
from typing import Any

from gradwise.probes.tracked import Tracked
from gradwise.trials.changes.base import Change, Stage, Withheld, parameters_of


class LossScale(Change):
    """A factor on what is differentiated; the recorded loss stays the script's."""

    wanting = "the script has no backward pass of a single loss"

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        """Losses times the factor."""
        return [self._scaled(t) if t.numel() == 1 else t for t in tensors]

    def _scaled(self, tensor: Any) -> Any:
        self.found += 1
        unscaler = self.stage.watcher.unscaler
        scaled = tensor * self.value
        # What the watcher knows of losses that were scaled before they were differentiated serves here as well.
        key, original = id(scaled), unscaler.original(tensor).detach()
        unscaler.scaled[key] = (weakref.ref(scaled, lambda _: unscaler.scaled.pop(key, None)), original)
        return scaled


class ZeroGrad(Change):
    """Gradients begin from nothing at the first backward pass after each step."""

    wanting = "the script has no optimizer and trains no tensor of its own"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._stepped: weakref.WeakSet[Any] = weakref.WeakSet()

    def made(self, optimizer: Any) -> None:
        """What was before the first step is no part of it."""
        self._stepped.add(optimizer)

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        """Clear the gradients of what has stepped since the last pass."""
        for optimizer in list(self._stepped):
            self._stepped.discard(optimizer)
            self._clear(optimizer)
        manual = self.stage.watcher.manual
        if manual is not None and self.stage.intervention.touches(manual.index) and manual.changed():
            for leaf in manual.leaves:
                if leaf.grad is not None:
                    self.found += 1
                    leaf.grad.zero_()
        return tensors

    def before_closure(self, optimizer: Any) -> None:
        """Each evaluation begins from nothing."""
        self._clear(optimizer)

    def before_step(self, optimizer: Any, tracked: Tracked) -> None:
        """There is an optimizer whose gradients can be cleared."""
        self.found += 1

    def after_step(self, optimizer: Any, tracked: Tracked) -> None:
        """The next backward pass begins anew."""
        self._stepped.add(optimizer)

    def _clear(self, optimizer: Any) -> None:
        tracked = self.stage.watcher.registry.by_id.get(id(optimizer))
        if tracked is None or self.stage.intervention.touches(tracked.index):
            for p in parameters_of(optimizer):
                p.grad = None


class SkipNonFinite(Change):
    """A step whose gradient is not finite changes nothing, neither weights nor the optimizer's state."""

    patience = None

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._withheld = Withheld()

    def gradients(self, optimizer: Any, tracked: Tracked) -> None:
        """Take the gradients away where one is not finite."""
        if not self._finite([p.grad for p in parameters_of(optimizer)]):
            self.found += 1
            self._withheld.take(optimizer)

    def after_step(self, optimizer: Any, tracked: Tracked) -> None:
        """Put them back."""
        self._withheld.give_back(optimizer)

    def after_backward(self, parameters: list[Any]) -> None:
        """By hand: a step along no gradient."""
        gradients = [p.grad for p in parameters]
        if not self._finite(gradients):
            self.found += 1
            for gradient in gradients:
                if gradient is not None:
                    gradient.zero_()

    def _finite(self, gradients: list[Any]) -> bool:
        dense = [g.coalesce().values() if g.is_sparse else g for g in gradients if g is not None]
        return all(bool(self.torch.isfinite(g).all()) for g in dense)


class Accumulate(Change):
    """One step of the mean gradient in place of every k steps of the script; the optimizer's state sees one step."""

    wanting = "the script has no optimizer whose steps could be put together"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._withheld = Withheld()
        self._sums: weakref.WeakKeyDictionary[Any, tuple[int, dict[int, Any]]] = weakref.WeakKeyDictionary()

    def before_closure(self, optimizer: Any) -> None:
        """A closure evaluates one batch, several times over."""
        self.stage.refuse("its optimizer is given a closure, which a step of several batches can't be")

    def gradients(self, optimizer: Any, tracked: Tracked) -> None:
        """Add them up; let the step have their mean, or nothing."""
        if getattr(optimizer, "grad_scale", None) is not None:
            self.stage.refuse("its gradients are scaled within the optimizer and can't be put together")
            return
        self.found += 1
        count, sums = self._sums.get(optimizer, (0, {}))
        parameters = parameters_of(optimizer)
        for p in parameters:
            if p.grad is not None:
                known = sums.get(id(p))
                sums[id(p)] = p.grad.detach().clone() if known is None else known.add_(p.grad)
        count += 1
        if count < self.value:
            self._sums[optimizer] = count, sums
            self._withheld.take(optimizer)
            return
        self._sums[optimizer] = 0, {}
        means = [None if id(p) not in sums else sums[id(p)].div_(count) for p in parameters]
        self._withheld.take(optimizer, means)

    def after_step(self, optimizer: Any, tracked: Tracked) -> None:
        """The script sees its own gradients again."""
        self._withheld.give_back(optimizer)
