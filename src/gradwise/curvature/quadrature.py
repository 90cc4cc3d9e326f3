"""The spectral density: how many eigenvalues lie where, without computing them (stochastic Lanczos quadrature)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwise.curvature.lanczos import Krylov


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """A spectrum as a smooth density.

    Attributes:
        grid, density: the curve to draw; it integrates to 1.
        width: standard deviation of the bells that the eigenvalues were smeared to.
        nodes, weights: the quadrature itself; Σ weights·f(nodes) estimates the mean of f over all eigenvalues.
        products: how many it took.
    """

    grid: NDArray[np.float64]
    density: NDArray[np.float64]
    width: float
    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    products: int

    def mean(self, function: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None) -> float:
        """The mean of a function of the eigenvalues over all of them; without one, of themselves: the trace over n."""
        return float(np.sum(self.weights * (self.nodes if function is None else function(self.nodes))))

    def share(self, low: float = -math.inf, high: float = math.inf) -> float:
        """The share of eigenvalues between two values: `share(high=0.0)` is that of the negative ones."""
        return float(np.sum(self.weights[(self.nodes >= low) & (self.nodes <= high)]))


def spectral_density(
    product: Callable[[Tensor], Tensor],
    size: int,
    *,
    probes: int = 4,
    products: int = 30,
    width: float | None = None,
    points: int = 1000,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SpectralDensity:
    """The density of the eigenvalues of a symmetric matrix that is known by its products only.

    Each probe is a random vector of signs. Lanczos from it gives a Gauss quadrature of the density as that vector sees
    it, exact for polynomials up to degree 2·products − 1; the mean over the probes estimates the true one. The
    standard error of the mean eigenvalue is at most √(2/probes)·‖H‖/n, with the Frobenius norm.

    Args:
        product: the matrix times a flat vector, such as `Hessian.product`.
        size: how long the vectors are.
        probes: how many random vectors.
        products: how many with each; the more, the finer the detail within the bulk (the ends are found sooner).
        width: of the bells; None is the range over `products`, about as far as nodes lie apart: finer bells show the
            nodes.
        points: of the grid.
        seed: of the generator, which is its own.
        dtype: of the vectors.
        device: of the vectors.

    Raises:
        ValueError: a product isn't finite, or an argument makes no sense.

    Example:
        >>> matrix = torch.diag(torch.tensor([0.0] * 90 + [5.0] * 10))
        >>> found = spectral_density(lambda v: matrix @ v, 100)
        >>> print(f"{found.mean():.2f} {found.share(high=1.0):.2f}")
        0.50 0.90

    Source:
        Ghorbani, Krishnan & Xiao, An investigation into neural net optimization via Hessian eigenvalue density, 2019;
        Ubaru, Chen & Saad, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, 2017.
    """
    if size < 1 or probes < 1 or products < 1 or points < 2 or not (width is None or width > 0):
        raise ValueError(
            "spectral_density: size, probes and products must be at least 1, points 2, width above 0; got "
            f"size={size!r}, probes={probes!r}, products={products!r}, points={points!r}, width={width!r}"
        )
    generator = torch.Generator().manual_seed(seed)
    nodes, weights, made = [], [], 0
    for _ in range(probes):
        signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        krylov = Krylov(product, signs.to(device, dtype))
        while len(krylov.alphas) < products and not krylov.exhausted:
            krylov.extend()
        values, vectors = krylov.eigen()
        nodes.append(values)
        weights.append(vectors[0] ** 2 / probes)
        made += len(krylov.alphas)
    at, of = np.concatenate(nodes), np.concatenate(weights)
    extent = float(at.max() - at.min())
    if width is None:  # one single eigenvalue has no range
        width = max(extent / products, abs(float(at[0])) / 100) or 0.01
    grid = np.linspace(at.min() - 4 * width, at.max() + 4 * width, points)
    bells = np.exp(-0.5 * ((grid[:, None] - at) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    return SpectralDensity(grid, bells @ of, width, at, of, made)
