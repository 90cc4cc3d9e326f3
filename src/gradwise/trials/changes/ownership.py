"""Changes to what an optimizer holds and what gradients reach."""

from __future__ import annotations

import sys
import weakref
from types import FrameType
from typing import Any

from gradwise.probes import places
from gradwise.probes.manual import leaves_of
from gradwise.probes.tracked import Tracked
from gradwise.trials.changes.base import Change, Stage, parameters_of
from gradwise.trials.changes.calls import Call


def hand_over(stage: Stage, optimizer: Any, parameters: list[Any], beside: Any = None) -> None:
    """Give an optimizer more parameters, with the settings of the first group or of the one that holds `beside`.

    They join the group rather than form one of their own: schedulers count the groups when they are made.
    """
    groups = optimizer.param_groups
    group = next((g for g in groups if any(p is beside for p in g["params"])), groups[0])
    settings = {k: v for k, v in group.items() if k in optimizer.defaults}
    # Some rules make the state of their parameters when they are made.
    fresh = type(optimizer)(parameters, **settings) if optimizer.state and _prepared(optimizer) else None
    if fresh is not None:
        stage.watcher.registry.disown(fresh)
        for p in parameters:
            optimizer.state[p] = fresh.state[p]
    group["params"].extend(parameters)
    if hasattr(optimizer, "_numel_cache"):  # LBFGS knows how many numbers it moves
        optimizer._numel_cache = None


def _prepared(optimizer: Any) -> bool:
    """Whether an optimizer that has not stepped has states already."""
    return any(optimizer.state.get(p) for p in parameters_of(optimizer))


class Adopt(Change):
    """Parameters that get a gradient and that no optimizer holds join the optimizer that steps first after."""

    wanting = "every parameter that gets a gradient is held by an optimizer"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._reached: list[weakref.ref[Any]] = []
        self._adopted: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._begun: weakref.WeakSet[Any] = weakref.WeakSet()

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        """Note the parameters that the pass reaches, while there is an optimizer that hasn't stepped."""
        if any(optimizer not in self._begun for optimizer in self.stage.optimizers()):
            parameter = self.torch.nn.Parameter
            self._reached = [weakref.ref(p) for p in leaves_of(tensors) if isinstance(p, parameter)]
        return tensors

    def gradients(self, optimizer: Any, tracked: Tracked) -> None:
        """At an optimizer's first step: give it those that no other holds."""
        if optimizer in self._begun:
            return
        self._begun.add(optimizer)
        own = {id(p) for p in parameters_of(optimizer)}
        held = self.stage.held()
        lost = []
        for p in (ref() for ref in self._reached):
            if p is None or id(p) in own:
                continue
            known = self._adopted.get(id(p))
            ours = known is not None and known[0]() is p
            if (ours and known is not None and known[1] == tracked.index) or (not ours and id(p) not in held):
                lost.append(p)
        if lost:
            self.found += len(lost)
            hand_over(self.stage, optimizer, lost)
            self._adopted.update({id(p): (weakref.ref(p), tracked.index) for p in lost})


class Unfreeze(Change):
    """Gradients reach what the optimizer holds: nothing frozen, nothing cut off within a module's training forward."""

    wanting = "nothing that its optimizer holds is frozen, and no module's forward cuts the graph"

    def install(self) -> None:
        """Take the place of what cuts graphs."""
        torch, patches = self.torch, self.stage.patches
        self.stage.calls.before.append(self._called)
        patches.replace(torch.Tensor, "detach", self._wrap_detach)
        patches.replace(torch.Tensor, "numpy", self._wrap_numpy)
        patches.replace(torch.no_grad, "__enter__", self._wrap_enter)
        data = torch.Tensor.data
        torch.Tensor.data = property(self._data(data.__get__), data.__set__, data.__delete__)
        patches.on_undo(lambda: delattr(torch.Tensor, "data"))

    def made(self, optimizer: Any) -> None:
        """Let gradients reach what it holds."""
        self._free(optimizer)

    def _called(self, call: Call) -> None:
        if call.training and not self.stage.watcher.steps:
            for optimizer in self.stage.optimizers():
                self._free(optimizer)

    def _free(self, optimizer: Any) -> None:
        for p in parameters_of(optimizer):
            if p.is_leaf and p.is_floating_point() and not p.requires_grad:
                p.requires_grad_(True)
                self.found += 1

    def _cuts(self, frame: FrameType | None) -> bool:
        """Whether the code that runs in a frame would cut the graph of a training forward of the script's module."""
        outer = self.stage.calls.outer
        return outer is not None and outer.training and outer.module.training and _users(frame)

    def _wrap_detach(self, original: Any) -> Any:
        def detach(tensor: Any) -> Any:
            if tensor.requires_grad and self._cuts(sys._getframe(1)):
                self.found += 1
                return tensor
            return original(tensor)

        return detach

    def _wrap_numpy(self, original: Any) -> Any:
        def numpy(tensor: Any, **kwargs: Any) -> Any:
            if tensor.requires_grad and self._cuts(sys._getframe(1)):
                self.stage.refuse("a module's forward computes in numpy, through which no gradient passes")
                kwargs = {"force": True}
            return original(tensor, **kwargs)

        return numpy

    def _data(self, original: Any) -> Any:
        def data(tensor: Any) -> Any:
            if tensor.requires_grad and tensor.grad_fn is not None and self._cuts(sys._getframe(1)):
                self.found += 1
                return tensor
            return original(tensor)

        return data

    def _wrap_enter(self, original: Any) -> Any:
        def enter(context: Any) -> None:
            if self._cuts(sys._getframe(1)):
                self.found += 1
                context.prev = self.torch.is_grad_enabled()
            else:
                original(context)

        return enter


def _users(frame: FrameType | None) -> bool:
    """Whether code is the script's own, or a decorator of torch's around a function that is."""
    if frame is not None and frame.f_code.co_name == "decorate_context":
        function = frame.f_locals.get("func")
        code = getattr(function, "__code__", None)
        return code is not None and places.is_users(code.co_filename)
    return frame is not None and places.is_users(frame.f_code.co_filename)
