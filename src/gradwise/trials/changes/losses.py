"""Changes to what loss functions are given; and, in a run that trains as it did, what they would have given then.

A remedy that changes the loss itself can't be judged by each run's own: so its partner, which trains as the script
has it, *records* the corrected loss. Every correction therefore has two ways to act, on training or on the record.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gradwise.probes.losses import LOSS_FUNCTIONS
from gradwise.trials.changes.base import Change, Stage

_ON_LOGITS = frozenset({
    "binary_cross_entropy_with_logits", "cross_entropy", "multilabel_soft_margin_loss", "soft_margin_loss",
})  # fmt: skip
# Those that lay prediction and target over each other, whatever their shapes.
_BROADCASTING = frozenset({
    "gaussian_nll_loss", "huber_loss", "l1_loss", "mse_loss", "poisson_nll_loss", "smooth_l1_loss",
})  # fmt: skip
_RESHAPES = ("squeeze", "unsqueeze", "view", "reshape", "flatten", "__getitem__", "contiguous", "float")


class Correction(Change):
    """A change of a loss function's arguments.

    Args:
        stage: shared by all changes of the run.
        value: True.
        score: where only the record is to be corrected: what training has instead.
    """

    def __init__(self, stage: Stage, value: Any, score: Score | None = None) -> None:
        super().__init__(stage, value)
        self.score = score

    def install(self) -> None:
        """Take the place of the loss functions."""
        for name in LOSS_FUNCTIONS:
            if hasattr(torch.nn.functional, name):
                self.stage.patches.replace(torch.nn.functional, name, functools.partial(self._wrap, name))

    def correct(self, name: str, given: Any, target: Any) -> tuple[Any, Any] | None:
        """Prediction and target as they should be; None where they are."""
        raise NotImplementedError

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        plain = original
        while hasattr(plain, "__wrapped__"):  # torch's own, without the watcher
            plain = plain.__wrapped__

        def loss(*args: Any, **kwargs: Any) -> Any:
            right = self._corrected(name, args, kwargs)
            if right is None:
                return original(*args, **kwargs)
            self.found += 1
            if self.score is None:
                return original(*right[0], **right[1])
            if not torch.is_grad_enabled():
                original(*right[0], **right[1])  # the watcher records this one
                return plain(*args, **kwargs)
            out = original(*args, **kwargs)
            with torch.no_grad():
                self.score.shadow(out, plain(*right[0], **right[1]))
            return out

        return loss

    def _corrected(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        given = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if not isinstance(given, torch.Tensor) or not isinstance(target, torch.Tensor):
            return None
        right = self.correct(name, given, target)
        if right is None:
            return None
        named = {k: v for k, v in kwargs.items() if k not in ("input", "target")}
        return (*right, *args[2:]), named


class Logits(Correction):
    """The loss is given what the softmax or sigmoid right before it was given."""

    wanting = "no softmax or sigmoid leads straight into a loss that applies it itself"

    def __init__(self, stage: Stage, value: Any, score: Score | None = None) -> None:
        super().__init__(stage, value, score)
        self._before: Any = WeakTensorKeyDictionary()

    def install(self) -> None:
        """Remember, for what a softmax or sigmoid returns, what it was given."""
        super().install()
        functional, tensor = torch.nn.functional, torch.Tensor
        for owner in (functional, torch, tensor):
            for name in ("softmax", "sigmoid"):
                self.stage.patches.replace(owner, name, self._wrap_squashing)
        for name in _RESHAPES:
            self.stage.patches.replace(tensor, name, self._wrap_reshape)
            if name in ("squeeze", "unsqueeze", "flatten", "reshape"):
                self.stage.patches.replace(torch, name, self._wrap_reshape)

    def correct(self, name: str, given: Any, target: Any) -> tuple[Any, Any] | None:
        """The logits, where the prediction came from them by a softmax or sigmoid."""
        logits = self._before.get(given) if name in _ON_LOGITS else None
        return None if logits is None else (logits, target)

    def _wrap_squashing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def squashing(*args: Any, **kwargs: Any) -> Any:
            out = original(*args, **kwargs)
            self._before[out] = args[0] if args else kwargs["input"]
            return out

        return squashing

    def _wrap_reshape(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def reshape(*args: Any, **kwargs: Any) -> Any:
            out = original(*args, **kwargs)
            before = self._before.get(args[0]) if len(self._before) and args else None
            if before is not None and out is not args[0]:
                self._before[out] = original(before, *args[1:], **kwargs)
            return out

        return reshape


class MatchShapes(Correction):
    """The target takes the prediction's shape where they hold equally many numbers and would be spread out."""

    wanting = "predictions and targets have the same shape at every loss"

    def install(self) -> None:
        """Look at differences, too."""
        super().install()
        for owner, name in ((torch.Tensor, "__sub__"), (torch.Tensor, "sub"), (torch, "sub")):
            self.stage.patches.replace(owner, name, self._wrap_sub)

    def correct(self, name: str, given: Any, target: Any) -> tuple[Any, Any] | None:
        """The target in the prediction's shape."""
        wrong = name in _BROADCASTING and given.shape != target.shape and given.numel() == target.numel()
        return (given, target.reshape(given.shape)) if wrong else None

    def _wrap_sub(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A loss written by hand: a column that depends on parameters less a row that doesn't, or the other way."""

        def sub(*args: Any, **kwargs: Any) -> Any:
            if len(args) != 2 or not _column_and_row(*args) or args[0].requires_grad == args[1].requires_grad:
                return original(*args, **kwargs)
            self.found += 1
            one, other = args
            right = (one, other.reshape(one.shape)) if one.requires_grad else (one.reshape(other.shape), other)
            if self.score is None:
                return original(*right, **kwargs)
            out = original(*args, **kwargs)
            with torch.no_grad():
                self.score.shadow(out, original(*right, **kwargs))
            return out

        return sub


def _column_and_row(one: Any, other: Any) -> bool:
    """Whether these are a column and a row of equally many numbers (more than one)."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)) or one.dim() + other.dim() != 3:
        return False
    column, row = (one, other) if one.dim() == 2 else (other, one)
    return row.dim() == 1 and row.shape[0] > 1 and tuple(column.shape) == (row.shape[0], 1)


class Score(Change):
    """Carries corrected values beside those that a script computes from its loss, and has them recorded.

    What a script makes of its loss (a sum of several, a share of it, a penalty on top) is made of the corrected one
    at the same time, function by function, and never seen by the script.
    """

    patience = None

    def install(self) -> None:
        """Follow what becomes of the losses."""
        mode: Any = _Shadows()
        self._mode = mode
        mode.__enter__()
        self.stage.patches.on_undo(lambda: mode.__exit__(None, None, None))

    def shadow(self, tensor: Any, right: Any) -> None:
        """`right` is what `tensor` would be."""
        self._mode.known[tensor] = right

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        """Let the watcher record the corrected value of what is differentiated."""
        unscaler = self.stage.watcher.unscaler
        for tensor in tensors:
            right = self._mode.known.get(unscaler.original(tensor))
            if right is not None:
                key = id(tensor)
                gone = weakref.ref(tensor, functools.partial(_forget, unscaler.scaled, key))
                unscaler.scaled[key] = gone, right
        return tensors


def _forget(known: dict[int, Any], key: int, _: Any) -> None:
    known.pop(key, None)


class _Shadows(TorchFunctionMode):
    """Calls every function on shadows a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = WeakTensorKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not len(self.known):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        has = any(self._of(each) is not None for each in (*_flat(args), *kwargs.values()))
        if not has or name in ("backward", "__get__", "__set__", "register_hook", "__repr__", "__format__"):
            return func(*args, **kwargs)
        right = None
        changing = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        with torch.no_grad():
            others = self._swap(args), {k: self._swap(v) for k, v in kwargs.items()}
            if changing and self._of(args[0]) is None and isinstance(args[0], torch.Tensor):
                others = (args[0].detach().clone(), *others[0][1:]), others[1]
            try:
                right = func(*others[0], **others[1])
            except Exception:  # then this value has no shadow
                right = None
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and isinstance(right, torch.Tensor):
            self.known[out] = right
        return out

    def _of(self, value: Any) -> Any:
        return self.known.get(value) if isinstance(value, torch.Tensor) else None

    def _swap(self, value: Any) -> Any:
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return type(value)(self._swap(each) for each in value)
        found = self._of(value)
        return value if found is None else found


def _flat(values: Any) -> list[Any]:
    return [each for v in values for each in (_flat(v) if isinstance(v, list | tuple) else [v])]


CORRECTIONS: dict[str, type[Correction]] = {"logits": Logits, "match-shapes": MatchShapes}
"""The fixes that change the loss itself."""
