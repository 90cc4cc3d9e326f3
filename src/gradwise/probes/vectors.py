"""Tensors of a model as one flat numpy vector with per-tensor sums: what norms and cosines are computed from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_TOTAL = 1 << 20
_LEAST, _MOST = 1024, 65536

# In double precision whatever the tensors' own: squares of what float32 holds go far beyond its range.
Vector = NDArray[np.float64]


class Layout:
    """Where each tensor's elements lie in the flat vector.

    Tensors of more than `cap` elements (65,536; less where there are very many tensors) stand for themselves by that
    many evenly spaced elements, and sums over them are scaled up accordingly: a look then costs the same on a model
    of any size, in time and in memory.

    Args:
        numbers: how many real numbers each tensor holds (`number_of`).
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        count = max(len(numbers), 1)
        self.cap = min(max(_TOTAL // count, _LEAST), _MOST)
        self.numbers = tuple(numbers)
        self.strides = tuple(self._stride(n) for n in numbers)
        lengths = [-(-n // s) for n, s in zip(numbers, self.strides, strict=True)]
        ends = np.cumsum([0, *lengths])
        self.size = int(ends[-1])
        self._filled = np.flatnonzero(lengths)
        self._starts = ends[self._filled]
        self._weights = np.array([n / max(k, 1) for n, k in zip(numbers, lengths, strict=True)])
        self._whole = bool(numbers) and all(s == 1 for s in self.strides)
        self._simple = self._whole and len(self._filled) == len(numbers)
        self._slots = [(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        self._scratch = np.empty(self.size)

    def _stride(self, number: int) -> int:
        # An odd stride does not fall into step with rows whose length is a power of two.
        stride = -(-number // self.cap)
        return stride + 1 if stride > 1 and stride % 2 == 0 else max(stride, 1)

    def gather(self, *lists: Sequence[Tensor | None]) -> list[Vector]:
        """The elements of each list of tensors (None counts as zeros) as one vector in the host's memory."""
        import torch

        with torch.no_grad():
            if self._whole:
                # The usual case in one operation; anything unusual shows in the result, or raises.
                with suppress(Exception):
                    flat = torch.cat([t.reshape(-1) for tensors in lists for t in tensors])  # type: ignore[union-attr]
                    if flat.dtype is torch.float32 and flat.is_cpu and len(flat) == self.size * len(lists):
                        return list(flat.numpy().astype(np.float64).reshape(len(lists), -1))
            return [self._gather_one(tensors) for tensors in lists]

    def _gather_one(self, tensors: Sequence[Tensor | None]) -> Vector:
        import torch

        pieces = [_piece(t, n, s) for t, n, s in zip(tensors, self.numbers, self.strides, strict=True)]
        if len({p.device for p in pieces}) > 1:
            pieces = [p.cpu() for p in pieces]
        flat = torch.cat(pieces).cpu() if pieces else torch.empty(0, device="cpu")
        vector: Vector = flat.numpy().astype(np.float64)
        return vector

    def sums(self, a: Vector, b: Vector) -> NDArray[np.float64]:
        """Per-tensor inner products of two flat vectors, scaled up to all elements of each tensor."""
        product = np.multiply(a, b, out=self._scratch)
        total: NDArray[np.float64]
        if self._simple:
            total = np.add.reduceat(product, self._starts)
        else:
            total = np.zeros(len(self.numbers))
            if len(self._filled):
                total[self._filled] = np.add.reduceat(product, self._starts)
            total *= self._weights
        return total

    def dot(self, a: Vector, b: Vector) -> float:
        """Inner product of two flat vectors, scaled up to all elements."""
        return float(self.sums(a, b).sum())

    def cosine(self, a: Vector, b: Vector) -> float:
        """Cosine of two flat vectors; NaN where one of them is zero."""
        lengths = math.sqrt(self.dot(a, a)) * math.sqrt(self.dot(b, b))
        return self.dot(a, b) / lengths if lengths > 0 else math.nan

    def bad(self, vector: Vector) -> list[int]:
        """The tensors that hold a value that is not finite."""
        good = np.isfinite(vector)
        return [i for i, (a, b) in enumerate(self._slots) if not good[a:b].all()]


def _piece(tensor: Tensor | None, number: int, stride: int) -> Tensor:
    """Every `stride`-th of the `number` elements of a tensor, in the order of its indices."""
    import torch

    if tensor is None:
        return torch.zeros(-(-number // stride), dtype=torch.float32, device="cpu")
    flat = local(tensor).detach()
    if flat.layout is not torch.strided:
        flat = _from_sparse(flat, stride)
    else:
        if flat.is_complex():
            flat = torch.view_as_real(flat.resolve_conj())
        if stride == 1:
            flat = flat.reshape(-1)
        elif flat.is_contiguous():
            flat = flat.view(-1)[::stride]
        else:
            # Element by element, since to make it contiguous would copy all of it.
            wanted = torch.arange(0, flat.numel(), stride, device=flat.device)
            flat = flat[torch.unravel_index(wanted, flat.shape)]
    if len(flat) != -(-number // stride):
        raise ValueError(f"a tensor of {tensor.numel()} elements where one of {number} was expected")
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.to(torch.float32)


def _from_sparse(tensor: Tensor, stride: int) -> Tensor:
    """Every `stride`-th element of a sparse tensor, as a dense vector, without making all of it dense."""
    import torch

    if tensor.layout is not torch.sparse_coo:
        tensor = tensor.to_sparse(layout=torch.sparse_coo)
    tensor = tensor.coalesce()
    values, indices = tensor.values(), tensor.indices()
    if values.is_complex():
        values = torch.view_as_real(values)
    below = math.prod(values.shape[1:])
    sizes = tensor.shape[: tensor.sparse_dim()]
    first = torch.zeros_like(indices[0])
    for index, size in zip(indices, sizes, strict=True):
        first = first * size + index
    at = first.unsqueeze(1) * below + torch.arange(below, device=values.device)
    hit = at % stride == 0
    dense = values.new_zeros(-(-math.prod(sizes) * below // stride))
    dense[at[hit] // stride] = values.reshape(-1, below)[hit]
    return dense


def local(tensor: Any) -> Tensor:
    """The part of a distributed tensor that lies here; any other tensor itself."""
    to_local = getattr(tensor, "to_local", None)
    part: Tensor = tensor if to_local is None else to_local()
    return part


def number_of(tensor: Tensor) -> int:
    """Real numbers in a tensor (a complex one counts twice), on this device."""
    part = local(tensor)
    return int(part.numel()) * (2 if part.is_complex() else 1)
