"""Reading and writing memory by address, from compiled code.

Arrays that a step touches never overlap, but a compiler can't know that of addresses, and checking all pairs of them
before each loop it soon finds too dear to vectorize at all. So each access carries LLVM metadata saying to which array
(slot) it belongs, and that it is none of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

SLOTS = 16
_WORD, _DOUBLE = ir.IntType(64), ir.DoubleType()
_REALS = {types.float32: (ir.FloatType(), 4), types.float64: (_DOUBLE, 8)}


def _mark(builder: Any, access: Any, slot: int, align: int) -> None:
    add = builder.module.add_metadata
    domain = add(["gradwise"])
    scopes = [add([f"slot {k}", domain]) for k in range(SLOTS)]
    access.set_metadata("alias.scope", add([scopes[slot]]))
    access.set_metadata("noalias", add([s for k, s in enumerate(scopes) if k != slot]))
    access.align = align


def _at(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [index], inbounds=True)


def accessors(real: Any, slot: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`load(address, i)` and `store(address, i, value)` of the i-th number of type `real` in array `slot`."""
    kind, size = _REALS[real]

    @intrinsic
    def load(_: Any, address: Any, index: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            value = builder.load(_at(builder, args[0], args[1], kind))
            _mark(builder, value, slot, size)
            return value

        return real(types.int64, types.int64), generate

    @intrinsic
    def store(_: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _mark(builder, builder.store(args[2], _at(builder, args[0], args[1], kind)), slot, size)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, real), generate

    return load, store


@intrinsic
def address_of(_: Any, pointer: Any) -> Any:
    """A pointer as a number."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], _WORD)

    return types.int64(types.voidptr), generate


@intrinsic
def word(_: Any, address: Any, index: Any) -> Any:
    """The index-th 64-bit integer at an address."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], args[1], _WORD))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def double(_: Any, address: Any, index: Any) -> Any:
    """The index-th double at an address."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], args[1], _DOUBLE))

    return types.float64(types.int64, types.int64), generate


@intrinsic
def put_double(_: Any, address: Any, index: Any, value: Any) -> Any:
    """Set the index-th double at an address."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        builder.store(args[2], _at(builder, args[0], args[1], _DOUBLE))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), generate


@intrinsic
def next_of(_: Any, address: Any) -> Any:
    """The counter at an address, which is one higher afterwards; threads that share it each get another number."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _WORD.as_pointer()), _WORD(1), "monotonic")

    return types.int64(types.int64), generate
