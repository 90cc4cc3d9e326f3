"""What a change to live training is, and the stage on which all changes of one run play."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.interventions import Intervention
from gradwise.probes.patches import Patches
from gradwise.probes.tracked import Tracked
from gradwise.probes.watcher import Watcher

if TYPE_CHECKING:
    from gradwise.trials.changes.calls import Calls
    from gradwise.trials.changes.hidden import Hidden

Closure = Callable[[], Any]


class Stage:
    """What the changes of one run share.

    Args:
        torch: the module.
        intervention: all that is changed.
        watcher: installed before, so that it sees the values in use.
        seed: the trial's; generators of ours start from it, and the script's own random numbers are never touched.

    Attributes:
        patches: what is replaced in torch.
        refused: why the change can't be made in this script, in words that complete "in a trial …"; "" where it can.
    """

    def __init__(self, torch: ModuleType, intervention: Intervention, watcher: Watcher, seed: int = 0) -> None:
        self.torch, self.intervention, self.watcher, self.seed = torch, intervention, watcher, seed
        self.patches = Patches(torch)
        self.refused = ""
        self._generators: dict[tuple[str, str], Any] = {}
        self._weights: weakref.WeakKeyDictionary[Any, tuple[int, set[int]]] = weakref.WeakKeyDictionary()
        self._calls: Calls | None = None
        self._hidden: Hidden | None = None

    @property
    def calls(self) -> Calls:
        """The script's calls of modules, followed from the first change that asks for them."""
        if self._calls is None:
            from gradwise.trials.changes.calls import Calls

            self._calls = Calls(self)
        return self._calls

    @property
    def hidden(self) -> Hidden:
        """Where the script's models have their hidden activations."""
        if self._hidden is None:
            from gradwise.trials.changes.hidden import Hidden

            self._hidden = Hidden(self)
        return self._hidden

    def refuse(self, reason: str) -> None:
        """Say why a change can't be made; the trial says nothing of it then."""
        if not self.refused:
            self.refused = reason
            self.watcher.recorder.event("not-applied", self.watcher.steps, data={"reason": reason})
            self.watcher.recorder.flush()

    def attempt(self, act: Callable[..., Any], *args: Any) -> Any:
        """Do something of ours: an error in it is no error of the script's, but means that the change isn't made."""
        try:
            return act(*args)
        except Exception as error:
            self.refuse(f"gradwise failed at it ({error!r})")
            return None

    def generator(self, purpose: str, device: Any = "cpu") -> Any:
        """Random numbers for one purpose, the same in every run with this seed."""
        key = purpose, str(device)
        if key not in self._generators:
            made = self._generators[key] = self.torch.Generator(device)
            made.manual_seed(sum(purpose.encode()) + 1_000_003 * self.seed)
        return self._generators[key]

    def optimizers(self) -> Iterator[Any]:
        """The living optimizers that the script made."""
        registry = self.watcher.registry
        known = [*(t.ref() for t in registry.followed), *(made.ref() for made in registry.made)]
        yield from (optimizer for optimizer in known if optimizer is not None)

    def held(self) -> set[int]:
        """The ids of all parameters in them."""
        return {id(p) for optimizer in self.optimizers() for p in parameters_of(optimizer)}

    def weights(self, optimizer: Any) -> set[int]:
        """The ids of an optimizer's weights: in no use a bias, part of a normalization, a gain or a slope."""
        parameters = parameters_of(optimizer)
        known = self._weights.get(optimizer)
        if known is None or known[0] != len(parameters):
            known = self._weights[optimizer] = len(parameters), self._weights_among(parameters)
        return known[1]

    def _weights_among(self, parameters: list[Any]) -> set[int]:
        from gradwise.regularization import roles

        spared = {roles.BIAS, roles.NORM, roles.GAIN, roles.SLOPE}
        decays: dict[int, bool] = {}
        for root in self.roots():
            with suppress(ValueError):  # a lazy module that nothing has gone through yet
                for found in roles.parameters(root):
                    decays[id(found.tensor)] = decays.get(id(found.tensor), True) and spared.isdisjoint(found.roles)
        # What is in no module is told by its shape, as such parameters of modules are.
        return {id(p) for p in parameters if decays.get(id(p), sum(size > 1 for size in p.shape) > 1)}

    def roots(self) -> list[Any]:
        """The modules whose parameters the script asked for."""
        return self.watcher.names.roots()


class Change:
    """One key or fix of an intervention at work; most override a few of the moments below and leave the rest.

    Args:
        stage: shared by all changes of the run.
        value: the key's value; True for a fix.

    Attributes:
        found: how often there was something to change.
        wanting: what is missing where that is never, to complete "in a trial …".
        patience: steps by which there must have been something; None gives it the whole run, and nothing to change
            is no fault then.
    """

    found = 0
    wanting = "there was nothing to change"
    patience: int | None = 1

    def __init__(self, stage: Stage, value: Any) -> None:
        self.stage, self.torch, self.value = stage, stage.torch, value

    def install(self) -> None:
        """Begin."""

    def made(self, optimizer: Any) -> None:
        """The script has made an optimizer."""

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        """What is differentiated in place of `tensors`."""
        return tensors

    def after_backward(self, parameters: list[Any]) -> None:
        """A backward pass of a script without an optimizer has ended; `parameters` are what it trains."""

    def before_step(self, optimizer: Any, tracked: Tracked) -> None:
        """An optimizer that is to be changed is about to step."""

    def before_closure(self, optimizer: Any) -> None:
        """A closure is about to be evaluated within its step."""

    def gradients(self, optimizer: Any, tracked: Tracked) -> None:
        """Its gradients are as the script made them; for one with a closure after each evaluation."""

    def after_step(self, optimizer: Any, tracked: Tracked) -> None:
        """It has stepped: put back what was changed for the step."""

    def check(self, steps: int) -> None:
        """Refuse where there ought to have been something to change by now."""
        if not self.found and self.patience is not None and steps >= self.patience:
            self.stage.refuse(self.wanting)


def parameters_of(optimizer: Any) -> list[Any]:
    """All tensors an optimizer holds."""
    return [p for group in optimizer.param_groups for p in group["params"]]


class Loan:
    """Values set for the duration of a step."""

    def __init__(self) -> None:
        self._taken: dict[int, list[tuple[Any, str, Any]]] = {}
        self._changed: set[tuple[int, str]] = set()

    def set(self, optimizer: Any, group: dict[str, Any], key: str, value: Any) -> None:
        """Set a group's value until `give_back`. A wrapper may share its groups with the optimizer in it: once."""
        if (id(group), key) not in self._changed:
            self._changed.add((id(group), key))
            self._taken.setdefault(id(optimizer), []).append((group, key, group[key]))
            group[key] = value

    def give_back(self, optimizer: Any) -> None:
        """Put back all that was set for an optimizer."""
        for group, key, value in reversed(self._taken.pop(id(optimizer), ())):
            group[key] = value
            self._changed.discard((id(group), key))


class Withheld:
    """Gradients taken away for the duration of a step: every optimizer passes over parameters without one."""

    def __init__(self) -> None:
        self._taken: dict[int, list[tuple[Any, Any]]] = {}

    def take(self, optimizer: Any, put: Iterable[Any] | None = None) -> None:
        """Take the gradients of an optimizer away; `put` others in their place."""
        parameters = parameters_of(optimizer)
        taken = self._taken.setdefault(id(optimizer), [])
        known = {id(p) for p, _ in taken}
        taken += [(p, p.grad) for p in parameters if id(p) not in known]
        for p, gradient in zip(parameters, [None] * len(parameters) if put is None else put, strict=True):
            p.grad = gradient

    def give_back(self, optimizer: Any) -> None:
        """Put the script's own gradients back."""
        for p, gradient in self._taken.pop(id(optimizer), ()):
            p.grad = gradient
