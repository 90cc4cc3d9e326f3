"""Both ends of a spectrum, against whole matrices and analytic spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise.curvature import Hessian, extremes, spectral_density
from gradwise.curvature.lanczos import Krylov


def start(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated(eigenvalues: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), generator=generator, dtype=torch.float64))[
        0
    ]
    return basis * eigenvalues @ basis.T


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_minus_one_under_a_bulk_of_sixty_to_a_hundred(seed: int, dtype: torch.dtype) -> None:
    spectrum = torch.cat([torch.tensor([-1.0]), torch.linspace(60, 100, 399)]).double()
    matrix = rotated(spectrum, seed).to(dtype)
    found = extremes(lambda v: matrix @ v, start(400, seed).to(dtype), products=25)
    assert found.converged
    assert found.products <= 25
    assert found.smallest.value == pytest.approx(-1.0, abs=1e-3)
    assert found.largest.value == pytest.approx(100.0, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-100, 100).map(lambda x: round(x, 6)), min_size=1, max_size=40),
    st.integers(0, 1000),
)
def test_with_enough_products_any_matrix_is_known_exactly(eigenvalues: list[float], seed: int) -> None:
    matrix = rotated(torch.tensor(eigenvalues, dtype=torch.float64), seed)
    scale = max(map(abs, eigenvalues))
    found = extremes(lambda v: matrix @ v, start(len(eigenvalues), seed), products=60, tolerance=1e-10)
    for end, true in ((found.smallest, min(eigenvalues)), (found.largest, max(eigenvalues))):
        assert abs(end.value - true) <= 1e-8 * scale + 1e-12
        assert abs(end.value - true) <= end.residual + 1e-9 * scale


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 1000))
def test_the_bounds_hold_after_any_number_of_products(size: int, products: int, seed: int) -> None:
    eigenvalues = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = rotated(eigenvalues, seed)
    found = extremes(lambda v: matrix @ v, start(size, seed + 1), products=products, tolerance=1e-9)
    assert found.products <= products
    for end in (found.smallest, found.largest):
        image = matrix @ end.vector
        assert torch.linalg.vector_norm(end.vector).item() == pytest.approx(1.0)
        assert torch.dot(end.vector, image).item() == pytest.approx(end.value, abs=1e-10)
        assert torch.linalg.vector_norm(image - end.value * end.vector).item() == pytest.approx(end.residual, abs=1e-9)
        assert (eigenvalues - end.value).abs().min() <= end.residual + 1e-10
    assert found.smallest.value >= eigenvalues.min() - 1e-10
    assert found.largest.value <= eigenvalues.max() + 1e-10
    assert found.weights.sum() == pytest.approx(1.0)


def test_orthogonality_outlives_convergence() -> None:
    # Without reorthogonalization the isolated end comes again as a ghost.
    matrix = torch.diag(torch.cat([torch.linspace(0, 1, 300), torch.tensor([1000.0])]))
    krylov = Krylov(lambda v: matrix @ v, start(301).float())
    for _ in range(60):
        krylov.extend()
    basis = krylov.basis[:60]
    assert (basis @ basis.T - torch.eye(60)).abs().max() < 1e-5
    assert (krylov.eigen()[0] > 500).sum() == 1


def test_a_network_of_thousands_against_its_whole_hessian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3)).double()
    x, y = torch.randn(40, 10, dtype=torch.float64), torch.randint(0, 3, (40,))
    hessian = Hessian(lambda: F.cross_entropy(model(x), y), model)
    names = [n for n, _ in model.named_parameters()]

    def loss_at(flat: Tensor) -> Tensor:
        return F.cross_entropy(
            torch.func.functional_call(model, dict(zip(names, hessian.split(flat), strict=True)), (x,)), y
        )

    whole = torch.func.hessian(loss_at)(hessian.flatten(hessian.parameters))
    true = torch.linalg.eigvalsh(whole)
    found = extremes(hessian.product, hessian.random_vector(), products=80, tolerance=1e-3)
    assert hessian.size == 939
    assert found.converged
    assert found.smallest.value == pytest.approx(true[0].item(), rel=1e-3)
    assert found.largest.value == pytest.approx(true[-1].item(), rel=1e-3)
    density = spectral_density(hessian.product, hessian.size, probes=8, products=40, dtype=torch.float64)
    error = (2 / 8 * true.square().sum()).sqrt().item() / len(true)
    assert density.mean() == pytest.approx(true.mean().item(), abs=4 * error)
    error = (2 / 8 * true.pow(4).sum()).sqrt().item() / len(true)
    assert density.mean(np.square) == pytest.approx(true.square().mean().item(), abs=4 * error)


def test_least_squares_has_the_spectrum_of_its_inputs() -> None:
    x = torch.randn(200, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = nn.Linear(20, 1, bias=False).double()
    true = torch.linalg.svdvals(x) ** 2 * 2 / 200
    hessian = Hessian(lambda: (layer(x) - 1).square().mean(), layer)
    found = extremes(hessian.product, hessian.random_vector(), products=20, tolerance=1e-8)
    assert found.largest.value == pytest.approx(true[0].item(), rel=1e-9)
    assert found.smallest.value == pytest.approx(true[-1].item(), rel=1e-9)


def test_one_end_alone_takes_fewer_products() -> None:
    matrix = torch.diag(torch.cat([torch.linspace(0, 1, 500), torch.tensor([50.0])]).double())
    both = extremes(lambda v: matrix @ v, start(501), products=100)
    top = extremes(lambda v: matrix @ v, start(501), products=100, smallest=False)
    assert top.converged
    assert top.products < both.products
    assert top.largest.value == pytest.approx(50.0)


@pytest.mark.parametrize(("matrix", "value"), [(torch.zeros(5, 5), 0.0), (3 * torch.eye(5), 3.0), (-torch.eye(1), -1)])
def test_spectra_of_one_value(matrix: Tensor, value: float) -> None:
    found = extremes(lambda v: matrix @ v, torch.ones(len(matrix)))
    assert (found.products, found.converged) == (1, True)
    assert found.smallest.value == found.largest.value == pytest.approx(value)
    density = spectral_density(lambda v: matrix @ v, len(matrix))
    assert density.mean() == pytest.approx(value)
    assert np.trapezoid(density.density, density.grid) == pytest.approx(1.0, abs=1e-3)


def test_spent_products_are_not_called_convergence() -> None:
    matrix = torch.diag(torch.linspace(-1, 1, 1000).double())
    found = extremes(lambda v: matrix @ v, start(1000), products=4)
    assert not found.converged
    assert found.products == 4
    assert found.smallest.residual > 0.01


def test_the_density_of_a_known_spectrum() -> None:
    # Wigner's semicircle: the eigenvalues of a large random symmetric matrix, between -2 and 2.
    size = 400
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = (noise + noise.T) / np.sqrt(2 * size)
    found = spectral_density(lambda v: matrix @ v, size, dtype=torch.float64)
    semicircle = np.sqrt(np.clip(4 - found.grid**2, 0, None)) / (2 * np.pi)
    step = found.grid[1] - found.grid[0]
    assert np.abs(np.cumsum(found.density - semicircle) * step).max() < 0.05
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1.0, abs=1e-3)
    # Four standard errors each.
    assert found.share(high=0.0) == pytest.approx(0.5, abs=0.1)
    assert found.mean(np.square) == pytest.approx(1.0, abs=0.2)
    assert found.products == 4 * 30


def test_the_same_seed_gives_the_same_density_and_no_other_luck_is_drawn() -> None:
    # Not a diagonal one, to which the signs of a vector make no difference.
    matrix, before = rotated(torch.linspace(0, 1, 50).double()).float(), torch.get_rng_state()
    one, two, three = (spectral_density(lambda v: matrix @ v, 50, products=5, seed=s) for s in (0, 0, 1))
    assert (one.density == two.density).all()
    assert not np.array_equal(one.density, three.density)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options", [{"products": 0}, {"tolerance": 0.0}, {"smallest": False, "largest": False}, {"tolerance": float("nan")}]
)
def test_arguments_that_make_no_sense(options: dict) -> None:
    with pytest.raises(ValueError, match="extremes: products must be"):
        extremes(lambda v: v, torch.ones(2), **options)


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.tensor([1.0, float("nan")]), torch.ones(2, 2)])
def test_starts_that_make_no_sense(vector: Tensor) -> None:
    with pytest.raises(ValueError, match="finite and not zero"):
        extremes(lambda v: v, vector)


@pytest.mark.parametrize("options", [{"probes": 0}, {"products": 0}, {"width": 0.0}, {"points": 1}, {"size": 0}])
def test_densities_that_make_no_sense(options: dict) -> None:
    with pytest.raises(ValueError, match="spectral_density: size"):
        spectral_density(lambda v: v, **{"size": 3, **options})


def test_a_product_that_is_not_finite_is_named() -> None:
    calls = iter([torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("inf")])])
    with pytest.raises(ValueError, match="product 2 with the Hessian isn't finite"):
        extremes(lambda v: next(calls), torch.tensor([1.0, 0.5]))
