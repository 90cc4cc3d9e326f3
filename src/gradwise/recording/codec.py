"""Column blocks: a stretch of one series as bytes, at most 6 bytes a value for any training's numbers.

How a block is kept is settled by its numbers:

- steps: first and stride where they are evenly spaced, else their differences;
- values: exact, as float32 where they all are float32 (losses and norms of float32 tensors), else as float64
  where that is short or compresses (rates, counts); float64 noise loses the last 16 of its 52 bits of
  mantissa, which leaves 11 digits (relative error at most 2^-37);
- times (where `encode` is told that they are): whole microseconds, their differences.

NaN and infinities stay what they are. Bytes that are alike are brought together (all first bytes of the
numbers, then all second ones, …; column after column) and packed by zlib, whose checksum guards the block.
"""

from __future__ import annotations

import zlib
from struct import Struct
from struct import error as StructError

import numpy as np
from numpy.typing import NDArray

from gradwise.recording.recording import Floats, Ints

_VERSION = 1
# version; kind of the values; bytes per step difference, 0: evenly spaced; bytes per time difference; rows;
# columns, 0: one value per step; first step; stride; first time
_HEAD = Struct("<BBBBIIqqq")
_FLOAT32, _FLOAT64, _FLOAT48, _TIME = range(4)
_EXACT_BYTES = 5
_SHORT = 256
_MICROSECONDS = 1_000_000

Bytes = NDArray[np.uint8]


def encode(steps: Ints, values: Floats, times: bool = False) -> bytes:
    """A block of points as bytes.

    >>> block = encode(np.arange(10_000), np.sin(np.arange(10_000)).astype(np.float32))
    >>> len(block) < 4 * 10_000
    True

    Args:
        steps: (n,) optimizer steps, in any order.
        values: (n,) or (n, w).
        times: the values (n,) are times in seconds, worth keeping to the microsecond.

    Raises:
        ValueError: steps and values do not fit each other.
    """
    steps, values = np.asarray(steps, "<i8"), np.asarray(values, "<f8")
    if steps.ndim != 1 or values.ndim not in (1, 2) or len(steps) != len(values):
        raise ValueError(f"{len(steps)} steps do not fit values of shape {values.shape}")
    n, width = len(steps), values.shape[1] if values.ndim == 2 else 0
    first, stride, step_size, step_bytes = _pack_integers(steps)
    flat = values.T.ravel()

    ticks = flat * _MICROSECONDS if times else None
    if ticks is not None and n and not width and np.all(np.abs(ticks) < 1 << 52):
        start, _, time_size, time_bytes = _pack_integers(np.rint(ticks).astype("<i8"), even=False)
        head = _HEAD.pack(_VERSION, _TIME, step_size, time_size, n, width, first, stride, start)
        return head + _squeeze(step_bytes + time_bytes)

    def block(kind: int, planes: Bytes) -> bytes:
        head = _HEAD.pack(_VERSION, kind, step_size, 0, n, width, first, stride, 0)
        return head + _squeeze(step_bytes + planes.tobytes())

    with np.errstate(over="ignore", invalid="ignore"):
        single = flat.astype("<f4")
    if np.array_equal(single, flat, equal_nan=True):
        return block(_FLOAT32, _planes(single))
    exact = block(_FLOAT64, _planes(flat))
    if len(exact) <= _EXACT_BYTES * flat.size or flat.size <= _SHORT:
        return exact
    return block(_FLOAT48, _planes(_rounded(flat))[2:])


def decode(block: bytes) -> tuple[Ints, Floats]:
    """The steps (n,) and values (n,) or (n, w) of a block.

    Raises:
        ValueError: the bytes are no block, or a damaged one.
    """
    try:
        version, kind, step_size, time_size, n, width, first, stride, start = _HEAD.unpack_from(block)
        if version != _VERSION or kind > _TIME:
            raise ValueError(f"a block of kind {version}.{kind}, which this version of gradwise does not know")
        body = np.frombuffer(zlib.decompress(memoryview(block)[_HEAD.size :]), np.uint8)
        differences, rest = body[: n * step_size], body[n * step_size :]
        if kind == _TIME:
            flat = _unpack_integers(rest, time_size, n, start) / _MICROSECONDS
        else:
            flat = _numbers(rest, kind, n * max(1, width))
        if step_size:
            steps = _unpack_integers(differences, step_size, n, first)
        else:
            steps = first + stride * np.arange(n, dtype=np.int64)
    except (StructError, zlib.error) as error:
        raise ValueError(f"a damaged block: {error}") from None
    return steps, np.ascontiguousarray(flat.reshape(width, n).T) if width else flat


def _squeeze(data: bytes) -> bytes:
    """Deflated, looking for runs only: as small as its full search on noise, and 3 times as fast."""
    packer = zlib.compressobj(strategy=zlib.Z_RLE)
    return packer.compress(data) + packer.flush()


def _planes(numbers: NDArray[np.generic]) -> Bytes:
    """(n,) numbers of k bytes as (k, n): all their first bytes, then all their second ones, …"""
    return np.ascontiguousarray(numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize).T)


def _numbers(body: Bytes, kind: int, n: int) -> Floats:
    """The inverse of `_planes` for values, as float64."""
    size = {_FLOAT32: 4, _FLOAT64: 8, _FLOAT48: 6}[kind]
    planes = body.reshape(size, n)
    if kind == _FLOAT32:
        return np.ascontiguousarray(planes.T).view("<f4").ravel().astype(np.float64)
    whole = np.zeros((n, 8), np.uint8)
    whole[:, 8 - size :] = planes.T
    return whole.view("<f8").ravel().astype(np.float64, copy=False)


def _rounded(values: Floats) -> Floats:
    """Values with the last 16 bits of their mantissa rounded off to zeros."""
    bits = np.where(np.isnan(values), np.nan, values).view("<u8")
    nearest = (bits + np.uint64(1 << 15)) >> np.uint64(16) << np.uint64(16)
    down = bits >> np.uint64(16) << np.uint64(16)
    rounded: Floats = np.where(np.isfinite(nearest.view("<f8")), nearest, down).view("<f8")
    return rounded


def _pack_integers(numbers: Ints, even: bool = True) -> tuple[int, int, int, bytes]:
    """First, stride, bytes per difference and the differences; 0 and none where they all are the stride."""
    if not len(numbers):
        return 0, 0, 0, b""
    differences = np.diff(numbers)  # wraps round where it must, and so does the sum
    stride = int(differences[0]) if len(differences) else 0
    if even and (differences == stride).all():
        return int(numbers[0]), stride, 0, b""
    low, high = int(differences.min(initial=0)), int(differences.max(initial=0))
    size = next(s for s in (1, 2, 4, 8) if -(1 << 8 * s - 1) <= low and high < 1 << 8 * s - 1)
    padded = np.concatenate((np.zeros(1, "<i8"), differences)).astype(f"<i{size}")
    return int(numbers[0]), stride, size, _planes(padded).tobytes()


def _unpack_integers(body: Bytes, size: int, n: int, first: int) -> Ints:
    differences = np.ascontiguousarray(body.reshape(size, n).T).view(f"<i{size}").ravel()
    return np.int64(first) + np.cumsum(differences, dtype=np.int64)
