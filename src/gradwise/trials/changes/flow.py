"""Changes to how a script goes about training: in which mode, on which order of the data, how long."""

from __future__ import annotations

import functools
import weakref
from typing import Any

from torch.utils.weak import WeakTensorKeyDictionary

from gradwise.trials.changes.base import Change, Stage
from gradwise.trials.changes.calls import Call, tensors_in
from gradwise.trials.child import RunComplete


class Stop(Change):
    """The run ends after so many steps, at the backward pass that would begin another one."""

    patience = None

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        """End the run where one more step would begin."""
        if self.stage.watcher.steps >= self.value:
            raise RunComplete(0)
        return tensors


class Shuffle(Change):
    """Loaders that go through their data in order shuffle it in every pass in which gradients are wanted."""

    wanting = "no DataLoader gives it its training data in order"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._samplers: weakref.WeakKeyDictionary[Any, tuple[Any, Any]] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        """Choose the order whenever a loader is gone through."""
        self.stage.patches.replace(self.torch.utils.data.DataLoader, "__iter__", self._wrap)

    def _wrap(self, original: Any) -> Any:
        def iterate(loader: Any) -> Any:
            self._choose(loader)
            return original(loader)

        return iterate

    def _choose(self, loader: Any) -> None:
        data = self.torch.utils.data
        if loader not in self._samplers:
            in_order = type(loader.sampler) is data.SequentialSampler
            if not in_order or type(loader.batch_sampler) not in (data.BatchSampler, type(None)):
                return
            # Not from torch's own generator: what else the script draws stays the same.
            random = data.RandomSampler(loader.dataset, generator=self.stage.generator("shuffle"))
            self._samplers[loader] = loader.sampler, random
        training = self.torch.is_grad_enabled()
        self.found += training
        sampler = self._samplers[loader][training]
        if loader.batch_sampler is None:
            object.__setattr__(loader, "sampler", sampler)
        else:
            loader.batch_sampler.sampler = sampler


class Modes(Change):
    """Training mode where gradients are taken, evaluation mode where they aren't, for the duration of each call.

    Which calls those are is known from their lines: a call is one of training if a backward pass has come to what it
    returned, or, until that is known, if it is made where the backward pass is. A call without gradients is one of
    evaluation unless what it returns is used to train on.
    """

    patience = None

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._trains: dict[tuple[str, int], bool] = {}
        self._pending: dict[tuple[str, int], int] = {}
        self._feeding: set[tuple[str, int]] = set()
        self._made: Any = WeakTensorKeyDictionary()

    def install(self) -> None:
        """Set the mode before each call; learn from what becomes of its result."""
        self.stage.calls.before.append(self._before)
        self.stage.calls.after.append(self._after)

    def _before(self, call: Call) -> None:
        wanted = self._wanted(call)
        if wanted is None or call.module.training == wanted:
            return
        self.found += 1
        call.undo += [functools.partial(setattr, m, "training", m.training) for m in call.module.modules()]
        call.module.train(wanted)

    def _wanted(self, call: Call) -> bool | None:
        """The mode that a call should be made in; None where that isn't known."""
        if not call.training:
            held = self.stage.held()
            own = any(id(p) in held for m in call.module.modules() for p in m._parameters.values())
            return None if call.site in self._feeding or not own else False
        for value in (*call.args, *call.kwargs.values()):
            source = self._made.get(value) if isinstance(value, self.torch.Tensor) else None
            if source is not None:
                self._feeding.add(source)
        steps = self.stage.watcher.steps
        if self._pending.get(call.site, steps) < steps:
            self._trains.setdefault(call.site, False)
        known = self._trains.get(call.site)
        return True if known is None and call.differentiates else known

    def _after(self, call: Call, out: Any) -> Any:
        tensors = tensors_in(out)
        if not call.training:
            for tensor in tensors:
                self._made[tensor] = call.site
            return out
        site, reached = call.site, next((t for t in tensors if t.requires_grad), None)
        if reached is not None and not self._trains.get(site):
            self._pending.setdefault(site, self.stage.watcher.steps)
            reached.register_hook(lambda _: self._trains.__setitem__(site, True))
        return out
