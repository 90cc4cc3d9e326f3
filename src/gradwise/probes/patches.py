"""Functions of torch replaced while watching, in a way that the script can't tell, and put back afterwards.

A stand-in is called in the original's place, and calls it. That could show in four ways, each dealt with here:
warnings blamed on the caller would be blamed on ours; an uncaught exception's traceback would have our frame in it;
`torch.compile` would compile our code along with the script's; TorchScript would try to compile ours for torch's.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Python's `warnings` passes over frames whose file has both words in its name, on its way out to who is to blame.
_UNBLAMED = " (importlib_bootstrap)"


class Patches:
    """A list of replacements that can be undone in one go.

    Attributes:
        active: whether they have not been undone. A stand-in that someone kept then does nothing but its original's.
    """

    def __init__(self, torch: ModuleType) -> None:
        self.torch = torch
        self.active = True
        self._undo: list[Callable[[], None]] = []

    def replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Set `owner.name` to `wrap(its value)`; restored by `undo` unless someone replaced it again meanwhile.

        Args:
            owner: a module or class.
            name: the function's name in it.
            wrap: makes the stand-in, a Python function that calls what `wrap` was given.
        """
        original = owner.__dict__.get(name) or getattr(owner, name)
        stand_in: Any = functools.wraps(original)(wrap(original))
        stand_in.__code__ = stand_in.__code__.replace(co_filename=stand_in.__code__.co_filename + _UNBLAMED)
        # TorchScript asks a function what to compile for it, and finds names in that one's module;
        stand_in.__prepare_scriptable__ = lambda: original
        # what `torch.jit.script_if_tracing` puts on a function does the same elsewhere.
        setattr(stand_in, "__original_fn", original)
        stand_in.__script_if_tracing_wrapper = True
        self.keep_compiler_out(stand_in, recursively=False)
        setattr(owner, name, stand_in)

        def restore() -> None:
            if owner.__dict__.get(name) is stand_in:
                setattr(owner, name, original)

        self._undo.append(restore)

    def keep_compiler_out(self, function: Any, recursively: bool = True) -> Any:
        """Let `torch.compile` run `function`, and what it calls, as it is wherever it comes upon it; returns it.

        This is what `torch.compiler.disable` does, without importing the compiler and without a wrapper.
        """
        with suppress(Exception):
            frames = self.torch._C._dynamo.eval_frame
            skip, default = frames._FrameAction.SKIP, frames._FrameAction.DEFAULT
            strategy = frames._FrameExecStrategy(skip, skip if recursively else default)
            frames.set_code_exec_strategy(function.__code__, strategy)
            if recursively:
                getattr(function, "__func__", function)._torchdynamo_disable = True
        return function

    def on_undo(self, action: Callable[[], None]) -> None:
        """Something else to take back."""
        self._undo.append(action)

    def undo(self) -> None:
        """Put everything back, last first."""
        self.active = False
        while self._undo:
            self._undo.pop()()


def hide_from_traceback() -> None:
    """An exception of torch's passes through a stand-in: if it ends the script, print it as if we were not there."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_exception


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    with suppress(Exception):
        _without_us(error, set())
        trace = error.__traceback__
    sys.__excepthook__(kind, error, trace)


def _without_us(error: BaseException, seen: set[int]) -> None:
    if id(error) in seen:
        return
    seen.add(id(error))
    kept: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OURS):
            kept.append(trace)
        trace = trace.tb_next
    for this, following in zip(kept, [*kept[1:], None], strict=True):
        this.tb_next = following
    if kept:
        error.__traceback__ = kept[0]
    for other in (error.__cause__, error.__context__):
        if other is not None:
            _without_us(other, seen)
