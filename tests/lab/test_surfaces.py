"""Surfaces against closed forms, and slices of a net's loss against the net itself."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from gradwise.lab import slices
from gradwise.lab.surfaces import NETWORKS, SURFACES, TOLERANCE, Surface, own, surface

# By hand, from the formulas as literature prints them.
GRADIENTS = {
    "saddle": lambda x, y: (2 * x, -2 * y),
    "turned-saddle": lambda x, y: (2 * y, 2 * x),
    "wells": lambda x, y: (2 * x, -2 * y + y**3),
    "monkey-saddle": lambda x, y: (3 * x**2 - 3 * y**2 + x * (x**2 + y**2), -6 * x * y + y * (x**2 + y**2)),
    "ravine": lambda x, y: (x, 100 * y),
    "beale": lambda x, y: (
        sum(2 * (c - x + x * y**k) * (y**k - 1) for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
        sum(2 * (c - x + x * y**k) * x * k * y ** (k - 1) for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
    ),
    "rosenbrock": lambda x, y: (-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)),
    "himmelblau": lambda x, y: (
        4 * x * (x**2 + y - 11) + 2 * (x + y**2 - 7),
        2 * (x**2 + y - 11) + 4 * y * (x + y**2 - 7),
    ),
    "rastrigin": lambda x, y: tuple(2 * z + 20 * math.pi * math.sin(2 * math.pi * z) for z in (x, y)),
    "noisy": lambda x, y: (x, 10 * y),
}  # fmt: skip
LOWEST = {"wells": -1.0, "monkey-saddle": -6.75}  # of the others 0


def gradient(on: Surface, x: float, y: float) -> list[float]:
    point = torch.tensor([[x, y]], dtype=torch.float64, requires_grad=True)
    on.at(point).sum().backward()
    assert point.grad is not None
    return point.grad[0].tolist()


@pytest.mark.parametrize("name", SURFACES)
def test_gradients_are_those_of_the_closed_form(name: str) -> None:
    for x, y in ((0.3, -0.7), (1.1, 0.4), (-1.9, 2.3)):
        assert gradient(SURFACES[name], x, y) == pytest.approx(GRADIENTS[name](x, y), rel=1e-9)


@pytest.mark.parametrize("name", SURFACES)
def test_minima_are_lowest_and_nothing_on_the_map_is_lower(name: str) -> None:
    on = SURFACES[name]
    for x, y in on.minima:
        assert on.height((x, y)) == pytest.approx(LOWEST.get(name, 0.0), abs=1e-12)
        assert gradient(on, x, y) == pytest.approx((0, 0), abs=1e-6)
        assert on.x[0] <= x <= on.x[1]
        assert on.y[0] <= y <= on.y[1]
    assert on.minima or on.saddle
    assert float(on.grid(81, 81)[2].min()) >= on.lowest - 1e-9
    assert on.goal() < on.height(on.start), "nobody starts at the goal"


@pytest.mark.parametrize("name", [n for n, s in SURFACES.items() if s.saddle is not None])
def test_saddles_are_flat_and_fall_somewhere(name: str) -> None:
    on = SURFACES[name]
    assert on.saddle is not None
    assert gradient(on, *on.saddle) == pytest.approx((0, 0), abs=1e-12)
    around = [on.height((0.1 * math.cos(a), 0.1 * math.sin(a))) for a in torch.linspace(0, 6.28, 60).tolist()]
    assert min(around) < on.height(on.saddle) < max(around)
    assert on.lowest < on.goal() < on.height(on.saddle)


def test_the_goal_is_a_thousandth_of_the_way_left() -> None:
    beale = SURFACES["beale"]
    assert beale.goal() == pytest.approx(TOLERANCE * beale.height((1.0, 1.0)))
    unknown = Surface("mine", lambda x, y: x**2 + y**2 + 1, (-1, 1), (-1, 1), (1, 1), "")
    assert unknown.goal() == pytest.approx(1 + TOLERANCE * 2)  # the map's grid has a point at the bottom
    assert unknown.goal(seen=0.5) == pytest.approx(0.5 + TOLERANCE * 2.5)


def test_starts_are_the_given_one_and_others_about_it() -> None:
    on = SURFACES["beale"]
    starts = on.starts(200)
    assert starts[0].tolist() == list(on.start)
    assert (starts[1:].mean(0) - starts[0]).abs().max() < 0.05
    assert starts[1:].std(0).tolist() == pytest.approx([0.03 * 5.0, 0.03 * 3.2], rel=0.15)
    assert torch.equal(on.starts(5), starts[:5])
    assert not torch.equal(on.starts(5, seed=1)[1:], starts[1:5])


FUNCTIONS = """
import torch
def many(x, y):
    return x**2 + torch.sin(y)
def one(x, y):
    return x**2 if x > 0 else 3 * y
def mixed(x, y):
    return (x**2 + y**2) / (x**2 + y**2).sum()   # knows of the other points
def flat(x, y):
    return torch.ones_like(x)
def number(x, y):
    return 3.0
def breaks(x, y):
    raise RuntimeError("mine")
def infinite(x, y):
    return torch.log(x - 10) + y
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def test_a_function_of_ones_own(mine: Path) -> None:
    points = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    assert surface(f"{mine}:many").at(points).tolist() == pytest.approx([1 + math.sin(2), 1 + math.sin(0.5)])
    # These know nothing but single numbers: they are called for one point after the other.
    assert surface(f"{mine}:one").at(points).tolist() == pytest.approx([1.0, 1.5])
    assert surface(f"{mine}:mixed").at(points).tolist() == pytest.approx([1.0, 1.0])
    assert gradient(surface(f"{mine}:one"), 0.5, 0.1) == pytest.approx([1.0, 0.0])
    shown = surface(f"{mine}:many", (-1, 4), (0, 2), (3, 1))
    assert (shown.x, shown.y, shown.start, shown.minima) == ((-1, 4), (0, 2), (3, 1), ())


def test_a_module_of_the_current_folder(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine.parent / "unlike_any_other.py").write_text(FUNCTIONS)
    monkeypatch.chdir(mine.parent)
    assert own("unlike_any_other:many").height((2.0, 0.0)) == 4.0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine.py:none", r"mine\.py has no function 'none'"),
        ("mine.py:flat", "must return one number of its two tensors"),
        ("mine.py:number", "must return one number of its two tensors|fails at"),
        ("mine.py:breaks", "fails at x, y = 1, 1: RuntimeError: mine"),
        ("mine.py:infinite", "not finite at the start 1, 1: begin elsewhere"),
        ("other.py:f", r"there is no file other\.py"),
        ("no.such.module:f", "no.such.module can't be loaded: ModuleNotFoundError"),
        ("nowhere", "there is no surface 'nowhere'; there are saddle, .*network.* and your own as FILE.py:FUNCTION"),
    ],
)
def test_what_can_be_wrong_with_a_surface(name: str, says: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    with pytest.raises(ValueError, match=says):
        surface(name)


def test_an_empty_map_and_a_start_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="the map's x goes from 2 to 1: the first must be the lower"):
        surface("beale", x=(2, 1))
    with pytest.raises(ValueError, match="beale is not finite at the start nan, 1"):
        surface("beale", start=(math.nan, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_slice_is_the_loss_of_the_net_with_these_weights(name: str) -> None:
    on = surface(name)
    made = on.formula
    assert isinstance(made, slices._Slice)
    trained = [slices._trained(seed) for seed in range(3)]
    net, rows = slices._net(), slices._rows()

    def loss(weights: dict[str, torch.Tensor]) -> float:
        return float(F.cross_entropy(functional_call(net, weights, (rows.x,)), rows.y))

    ends = {(0.0, 0.0): trained[0]}
    if name == "network-plane":
        ends |= {(1.0, 0.0): trained[1], (0.0, 1.0): trained[2]}
        middle = {k: (trained[1][k] + trained[2][k]) / 2 for k in trained[0]}
        ends[0.5, 0.5] = middle
    for point, weights in ends.items():
        assert on.height(point) == pytest.approx(loss(weights), rel=1e-4)
    assert on.height((0.0, 0.0)) < 0.5 * on.height(on.start)


def test_directions_are_as_long_as_the_weights_row_by_row() -> None:
    weights = slices._trained(0)
    direction = slices._direction(weights, torch.Generator().manual_seed(3))
    for name, w in weights.items():
        if w.dim() == 1:
            assert not direction[name].any()
        else:
            assert torch.allclose(direction[name].norm(dim=1), w.norm(dim=1), rtol=1e-5)
