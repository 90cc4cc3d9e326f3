"""The watcher: hooks torch so that every training step of the process it runs in is recorded.

Per step it costs two hook calls, a look at the loss and a few comparisons; everything else happens at looked-at steps
(`gradwise.probes.sampling`). No exception of ours leaves it, it draws no random numbers, changes no tensor and keeps
none alive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.dropouts import Dropouts
from gradwise.probes.examinations import Examinations, Examiner
from gradwise.probes.handover import HandOver
from gradwise.probes.inputs import first_input
from gradwise.probes.layers import Layers
from gradwise.probes.loaders import Loaders
from gradwise.probes.looks import warm_up
from gradwise.probes.losses import LossCalls, Unscaler, Validation
from gradwise.probes.lossinputs import LossInputs
from gradwise.probes.manual import Manual
from gradwise.probes.modes import Modes
from gradwise.probes.names import Names
from gradwise.probes.nonfinite import origin
from gradwise.probes.pairs import Pairs
from gradwise.probes.passes import TrainingPasses
from gradwise.probes.patches import Patches, hide_from_traceback
from gradwise.probes.recorder import Recorder
from gradwise.probes.registry import Registry
from gradwise.probes.sampling import Meter
from gradwise.probes.stepping import Stepping
from gradwise.probes.steps import Row, Steps
from gradwise.probes.tracked import Tracked
from gradwise.probes.wiring import Wiring
from gradwise.probes.written import ByHand
from gradwise.recording.recording import Place

if TYPE_CHECKING:
    pass

_FAILURES = 3


class Watcher:
    """Records what passes through torch's optimizers, backward passes and loss functions from `install` to `remove`.

    Args:
        torch: the module.
        recorder: takes the recording.

    Attributes:
        meter: what watching costs; `startup` is the part that is not in the training loop.
        manual: the steps made by hand, where there are such.
        after_step: functions to call after each step, with the optimizer's index and how many steps it has made.
    """

    def __init__(self, torch: ModuleType, recorder: Recorder) -> None:
        self.torch, self.recorder = torch, recorder
        self.meter = Meter()
        self.startup = 0.0
        self.names = Names()
        self.registry = Registry(recorder, self.names)
        self.validation = Validation(recorder)
        self.losses = LossCalls(torch, self.validation, self.meter, lambda: self.steps, self._fail)
        self.by_hand = ByHand(torch, self.losses)
        self.pairs = Pairs(torch, recorder, self.losses, self.meter, self._target_known)
        self.unscaler = Unscaler(recorder)
        self.stepping = Stepping(torch, self.registry, self.losses, self.meter, self._fail)
        self.after_step = self.stepping.after_step
        self.manual: Manual | None = None
        self.backwards = 0
        self.examinations = Examinations(self.meter, self._counts, self._fail)
        self.loaders = Loaders(recorder, lambda: self.steps, self._fail)
        self.wiring = Wiring(torch, recorder, self.registry, self.names)
        self.modes = Modes(torch, recorder, self.names, self.registry, self.wiring.loaded, self.meter)
        self.passes = TrainingPasses(
            torch, recorder, lambda: self.steps, lambda: self.losses.trained, lambda: self.modes.evals, self.meter
        )
        self.examinations.examiners += self._examiners()
        self._patches = Patches(torch)
        self._nonfinite = False
        self._failures = 0
        self._first_backward: Place | None = None
        self._tensor = torch.Tensor
        self._scaled = self.unscaler.scaled

    def _examiners(self) -> list[Examiner]:
        torch, recorder, fail = self.torch, self.recorder, self._fail
        over = HandOver(torch, recorder, self.examinations, self._courses, lambda: self.backwards, fail)
        self.after_step += [over.stepped, self.modes.stepped]
        self.validation.begins.append(self.modes.evaluated)
        inputs = LossInputs(recorder, self.losses, self.examinations)
        layers = Layers(torch, recorder, self._held, self.names)
        return [over, self.wiring, self.modes, inputs, layers, self.pairs, Dropouts(recorder, self.names)]

    # on and off

    def install(self) -> None:
        """Begin to watch."""
        patches, autograd = self._patches, self.torch.autograd
        for function in (self._before_backward, self._after_backward, self._functional_step):
            patches.keep_compiler_out(function)
        self.stepping.install(patches, self._flush)
        self.registry.install(self.torch, patches, self.stepping.attend)
        self.names.install(self.torch, patches)
        self.losses.install(patches)
        self.wiring.install(self.torch, patches)
        self.modes.install(self.torch, patches)
        self.passes.install(self.torch, patches)
        self.loaders.install(self.torch, patches)
        self.unscaler.install(self.torch, patches, self._fail)
        patches.replace(autograd, "backward", self._wrap_backward)
        patches.replace(autograd, "grad", self._wrap_grad)
        self.recorder.sources.append(self._hand_on)

    def remove(self) -> None:
        """Stop watching: put torch back as it was and hand on what is left."""
        self._patches.undo()
        self.finish()

    def finish(self) -> None:
        """Hand on everything recorded so far, and what recording it cost."""
        self.examinations.finish()
        with suppress(Exception):
            self.loaders.close()
            self.passes.finish()
            self.losses.targets.finish()
        with suppress(Exception):
            if self.manual is not None and not self.registry.seen and self.manual.changed():
                self.manual.finish(perf_counter())
            self._hand_on()
            self.validation.close()
        meter = self.meter
        self.recorder.facts(
            startup_seconds=self.startup, overhead_fraction=meter.fraction, overhead_seconds=meter.spent,
            loop_seconds=meter.loop_seconds, steps=self.steps, backwards=self.backwards, thinning=meter.thinning,
            optimizers_made=self.registry.seen,
        )  # fmt: skip
        self.recorder.flush()

    @property
    def steps(self) -> int:
        """Steps of the optimizer that made most of them."""
        return max([0 if self.manual is None else self.manual.steps, *(t.steps for t in self.registry.all)])

    def find(self, optimizer: Any) -> Tracked | None:
        """The record of an optimizer; None where there are too many of its kind."""
        return self.stepping.find(optimizer)

    def _fail(self, probe: str, error: Exception) -> None:
        self._failures += 1
        if self._failures <= _FAILURES:
            with suppress(Exception):
                self.recorder.event("probe-failed", data={"probe": probe, "error": repr(error)})

    # steps

    def _flush(self) -> None:
        """Hand on what there is, if it is time to."""
        self.meter.steps = sum(course.steps for course in self._courses())
        self.recorder.flush()

    def _courses(self) -> list[Steps]:
        return [*self.registry.all, *([] if self.manual is None else [self.manual])]

    def _hand_on(self) -> None:
        """Hand the recorder the steps made since it flushed last."""
        try:
            for course in self._courses():
                if course.rows:
                    rows, course.rows = course.rows, []
                    self.meter.last = max(self.meter.last, rows[-1][2])
                    course.hand_on(self._read(rows, course))
            self.validation.close(self.steps)
            self.losses.targets.hand_on()
            self.unscaler.record_scale(self.steps)
        except Exception as error:
            self._fail("flush", error)

    def _read(self, rows: list[Row], course: Steps) -> list[Row]:
        """The rows with their losses as numbers; those that lie on a device are read in one transfer."""
        waiting = [i for i, (_, loss, _) in enumerate(rows) if loss is not None and type(loss) is not float]
        if not waiting:
            return rows
        with self.torch.no_grad():
            losses = self.torch.stack([rows[i][1].to(rows[waiting[0]][1]) for i in waiting]).tolist()
        for i, loss in zip(waiting, losses, strict=True):
            step, _, time = rows[i]
            rows[i] = step, loss, time
            if loss - loss != 0.0:
                self._first_nonfinite(loss, course, step)
        return rows

    # backward passes

    def _wrap_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        stepping, examinations, by_hand, pairs = self.stepping, self.examinations, self.by_hand, self.pairs
        before, after = self._before_backward, self._after_backward

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            # A backward pass within another one (a checkpoint's) is part of it.
            if stepping.differentiating:
                original(tensors, *args, **kwargs)
                return
            stepping.differentiating = True
            try:
                if self.backwards >= min(examinations.due, by_hand.due, pairs.due):
                    before(tensors)
                original(tensors, *args, **kwargs)
            except BaseException:
                hide_from_traceback()
                raise
            finally:
                stepping.differentiating = False
            after(tensors, args, kwargs)

        return backward

    def _before_backward(self, tensors: Any) -> None:
        """Before the first of all, before those that are examined, and now and then where losses are made by hand."""
        began = perf_counter()
        try:
            losses = self._listed(tensors)
            if not self.backwards:
                self._first_backward = places.here()
                first_input(self.torch, self.recorder, losses)
                warm_up(self.torch)
            if self.stepping.capturing(losses):
                return
            examined = self.backwards >= self.examinations.due
            if examined or self.backwards >= self.by_hand.due:
                self.by_hand.before(self.backwards, losses, examined)
            if examined:
                self.examinations.before(self.backwards, losses)
            elif self.backwards >= self.pairs.due:
                self.pairs.between(self.backwards, self.steps, losses)
        except Exception as error:
            self._fail("before backward", error)
        self._charge_examination(perf_counter() - began)

    def _target_known(self) -> bool:
        """Whether a loss function was called for what is about to be differentiated, or it was recognized."""
        return self.losses.called or self.by_hand.found

    def _charge_examination(self, cost: float) -> None:
        """The first examination is part of starting up."""
        if self.examinations.number:
            self.meter.spent += cost
        else:
            self.startup += cost

    def _counts(self) -> list[int]:
        """Steps made by each course of training."""
        return [course.steps for course in self._courses()]

    def _held(self) -> list[tuple[int, list[str], list[Any]]]:
        """Each course of training: its index, the names of its tensors, and these."""
        held = [(t.index, t.names(), list(t.parameters())) for t in self.registry.all]
        if self.manual is not None:
            held.append((self.manual.index, list(self.manual.names()), list(self.manual.leaves)))
        return held

    def _after_backward(self, tensors: Any, args: Any, kwargs: Any) -> None:
        began = perf_counter()
        try:
            registry, stepping = self.registry, self.stepping
            if registry.made or not self.backwards:
                began = self._begin(began)
            self.backwards += 1
            if type(tensors) is self._tensor and tensors.is_cpu and not tensors.dim() and not self._scaled:
                loss = tensors.item()
            else:
                loss = self._value(tensors, args[0] if args else kwargs.get("grad_tensors"))
                if loss is None:
                    return
            if stepping.stack:
                stepping.drop_left(sys._getframe(1))
            reached: Steps | None = None
            for tracked in registry.followed:
                if tracked.after_backward(loss):
                    reached = reached or tracked
                    if tracked.inside:
                        stepping.look_before(tracked, began)
            if stepping.within or reached is None:
                stepping.unclaimed(loss)
            if not registry.seen:
                reached = self._by_hand()
                reached.backward(self._listed(tensors), loss, began)
            if type(loss) is float and loss - loss != 0.0:
                self._first_nonfinite(loss, reached)
        except Exception as error:
            self._fail("backward", error)
        finally:
            self.meter.spent += perf_counter() - began
            self.losses.called = False
            self.by_hand.after()
            if self.examinations.open:
                self._charge_examination(self.examinations.after(self.backwards - 1))

    def _begin(self, began: float) -> float:
        """Follow the optimizers made of late; the time from which the rest is training."""
        self.registry.follow_made()
        self.stepping.alert = True
        self.stepping.attend()
        now = perf_counter()
        self.startup += now - began
        self.meter.began = self.meter.began or now
        return now

    def _listed(self, tensors: Any) -> list[Any]:
        return [tensors] if isinstance(tensors, self.torch.Tensor) else list(tensors)

    def _value(self, tensors: Any, weights: Any) -> Any:
        """The scalar that is differentiated: a float, or a tensor where it lies on a device; None if out of reach."""
        tensors = self._listed(tensors)
        if weights is None or isinstance(weights, self.torch.Tensor):
            weights = [weights] * len(tensors)
        parts: list[Any] = []
        for tensor, weight in zip(tensors, weights, strict=False):
            value = self.unscaler.original(tensor).detach()
            if value.is_cuda and self.torch.cuda.is_current_stream_capturing():
                return None
            if value.numel() != 1:
                value = (value if weight is None else value * weight).sum()
            # What lies on a device is copied there and read later, many at a time: reading it now would wait.
            parts.append(value.item() if value.is_cpu else value.reshape(()).clone())
        return sum(parts[1:], parts[0])

    def _first_nonfinite(self, loss: float, course: Steps | None, step: int | None = None) -> None:
        if self._nonfinite:
            return
        self._nonfinite = True
        step = step if step is not None else self.steps if course is None else course.steps
        courses = self.registry.all
        tensors = [(n, p) for t in courses for n, p in zip(t.names(), t.parameters(), strict=True)]
        if self.manual is not None:
            tensors += zip(self.manual.names(), self.manual.leaves, strict=True)
        data = origin(self.torch, loss, tensors, self.losses.last(), self.losses.name)
        data["gradients"] = [name for t in courses for name in t.looks.bad_gradients]
        place = places.here() or self._first_backward
        if place is not None:
            data["place"] = {"file": place.file, "line": place.line, "text": place.text}
        self.recorder.event("non-finite", step, 0 if course is None else course.index, data)
        self.recorder.due = 0.0

    # training without an optimizer

    def _by_hand(self) -> Manual:
        if self.manual is None:
            take = self.registry.take_index
            self.manual = Manual(self.recorder, self.names, self.meter, self._hand_step, take, self._first_backward)
        return self.manual

    def _hand_step(self, made: Steps, now: float) -> None:
        if now > self.recorder.due:
            self._flush()
        for callback in self.after_step:
            callback(made.index, made.steps)

    def _wrap_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        compiling, patches, registry = self.torch.compiler.is_compiling, self._patches, self.registry
        stepping, step = self.stepping, self._functional_step

        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                gradients = original(outputs, inputs, *args, **kwargs)
            except BaseException:
                hide_from_traceback()
                raise
            # With an optimizer in the script, or a graph of the gradient, this is not a training step.
            if compiling() or registry.seen or stepping.differentiating or not patches.active:
                return gradients
            if len(args) < 3 and not kwargs.get("create_graph"):
                step(outputs, inputs, args[0] if args else kwargs.get("grad_outputs"), gradients)
            return gradients

        return grad

    def _functional_step(self, outputs: Any, inputs: Any, weights: Any, gradients: Any) -> None:
        began = perf_counter()
        try:
            if not self.backwards:
                self._first_backward = places.here()
            self.backwards += 1
            roots, leaves, manual = self._listed(outputs), self._listed(inputs), self._by_hand()
            loss = self._value(outputs, weights)
            if loss is not None:
                manual.functional(roots[0], leaves, gradients, loss, began)
            if type(loss) is float and loss - loss != 0.0:
                self._first_nonfinite(loss, manual)
        except Exception as error:
            self._fail("autograd.grad", error)
        finally:
            self.meter.spent += perf_counter() - began
