"""Where what is not finite came from: every operation looked at, each NaN and Inf followed back to where it began.

A NaN that never reaches the loss is no fault (a metric of an empty class, values that a mask hides). So the first that
turns up is not what is wanted, but the one that the loss' own came from: each tensor that isn't finite has an *origin*,
handed on by every operation that was given it. A NaN made of an Inf has that Inf's origin as its cause.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["", "nan", "inf"]

# What they leave is not a result yet.
_UNFILLED = frozenset({"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"})
# An Inf out of these was put there on purpose: a mask, the start of a search for the least.
_FILLS = frozenset({
    "fill", "fill_", "full", "full_like", "new_full", "scalar_tensor", "masked_fill", "masked_fill_", "where",
    "constant_pad_nd", "lift_fresh", "lift_fresh_copy",
})  # fmt: skip
# What they write over has no part in the result.
_OVERWRITE = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_", "exponential_"})
_INPUTS = 3


@dataclass(eq=False)
class Origin:
    """Where something not finite began.

    Attributes:
        kind: what it was.
        operation: the operation that made it; "" where it was there already.
        inputs: what that was given: `size`, `min` and `max` of what is finite, how many `zeros` and `bad` there are.
        around: where that was, as the trace that follows the run tells it.
        constant: whether it was put there on purpose.
        cause: for a NaN, the Inf it was made of.
    """

    kind: Kind
    operation: str
    inputs: list[dict[str, Any]] = field(default_factory=list)
    around: dict[str, Any] = field(default_factory=dict)
    constant: bool = False
    cause: Origin | None = None

    def root(self) -> Origin:
        """The first that went wrong: what was put there on purpose isn't that."""
        return self if self.cause is None or self.cause.constant else self.cause

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"kind": self.kind, "operation": self.operation, "inputs": self.inputs, **self.around}


class Taints(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is not finite through all operations while it is entered.

    Args:
        around: tells where a tensor was made, given it and whether what it was made of depends on what is trained; None
            for a tensor that had been there before.
    """

    def __init__(self, around: Callable[[Tensor, bool | None], dict[str, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.around = around
        self.failed: Exception | None = None
        self._origins: dict[int, Origin] = {}
        self._pid = os.getpid()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and look at what it made."""
        kwargs = kwargs or {}
        if os.getpid() != self._pid or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
            return func(*args, **kwargs)
        call = None
        try:
            call = _Call(func, args, kwargs)
        except Exception as error:
            self.failed = self.failed or error
        result = func(*args, **kwargs)
        try:
            if call is not None and call.name not in _UNFILLED:
                self._look(call, result)
        except Exception as error:
            self.failed = self.failed or error
        return result

    def origin(self, tensor: Tensor) -> Origin | None:
        """Where what isn't finite in a tensor began; None where all of it is finite."""
        kind = kind_of(tensor)
        return self._known(tensor, kind) if kind else None

    def knows(self, tensor: Tensor) -> bool:
        """Whether the origin of what isn't finite in a tensor is known."""
        return _key(tensor) in self._origins

    def inherit(self, tensor: Tensor, source: Tensor | None, operation: str) -> None:
        """Something out of sight wrote a tensor: what isn't finite in it comes from `source`, or began there."""
        kind = kind_of(tensor)
        if kind:
            known = None if source is None else self.origin(source)
            self._origins[_key(tensor)] = known or Origin(kind, operation, [], self.around(tensor, True))

    def _look(self, call: _Call, result: Any) -> None:
        for made, index in (*_listed(result), *call.written):
            kind, key = kind_of(made), _key(made)
            if kind:
                self._origins[key] = self._origin(call, made, kind, index)
            elif made.layout is torch.strided and made.numel() * made.element_size() >= made.untyped_storage().nbytes():
                self._origins.pop(key, None)

    def _origin(self, call: _Call, made: Tensor, kind: Kind, index: int | None) -> Origin:
        given = list(call.given(made, index))
        nans = [self._known(t, k) for t, k in given if k == "nan"]
        infs = sorted((self._known(t, k) for t, k in given if k == "inf"), key=lambda o: o.constant)
        if nans and (kind == "nan" or not infs):
            return nans[0]
        if infs and kind == "inf":
            return infs[0]
        constant = kind == "inf" and (call.name in _FILLS or any(abs(x) == torch.inf for x in call.numbers))
        around = self.around(made, any(t.requires_grad for t, _ in given))
        origin = Origin(kind, call.name, call.described(index), around, constant)
        origin.cause = infs[0] if infs else None
        return origin

    def _known(self, tensor: Tensor, kind: Kind) -> Origin:
        key = _key(tensor)
        if key not in self._origins:
            around = {**self.around(tensor, None), **_bad_ones(tensor)}
            constant = kind == "inf" and _is_mask(tensor)
            self._origins[key] = Origin(kind, "", [_described(tensor)], around, constant)
        return self._origins[key]


class _Call:
    """An operation about to run, with the state of what it will write over."""

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.name = str(func.overloadpacket.__name__)
        self.arguments: list[tuple[Any, bool]] = []
        self.written: list[tuple[Tensor, int | None]] = []
        self._before: dict[int, tuple[Kind, dict[str, Any]]] = {}
        schema = func._schema.arguments
        named = [*zip(schema, args, strict=False), *((a, kwargs[a.name]) for a in schema if a.name in kwargs)]
        for argument, value in named:
            written = argument.alias_info is not None and argument.alias_info.is_write
            read = not (written and (argument.kwarg_only or self.name in _OVERWRITE))
            if written:
                self.written += _listed(value)
                if read:
                    self._before |= {id(t): _state(t) for t, _ in self.written}
            if read:
                self.arguments.append((value, written))
        self.numbers = [float(v) for v, _ in self.arguments if isinstance(v, float)]

    def _read(self, index: int | None) -> Iterator[Tensor]:
        """What the result is made of; of a list's element that element."""
        for value, _ in self.arguments:
            listed = _listed(value)
            at = [t for t, i in listed if i == index] if index is not None and len(listed) > 1 else []
            yield from at or [t for t, _ in listed]

    def given(self, made: Tensor, index: int | None) -> Iterator[tuple[Tensor, Kind]]:
        for tensor in self._read(index):
            known = self._before.get(id(tensor))
            yield tensor, kind_of(tensor) if known is None else known[0]

    def described(self, index: int | None) -> list[dict[str, Any]]:
        tensors = [self._before[id(t)][1] if id(t) in self._before else _described(t) for t in self._read(index)]
        return [*tensors, *({"value": x} for x in self.numbers)][:_INPUTS]


def kind_of(tensor: Tensor) -> Kind:
    """Whether there is a NaN in a tensor, or else an Inf."""
    return _kind(_ends(tensor))


def _kind(ends: list[float]) -> Kind:
    if any(x != x for x in ends):
        return "nan"
    return "inf" if any(abs(x) == torch.inf for x in ends) else ""


def _state(tensor: Tensor) -> tuple[Kind, dict[str, Any]]:
    """What there is to know of a tensor before it is written over, as cheaply as can be: it happens at every update."""
    told: dict[str, Any] = {"size": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    ends = _ends(tensor)
    kind = _kind(ends)
    return kind, told | ({"min": ends[0], "max": ends[1], "bad": 0} if ends and not kind else {})


def _ends(tensor: Tensor) -> list[float]:
    """The least and the greatest value, both NaN if any is; nothing of what holds no such numbers."""
    value = _plain(tensor.detach())
    number = value.is_floating_point() or value.is_complex()
    if not number or not value.numel() or value.is_meta or value.layout is not torch.strided:
        return []
    value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    try:
        return torch.stack(torch.aminmax(value)).tolist()
    except RuntimeError:  # a type that has no order: of 8 bits
        return torch.stack(torch.aminmax(value.float())).tolist()


def _key(tensor: Tensor) -> int:
    if tensor.layout not in (torch.strided, torch.sparse_coo):
        return id(tensor)
    return _plain(tensor).untyped_storage().data_ptr() or id(tensor)


def _listed(value: Any) -> list[tuple[Tensor, int | None]]:
    """The tensors in an argument or result, with their place in a list of them."""
    if isinstance(value, Tensor):
        return [(_plain(value), None)]
    if isinstance(value, list | tuple):
        return [(_plain(t), k) for k, t in enumerate(value) if isinstance(t, Tensor)]
    return []


def _plain(tensor: Tensor) -> Tensor:
    """The values of a sparse tensor."""
    return tensor._values() if tensor.layout is torch.sparse_coo else tensor


def _described(tensor: Tensor) -> dict[str, Any]:
    value = tensor.detach()
    told: dict[str, Any] = {"size": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if not value.is_floating_point() or not value.numel() or value.layout is not torch.strided:
        return told
    good = value[torch.isfinite(value)].double()
    told["bad"] = value.numel() - good.numel()
    if good.numel():
        low, high = torch.stack(torch.aminmax(good)).tolist()
        told |= {"min": low, "max": high, "zeros": int((good == 0).sum())}
    return told


def _bad_ones(tensor: Tensor) -> dict[str, Any]:
    """Which columns (places in the last dimension) of something given hold what isn't finite, if few do."""
    value = tensor.detach()
    if value.layout is not torch.strided or value.ndim < 2:
        return {}
    bad = (~torch.isfinite(value)).reshape(-1, value.shape[-1]).any(0)
    columns = bad.nonzero().flatten()[:4].tolist()
    return {"columns": columns} if int(bad.sum()) == len(columns) < value.shape[-1] else {}


def _is_mask(tensor: Tensor) -> bool:
    """Whether all that is finite in it is one number."""
    value = tensor.detach()
    good = value[torch.isfinite(value)]
    return not good.numel() or bool((good == good[0]).all())
