"""Curvature in an unmodified script: measured within a trial, at one step, on the graphs of its own backward passes.

From the step in question on the parameters are held where they are: no optimizer gets a gradient. So the losses of this
step and the next few are the same function of the same parameters, by several batches. On their mean both ends of the
spectrum and the kind of point are found, then the graphs are let go; a few more batches, which had no part in choosing
the directions, tell whether the loss really bends that way. Then the run is over.

The whole trial runs without what has no second derivative or too few digits for one: fused attention, compiled code,
autocast.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from gradwise.probes.tracked import Tracked
from gradwise.trials.rerun import Rerun

if TYPE_CHECKING:
    from torch import Tensor

    from gradwise.curvature import CriticalPoint, Hessian, Spectrum

_SHARES = 5  # of the tensors along the way down, to name


class Replay(Rerun):
    """Measures the curvature at one step of one optimizer and ends the run.

    Leaves an event "curvature": `CriticalPoint.to_json()` and more, or `problem`, why there is none, in words.

    Args:
        order: `step` and `source` (an optimizer's index); if one likes, `products` (25), `batches` to average over (8),
            and `fresh` ones to check with (8).
    """

    event = "curvature"

    def _prepare(self, order: Mapping[str, int]) -> None:
        self.products = order.get("products", 25)
        self.batches, self.fresh = order.get("batches", 8), order.get("fresh", 8)
        self._unscaled: dict[int, tuple[Callable[[], Any], Tensor]] = {}
        self._pending: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._names: list[str] = []
        self._parameters: list[Tensor] = []
        self._found: tuple[CriticalPoint, Spectrum] | None = None
        self._along: list[tuple[float, float]] = []
        self._data: dict[str, Any] = {}
        self._holding = False
        self._seconds = 0.0

    def install(self) -> None:
        """Begin; the watcher's hooks must be there already."""
        torch, patches = self.torch, self._patches
        for kernel, wanted in (("flash", False), ("mem_efficient", False), ("cudnn", False), ("math", True)):
            switch = getattr(torch.backends.cuda, f"enable_{kernel}_sdp")
            now = getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")()
            patches.on_undo(functools.partial(switch, now))
            switch(wanted)
        # cuDNN's recurrent layers, too, can be differentiated only once.
        set_cudnn = torch._C._set_cudnn_enabled
        patches.on_undo(functools.partial(set_cudnn, torch.backends.cudnn.enabled))
        set_cudnn(False)
        patches.replace(torch.amp.autocast_mode.autocast, "__enter__", _without_autocast)
        patches.replace(torch.amp.GradScaler, "scale", self._wrap_scale)
        patches.replace(torch.autograd, "backward", self._wrap_backward)
        hooks = __import__("torch.optim.optimizer", fromlist=["optimizer"])
        patches.on_undo(hooks.register_optimizer_step_pre_hook(self._before_step).remove)

    def finish(self) -> None:
        """The script has come to its end: measure with what there is."""
        with suppress(Exception):
            if self._holding and not self._done:
                self._conclude()

    # what is held

    def _course(self) -> Any:
        """The optimizer in question, or the steps by hand."""
        found = next((t for t in self.watcher.registry.all if t.index == self.source), None)
        return found if found is not None or self.watcher.registry.seen else self.watcher.manual

    def _due(self) -> bool:
        course = self._course()
        steps = 0 if course is None else course.steps
        # A step by hand is noticed at the backward pass after it.
        late = not self.watcher.registry.seen and steps == self.step - 1
        return self._holding or steps == self.step or late

    def _wrap_scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def scale(this: Any, outputs: Any) -> Any:
            scaled = original(this, outputs)
            # The loss before scaling is what is measured: the scale itself is changed in place before that.
            if isinstance(scaled, self.torch.Tensor) and scaled is not outputs and self._due() and not self._done:
                self._unscaled[id(scaled)] = weakref.ref(scaled), outputs
            return scaled

        return scale

    def _wrap_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        def backward(
            tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, *args: Any, **kwargs: Any
        ) -> None:
            within = self.watcher.stepping.differentiating
            hold = not (within or self._done) and self._due()
            original(tensors, grad_tensors, True if hold else retain_graph, *args, **kwargs)
            if hold:
                self._safely(lambda: self._hold(tensors, grad_tensors))

        return backward

    def _hold(self, tensors: Any, weights: Any) -> None:
        """A loss whose graph has been kept: whether it leads to the optimizer is known now."""
        torch, course = self.torch, self._course()
        listed = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        given = [weights] * len(listed) if weights is None or isinstance(weights, torch.Tensor) else list(weights)
        with torch.enable_grad():
            parts = [(t if w is None else t * w).sum() for t, w in zip(map(self._original, listed), given, strict=True)]
            loss = sum(parts[1:], parts[0])
        by_hand = course is not None and course is self.watcher.manual
        if course is None or (by_hand and course.steps != self.step):
            return
        self._unscaled.clear()
        parameters = course.leaves if by_hand else course.parameters()
        if not self._leads_there(loss, parameters):
            return
        self._pending.append(loss)
        if by_hand or course.inside:  # a step by hand, or a closure's: it can't be put off
            self._start(parameters, course.names(), None if by_hand else course.ref())
            self.batches, self.fresh = 1, 0
            self._take(1)

    def _original(self, loss: Tensor) -> Tensor:
        """The loss that a GradScaler has scaled."""
        scaled, original = self._unscaled.get(id(loss), (lambda: None, loss))
        return original if scaled() is loss else loss

    def _leads_there(self, loss: Tensor, parameters: list[Tensor]) -> bool:
        wanted = [p for p in parameters if p.requires_grad]
        found = self.torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        return any(g is not None for g in found)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._done:
            return
        tracked = self.watcher.find(optimizer)
        if tracked is None:
            return
        closure = bool(args[1:]) or kwargs.get("closure") is not None
        if tracked.index == self.source and not closure and (self._holding or tracked.steps == self.step):
            self._safely(lambda: self._step(tracked, optimizer))
        if self._holding:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # every optimizer passes over such parameters

    def _step(self, tracked: Tracked, optimizer: Any) -> None:
        if not self._pending:
            raise LookupError("no backward pass led to the step")
        if not self._holding:
            self._start(tracked.parameters(), tracked.names(), optimizer)
        self._take(tracked.backwards)

    def _start(self, parameters: list[Tensor], names: list[str], optimizer: Any) -> None:
        self._holding = True
        kept = [(n, p) for n, p in zip(names, parameters, strict=True) if p.requires_grad]
        self._names, self._parameters = [n for n, _ in kept], [p for _, p in kept]
        if optimizer is not None:
            group = optimizer.param_groups[0]
            self._data |= {"optimizer": type(optimizer).__name__, "lr": _number(group.get("lr"))}
            self._data |= {"momentum": _number(group.get("momentum")), "nesterov": bool(group.get("nesterov"))}

    # what is measured

    def _take(self, count: int) -> None:
        """One more step's losses, its last `count`, are complete."""
        pending, self._pending = self._pending[-count:] if count else self._pending, []
        loss = sum(pending[1:], pending[0])
        if self._found is None:
            self._losses.append(loss)
            if len(self._losses) < self.batches:
                return
            self._measure()
        else:
            hessian, ends = self._hessian([loss]), self._found[1]
            low, high = (
                float(self.torch.dot(v, hessian.product(v))) for v in (ends.smallest.vector, ends.largest.vector)
            )
            self._along.append((low, high))
        if len(self._along) >= self.fresh:
            self._conclude()

    def _hessian(self, losses: list[Tensor]) -> Hessian:
        from gradwise.curvature import Hessian

        return Hessian.of_loss(losses, self._parameters)

    def _measure(self) -> None:
        from gradwise.curvature.verdict import examine

        began = perf_counter()
        hessian = self._hessian(self._losses)
        self._found = examine(hessian, products=self.products)
        self._seconds += perf_counter() - began
        # The graphs are no longer needed.
        self._losses.clear()

    def _conclude(self) -> None:
        from gradwise.curvature.escape import mean_and_error
        from gradwise.curvature.verdict import confirm, edge_of_stability

        if self._found is None:
            self._measure()
        assert self._found is not None
        point, ends = self._found
        if self._along:
            point = confirm(point, [low for low, _ in self._along])
        data = {**point.to_json(), **self._data, "converged": ends.converged, "seconds": self._seconds}
        if self._along:
            (low, low_error), (high, high_error) = (mean_and_error(each) for each in zip(*self._along, strict=True))
            data["fresh"] = {
                "batches": len(self._along),
                "smallest": {"value": low, "noise": low_error},
                "largest": {"value": high, "noise": high_error},
            }
        if data.get("optimizer") == "SGD" and data["lr"]:
            edge = edge_of_stability(data["lr"], data["momentum"] or 0.0, data["nesterov"])
            data["sharpness"] = ends.largest.value / edge
        squares = [float(part.square().sum()) for part in self._split(ends.smallest.vector)]
        ranked = sorted(zip(squares, self._names, strict=True), reverse=True)[:_SHARES]
        data["direction"] = [{"parameter": name, "share": share} for share, name in ranked]
        self._say(data)

    def _split(self, vector: Tensor) -> Any:
        return self.torch.split(vector, [p.numel() for p in self._parameters])

    def _say(self, data: dict[str, Any]) -> None:
        self._pending.clear()
        self._losses.clear()
        self._answer(self.step, data)

    def _safely(self, action: Callable[[], None]) -> None:
        """Nothing of ours stops the script but the end of the run; what goes wrong is what is told."""
        stepping = self.watcher.stepping
        stepping.differentiating = True
        try:
            action()
        except Exception as error:
            self._say({**self._data, "problem": str(error).splitlines()[0] if str(error) else repr(error)})
        finally:
            stepping.differentiating = False
        if self._done:
            self.complete()


def _without_autocast(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def enter(this: Any) -> Any:
        this._enabled = False
        return original(this)

    return enter


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
