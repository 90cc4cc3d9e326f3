"""Losses as they pass by: back-propagated ones (unscaled), and those evaluated without gradient (validation)."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.patches import Patches, hide_from_traceback
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import Meter
from gradwise.probes.targets import Targets
from gradwise.recording import signals
from gradwise.recording.recording import Place

if TYPE_CHECKING:
    from torch import Tensor

LOSS_FUNCTIONS = (
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy",
    "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss",
    "linear_cross_entropy", "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "nll_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss",
    "triplet_margin_loss", "triplet_margin_with_distance_loss",
)  # fmt: skip
# Where the target is among the arguments; in second place for all others.
_TARGETS = {"cosine_embedding_loss": 2, "linear_cross_entropy": 2, "margin_ranking_loss": 2}
_PLACES = 64

# Calls of loss functions between two backward passes that are noted at most.
_CALLS = 32
# Rows that are looked at to tell probabilities.
_ROWS = 256

Fail = Callable[[str, Exception], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a loss function while training: what it was given, and where."""

    name: str
    given: tuple[int, ...]
    target: tuple[int, ...]
    probabilities: bool
    place: Place | None


class Unscaler:
    """Remembers which tensor each of GradScaler's scaled losses came from, until that loss is gone."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.scaled: dict[int, tuple[weakref.ref[Any], Any]] = {}
        self._scale: float | None = None
        self._scaler: Callable[[], Any] = lambda: None

    def install(self, torch: ModuleType, patches: Patches, fail: Fail) -> None:
        """Watch `GradScaler.scale`."""
        tensor_type = torch.Tensor

        def note(scaler: Any, scaled: Any, outputs: Any) -> None:
            try:
                if isinstance(scaled, tensor_type) and scaled is not outputs:
                    key = id(scaled)
                    gone = weakref.ref(scaled, lambda _: self.scaled.pop(key, None))
                    self.scaled[key] = (gone, outputs.detach())
                    self._scaler = weakref.ref(scaler)
            except Exception as error:
                fail("GradScaler.scale", error)

        patches.keep_compiler_out(note)

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def scale(this: Any, outputs: Any) -> Any:
                try:
                    scaled = original(this, outputs)
                except BaseException:
                    hide_from_traceback()
                    raise
                note(this, scaled, outputs)
                return scaled

            return scale

        patches.replace(torch.amp.GradScaler, "scale", wrap)

    def original(self, loss: Tensor) -> Tensor:
        """The loss before scaling."""
        found = self.scaled.get(id(loss))
        return loss if found is None or found[0]() is not loss else found[1]

    def record_scale(self, step: int) -> None:
        """Record the loss scale where it changed since it was recorded last (reading it may wait for a device)."""
        scaler = self._scaler()
        scale = None if scaler is None else scaler.get_scale()
        if scale is not None and scale != self._scale:
            self._scale = scale
            self.recorder.point(signals.SCALE, 0, step, (scale,))


class Validation:
    """Mean of each run of losses evaluated without gradient, told apart by the call path that evaluates them.

    Attributes:
        begins: called when such a run begins: with the steps made, its source, and what tells if it is of the batch
            that was just trained on.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._open: dict[int, tuple[int, Any, int]] = {}
        self._sources: dict[Any, int] = {}
        self.begins: list[Callable[[int, int, Callable[[], bool]], None]] = []

    def see(self, step: int, value: Any, rows: int, again: Callable[[], bool] = lambda: False) -> None:
        """One loss evaluated without gradient, after `step` steps; `value` is its mean, a float or on a device.

        `again` tells whether it is of the very batch that was just trained on.
        """
        frames = places.callers()
        key = tuple([(f.f_code.co_filename, f.f_lineno) for f in frames])
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= _PLACES:
                return
            source = self._sources[key] = len(self._sources)
            if frames:
                place, *callers = [places.place_of(frame) for frame in frames]
                self.recorder.validation_place(source, place, callers)
        if source not in self._open or self._open[source][0] != step:
            for begins in self.begins:
                begins(step, source, again)
        began, total, before = self._open.get(source, (step, 0.0, 0))
        if began != step:
            self._close(source)
            total, before = 0.0, 0
        self._open[source] = step, value * rows + total, before + rows

    def close(self, step: int | None = None) -> None:
        """End the passes that no more losses belong to once `step` steps were made (None: all)."""
        for source in [source for source, (began, _, _) in self._open.items() if began != step]:
            self._close(source)

    def _close(self, source: int) -> None:
        step, total, rows = self._open.pop(source)
        self.recorder.validation(source, step, float(total) / rows)


class LossCalls:
    """Watches torch's loss functions: while training only their arguments are noted, while evaluating their values.

    Args:
        steps: tells how many steps were made.

    Attributes:
        attentive: whether calls while training are noted in `calls` (during examinations).
        called: whether one was called with gradient since the last backward pass.
        trained: rows of the last step that is known of, 0 before.
    """

    def __init__(
        self, torch: ModuleType, validation: Validation, meter: Meter, steps: Callable[[], int], fail: Fail
    ) -> None:
        self.torch, self.validation, self.meter, self.steps, self.fail = torch, validation, meter, steps, fail
        self.name = ""
        self.called = False
        self.trained = 0
        self.attending: Callable[[], bool] = lambda: False
        self.attentive = False
        self.calls: list[Call] = []
        self.targets = Targets(torch, validation.recorder, meter)
        self._last: Any = None
        self._shape: Any = ()

    def attend(self, attending: Callable[[], bool]) -> None:
        """Note calls from now on, as long as `attending()` says so."""
        self.attending, self.attentive = attending, True

    def install(self, patches: Patches) -> None:
        """Put a stand-in in place of each loss function."""
        patches.keep_compiler_out(self._evaluated)
        patches.keep_compiler_out(self._note)
        patches.keep_compiler_out(self._note_target)
        for name in LOSS_FUNCTIONS:
            if hasattr(self.torch.nn.functional, name):
                patches.replace(self.torch.nn.functional, name, functools.partial(self._wrap, patches, name))

    def _wrap(self, patches: Patches, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        compiling, training = self.torch.compiler.is_compiling, self.torch.is_grad_enabled
        evaluated, reference, at = self._evaluated, weakref.ref, _TARGETS.get(name, 1)
        note, targets, note_target = self._note, self.targets, self._note_target

        def loss(*args: Any, **kwargs: Any) -> Any:
            try:
                out = original(*args, **kwargs)
            except BaseException:
                hide_from_traceback()
                raise
            if compiling():
                return out
            if not training():
                evaluated(patches, args, kwargs, out)
                return out
            try:
                # Weakly: a reference of ours must not keep the output alive through the backward pass.
                target = args[at] if len(args) > at else kwargs["target"]
                self._last = reference(args[0]), reference(target)
                self._shape = args[0].shape
                self.name = name
                self.called = True
            except (TypeError, LookupError, AttributeError):
                self._last = None
                return out
            if self.attentive:
                note(name)
            if targets.wait:
                targets.wait -= 1
            else:
                note_target(patches, name, args, kwargs, target)
            return out

        return loss

    def _note(self, name: str) -> None:
        """Note the call that has just been made."""
        self.attentive = self.attending()
        given, target = self.last()
        if not self.attentive or len(self.calls) >= _CALLS or given is None or target is None:
            return
        with suppress(Exception):
            if given.requires_grad:
                likely = name == "cross_entropy" and self._probabilities(given)
                self.calls.append(Call(name, tuple(given.shape), tuple(target.shape), likely, places.here()))

    def _probabilities(self, given: Any) -> bool:
        """Whether every row lies on the simplex: logits don't, not even by chance."""
        if not given.is_cpu or not given.is_floating_point() or given.dim() != 2 or min(given.shape) < 2:
            return False
        rows = given.detach()[:: max(1, len(given) // _ROWS)].double()
        return bool(rows.min() >= 0 and (rows.sum(1) - 1).abs().max() < 1e-2)

    def _evaluated(self, patches: Patches, args: Any, kwargs: Any, out: Any) -> None:
        if not patches.active:
            return
        began = perf_counter()
        try:
            given = args[0] if args else kwargs["input"]
            # What was computed with gradient belongs to training: a metric of the batch, a custom autograd function.
            if given.requires_grad or self.torch._C._get_tracing_state():
                return
            rows = int(given.shape[0]) if given.dim() else 1
            if rows:
                value = out.detach()
                if value.dim():
                    value = value.mean(dtype=self.torch.float32)
                elif kwargs.get("reduction") == "sum":
                    value = value / rows

                def again() -> bool:
                    return self._trained_on((*args[1:], *kwargs.values()))

                self.validation.see(self.steps(), value.item() if value.is_cpu else value, rows, again)
        except Exception as error:
            self.fail("loss", error)
        finally:
            self.meter.spent += perf_counter() - began

    def _trained_on(self, targets: Any) -> bool:
        """Whether the last loss in training had one of these for its target."""
        _, trained = self.last()
        if trained is None:
            return False
        like = [t for t in targets if getattr(t, "shape", None) == trained.shape and t.dtype == trained.dtype]
        return any(t is trained or (t.is_cpu and self.torch.equal(t, trained)) for t in like)

    def _note_target(self, patches: Patches, name: str, args: Any, kwargs: Any, target: Any) -> None:
        given = args[0]
        try:
            if patches.active and given.requires_grad and not self.torch._C._get_tracing_state():
                weighted = [*args[2:], kwargs.get("weight"), kwargs.get("pos_weight"), kwargs.get("label_smoothing")]
                plain = kwargs.get("reduction", "mean") == "mean" and all(
                    w is None or w is False or (isinstance(w, float) and w == 0) for w in weighted
                )
                self.targets.see(name, given, target, self.steps(), plain)
        except Exception as error:
            self.fail("targets", error)

    def by_hand(self, name: str, given: Any, target: Any, scale: float) -> None:
        """A loss written out by hand that does what the function `name` does.

        Args:
            name: the function of torch's.
            given: its output; the caller keeps both tensors as long as `last` shall know them, and has paid for this.
            target: its target.
            scale: the loss over that function's mean; NaN where it is no multiple of that.
        """
        self._last = weakref.ref(given), weakref.ref(target)
        self._shape = given.shape
        if self.targets.wait < 1 << 30:
            self.targets.see(name, given, target, self.steps(), scale == scale, scale, paid=True)

    def last(self) -> list[Any]:
        """Output and target that the last loss function in training was given, None for one that is gone."""
        return [None, None] if self._last is None else [reference() for reference in self._last]

    def rows(self) -> int:
        """Rows that the last loss call in training was given; 0 where there was none since this was asked last.

        By its shape: what it was given is often gone by the time of the step.
        """
        shape, self._shape = self._shape, ()
        if not shape:
            return 0
        self.trained = int(shape[0])
        return self.trained
