"""Which calls of an optimizer's `step()` are steps of the training, and what happens around them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from time import perf_counter, thread_time
from types import FrameType, ModuleType
from typing import Any

from gradwise.probes.losses import Fail, LossCalls
from gradwise.probes.patches import Patches
from gradwise.probes.registry import Registry
from gradwise.probes.sampling import Meter, next_due
from gradwise.probes.steps import Steps
from gradwise.probes.tracked import LEARNING, Tracked

# Backward passes that lead to one step at most, where it isn't known yet whose they are.
_UNCLAIMED = 64


class Stepping:
    """The hooks around `step()`.

    The hook before a step only has something to do when it is to be looked at, when it is given a closure, or while it
    is not known yet how steps nest: an optimizer that steps another one, or calls its base class' step, makes one step
    and not two. On all other steps a glance at `alert` is all it does.

    Attributes:
        after_step: called after each step with the optimizer's index and how many steps it has made.
        within: optimizers that stepped while a backward pass was running, whose loss is not known yet then.
    """

    def __init__(self, torch: ModuleType, registry: Registry, losses: LossCalls, meter: Meter, fail: Fail) -> None:
        self.torch, self.registry, self.losses, self.meter, self.fail = torch, registry, losses, meter, fail
        self.alert = True
        self.after_step: list[Callable[[int, int], None]] = []
        self.differentiating = False
        self.within: list[Tracked] = []
        self._unclaimed: deque[Any] = deque(maxlen=_UNCLAIMED)
        self._adopted = False
        self.stack: list[tuple[Tracked, int]] = []
        self._before_hook: Any = None
        self._hooks = sys.modules["torch.optim.optimizer"]
        self._by_id, self._recorder = registry.by_id, registry.recorder

    def install(self, patches: Patches, flush: Callable[[], None]) -> None:
        """Begin; `flush` is called at the first step after the time at which the recorder is due for it."""
        self._flush = flush
        self._patches = patches
        patches.keep_compiler_out(self._before)
        patches.keep_compiler_out(self._after)
        patches.on_undo(self._hooks.register_optimizer_step_post_hook(self._after).remove)

    def attend(self) -> None:
        """Register the hook before steps: with the first optimizer, so that it comes after all that change steps."""
        if self._before_hook is None and self._patches.active:
            self._before_hook = self._hooks.register_optimizer_step_pre_hook(self._before)
            self._patches.on_undo(self._before_hook.remove)

    def find(self, optimizer: Any) -> Tracked | None:
        """The record of an optimizer that steps; None where there are too many of its kind."""
        if self.registry.made:
            self.registry.follow_made()
        self.attend()
        tracked = self.registry.find(optimizer)
        if tracked is not None and tracked.alert:
            self.alert = True
            if not (tracked.calls or tracked.steps or tracked.backwards):
                self._adopt(tracked)
        return tracked

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self.alert:
            return
        began = perf_counter()
        try:
            tracked = self.find(optimizer)
            if tracked is None:
                return
            frame = sys._getframe(1)
            self.drop_left(frame.f_back)
            outer = self.stack[-1][0] if self.stack else None
            self.stack.append((tracked, id(frame)))
            tracked.calls += 1
            tracked.repeats = tracked.repeats or outer is tracked
            tracked.inner = outer is not None and not tracked.repeats
            tracked.alert = tracked.calls < LEARNING or tracked.repeats
            if outer is not None:
                return
            tracked.closure = bool(args[1:]) or kwargs.get("closure") is not None
            if tracked.closure:
                tracked.inside, tracked.evaluated = True, False
            else:
                self.look_before(tracked, began)
        except Exception as error:
            self.fail("before step", error)
        finally:
            self.meter.spent += perf_counter() - began

    def drop_left(self, frame: FrameType | None) -> None:
        """Forget steps that were left by an exception: their frames are not among the callers from `frame` on."""
        if not self.stack:
            return
        running = set()
        while frame is not None:
            running.add(id(frame))
            frame = frame.f_back
        while self.stack and self.stack[-1][1] not in running:
            self.stack.pop()[0].inside = False

    def unclaimed(self, loss: Any) -> None:
        """A backward pass led to steps made while it ran, or to none that is known yet: its optimizer may turn up."""
        for tracked in self.within:
            tracked.claim(loss)
        if not self.within:
            if self._adopted:
                self._unclaimed.clear()
                self._adopted = False
            self._unclaimed.append(loss)
        self.within.clear()

    def _adopt(self, tracked: Tracked) -> None:
        """An optimizer turns up that was made before we came."""
        for loss in self._unclaimed:
            tracked.add(loss)
        self._adopted = True

    def look_before(self, tracked: Tracked, began: float) -> None:
        """Look at what a step begins from, if it is to be looked at."""
        looks = tracked.looks
        if not (looks.following or tracked.look_next):
            return
        clock = perf_counter(), thread_time()
        parameters = tracked.parameters()
        gradients = [p.grad for p in parameters]
        scale = _grad_scale(tracked.ref())
        if self.capturing(parameters):
            tracked.look_next = looks.following = False
        elif looks.following:
            looks.follow(tracked.steps, gradients, scale)
            self._charge(tracked, began)
            self.meter.looked(looks.cost)
        else:
            looks.cost = 0.0
            looks.open(tracked.steps, parameters, gradients, scale)
            self._charge(tracked, began)
        if not parameters[0].is_cuda:  # there a look waits for the device
            self.meter.held_up(perf_counter() - clock[0], thread_time() - clock[1])

    def _charge(self, tracked: Steps, began: float) -> None:
        cost = perf_counter() - began
        tracked.looks.cost += cost
        self.meter.looks += cost

    def capturing(self, tensors: Any) -> bool:
        """Whether a CUDA graph is being captured, into which nothing of ours may get."""
        return any(t.is_cuda for t in tensors[:1]) and self.torch.cuda.is_current_stream_capturing()

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        began = perf_counter()
        tracked = self._by_id.get(id(optimizer))
        try:
            if self.alert or self.differentiating or tracked is None or tracked.ref() is not optimizer:
                tracked = self._stepped(optimizer)
                if tracked is None:
                    return
                self._close(tracked, began)
            elif tracked.inner:
                return
            tracked.check_settings(optimizer.param_groups)
            tracked.made(began)
            if tracked.steps >= tracked.next_due:
                self._plan(tracked, began)
            # Within a backward pass the loss that belongs to the step isn't known yet.
            if began > self._recorder.due and not self.differentiating:
                self._flush()
        except Exception as error:
            self.fail("after step", error)
        finally:
            self.meter.spent += perf_counter() - began
        if self.after_step and tracked is not None:
            for callback in self.after_step:
                callback(tracked.index, tracked.steps)

    def _stepped(self, optimizer: Any) -> Tracked | None:
        """The record of an optimizer whose `step()` returns; None if that was part of another step."""
        tracked = self.find(optimizer)
        if tracked is None:
            return None
        while self.stack and self.stack.pop()[0] is not tracked:
            pass
        return None if self.stack or tracked.inner else tracked

    def _close(self, tracked: Tracked, began: float) -> None:
        """What there may be to do at the end of a step beside counting it."""
        tracked.inside = False
        if tracked.looks.open_at >= 0:
            parameters = tracked.parameters()
            tracked.looks.close(parameters, _told(tracked.ref(), parameters))
            self._charge(tracked, began)
            tracked.record_batch(self.losses.rows())
        if self.differentiating and not tracked.backwards:
            self.within.append(tracked)
        tracked.look_next = False
        self._attend_to(tracked)

    def _plan(self, tracked: Tracked, now: float) -> None:
        """Settle whether the step to come is looked at."""
        self.meter.steps = sum(course.steps for course in self.registry.all)
        tracked.look_next = not tracked.looks.following and self.meter.affords(tracked.steps, now)
        tracked.next_due = next_due(tracked.steps)
        self._attend_to(tracked)

    def _attend_to(self, tracked: Tracked) -> None:
        tracked.alert = tracked.wants_attention()
        self.alert = tracked.alert or any(t.alert for t in self.registry.followed)


def _told(optimizer: Any, parameters: Any) -> list[Any] | None:
    """What an optimizer with telemetry found of every tensor in its own pass."""
    if not getattr(optimizer, "telemetry", False) or not hasattr(optimizer, "telemetry_of"):
        return None
    told = [optimizer.telemetry_of(p) if p.grad is not None else None for p in parameters]
    return None if any(t is None for t in told) else told


def _grad_scale(optimizer: Any) -> float:
    """GradScaler hands fused optimizers scaled gradients and the scale beside them."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)
