"""Passes without gradient in which dropout and batch normalization act as in training: an evaluation, it may be.

Where a loss is evaluated, `gradwise.probes.modes` looks at the modules. A script that only counts hits calls no loss
function; but dropout and batch normalization are functions of torch's too, and are told which mode they are in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.patches import Patches, hide_from_traceback
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import Meter

if TYPE_CHECKING:
    from torch import Tensor

# Where these functions are told whether they are training, and by which argument they do nothing all the same.
_FUNCTIONS = {"dropout": 2, "dropout1d": 2, "dropout2d": 2, "dropout3d": 2, "alpha_dropout": 2, "batch_norm": 5}
# Calls of one pass that are compared with each other.
_COMPARED = 32
_NUMBERS = 64


class TrainingPasses:
    """Counts passes without gradient in training mode, each of as many calls as are made between two steps.

    Recorded as one event "training-passes" at the end, if there were any after the first step.
    """

    def __init__(
        self,
        torch: ModuleType,
        recorder: Recorder,
        steps: Callable[[], int],
        rows: Callable[[], int],
        evals: Callable[[], int],
        meter: Meter,
    ) -> None:
        """Args:
        steps: tells how many steps were made.
        rows: how many rows the last one had, 0 where that isn't known.
        evals: how many modules `eval()` was called of.
        """
        self.torch, self.recorder, self.meter = torch, recorder, meter
        self.steps, self.rows, self.evals = steps, rows, evals
        self.count = 0  # passes over more than what was just trained on
        self.again = 0  # of these, such that were given the same rows several times
        self._step = -1
        self._first: Any = None
        self._seen: list[tuple[int, Any]] = []
        self._known: dict[str, Any] = {}
        self._names: set[str] = set()

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Put a stand-in in place of each function."""
        patches.keep_compiler_out(self._note)
        for name, at in _FUNCTIONS.items():
            if hasattr(torch.nn.functional, name):
                patches.replace(torch.nn.functional, name, self._wrapper(patches, name, at))

    def _wrapper(self, patches: Patches, name: str, at: int) -> Callable[[Any], Any]:
        differentiable, compiling, note = self.torch.is_grad_enabled, self.torch.compiler.is_compiling, self._note
        default = name != "batch_norm"

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def function(*args: Any, **kwargs: Any) -> Any:
                if not differentiable() and not compiling() and patches.active:
                    note(name, args, args[at] if len(args) > at else kwargs.get("training", default))
                try:
                    return original(*args, **kwargs)
                except BaseException:
                    hide_from_traceback()
                    raise

            return function

        return wrap

    def _note(self, name: str, args: Any, training: Any) -> None:
        step = self.steps()
        if training is not True or not step or not args:
            return
        began = perf_counter()
        with suppress(Exception):
            if step != self._step:
                self._close()
                self._step, self._seen, self._first = step, [], None
            self._names.add(name)
            given: Tensor = args[0]
            caller = _caller()
            self._first = self._first or caller
            # One layer stands for the model: how often it is called is how often that is.
            if caller == self._first and len(self._seen) < _COMPARED and given.dim():
                few = given.detach().reshape(-1)[:_NUMBERS]
                self._seen.append((int(given.shape[0]), tuple(few.tolist()) if few.is_cpu else len(self._seen)))
                if not self._known:
                    self._known = {"place": _evaluating()}
        self.meter.spent += perf_counter() - began

    def _close(self) -> None:
        """The pass is over."""
        seen, trained = self._seen, self.rows()
        # One call on rows like those of the step looks at the training itself; an evaluation is of more.
        if len(seen) > 1 or (seen and seen[0][0] > 2 * trained > 0):
            self.count += 1
            self.again += len({numbers for _, numbers in seen}) < len(seen)

    def finish(self) -> None:
        """Record what there was."""
        self._close()
        self._seen = []
        if self.count:
            data = {"passes": self.count, "again": self.again, "evals": self.evals(), "functions": sorted(self._names)}
            self.recorder.event("training-passes", self._step, data=data | self._known)


def _caller() -> Any:
    """What called the stand-in's original: a layer, or a line of a function."""
    frame = sys._getframe(3)
    return frame.f_code, frame.f_lineno, id(frame.f_locals.get("self"))


def _evaluating() -> dict[str, Any] | None:
    """The user's line that the model was called from: the innermost outside of its own forward methods."""
    frames = places.callers(12)
    frame = next((f for f in frames if f.f_code.co_name not in ("forward", "__call__")), None)
    return places.described(None if frame is None else places.place_of(frame))
