"""X6: D4's three sources of gradients that differ by orders, in real networks, before and after each cure.

What is compared is steps, not gradients: under plain gradient descent a step is the rate times the gradient, so both
have the same ratios, and RMSprop changes the one without the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise import optim
from gradwise.lab import files
from gradwise.lab.data import DataError
from gradwise.lab.drawing import dots, lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.models import mlp
from gradwise.lab.statistics import Estimate, estimate
from gradwise.lab.training import seeded

if TYPE_CHECKING:
    import plotly.graph_objects as go

SOURCES = {"a": "between input features", "b": "between layers", "c": "between weights and biases"}
FIGURES = {"a": 12_619, "b": 40_000, "c": 27}  # D4's examples
NONE, NORMALIZED, INITIALIZED, RMSPROP = "as it is", "normalization", "initialization", "RMSprop"
BOTH = "normalization and initialization"
CURES = (NORMALIZED, INITIALIZED, RMSPROP)
# A disparity is cured where at least half of its decades are gone, from 10,000 to 100 or less.
HALF = 0.5
ROWS = 2048


def cells(quick: bool) -> list[Cell]:
    """Each data set without a cure, with each one, and with two."""
    names = ("breast_cancer",) if quick else ("breast_cancer", "wine", "california")
    steps = 100 if quick else 400
    return [
        Cell(f"{name.replace('_', ' ')}, {cure}", {"data": name, "cure": cure, "steps": steps})
        for name in names
        for cure in (NONE, *CURES, BOTH)
    ]


def _raw(name: str, bench: Bench) -> tuple[Tensor, Tensor]:
    """Rows as they come, not standardized, and their targets."""
    if name == "california":
        x, y = files.california(bench.data_dir)
        x, y = x[:ROWS], (y[:ROWS, None] - y.mean()) / y.std()
    else:
        try:
            from sklearn import datasets  # type: ignore[import-untyped]
        except ImportError:
            raise DataError(f"{name} comes with scikit-learn: pip install 'gradwise[lab]'") from None
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return torch.tensor(x, dtype=torch.float64), torch.tensor(y)


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """Train on all rows; how many times larger some steps are than others, at marks."""
    x, y = _raw(settings["data"], bench)
    cure = settings["cure"]
    if cure in (NORMALIZED, BOTH):
        x = (x - x.mean(0)) / x.std(0).clamp_min(1e-12)
    values = y.is_floating_point()
    with seeded(seed):
        net = mlp([x.shape[1], 16, 16, 16, 1 if values else int(y.max()) + 1], nn.Sigmoid).double()
        for layer in _layers(net):
            if cure in (INITIALIZED, BOTH):
                nn.init.xavier_normal_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
    rmsprop = cure == RMSPROP
    # The rates that the documents name.
    optimizer = (
        optim.RMSprop(net.parameters(), lr=0.001, alpha=0.9) if rmsprop else optim.SGD(net.parameters(), lr=0.01)
    )
    marks = sorted({round(settings["steps"] ** (k / 8)) for k in range(9)})
    found: dict[str, list[Any]] = {"marks": marks, **{source: [] for source in SOURCES}}
    for step in range(1, marks[-1] + 1):
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y) if values else F.cross_entropy(net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in marks:
            moved = [p.detach() - q for p, q in zip(net.parameters(), before, strict=True)]
            for source, ratio in disparities(moved[::2], moved[1::2]).items():
                found[source].append(ratio)
    return {**found, "loss": float(loss.detach())}


def _layers(net: nn.Module) -> list[nn.Linear]:
    return [m for m in net.modules() if isinstance(m, nn.Linear)]


def disparities(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> dict[str, float]:
    """How many times larger some steps (or gradients) are than others, root mean squares compared.

    (a) largest over smallest column of the first layer's weights, a column per input feature; (b) last layer's weights
    and first layer's, the larger over the smaller; (c) a layer's weights and its bias likewise, of the layer where they
    are furthest apart. What doesn't move at all is left out: a feature that is always 0.

    >>> w, b = [torch.tensor([[4.0, 2.0]]), torch.tensor([[0.1]])], [torch.tensor([1.0]), torch.tensor([0.1])]
    >>> {k: round(v, 2) for k, v in disparities(w, b).items()}
    {'a': 2.0, 'b': 31.62, 'c': 3.16}
    """
    columns = weights[0].square().mean(0).sqrt()
    columns = columns[columns > 0]
    sizes = [float(w.square().mean().sqrt()) for w in weights]
    others = [float(b.square().mean().sqrt()) for b in biases]
    return {
        "a": _fold(float(columns.max()), float(columns.min())) if len(columns) else 1.0,
        "b": _fold(sizes[0], sizes[-1]),
        "c": max(_fold(w, b) for w, b in zip(sizes, others, strict=True)),
    }


def _fold(one: float, other: float) -> float:
    low, high = sorted((one, other))
    return high / low if low > 0 else 1.0 if high == 0 else 1e300


# From here on: pure functions of what was measured.


def _data(runs: Runs) -> list[str]:
    return list(dict.fromkeys(cell.partition(", ")[0] for cell in runs))


def _decades(measures: Measures, source: str, when: str) -> float:
    """The decades of a disparity: in the first step, or on average over the later half of the marks."""
    values = measures[source]
    return fmean(math.log10(v) for v in (values[:1] if when == "first" else values[len(values) // 2 :]))


def _removed(runs: Runs, data: str, cure: str, source: str, when: str) -> Estimate:
    """The share of a disparity's decades that a cure takes away; below 0 it adds some."""
    shares = []
    for seed, before in runs[f"{data}, {NONE}"].items():
        decades = _decades(before, source, when)
        shares.append(1 - _decades(runs[f"{data}, {cure}"][seed], source, when) / max(decades, 1e-9))
    return estimate(shares)


def _cures(runs: Runs, cure: str, source: str, when: str) -> bool | None:
    """Whether it cures, on all data sets; False where on one it doesn't."""
    found = [_removed(runs, data, cure, source, when) for data in _data(runs)]
    if all(e.low > HALF for e in found):
        return True
    return False if any(e.high < HALF for e in found) else None


def _cures_nowhere(runs: Runs, cure: str, source: str, when: str) -> bool | None:
    found = [_removed(runs, data, cure, source, when) for data in _data(runs)]
    if all(e.high < HALF for e in found):
        return True
    return False if any(e.low > HALF for e in found) else None


def _shares(runs: Runs, cure: str, source: str, when: str) -> str:
    shares = {data: _removed(runs, data, cure, source, when) for data in _data(runs)}
    return "; ".join(f"{_percent(share)} of its decades on {data}" for data, share in shares.items())


def _percent(share: Estimate) -> str:
    return f"{share.mean:.0%} [{share.low:.0%}, {share.high:.0%}]"


def judge(runs: Runs) -> Verdict:
    """Whether the sources are there, and what each cure does to each of them."""
    said = []
    for source, what in SOURCES.items():
        decades = {
            d: estimate([_decades(m, source, "first") for m in runs[f"{d}, {NONE}"].values()]) for d in _data(runs)
        }
        ratios = ", ".join(f"{10**e.mean:,.0f} times on {data}" for data, e in decades.items())
        there = [True if e.low > 1 else False if e.high < 1 else None for e in decades.values()]
        text = f"({source}) Gradients differ by orders {what}: {ratios} (D4's example: {FIGURES[source]:,})"
        said.append(Statement(text, False if False in there else None if None in there else True))
    said.append(_cure_of(runs, NORMALIZED, "a", "Normalization cures (a)"))
    said += [_no_cure(runs, NORMALIZED, source, f"... and not ({source})") for source in ("b", "c")]
    said.append(_cure_of(runs, INITIALIZED, "b", "Initialization cures (b) at the start", "first"))
    said.append(_fades(runs))
    said += [_no_cure(runs, INITIALIZED, source, f"Initialization doesn't cure ({source})") for source in ("a", "c")]
    said += [_cure_of(runs, RMSPROP, source, f"RMSprop cures ({source})") for source in SOURCES]
    return conclude(said)


def _cure_of(runs: Runs, cure: str, source: str, text: str, when: str = "later") -> Statement:
    shares = _shares(runs, cure, source, when)
    return Statement(f"{text}: it takes away {shares}", _cures(runs, cure, source, when))


def _no_cure(runs: Runs, cure: str, source: str, text: str) -> Statement:
    shares = _shares(runs, cure, source, "first")
    return Statement(f"{text}: it takes away {shares}", _cures_nowhere(runs, cure, source, "first"))


def _fades(runs: Runs) -> Statement:
    """Early on only: the share that initialization takes away is smaller later."""
    lost = {}
    for data in _data(runs):
        cell = runs[f"{data}, {INITIALIZED}"].values()
        lost[data] = estimate([_decades(m, "b", "later") - _decades(m, "b", "first") for m in cell])
    later = "; ".join(
        f"{10**e.mean:.2g} times what it was at first [{10**e.low:.2g}, {10**e.high:.2g}] on {d}"
        for d, e in lost.items()
    )
    signs = [e.above_zero for e in lost.values()]
    held = True if all(signs) else False if False in signs else None
    return Statement(f"... early only: (b) grows again, later to {later}", held)


def tables(runs: Runs) -> list[Table]:
    """Ratios at first and later, and the document's."""
    columns = [(source, when) for source in SOURCES for when in ("first", "later")]
    rows = [["", *(f"({source}) {when}" for source, when in columns), "loss at the end"]]
    for cell, seeds in runs.items():
        ratios = [10 ** fmean(_decades(m, *column) for m in seeds.values()) for column in columns]
        loss = fmean(m["loss"] for m in seeds.values())
        rows.append([cell, *(f"{v:,.3g}" if v < 100 else f"{v:,.0f}" for v in ratios), f"{loss:.3g}"])
    d4 = [["", "ratio"], *([f"({source}) {what}", f"{FIGURES[source]:,}"] for source, what in SOURCES.items())]
    return [
        Table("How many times larger some steps are than others (geometric means)", rows),
        Table("D4's examples", d4),
    ]


def figures(runs: Runs) -> dict[str, go.Figure]:
    """Ratios by source and cure in the first step; (b) over training."""
    data = _data(runs)[0]
    first = {
        cure: {
            f"({source}) {what}": [m[source][0] for m in runs[f"{data}, {cure}"].values()]
            for source, what in SOURCES.items()
        }
        for cure in (NONE, *CURES)
    }
    marks = next(iter(runs[f"{data}, {NONE}"].values()))["marks"]
    drawn = {cure: (marks, [m["b"] for m in runs[f"{data}, {cure}"].values()]) for cure in (NONE, *CURES)}
    return {
        "first-step": dots(f"ratio of steps, {data}", first, log_y=True),
        "layers": lines("step", f"(b) between layers, {data}", drawn, log_x=True, log_y=True),
    }


def _setup(quick: bool) -> str:
    data = "breast cancer" if quick else f"breast cancer, wine and California housing ({ROWS:,} rows)"
    return (
        f"Nets of three hidden layers of 16 sigmoid units on the {data} data as they come, all rows in each step, "
        f"{100 if quick else 400} steps, double precision. Weights N(0, 0.01²), gradient descent at 0.01. Cures: "
        "inputs standardized; Xavier's initial weights; RMSprop (0.001, decay 0.9). Later is the average over the "
        "later half of the marks, which lie at equal distances in the logarithm of the step. Cured is a disparity that "
        "has lost half of its decades."
    )


EXPERIMENT = Experiment(
    id="X6",
    title="Gradients that differ by orders, and what cures that",
    claim=(
        "Gradients differ by orders (a) between input features, (b) between layers, (c) between weights and biases. "
        "Normalization cures (a) only, initialization helps (b) in part and early, RMSprop cures all three."
    ),
    source="D4; Glorot & Bengio (2010) for initialization, Tieleman & Hinton (2012) for RMSprop",
    setup=_setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    data=("california",),
    minutes=(0.1, 1),
)
