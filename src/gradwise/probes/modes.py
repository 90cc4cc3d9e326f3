"""Modes: whether modules that act otherwise while training (dropout, batch normalization) are in the right mode."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from types import CodeType, ModuleType
from typing import Any

from gradwise.probes import places
from gradwise.probes.examinations import Exam
from gradwise.probes.names import Names
from gradwise.probes.ownership import Loaded, modules_of
from gradwise.probes.patches import Patches
from gradwise.probes.recorder import Recorder
from gradwise.probes.registry import Registry
from gradwise.probes.sampling import Meter
from gradwise.recording.recording import Place

_NAMED = 6
# Steps after `eval()` at which its module should be back in training mode, if it goes on training.
_BACK = 3
_GROWTH = 1.25
_SECOND = 2


class Modes:
    """An examiner that records "mode" (of models while they train) and "evaluated" (while they are evaluated).

    Both are recorded once, and again whenever what they say changes.
    """

    def __init__(
        self, torch: ModuleType, recorder: Recorder, names: Names, registry: Registry, loaded: Loaded, meter: Meter
    ) -> None:
        self.torch, self.recorder, self.names = torch, recorder, names
        self.registry, self.loaded, self.meter = registry, loaded, meter
        self._told: dict[Any, Any] = {}
        self._evals: dict[int, tuple[weakref.ref[Any], tuple[CodeType, int] | None]] = {}
        self._passes: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        self._countdown = self._due = 0

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Watch `Module.eval`, to know the line that called it."""
        compiling, note = torch.compiler.is_compiling, patches.keep_compiler_out(self._note_eval)

        def wrap(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def evaluate(module: Any) -> Any:
                if not compiling():
                    note(module)
                return original(module)

            return evaluate

        patches.replace(torch.nn.Module, "eval", wrap)

    def _note_eval(self, module: Any) -> None:
        with suppress(Exception):
            frame = places.user_frame(sys._getframe(1))
            self._evals[id(module)] = weakref.ref(module), frame and (frame.f_code, frame.f_lineno)
            if not self._countdown and sum(t.steps for t in self.registry.all) >= self._due:
                self._countdown = _BACK

    @property
    def evals(self) -> int:
        """How many modules `eval()` was called of."""
        return len(self._evals)

    # while training

    def before(self, exam: Exam) -> None:
        """Look at the modes of the models that this loss depends on."""
        if not exam.passed:
            self._steps = {t.index: t.steps for t in self.registry.all}
        exam.notes["leaves"] = {id(leaf) for leaf in exam.graph.leaves()}
        exam.notes["modes"] = [(root, *modes_of(self.torch, root)) for root in self._roots()]

    def after(self, exam: Exam) -> None:
        """Tell of those that are trained."""
        # A model that was trained before, and now only hands gradients on, is rightly in evaluation mode.
        training_now = [t for t in self.registry.all if t.steps > self._steps.get(t.index, 0)]
        held = {id(p) for t in training_now for p in t.parameters()} & exam.notes["leaves"]
        self._tell(exam.step, held, exam.notes["modes"])

    def stepped(self, index: int, steps: int) -> None:
        """A step was made: a few steps after `eval()` was called is the time to see whether it still holds."""
        if not self._countdown:
            return
        self._countdown -= 1
        if self._countdown:
            return
        began = perf_counter()
        with suppress(Exception):
            self._due = int(_GROWTH * sum(t.steps for t in self.registry.all)) + 1
            tracked = next((t for t in self.registry.all if t.index == index), None)
            held = {id(p) for p in tracked.parameters() if p.grad is not None} if tracked else set()
            self._tell(steps, held, [(root, *modes_of(self.torch, root)) for root in self._roots()])
        self.meter.spent += perf_counter() - began

    def _tell(self, step: int, held: set[int], modes: Sequence[tuple[Any, bool, list[tuple[str, bool]]]]) -> None:
        """Record the modes of the models that have parameters among those held, where they changed."""
        for root, training, sensitive in modes:
            trained = any(id(p) in held for m in modules_of(root) for p in m._parameters.values())
            if not trained or not sensitive:
                continue
            name = type(root).__name__
            active = sum(on for _, on in sensitive)
            state = bool(training), active, len(sensitive)
            if self._told.get(id(root)) == state:
                continue
            self._told[id(root)] = state
            place = self._evaluated_at(root)
            data = {
                "model": name,
                "number": self._numbers.setdefault(id(root), len(self._numbers)),
                "training": bool(training),
                "active": active,
                "sensitive": len(sensitive),
                "modules": [n for n, _ in sensitive[:_NAMED]],
                "unused": self._unused(root),
                "loaded": self._loaded(root),
                "place": places.described(place),
            }
            self.recorder.event("mode", step, data=data)

    def finish(self) -> None:
        """Nothing is left to tell."""

    def _evaluated_at(self, root: Any) -> Place | None:
        known = self._evals.get(id(root))
        if known is None or known[0]() is not root or known[1] is None:
            return None
        return places.place(*known[1])

    def _unused(self, root: Any) -> int:
        """How many batch normalizations have never seen a batch: they still hold the statistics they were made with."""
        norm = self.torch.nn.modules.batchnorm._BatchNorm
        counts = [m._buffers.get("num_batches_tracked") for m in modules_of(root) if issubclass(type(m), norm)]
        return sum(count is not None and int(count) == 0 for count in counts)

    def _loaded(self, root: Any) -> bool:
        loaded = self.loaded.parameters()
        return any(id(p) in loaded for m in modules_of(root) for p in m._parameters.values() if p is not None)

    def _roots(self) -> list[Any]:
        """The outermost modules known."""
        modules = self.names.roots()
        inner = {id(child) for m in modules for child in modules_of(m) if child is not m}
        return [m for m in modules if id(m) not in inner]

    # while evaluating

    def evaluated(self, step: int, source: int, again: Callable[[], bool]) -> None:
        """A pass of losses without gradient begins; `again` tells if it is over what was just trained on."""
        with suppress(Exception):
            if not step or again():
                return
            states = [modes_of(self.torch, root) for root in self._roots()]
            active = sum(on for _, sensitive in states for _, on in sensitive)
            total = sum(len(sensitive) for _, sensitive in states)
            training = all(mode for mode, sensitive in states if sensitive)
            if not total:
                return
            self._passes[source] = self._passes.get(source, 0) + 1
            wrong = bool(training and active == total)
            # The second pass tells that it isn't over yet; later ones only what changed.
            if self._told.get(("evaluated", source)) == wrong and self._passes[source] != _SECOND:
                return
            self._told["evaluated", source] = wrong
            data = {
                "training": wrong,
                "passes": self._passes[source],
                "modules": [n for _, sensitive in states for n, _ in sensitive][:_NAMED],
                "evals": self.evals,
                "place": places.described(places.here()),
            }
            self.recorder.event("evaluated", step, source, data)


def modes_of(torch: ModuleType, root: Any) -> tuple[bool, list[tuple[str, bool]]]:
    """Whether a module is in training mode, and the same of each one in it that acts otherwise then, with its name."""
    nn = torch.nn.modules
    dropout, norm = nn.dropout._DropoutNd, nn.batchnorm._BatchNorm
    found = []
    for module in modules_of(root):
        kind = type(module)
        if (issubclass(kind, dropout) and getattr(module, "p", 0) > 0) or (
            issubclass(kind, norm) and getattr(module, "track_running_stats", False)
        ):
            found.append((kind.__name__, bool(module.training)))
    return bool(root.training), found
