"""Lanczos' method: both ends of a large symmetric matrix's spectrum from a few products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEGLIGIBLE = 1e-4
"""An eigenvalue below this share of the largest magnitude is as good as zero.

At the largest stable rate, 2/λ_max, descent changes the distance along a direction of curvature λ by the factor
1 − 2λ/λ_max a step. Below a ten-thousandth, shrinking or growing by e takes 5,000 steps and more: no run is held back
or carried away by that. It also lies far above what rounding leaves of a zero in float32 (about 1e-6 of λ_max).
"""


@dataclass(frozen=True, eq=False)
class Eigenvalue:
    """An eigenvalue as Lanczos' method knows it (a Ritz value).

    Attributes:
        value: the curvature along `vector`, vᵀHv. So the smallest eigenvalue is not above it, the largest not below.
        residual: ‖Hv − value·v‖ (|β_k·s_k|, Paige's bound): an eigenvalue lies no further than this from `value`.
        vector: the direction, a flat vector of length 1.
    """

    value: float
    residual: float
    vector: Tensor

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.residual:.1g}"


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What some products tell of a spectrum.

    Attributes:
        smallest, largest: its ends.
        products: how many it took.
        converged: whether the ends asked for are settled.
        nodes, weights: all Ritz values, and the share of the start vector's square in each: a quadrature of the
            spectral density as the start vector sees it.
    """

    smallest: Eigenvalue
    largest: Eigenvalue
    products: int
    converged: bool
    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """The largest magnitude."""
        return max(abs(self.smallest.value), abs(self.largest.value))

    def __str__(self) -> str:
        return f"λ_min {self.smallest}, λ_max {self.largest} ({self.products} products)"


class Krylov:
    """The Krylov space of a matrix and a vector, with an orthonormal basis in which the matrix is tridiagonal.

    Rounding makes the textbook's three-term recurrence lose orthogonality as soon as an end converges, and then it
    finds the same eigenvalue again and again (ghosts). So each new vector is made orthogonal to all before it, twice
    (Kahan: "twice is enough"). That keeps all vectors: products × n numbers.

    Args:
        product: the matrix times a flat vector.
        start: the first vector, of any length but zero.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], start: Tensor) -> None:
        norm = float(torch.linalg.vector_norm(start))
        if start.dim() != 1 or not math.isfinite(norm) or norm == 0:
            raise ValueError("Lanczos: the start must be a flat vector, finite and not zero")
        self._product = product
        self._next = start / norm
        self.basis = start.new_empty((0, start.numel()))
        self.alphas: list[float] = []
        self.betas: list[float] = []

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant, so that its Ritz values are eigenvalues and there is no further vector."""
        if not self.betas:
            return False
        scale = max(map(abs, [*self.alphas, *self.betas]))
        return (
            len(self.alphas) >= self.basis.shape[1] or self.betas[-1] <= 10 * torch.finfo(self.basis.dtype).eps * scale
        )

    def extend(self) -> None:
        """One more product.

        Raises:
            ValueError: it isn't finite.
        """
        k = len(self.alphas)
        if k == len(self.basis):  # grown by doubling
            grown = self.basis.new_empty((min(max(8, 2 * k), self.basis.shape[1]), self.basis.shape[1]))
            grown[:k] = self.basis
            self.basis = grown
        self.basis[k] = self._next
        image = self._product(self._next)
        alpha = float(torch.dot(self._next, image))
        rest = image
        known = self.basis[: k + 1]
        for _ in range(2):
            rest = rest - known.T @ (known @ rest)
        beta = float(torch.linalg.vector_norm(rest))
        if not (math.isfinite(alpha) and math.isfinite(beta)):
            raise ValueError(
                f"Lanczos: product {k + 1} with the Hessian isn't finite: a second derivative that doesn't exist there "
                "(sqrt or norm at 0), or an overflow; evaluate elsewhere, or in float64"
            )
        self.alphas.append(alpha)
        self.betas.append(beta)
        self._next = rest / beta if beta > 0 else rest

    def eigen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues and eigenvectors (columns) of the tridiagonal matrix."""
        off = np.array(self.betas[:-1])
        values, vectors = np.linalg.eigh(np.diag(np.array(self.alphas)) + np.diag(off, 1) + np.diag(off, -1))
        return values, vectors

    def residuals(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Paige's bounds |β_k·s_k|, with rounding's part, which full orthogonality keeps at a few units."""
        beta = 0.0 if self.exhausted else self.betas[-1]
        rounding = 4 * torch.finfo(self.basis.dtype).eps * max(map(abs, [*self.alphas, *self.betas]))
        return np.asarray(np.abs(beta * vectors[-1]) + rounding)

    def combine(self, coefficients: NDArray[np.float64]) -> Tensor:
        """The vector with these coordinates in the basis."""
        basis = self.basis[: len(self.alphas)]
        return basis.T @ torch.tensor(coefficients, dtype=basis.dtype, device=basis.device)


def extremes(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    products: int = 25,
    tolerance: float = 0.01,
    smallest: bool = True,
    largest: bool = True,
) -> Spectrum:
    """Both ends of the spectrum of a symmetric matrix that is known by its products only.

    It stops when the ends asked for have converged: the residual is below `tolerance` of the eigenvalue, or, for one
    near zero, below what counts as zero (1e-4 of the largest magnitude). The eigenvalue's own error is of second order,
    about residual² over the distance to the next one.

    Args:
        product: the matrix times a flat vector, such as `Hessian.product`.
        start: a random vector; directions that it lacks can't be found.
        products: stop after so many in any case.
        tolerance: what residual is small enough.
        smallest: whether the smallest eigenvalue must converge.
        largest: whether the largest must.

    Returns:
        Both ends, whichever were asked for.

    Raises:
        ValueError: a product isn't finite, or an argument makes no sense.

    Example:
        >>> matrix = torch.diag(torch.cat([torch.tensor([-1.0]), torch.linspace(60, 100, 400)]))
        >>> found = extremes(lambda v: matrix @ v, torch.ones(401))
        >>> print(f"{found.smallest.value:.2f} {found.largest.value:.0f} {found.products <= 25}")
        -1.00 100 True

    Source:
        Lanczos, An iteration method for the solution of the eigenvalue problem, 1950; Paige, The computation of
        eigenvalues and eigenvectors of very large sparse matrices, 1971.
    """
    if products < 1 or not tolerance > 0 or not (smallest or largest):
        raise ValueError(
            f"extremes: products must be at least 1, tolerance above 0, and an end asked for; "
            f"got products={products!r}, tolerance={tolerance!r}, smallest={smallest!r}, largest={largest!r}"
        )
    krylov = Krylov(product, start)
    asked = [end for end, wanted in ((0, smallest), (-1, largest)) if wanted]
    before: list[float] = []
    while True:
        krylov.extend()
        values, vectors = krylov.eigen()
        residuals = krylov.residuals(vectors)
        scale = float(np.abs(values).max())
        limits = np.maximum(tolerance * np.abs(values), min(tolerance, NEGLIGIBLE) * scale)
        # An end that lies far out and is new may turn up late: what has converged must have stood still once, too.
        still = len(before) == len(asked) and all(
            abs(values[e] - b) <= limits[e] for e, b in zip(asked, before, strict=True)
        )
        before = [float(values[e]) for e in asked]
        converged = krylov.exhausted or (still and all(residuals[e] <= limits[e] for e in asked))
        if converged or len(krylov.alphas) >= products:
            break

    def end(at: int) -> Eigenvalue:
        vector = krylov.combine(vectors[:, at])
        return Eigenvalue(float(values[at]), float(residuals[at]), vector / float(torch.linalg.vector_norm(vector)))

    return Spectrum(end(0), end(-1), len(krylov.alphas), bool(converged), values, vectors[0] ** 2)
