"""The first NaN or Inf of an unmodified script, found within a trial: which operation made it, where, of what.

From two steps before the loss was first not finite every operation is looked at (`gradwise.trials.taints`), until a
loss that isn't finite is to be differentiated. That loss tells where it came from, and the run is over. Autograd
remembers meanwhile in which line each of its operations was made, so that one that fails on the way back has a place.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.trials.rerun import Rerun
from gradwise.trials.taints import Origin, Taints, kind_of

if TYPE_CHECKING:
    from torch import Tensor

# An update shows in the loss of the step after it; momentum and averages may hold it back for one more.
BEFORE = 2
BEYOND = 3  # steps after the one in question, until there is no hope that the loss goes the same way again
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)


class Trace(Rerun):
    """Finds where the first loss that isn't finite came from and ends the run.

    Leaves an event "non-finite-origin": where it began (`stage`: "data", "forward", "backward", "update",
    "parameter", "buffer" or "computed"; `kind`, `operation`, `module`, `parameter`, `place`, `step`, `inputs`), what
    became of it (`then`: the same of the first NaN, where it began with an Inf), or `problem`, why it isn't known.

    Args:
        order: `step` at which the loss was not finite, and `source` (the optimizer's index); if one likes, how many
            steps `before` to begin looking (2), and how many `beyond` to give up (3).
    """

    event = "non-finite-origin"

    def _prepare(self, order: Mapping[str, int]) -> None:
        self.begins = self.step - order.get("before", BEFORE)
        self.ends = self.step + order.get("beyond", BEYOND)
        self.taints = Taints(self._around)
        self._active = False
        self._steps = 0
        self._names: dict[int, str] = {}
        self._running: list[tuple[str, str]] = []
        self._backward: dict[str, Any] | None = None
        self._inside: Any = None  # the optimizer that steps; while it does, no backward pass, and the other way round
        self._outer: dict[str, Any] | None = None
        # From which of autograd's numbers on which module was running.
        self._numbers: list[int] = [0]
        self._modules: list[str] = [""]

    def install(self) -> None:
        """Begin; the watcher's hooks must be there already."""
        patches = self._patches
        patches.replace(self.torch.autograd, "backward", self._wrap_backward)
        patches.replace(self.torch.autograd, "grad", self._wrap_grad)
        self.watcher.after_step.append(self._stepped)
        patches.on_undo(lambda: self.watcher.after_step.remove(self._stepped))
        if self.begins <= 0:
            self._begin()

    def finish(self) -> None:
        """The script has come to its end."""
        with suppress(Exception):
            if self._active and not self._done:
                self._say({"problem": "the loss stayed finite when the run was repeated"})

    def _begin(self) -> None:
        torch, patches = self.torch, self._patches
        self._active = True
        before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        patches.on_undo(lambda: torch.set_anomaly_enabled(*before))
        torch.set_anomaly_enabled(True, False)
        module, optimizer = torch.nn.modules.module, __import__("torch.optim.optimizer", fromlist=["optimizer"])
        for handle in (
            module.register_module_forward_pre_hook(self._enter),
            module.register_module_forward_hook(self._leave, always_call=True),
            optimizer.register_optimizer_step_pre_hook(self._before_step),
            optimizer.register_optimizer_step_post_hook(self._after_step),
        ):
            patches.on_undo(handle.remove)
        following = ExitStack()
        following.enter_context(self.taints)
        patches.on_undo(following.close)

    # where the run is

    def _enter(self, module: Any, args: Any) -> None:
        if id(module) not in self._names:
            self._names = self.watcher.names.modules()
        kind = type(module).__name__
        self._running.append((self._names.get(id(module)) or kind, kind))
        self._mark()

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        if self._running:
            self._running.pop()
        self._mark()

    def _mark(self) -> None:
        with suppress(Exception):
            self._numbers.append(int(self.torch._C._autograd._get_sequence_nr()))
            self._modules.append(self._running[-1][0] if self._running else "")

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._inside, self._outer, self._backward = optimizer, self._backward, None

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._inside, self._backward = None, self._outer

    def _around(self, tensor: Tensor, trained: bool | None) -> dict[str, Any]:
        """Where a tensor is being made, and whether of what is `trained`; what it is if it was there already (None)."""
        told: dict[str, Any] = {"step": self._steps, "module": self._running[-1][0] if self._running else None}
        told["place"] = _brief(places.described(places.here()))
        parameter = self._parameter(tensor)
        if trained is None:
            told["stage"], told["parameter"] = self._what(tensor, parameter)
        elif self._backward is not None:
            told |= {"stage": "backward", "called": self._backward, **self._way_back()}
        elif (self._inside is not None or parameter) and not self.torch.is_grad_enabled():
            told |= {"stage": "update", "parameter": parameter}
        else:
            told["stage"] = "forward" if trained or self._running else "data"
        return told

    def _way_back(self) -> dict[str, Any]:
        """The operation whose gradient is being computed: its name, line and module."""
        node = self.torch._C._current_autograd_node()
        if node is None or "AccumulateGrad" in node.name():
            return {"place": self._backward}
        told: dict[str, Any] = {"node": re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])}
        told["module"] = self._modules[bisect_right(self._numbers, node._sequence_nr()) - 1] or None
        found = None
        for frame in _FRAME.finditer("".join(node.metadata.get("traceback_") or ())):
            if places.is_users(frame["file"]):
                found = {"file": places.shown(frame["file"]), "line": int(frame["line"])}
        return {**told, "place": found or self._backward}

    def _held(self) -> list[tuple[str, Tensor]]:
        watcher = self.watcher
        held = [(n, p) for t in watcher.registry.all for n, p in zip(t.names(), t.parameters(), strict=True)]
        if watcher.manual is not None:
            held += zip(watcher.manual.names(), watcher.manual.leaves, strict=True)
        return held

    def _parameter(self, tensor: Tensor) -> str | None:
        at = tensor.untyped_storage().data_ptr()
        return next((n for n, p in self._held() if p.untyped_storage().data_ptr() == at), None) if at else None

    def _what(self, tensor: Tensor, parameter: str | None) -> tuple[str, str | None]:
        at = tensor.untyped_storage().data_ptr()
        if parameter:
            return "parameter", parameter
        for root in self.watcher.names.roots():
            for name, buffer in root.named_buffers():
                if buffer.untyped_storage().data_ptr() == at:
                    return "buffer", name
        return ("data" if tensor.grad_fn is None else "computed"), None

    # what the run does

    def _stepped(self, optimizer: int, steps: int) -> None:
        if self._active:
            with suppress(Exception):
                self._unseen(optimizer)
        if optimizer == self.source:
            self._steps = steps
            if steps >= self.begins and not self._active:
                self._begin()
        if self._active and steps > self.ends and optimizer == self.source:
            self._say({"problem": "the loss stayed finite when the run was repeated"})
            self.complete()

    def _unseen(self, index: int) -> None:
        """An optimizer may write its parameters in code of its own, which no operation of torch's shows."""
        for tracked in self.watcher.registry.all:
            if tracked.index == index:
                self._inside = tracked
                with self.torch.no_grad():
                    for parameter in tracked.parameters():
                        if not self.taints.knows(parameter):
                            self.taints.inherit(parameter, parameter.grad, "step")
                self._inside = None

    def _wrap_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            self._differentiate(tensors)
            with _Within(self):
                original(tensors, *args, **kwargs)

        return backward

    def _wrap_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def grad(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            self._differentiate(outputs)
            with _Within(self):
                return original(outputs, *args, **kwargs)

        return grad

    def _differentiate(self, tensors: Any) -> None:
        """A loss is to be differentiated: is it the one?"""
        if not self._active or self._done or self._backward is not None or self.watcher.stepping.differentiating:
            return
        listed = [tensors] if isinstance(tensors, self.torch.Tensor) else list(tensors)
        try:
            losses = [self.watcher.unscaler.original(t) for t in listed]
            bad = next((t for t in losses if kind_of(t)), None)
            if bad is None:
                return
            origin = self.taints.origin(bad)
            assert origin is not None
            self._say(self._told(origin))
        except Exception as error:
            self._say({"problem": repr(error)})
        self.complete()

    def _told(self, origin: Origin) -> dict[str, Any]:
        root = origin.root()
        data = root.to_json()
        if root is not origin:
            data["then"] = origin.to_json()
        elif origin.cause is not None:
            data["masked"] = True  # an Inf that was put there on purpose had a part in it
        if self.taints.failed is not None:
            data["failed"] = repr(self.taints.failed)
        return data

    def _say(self, data: dict[str, Any]) -> None:
        self._answer(self._steps, data)


class _Within:
    """While a backward pass runs: where the script called it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.outer: tuple[dict[str, Any] | None, Any] = None, None

    def __enter__(self) -> None:
        trace = self.trace
        self.outer = trace._backward, trace._inside
        if trace._active and trace._backward is None:
            trace._backward, trace._inside = _brief(places.described(places.here())) or {}, None

    def __exit__(self, *exc: object) -> None:
        self.trace._backward, self.trace._inside = self.outer


def _brief(place: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if place is None else {"file": place["file"], "line": place["line"]}
