"""X11: momentum in a ravine: what it does across and along, on a quadratic and in a real network.

With g the gradient and s a step, the gain ‖s‖/(η ‖g‖) of a direction says how a rule treats it: descent's is 1.
Two momentums are asked: the one that adds gradients up, and D4's, which averages them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise.curvature import Hessian
from gradwise.curvature.lanczos import Krylov
from gradwise.lab.data import load
from gradwise.lab.drawing import dots, lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.models import mlp, weights
from gradwise.lab.statistics import Estimate, estimate
from gradwise.lab.training import fit, seeded
from gradwise.optim import SGD

if TYPE_CHECKING:
    import plotly.graph_objects as go

MU = 0.9
DESCENT, ADDED, AVERAGED = "descent", "momentum, added up", "momentum, averaged"
RULES: Mapping[str, Mapping[str, Any]] = {
    DESCENT: {}, ADDED: {"momentum": MU}, AVERAGED: {"momentum": MU, "convention": "ema"},
}  # fmt: skip
STEEP, SHALLOW = "across (steep)", "along (shallow)"
CURVATURE = (100.0, 1.0)  # of the quadratic: across, along
# η times the steep curvature: well inside descent's stability, which ends at 2, and at its edge. Between them lies
# 1 + √μ = 1.95, above which descent's swings last longer than momentum's.
INSIDE, EDGE = 1.5, 1.99
DONE = 0.01  # a coordinate has settled below this share of where it began
_SHARP = 5  # directions of the network that count as steep; of the rest of the gradient the first is the ravine's floor


def cells(quick: bool) -> list[Cell]:
    """The quadratic at two rates, and the network at both, too."""
    steps, hidden, warm = (40, 16, 60) if quick else (100, 64, 300)
    net = {"part": "network", "steps": steps, "hidden": hidden, "warm": warm, "products": 20 if quick else 60}
    return [
        *(Cell(f"quadratic, {name}", {"part": "quadratic", "sharp": s, "steps": 1500}) for name, s in _RATES.items()),
        *(Cell(f"network, {name}", {**net, "sharp": s}) for name, s in _RATES.items()),
    ]


_RATES = {"inside": INSIDE, "at the edge": EDGE}


def setup(quick: bool) -> str:
    """The two ravines, rates, lengths."""
    return (
        f"A quadratic of curvatures {CURVATURE[0]:g} and {CURVATURE[1]:g} from random starts, and a net of one hidden "
        f"layer of {16 if quick else 64} tanh units on scikit-learn's digits, all training rows in each step, after "
        f"{60 if quick else 300} steps of training; {40 if quick else 100} steps from there. Its steepest directions "
        f"are the {_SHARP} top eigenvectors of the Hessian, by Lanczos' method; its floor is all that is orthogonal to "
        "them. It begins a little beside the floor, by a displacement along the top eigenvector. Plain descent and "
        f"momentum ({MU}) run at the same rate: η times the largest curvature is {INSIDE} (inside descent's stability) "
        f"or {EDGE} (at its edge, 2). Momentum either adds gradients up (b ← μb + g) or averages them as D4 has it "
        f"(b ← μb + (1−μ)g). A coordinate has settled when it stays below {100 * DONE:.0f} % of where it began. The "
        "quadratic is linear and free of noise, so that there seeds hardly differ."
    )


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """One ravine from one start, with each rule."""
    return _quadratic(settings, seed) if settings["part"] == "quadratic" else _network(settings, seed)


def _quadratic(settings: Mapping[str, Any], seed: int) -> Measures:
    curvature = torch.tensor(CURVATURE, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (2,), generator=random, dtype=torch.float64) * 2 - 1
    start = signs * (0.5 + torch.rand(2, generator=random, dtype=torch.float64))
    rate = settings["sharp"] / CURVATURE[0]
    found: dict[str, Any] = {}
    for rule, options in RULES.items():
        place = nn.Parameter(start.clone())
        optimizer = SGD([place], lr=rate, **options)
        way, slopes = [start], []
        for _ in range(settings["steps"]):
            slopes.append(curvature * place.detach())
            place.grad = slopes[-1].clone()
            optimizer.step()
            way.append(place.detach().clone())
        path = torch.stack(way)
        few = 1 + int(torch.stack(slopes)[:, 0].abs().gt(DONE * slopes[0][0].abs()).nonzero()[-1])  # while it swings
        across = _gain(path[: few + 1, :1], torch.stack(slopes)[:few, :1], rate)
        along = _gain(path[:, 1:], torch.stack(slopes)[:, 1:], rate)
        found[rule] = {
            "gain": {STEEP: across, SHALLOW: along},
            "settled": {STEEP: settled(path[:, 0].tolist()), SHALLOW: settled(path[:, 1].tolist())},
            "path": path[:60].tolist(),
        }
    return found


def _gain(path: Tensor, slopes: Tensor, rate: float) -> float:
    return float(path.diff(dim=0).norm() / (rate * slopes.norm()))


def settled(values: Sequence[float]) -> int:
    """The step from which on a coordinate stays within `DONE` of its first value; its length where it never does.

    >>> settled([1.0, -0.5, 0.004, -0.02, 0.001])
    4
    """
    late = [k for k, value in enumerate(values) if not abs(value) <= DONE * abs(values[0])]
    return late[-1] + 1


def gain_by_theory(sharp: float, mu: float = MU, averaged: bool = False) -> float:
    """The gain along an eigenvector of curvature λ at ηλ = `sharp`, where it swings for good: |c/(1 − μ/z)|.

    z is the root of z² − (1 + μ − c·ηλ) z + μ = 0 of larger modulus, c is 1 or, averaged, 1−μ.

    >>> round(gain_by_theory(1.5), 3), round(gain_by_theory(1.5, mu=0.0), 3)
    (0.816, 1.0)
    """
    c = 1 - mu if averaged else 1.0
    half = (1 + mu - c * sharp) / 2
    root = complex(half**2 - mu) ** 0.5
    z = max(half + root, half - root, key=abs)
    return abs(c / (1 - mu / z))


def _network(settings: Mapping[str, Any], seed: int) -> Measures:
    data = load("digits").train
    with seeded(seed):
        net = mlp([64, settings["hidden"], 10], nn.Tanh)
        fit(net, SGD(net.parameters(), lr=0.2), data, batch=len(data), steps=settings["warm"], seed=seed)
    begin = weights(net)

    def loss() -> Tensor:
        return F.cross_entropy(net(data.x), data.y)

    sharp, vectors = _steepest(loss, net, settings["products"], seed)
    rate = settings["sharp"] / sharp
    # So far beside the floor that the swing's own loss is a hundredth of the loss.
    away = math.sqrt(2 * 0.01 * float(loss().detach()) / sharp)
    found: dict[str, Any] = {"curvature": sharp, "rate": rate}
    for rule, options in RULES.items():
        nn.utils.vector_to_parameters(begin + away * vectors[0], net.parameters())
        optimizer = SGD(net.parameters(), lr=rate, **options)
        way, slopes, losses = [weights(net)], [], []
        for _ in range(settings["steps"]):
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            slopes.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
            losses.append(float(value.detach()))
            optimizer.step()
            way.append(weights(net))
        moved, slope = torch.stack(way).diff(dim=0), torch.stack(slopes)
        across = (moved @ vectors[0]).norm() / (rate * (slope @ vectors[0]).norm())
        floor, downhill = moved - moved @ vectors.T @ vectors, slope - slope @ vectors.T @ vectors
        found[rule] = {
            "gain": {STEEP: float(across), SHALLOW: float(floor.norm() / (rate * downhill.norm()))},
            "far": float(floor.sum(0).norm()),
            "loss": losses[-1],
        }
    return found


def _steepest(loss: Any, net: nn.Module, products: int, seed: int) -> tuple[float, Tensor]:
    """The largest eigenvalue of the Hessian, and the top eigenvectors, (`_SHARP`, n), by Lanczos' method."""
    hessian = Hessian(loss, net)
    start = torch.randn(hessian.size, generator=torch.Generator().manual_seed(seed), dtype=hessian.dtype)
    space = Krylov(hessian.product, start)
    while len(space.alphas) < products and not space.exhausted:
        space.extend()
    values, vectors = space.eigen()
    top = torch.stack([space.combine(vectors[:, -1 - k]) for k in range(_SHARP)])
    return float(values[-1]), torch.linalg.qr(top.T)[0].T


# From here on: pure functions of what was measured.


def _of(runs: Runs, cell: str) -> list[Measures]:
    return [runs[cell][seed] for seed in sorted(runs[cell])]


def _gains(runs: Runs, cell: str, rule: str, direction: str) -> Estimate:
    """The gain's decades: below zero it is damped, above it is sped up."""
    return estimate([math.log10(m[rule]["gain"][direction]) for m in _of(runs, cell)])


def _times(found: Estimate) -> str:
    low, high = (f"{10**v:.3g}" if math.isfinite(v) else "?" for v in (found.low, found.high))
    return f"{10**found.mean:.3g} [{low}, {high}]"


def _sooner(runs: Runs, cell: str, rule: str, direction: str) -> Estimate:
    """Decades of the steps until the quadratic's coordinate has settled, descent's less the rule's."""
    pairs = [(m[DESCENT]["settled"][direction], m[rule]["settled"][direction]) for m in _of(runs, cell)]
    return estimate([math.log10(ours / theirs) for ours, theirs in pairs])


def _below(found: Estimate) -> bool | None:
    return None if found.above_zero is None else not found.above_zero


def judge(runs: Runs) -> Verdict:
    """Across and along, in both ravines, for the momentum that adds up; the condition says what the other does."""
    statements = []
    for ravine in ("quadratic", "network"):
        cell = f"{ravine}, inside"
        across, along = (_gains(runs, cell, ADDED, direction) for direction in (STEEP, SHALLOW))
        statements.append(
            Statement(
                f"Momentum damps the steep direction of the {ravine}: its steps there are {_times(across)} times as "
                "long as descent would make them of the same gradients.",
                _below(across),
            )
        )
        averaged = _gains(runs, cell, AVERAGED, SHALLOW)
        condition = (
            "" if averaged.above_zero else f"not if it averages gradients, as D4's does: {_times(averaged)} there"
        )
        statements.append(
            Statement(
                f"It speeds the shallow direction of the {ravine}: {_times(along)} times as long.",
                along.above_zero, condition if along.above_zero else "",
            )
        )  # fmt: skip
    edge, inside = (_sooner(runs, f"quadratic, {name}", ADDED, STEEP) for name in ("at the edge", "inside"))
    statements.append(
        Statement(
            "The swing across ends sooner: at the edge of descent's stability in "
            f"{_times(_negative(edge))} of descent's steps.",
            edge.above_zero,
            f"only near the edge, at η above (1 + √μ)/λ: inside it takes {_times(_negative(inside))} times as many"
            if edge.above_zero and not inside.above_zero else "",
        )
    )  # fmt: skip
    along = _sooner(runs, "quadratic, inside", ADDED, SHALLOW)
    statements.append(
        Statement(f"The way along ends sooner: in {_times(_negative(along))} of descent's steps.", along.above_zero)
    )
    return conclude(
        statements,
        "The two momentums share the work: added up, it speeds the floor 1/(1−μ) times and damps the "
        "swing little; averaged, it damps the swing more and speeds nothing at the same rate (at a rate 1/(1−μ) times "
        "higher it is the other one).",
    )


def _negative(found: Estimate) -> Estimate:
    return Estimate(-found.mean, found.spread, -found.high, -found.low, found.n)


def tables(runs: Runs) -> Sequence[Table]:
    """Gains; steps until settled, with theory; how far the network came."""
    gains = [["gain, mean over seeds", *(f"{rule}, {way}" for rule in (ADDED, AVERAGED) for way in (STEEP, SHALLOW))]]
    both = [(rule, way) for rule in (ADDED, AVERAGED) for way in (STEEP, SHALLOW)]
    gains += [[cell, *(_times(_gains(runs, cell, rule, way)) for rule, way in both)] for cell in runs]
    for name, sharp in _RATES.items():
        theory = [
            gain_by_theory(sharp * curvature / CURVATURE[0], averaged=rule == AVERAGED)
            for rule in (ADDED, AVERAGED)
            for curvature in CURVATURE
        ]
        gains.append([f"quadratic, {name}, in closed form, once it swings", *(f"{g:.3g}" for g in theory)])
    ends = [["quadratic: steps until settled", *(f"{rule}, {way}" for rule in RULES for way in (STEEP, SHALLOW))]]
    net = [["network", "curvature", "rate", *(f"{rule}: {what}" for rule in RULES for what in ("way", "loss"))]]
    for cell in runs:
        found = _of(runs, cell)
        if cell.startswith("quadratic"):
            steps = [estimate([m[r]["settled"][way] for m in found]).mean for r in RULES for way in (STEEP, SHALLOW)]
            ends.append([cell, *(f"{k:.0f}" for k in steps)])
        else:
            values = [estimate([m[r][what] for m in found]).mean for r in RULES for what in ("far", "loss")]
            about = [estimate([m[what] for m in found]).mean for what in ("curvature", "rate")]
            net.append([cell, *(f"{v:.3g}" for v in (*about, *values))])
    return [
        Table("Gains: steps over what descent would make of the same gradients", gains),
        Table("When the quadratic's coordinates have settled", ends),
        Table("How far the network came along its floor", net),
    ]


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    """Gains, and the quadratic's swing across."""
    drawn = {
        f"{rule}, {way}": {cell: [m[rule]["gain"][way] for m in _of(runs, cell)] for cell in runs}
        for rule in (ADDED, AVERAGED)
        for way in (STEEP, SHALLOW)
    }
    gains = dots("gain", drawn, log_y=True)
    gains.update_layout(title="Steps over what descent would make of the same gradients")
    found = _of(runs, "quadratic, inside")
    swings = {}
    for rule in RULES:
        ways = [[abs(point[0] / m[rule]["path"][0][0]) for point in m[rule]["path"]] for m in found]
        swings[rule] = list(range(len(ways[0]))), ways
    across = lines("step", "distance from the floor / at the start", swings, log_y=True)
    across.update_layout(title="The swing across the quadratic, inside descent's stability")
    return {"gains": gains, "swing": across}


EXPERIMENT = Experiment(
    id="X11",
    title="Momentum in a ravine",
    claim="In a ravine momentum damps the steep direction and speeds the shallow one.",
    source="D0 and D4, on momentum; Polyak, Some methods of speeding up the convergence of iteration methods, 1964; "
    "Sutskever et al., On the importance of initialization and momentum in deep learning, 2013, section 2",
    setup=setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.2, 2),
)
