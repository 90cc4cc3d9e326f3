"""The watcher: hooks torch so that every training step of the process it runs in is recorded.

Per step it costs two hook calls, a look at the loss and a few comparisons; everything else happens at looked-at steps
(`gradwise.probes.sampling`). No exception of ours leaves it, and it draws no random numbers and changes no tensor.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.inputs import FirstInput
from gradwise.probes.losses import LossCalls, Unscaler, Validation
from gradwise.probes.manual import Manual, leaves_of
from gradwise.probes.names import Names
from gradwise.probes.nonfinite import origin
from gradwise.probes.patches import Patches
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import Meter
from gradwise.probes.tracked import Tracked, warm_up
from gradwise.recording.recording import Place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_FAILURES = 3
# Optimizers from one line with ever new parameters (cross-validation, an inner loop): more than this tell nothing new.
_SAME_PLACE = 8
# Steps of an optimizer after which it is known whether it is stepped by another one.
_LEARNING = 8


@dataclass(slots=True)
class Made:
    """An optimizer that was made: where, and where a scheduler was put on it."""

    ref: weakref.ref[Any]
    place: Place | None
    scheduler: Place | None = None


class Watcher:
    """Records what passes through torch's optimizers, backward passes and loss functions from `install` to `remove`."""

    def __init__(self, torch: ModuleType, recorder: Recorder) -> None:
        self.torch, self.recorder = torch, recorder
        self.meter = Meter()
        self.names = Names()
        self.validation = Validation(recorder)
        self.losses = LossCalls(torch, self.validation, self.meter)
        self.unscaler = Unscaler()
        self.inputs = FirstInput(torch, recorder)
        self.startup = 0.0
        self.backwards = 0
        self.created = 0
        self.after_step: list[Callable[[int, int], None]] = []
        self._patches = Patches()
        self._tracked: dict[int, Tracked] = {}
        self._made: list[Made] = []
        self._indices = 0
        self._stack: list[tuple[Tracked, int]] = []
        self._look_cost = 0.0
        self._hooks: Any = None
        self._armed: Any = None
        self.manual: Manual | None = None
        self._deferred: list[tuple[Tracked | Manual, int, Any]] = []
        self._nonfinite = False
        self._failures = 0
        self._backward_place: Place | None = None

    # on and off

    def install(self) -> None:
        """Begin to watch."""
        optim, autograd = self.torch.optim, self.torch.autograd
        self._hooks = sys.modules["torch.optim.optimizer"]
        self._arm()
        self._patches.on_undo(self._disarm)
        self._patches.on_undo(self._hooks.register_optimizer_step_post_hook(self._after_step).remove)
        self._patches.replace(optim.Optimizer, "__init__", self._wrap_init)
        for scheduler in (optim.lr_scheduler.LRScheduler, optim.lr_scheduler.ReduceLROnPlateau):
            self._patches.replace(scheduler, "__init__", self._wrap_scheduler)
        self._patches.replace(autograd, "backward", self._wrap_backward)
        self._patches.replace(autograd, "grad", self._wrap_grad)
        self.names.install(self.torch, self._patches)
        self.unscaler.install(self.torch, self._patches)
        self.losses.install(self._patches)
        self.inputs.install(self._patches)

    def remove(self) -> None:
        """Stop watching: put torch back as it was and hand on what is left."""
        self._patches.undo()
        self.finish()

    def finish(self) -> None:
        """Hand on everything recorded so far, and what recording it cost."""
        with suppress(Exception):
            if self.manual is not None and self.manual.changed():
                self._finish_manual(self.manual, self.manual.leaves, perf_counter())
            self.validation.close(self.steps)
            self._settle()
            self.recorder.facts(
                startup_seconds=self.startup, overhead_fraction=self.meter.fraction, overhead_seconds=self.meter.spent,
                loop_seconds=self.meter.loop_seconds, steps=self.steps, backwards=self.backwards,
                thinning=self.meter.thinning, optimizers_made=self.created,
            )  # fmt: skip
        self.recorder.flush()

    @property
    def steps(self) -> int:
        """Steps of the optimizer that made most of them."""
        manual = self.manual.steps if self.manual else 0
        return max([manual, *(t.steps for t in self._tracked.values())])

    def _fail(self, probe: str, error: Exception) -> None:
        self._failures += 1
        if self._failures <= _FAILURES:
            with suppress(Exception):
                self.recorder.event("probe-failed", data={"probe": probe, "error": repr(error)})

    # optimizers

    def _wrap_init(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            with suppress(Exception):
                self.created += 1
                self._made.append(Made(weakref.ref(optimizer), places.here()))
            original(optimizer, *args, **kwargs)

        return init

    def _wrap_scheduler(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(scheduler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            with suppress(Exception):
                place = places.here()
                for made in self._made:
                    if made.ref() is optimizer:
                        made.scheduler = place
                tracked = self._tracked.get(id(optimizer))
                if tracked is not None and tracked.ref() is optimizer:
                    tracked.scheduler = place
                    self.recorder.optimizer(tracked.info())
            original(scheduler, optimizer, *args, **kwargs)

        return init

    def _track_made(self) -> None:
        """Begin to follow the optimizers made since the last backward pass, in the order they were made."""
        began = perf_counter()
        made, self._made = self._made, []
        if not self._tracked:
            warm_up()
        for entry in made:
            optimizer = entry.ref()
            if optimizer is not None and getattr(optimizer, "param_groups", None):
                self._track(optimizer, entry)
        cost = perf_counter() - began
        self.startup += cost
        self.meter.spent -= cost

    def _track(self, optimizer: Optimizer, made: Made) -> Tracked | None:
        held = [p for g in optimizer.param_groups for p in g["params"]]
        same_place = [t for t in self._tracked.values() if t.made == made.place]
        for tracked in same_place:
            # A script that makes its optimizer anew (each epoch, say) goes on with the same training.
            if tracked.holds(held):
                self._tracked.pop(id(tracked.ref()), None)
                tracked.ref = weakref.ref(optimizer)
                self._tracked[id(optimizer)] = tracked
                return tracked
        if len(same_place) >= _SAME_PLACE:
            return None
        self.names.refresh()
        index = self._indices
        self._indices += 1
        tracked = Tracked(optimizer, index, self.recorder, self.names)
        tracked.made, tracked.scheduler = made.place, made.scheduler
        stale = self._tracked.pop(id(optimizer), None)
        if stale is not None:
            self._tracked[-1 - index] = stale
        self._tracked[id(optimizer)] = tracked
        self.recorder.optimizer(tracked.info())
        self._arm()
        return tracked

    def find(self, optimizer: Optimizer) -> Tracked | None:
        """The record of an optimizer that steps; a new one for a kind that skips `Optimizer.__init__`."""
        if self._made:
            self._track_made()
        tracked = self._tracked.get(id(optimizer))
        if tracked is None or tracked.ref() is not optimizer:
            tracked = self._track(optimizer, Made(weakref.ref(optimizer), None))
        if tracked is not None and tracked.stepped is None:
            tracked.stepped = places.here()
            self.recorder.optimizer(tracked.info())
        return tracked

    # The hook before a step is there only when there is something to do: to learn how steps nest, to look, or to know
    # that a closure is running. On all other steps the hook after it suffices, which halves the cost.

    def _arm(self) -> None:
        if self._armed is None:
            self._armed = self._hooks.register_optimizer_step_pre_hook(self._before_step)

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed.remove()
            self._armed = None

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        began = perf_counter()
        try:
            if self._stack:
                self._drop_stale(optimizer)
            tracked = self.find(optimizer)
            if tracked is None:
                return
            tracked.inner = bool(self._stack)
            self._stack.append((tracked, id(sys._getframe(1))))
            if tracked.inner:
                return
            if not self.meter.steps:
                self.meter.began = began
            tracked.closure = bool(args) or kwargs.get("closure") is not None
            tracked.inside = True
            looks = tracked.looks
            if looks.following:
                looks.follow(tracked.steps, [p.grad for p in tracked.parameters()], _grad_scale(optimizer))
                self.meter.looks += perf_counter() - began
            elif tracked.look_next:
                parameters = tracked.parameters()
                looks.open(tracked.steps, parameters, [p.grad for p in parameters], _grad_scale(optimizer))
                self._look_cost = perf_counter() - began
        except Exception as error:
            self._fail("before step", error)
        finally:
            self.meter.spent += perf_counter() - began

    def _drop_stale(self, optimizer: Any) -> None:
        """Forget steps that were left by an exception: their frames are no longer on the call stack."""
        alive = set()
        frame = sys._getframe(2).f_back
        while frame is not None:
            alive.add(id(frame))
            frame = frame.f_back
        while self._stack and (self._stack[-1][1] not in alive or self._stack[-1][0].ref() is optimizer):
            self._stack.pop()[0].inside = False

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        began = perf_counter()
        finished = None
        try:
            tracked = self._tracked.get(id(optimizer))
            if tracked is None or tracked.stepped is None:
                tracked = self.find(optimizer)
            if tracked is None:
                return
            while self._stack and self._stack.pop()[0] is not tracked:
                pass
            if self._stack or tracked.inner:
                return
            finished = tracked
            tracked.inside = False
            looks = tracked.looks
            if looks.open_at >= 0:
                looks.close(tracked.parameters())
                # The gradient of the step that follows is gathered and compared too: about half as much again.
                self.meter.looked(1.5 * (perf_counter() - began + self._look_cost))
                self.meter.looks -= (perf_counter() - began + self._look_cost) / 2
                tracked.record_batch(self.losses.batch())
            tracked.record_rates(optimizer.param_groups, looks.following)
            self._record_step(tracked, began)
            tracked.look_next = not looks.following and self.meter.affords(tracked.steps, began)
            if tracked.steps < _LEARNING or tracked.closure or looks.following or tracked.look_next:
                self._arm()
            elif self._armed is not None and all(
                t.steps >= _LEARNING and not t.closure for t in self._tracked.values()
            ):
                self._disarm()
        except Exception as error:
            self._fail("after step", error)
        finally:
            self.meter.spent += perf_counter() - began
        if finished is not None:
            for callback in self.after_step:
                callback(finished.index, finished.steps)

    def _record_step(self, tracked: Tracked | Manual, now: float) -> None:
        """Everything that is recorded at every step."""
        recorder, step, pending = self.recorder, tracked.steps, tracked.pending
        if pending.count:
            loss = pending.total
            if isinstance(loss, float):
                tracked.losses.add(step, loss)
            else:
                self._deferred.append((tracked, step, loss))
            tracked.record_counts(pending.count)
            pending.clear()
        tracked.times.add(step, now - recorder.epoch)
        tracked.steps = step + 1
        self.meter.steps += 1
        self.meter.last = now
        if self.validation.open:
            self.validation.close(tracked.steps)
        if recorder.due(now):
            self._settle()
            recorder.flush(now)

    def _settle(self) -> None:
        """Read the losses that lie on a device, all in one transfer."""
        waiting, self._deferred = self._deferred, []
        if not waiting:
            return
        with self.torch.no_grad():
            values = self.torch.stack([loss.reshape(()).float() for _, _, loss in waiting]).cpu().tolist()
        for (tracked, step, _), value in zip(waiting, values, strict=True):
            tracked.losses.add(step, value)
            if value - value != 0.0:
                self._first_nonfinite(value, step, tracked.index)

    # losses

    def _wrap_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        after = self._after_backward

        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            original(tensors, *args, **kwargs)
            after(tensors, args, kwargs)

        return backward

    def _after_backward(self, tensors: Any, args: Any, kwargs: Any) -> None:
        began = perf_counter()
        try:
            if self._made:
                self._track_made()
            if not self.backwards:
                self._backward_place = places.here()
            self.backwards += 1
            loss = self._value(tensors, args[0] if args else kwargs.get("grad_tensors"))
            if isinstance(loss, float) and loss - loss != 0.0:
                self._first_nonfinite(loss, self.steps)
            for tracked in self._tracked.values():
                tracked.after_backward(loss)
            if not self.created:
                self._manual_backward(tensors, loss, began)
        except Exception as error:
            self._fail("backward", error)
        finally:
            self.meter.spent += perf_counter() - began

    def _value(self, tensors: Any, weights: Any) -> Any:
        """The scalar that is differentiated: a float, or a tensor where it lies on a device."""
        if type(tensors) is self.torch.Tensor and not self.unscaler.scaled and tensors.is_cpu and not tensors.dim():
            return tensors.item()
        if isinstance(tensors, self.torch.Tensor):
            tensors = (tensors,)
            weights = (weights,)
        elif weights is None or isinstance(weights, self.torch.Tensor):
            weights = (weights,) * len(tensors)
        total: Any = 0.0
        for tensor, weight in zip(tensors, weights, strict=False):
            value = self.unscaler.original(tensor)
            if value.numel() != 1:
                value = value.detach() if weight is None else value.detach() * weight
                value = value.sum()
            # What lies on a device is copied there and read later, many at a time: reading it now would wait.
            total = total + (value.item() if value.is_cpu else value.detach().reshape(()).clone())
        return total

    def _first_nonfinite(self, loss: float, step: int, source: int = 0) -> None:
        if self._nonfinite:
            return
        self._nonfinite = True
        tensors = [(n, p) for t in self._tracked.values() for n, p in zip(t.names(), t.parameters(), strict=True)]
        if self.manual is not None:
            tensors = list(zip(self.manual.looks.names, self.manual.leaves, strict=True))
        *inputs, name = self.losses.last
        data = origin(self.torch, loss, tensors, inputs, name)
        data["gradients"] = [
            looks.names[i] for looks in (t.looks for t in self._tracked.values()) for i in looks.bad_gradients
        ]
        place = places.here() or self._backward_place
        if place is not None:
            data["place"] = {"file": place.file, "line": place.line, "text": place.text}
        self.recorder.event("non-finite", step, source, data)
        self.recorder.flush()

    # training without an optimizer

    def _manual_backward(self, tensors: Any, loss: Any, began: float) -> None:
        """If the leaves moved since the last backward pass, a step was made by hand in between."""
        manual = self.manual
        if manual is None:
            manual = self._begin_manual(
                leaves_of([tensors] if isinstance(tensors, self.torch.Tensor) else list(tensors))
            )
        elif manual.changed():
            self._finish_manual(manual, manual.leaves, began)
        manual.pending.add(loss)
        self._look_manual(manual, [p.grad for p in manual.leaves], began)
        manual.mark()

    def _begin_manual(self, leaves: list[Tensor]) -> Manual:
        began = perf_counter()
        self.names.refresh()
        self.manual = Manual(self.recorder, self.names, leaves, self._backward_place)
        self.meter.began = now = perf_counter()
        self.startup += now - began
        self.meter.spent -= now - began
        return self.manual

    def _look_manual(self, manual: Manual, gradients: list[Any], began: float) -> None:
        looks = manual.looks
        if looks.following:
            looks.follow(manual.steps, gradients, 1.0)
            self.meter.looks += perf_counter() - began
        elif looks.open_at >= 0 or self.meter.affords(manual.steps, began):
            looks.open(manual.steps, manual.leaves, gradients, 1.0)

    def _finish_manual(self, manual: Manual, leaves: list[Tensor], now: float) -> None:
        looks = manual.looks
        if looks.open_at >= 0:
            step = looks.open_at
            looks.close(leaves)
            manual.estimate_rate(step)
            self.meter.looked(3 * (perf_counter() - now))
        self._record_step(manual, now)
        for callback in self.after_step:
            callback(manual.index, manual.steps)

    def _wrap_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            gradients = original(outputs, inputs, *args, **kwargs)
            # With an optimizer in the script, or a graph of the gradient, this is not a training step.
            if not self.created and not kwargs.get("create_graph") and len(args) < 3:
                self._functional_step(outputs, inputs, args[0] if args else kwargs.get("grad_outputs"), gradients)
            return gradients

        return grad

    def _functional_step(self, outputs: Any, inputs: Any, weights: Any, gradients: Any) -> None:
        began = perf_counter()
        try:
            leaves = [inputs] if isinstance(inputs, self.torch.Tensor) else list(inputs)
            self.backwards += 1
            manual = self.manual
            if manual is None:
                self._backward_place = places.here()
                manual = self._begin_manual(leaves)
            elif manual.pending.count:
                self._finish_manual(manual, leaves, began)
            manual.leaves = leaves
            loss = self._value(outputs, weights)
            if isinstance(loss, float) and loss - loss != 0.0:
                self._first_nonfinite(loss, manual.steps)
            manual.pending.add(loss)
            self._look_manual(manual, list(gradients), began)
        except Exception as error:
            self._fail("autograd.grad", error)
        finally:
            self.meter.spent += perf_counter() - began


def _grad_scale(optimizer: Any) -> float:
    """GradScaler hands fused optimizers scaled gradients and the scale beside them."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)
