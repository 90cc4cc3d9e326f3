"""The script's calls of modules: which it makes itself, and what happens within them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradwise.trials.changes.base import Stage


@dataclass(slots=True)
class Call:
    """A call that the script itself makes of a module with parameters.

    Attributes:
        training: whether gradients are wanted of it.
        site: file and line of the script that make it.
        frame: the function there.
        undo: what to do when it has returned.
    """

    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    training: bool
    frame: FrameType | None
    undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def site(self) -> tuple[str, int]:
        """File and line of the script that make it."""
        return ("", 0) if self.frame is None else (self.frame.f_code.co_filename, self.frame.f_lineno)

    @property
    def differentiates(self) -> bool:
        """Whether the function that makes the call also makes a backward pass."""
        return self.frame is not None and "backward" in self.frame.f_code.co_names


class Calls:
    """Follows calls of modules, compiled code left out: what `torch.compile` made of a model can't be changed.

    Attributes:
        before: called with each `Call`, and may change its arguments.
        after: called with each `Call` and what it returned; what they return is returned in its place.
        outer: the call that is running.
        stack: the modules that are running in it, outermost first.
    """

    def __init__(self, stage: Stage) -> None:
        self.torch, self.stage = stage.torch, stage
        self.before: list[Callable[[Call], None]] = []
        self.after: list[Callable[[Call, Any], Any]] = []
        self.outer: Call | None = None
        self.stack: list[Any] = []
        self._weighty: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        nn = stage.torch.nn
        stage.patches.replace(nn.Module, "__call__", self._wrap)
        stage.patches.replace(nn.Module, "compile", lambda original: lambda module, *args, **kwargs: None)
        stage.patches.replace(stage.torch, "compile", _not_compiled)
        # Inference in one fused kernel would pass by the layers that are changed.
        fast = stage.torch.backends.mha.get_fastpath_enabled()
        stage.torch.backends.mha.set_fastpath_enabled(False)
        stage.patches.on_undo(lambda: stage.torch.backends.mha.set_fastpath_enabled(fast))

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            if self.outer is not None:
                with self._inside(module):
                    return original(module, *args, **kwargs)
            if not self._has_parameters(module):  # a loss, an activation by itself
                return original(module, *args, **kwargs)
            frame = places.callers(1)
            outer = Call(module, args, kwargs, self.torch.is_grad_enabled(), frame[0] if frame else None)
            try:
                for each in self.before:
                    self.stage.attempt(each, outer)
                self.outer = outer
                with self._inside(module):
                    out = original(module, *outer.args, **outer.kwargs)
            finally:
                self.outer = None
                while outer.undo:
                    outer.undo.pop()()
            for then in self.after:
                out = then(outer, out)
            return out

        return call

    @contextmanager
    def _inside(self, module: Any) -> Iterator[None]:
        self.stack.append(module)
        try:
            yield
        finally:
            self.stack.pop()

    def _has_parameters(self, module: Any) -> bool:
        known = self._weighty.get(module)
        if known is None:
            # Not by `parameters()`, which the watcher takes for the script's asking.
            known = any(p is not None for m in module.modules() for p in m._parameters.values())
            self._weighty[module] = known
        return known


def _not_compiled(original: Callable[..., Any]) -> Callable[..., Any]:
    def compile(model: Any = None, **kwargs: Any) -> Any:  # noqa: A001 - its name
        return (lambda function: function) if model is None else model

    return compile


def tensors_in(value: Any) -> list[Any]:
    """The tensors in what a module returned, at any depth."""
    if hasattr(value, "grad_fn"):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for each in value for t in tensors_in(each)] if isinstance(value, list | tuple) else []
