"""Tensors of a model as one flat numpy vector with per-tensor sums: what norms and cosines are computed from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_TOTAL = 1 << 20
_LEAST, _MOST = 1024, 65536

Vector = NDArray[np.float32]


class Layout:
    """Where each tensor's elements lie in the flat vector.

    Tensors of more than `cap` elements (65,536; less where there are very many tensors) stand for themselves by that
    many evenly spaced elements, and sums over them are scaled up accordingly: a look then costs the same on a model
    of any size, in time and in memory.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        count = max(len(numbers), 1)
        self.cap = min(max(_TOTAL // count, _LEAST), _MOST)
        self.numbers = tuple(numbers)
        self.strides = tuple(self._stride(n) for n in numbers)
        lengths = [-(-n // s) for n, s in zip(numbers, self.strides, strict=True)]
        ends = np.cumsum([0, *lengths])
        self.size = int(ends[-1])
        self._filled = np.array([i for i, n in enumerate(lengths) if n], dtype=np.int64)
        self._starts = ends[:-1][self._filled] if len(self._filled) else np.empty(0, np.int64)
        self._weights = np.array([numbers[i] / lengths[i] for i in self._filled])
        self._whole = bool(numbers) and all(s == 1 for s in self.strides)
        self._slots = [(int(a), int(b)) for a, b in itertools.pairwise(ends)]

    def _stride(self, number: int) -> int:
        # An odd stride does not fall into step with rows whose length is a power of two.
        stride = -(-number // self.cap)
        return stride + 1 if stride > 1 and stride % 2 == 0 else max(stride, 1)

    def gather(self, tensors: Sequence[Tensor | None]) -> Vector:
        """The elements of `tensors` (None counts as zeros) as one float32 vector in the host's memory."""
        import torch

        with torch.no_grad():
            if self._whole:
                # The usual case in one operation; anything unusual shows in the result, or raises.
                with suppress(Exception):
                    flat = torch.cat([t.reshape(-1) for t in tensors])  # type: ignore[union-attr]
                    if flat.dtype is torch.float32 and flat.is_cpu and len(flat) == self.size:
                        whole: Vector = flat.numpy()
                        return whole
            pieces = []
            for tensor, number, stride in zip(tensors, self.numbers, self.strides, strict=True):
                pieces.append(_piece(tensor, number, stride))
            devices = {p.device for p in pieces}
            if len(devices) > 1:
                pieces = [p.cpu() for p in pieces]
            gathered: Vector = (torch.cat(pieces) if pieces else torch.empty(0)).cpu().numpy()
        return gathered

    def sums(self, product: NDArray[np.float32]) -> NDArray[np.float64]:
        """Per-tensor sums of a flat vector of products, scaled up to all elements of each tensor."""
        total = np.zeros(len(self.numbers))
        if len(self._filled):
            total[self._filled] = np.add.reduceat(product, self._starts, dtype=np.float64) * self._weights
        return total

    def dot(self, a: Vector, b: Vector) -> float:
        """Inner product of two flat vectors, scaled up to all elements."""
        return float(a @ b) if self._whole else float(self.sums(a * b).sum())

    def cosine(self, a: Vector, b: Vector) -> float:
        """Cosine of two flat vectors; NaN where one of them is zero."""
        squares = self.dot(a, a) * self.dot(b, b)
        return self.dot(a, b) / math.sqrt(squares) if squares > 0 else math.nan

    def bad(self, vector: Vector) -> list[int]:
        """The tensors that hold a value that is not finite."""
        if np.isfinite(vector.sum(dtype=np.float64)):
            return []
        good = np.isfinite(vector)
        return [i for i, (a, b) in enumerate(self._slots) if not good[a:b].all()]


def _piece(tensor: Tensor | None, number: int, stride: int) -> Tensor:
    import torch

    if tensor is None:
        return torch.zeros(-(-number // stride))
    local = getattr(tensor, "to_local", None)
    flat = (tensor if local is None else local()).detach()
    if flat.layout is not torch.strided:
        flat = flat.to_dense()
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    if stride > 1 and not flat.is_contiguous() and flat.dim():
        # Never copy a large tensor: whole slices along its first axis stand for it.
        flat = flat[:: max(1, stride // max(1, flat.numel() // max(flat.shape[0], 1)))]
    flat = flat.reshape(-1)
    if stride > 1:
        wanted = -(-number // stride)
        flat = flat[::stride] if flat.numel() >= number else flat[:wanted]
        if flat.numel() < wanted:
            flat = torch.nn.functional.pad(flat, (0, wanted - flat.numel()))
    return flat if flat.dtype is torch.float32 else flat.to(torch.float32)


def number_of(tensor: Tensor) -> int:
    """Real numbers in a tensor (a complex one counts twice), on this device."""
    local = getattr(tensor, "to_local", None)
    flat = tensor if local is None else local()
    return int(flat.numel()) * (2 if flat.is_complex() else 1)
