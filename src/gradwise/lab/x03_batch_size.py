"""X3, with C10: what a batch's size does: noise, steps, time, and whether small ones get out of where one is stuck."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gradwise import optim
from gradwise.curvature import critical_point
from gradwise.lab.data import Split, load
from gradwise.lab.drawing import lines
from gradwise.lab.experiment import (
    Bench,
    Cell,
    Experiment,
    Measures,
    Runs,
    Statement,
    Table,
    Verdict,
    conclude,
    measured,
)
from gradwise.lab.models import mlp
from gradwise.lab.statistics import Estimate, estimate, paired
from gradwise.lab.stuck import Starts, at_saddle, ordinary_rate
from gradwise.lab.training import evaluate, finite, fit, seeded

if TYPE_CHECKING:
    import plotly.graph_objects as go

ALL = 10**9
SIZES = {"one row": 1, "32 rows": 32, "all rows": ALL}
NOISE_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SHARED = 0.01  # the rate that D2 says to begin with; "own" is the range test's for each size
TARGET = 0.5  # of the first loss: what steps and time are counted to
OUT = 0.9  # of the saddle's loss: below it the saddle is left
# How far down a saddle's slope to go, as rate × steps: e^16-fold growth at the curvature there, -0.64. What rounding
# starts with in double precision (1e-16) stays invisible so far.
WAY = 25.0
RANDOM, ZERO = "saddle, biases as drawn", "saddle, all zero"
SINGLE = f"{RANDOM}, all rows, single precision"
# To have left a poor minimum is to be at least this share of the way from there to the best minimum found.
SHARE = 0.1


def cells(quick: bool) -> list[Cell]:
    """Noise; descent by size and rate; saddles by size; poor minima."""
    rows = 400 if quick else ALL
    settings: dict[str, dict[str, Any]] = {"noise": {"part": "noise", "draws": 30 if quick else 200}}
    for name, size in SIZES.items():
        for rate in ("shared", "own"):
            steps = 800 if quick else 10_000
            settings[f"descent, {name}, {rate} rate"] = {"part": "descent", "batch": size, "rate": rate, "steps": steps}
        for place in (RANDOM, ZERO):
            settings[f"{place}, {name}"] = {"part": "saddle", "batch": size, "place": place}
    if not quick:
        settings[SINGLE] = {"part": "saddle", "batch": ALL, "place": RANDOM, "single": True}
    found = [Cell(name, {**own, "rows": rows}) for name, own in settings.items()]
    few = {"part": "minima", "starts": 8, "find": 200, "noise": 100, "rates": [0.03]}
    many = {"part": "minima", "starts": 48, "find": 1000, "noise": 500, "rates": [0.01, 0.03]}
    return [*found, Cell("poor minima", few if quick else many)]


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """One part for one seed."""
    if settings["part"] == "minima":
        return _minima(settings, seed)
    return {"noise": _noise, "descent": _descent, "saddle": _saddle}[settings["part"]](settings, seed)


def _digits(rows: int) -> Split:
    return load("digits").train.first(rows)


def _net(seed: int) -> nn.Sequential:
    with seeded(seed):
        return mlp([64, 32, 10], nn.Tanh)


def _gradient(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))])


def _noise(settings: Mapping[str, Any], seed: int) -> Measures:
    """The root mean square distance of a batch's gradient from the gradient of all rows, relative to the latter."""
    train = _digits(settings["rows"])
    net, random = _net(seed), torch.Generator().manual_seed(seed)
    whole = _gradient(net, train.x, train.y)
    noise = []
    for size in NOISE_SIZES:
        rows = torch.randint(len(train), (settings["draws"], size), generator=random)
        squares = [float((_gradient(net, train.x[r], train.y[r]) - whole).square().sum()) for r in rows]
        noise.append(math.sqrt(fmean(squares)) / float(whole.norm()))
    slope = np.polyfit(np.log(NOISE_SIZES), np.log(noise), 1)[0]
    return {"noise": noise, "slope": float(slope)}


@lru_cache(maxsize=64)
def _own_rate(rows: int, batch: int, seed: int) -> float:
    return ordinary_rate(_digits(rows), batch, seed, SHARED)


def _descent(settings: Mapping[str, Any], seed: int) -> Measures:
    """To half of the first loss, in so many steps at most; then how many of 50 steps raise the loss of all rows."""
    train = _digits(settings["rows"])
    batch = min(settings["batch"], len(train))
    rate = SHARED if settings["rate"] == "shared" else _own_rate(len(train), batch, seed)
    net = _net(seed)
    optimizer = optim.SGD(net.parameters(), lr=rate)

    def run(steps: int) -> float:
        """Some steps further; how many seconds that took."""
        begun = time.perf_counter()
        for _ in range(steps):
            if not order:
                order.extend(torch.split(torch.randperm(len(train), generator=random), batch))
            rows = order.pop()
            optimizer.zero_grad()
            F.cross_entropy(net(train.x[rows]), train.y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return time.perf_counter() - begun

    random, order = torch.Generator().manual_seed(seed), list[torch.Tensor]()
    steps, losses, seconds = [0], [evaluate(net, train)[0]], 0.0
    for mark in sorted({round(10 ** (k / 20)) for k in range(1, 81)}):
        if mark > settings["steps"] or not losses[-1] > TARGET * losses[0]:
            break
        seconds += run(mark - steps[-1])
        steps.append(mark)
        losses.append(evaluate(net, train)[0])
    reached = losses[-1] <= TARGET * losses[0]
    after = [losses[-1]]
    for _ in range(50):
        run(1)
        after.append(evaluate(net, train)[0])
    return {
        "rate": rate,
        "steps": steps,
        "losses": [finite(v) for v in losses],
        "to target": steps[-1] if reached else None,
        "rows": steps[-1] * batch if reached else None,
        "rises": fmean(later > sooner for sooner, later in pairwise(after)),
        "seconds per step": seconds / steps[-1],
    }


def _saddle(settings: Mapping[str, Any], seed: int) -> Measures:
    """From exactly a saddle, as long as `WAY` says, at the rate that the range test finds for ordinary weights."""
    train, single = _digits(settings["rows"]), settings.get("single", False)
    train = train if single else Split(train.x.double(), train.y)
    rate = _own_rate(len(train), 32, seed)
    net = at_saddle(train, 16, seed, biases=settings["place"] == RANDOM)
    start = critical_point(lambda: F.cross_entropy(net(train.x), train.y), net)
    steps, losses = [0], [evaluate(net, train)[0]]
    every = max(1, round(0.5 / rate))

    def look(step: int) -> None:
        if step % every == 0:
            steps.append(step)
            losses.append(evaluate(net, train)[0])

    longest = round((2.5 if single else 1.0) * WAY / rate)
    optimizer = optim.SGD(net.parameters(), lr=rate)
    fit(net, optimizer, train, batch=min(settings["batch"], len(train)), steps=longest, seed=seed, each_step=look)
    out = [step for step, loss in zip(steps, losses, strict=True) if loss < OUT * losses[0]]
    at = {"kind": start.kind, "lowest": start.measured.smallest.value, "gradient": start.measured.gradient_norm}
    return {**at, "rate": rate, "steps": steps, "losses": losses, "out": out[0] if out else None}


def _minima(settings: Mapping[str, Any], seed: int) -> Measures:
    """From minima of many starts: so many steps with each size, then settled again on all rows."""
    train = load("diabetes").train
    inputs, find = train.x.shape[1], settings["find"]

    def settle(nets: Starts) -> Starts:
        return nets.train_on(train, optim.SGD(nets.parameters(), lr=0.1, momentum=0.9), find, ALL, seed)

    stuck = settle(Starts(inputs, 3, settings["starts"], seed))
    found: dict[str, Any] = {"rates": settings["rates"], "before": stuck.losses(train).tolist()}
    for rate in settings["rates"]:
        for name, size in SIZES.items():
            nets = copy.deepcopy(stuck)
            nets.train_on(train, optim.SGD(nets.parameters(), lr=rate), settings["noise"], size, seed)
            found[f"{name}, rate {rate:g}"] = settle(nets).losses(train).tolist()
    return found


# From here on: pure functions of what was measured.


def _gain(runs: Runs, size: str, rate: float) -> Estimate:
    """How much further than all rows a batch size gets from the poorer half of the minima, of the way to the best."""
    shares = []
    for m in runs["poor minima"].values():
        poor = [k for k, v in enumerate(m["before"]) if v >= median(m["before"])]
        ours, theirs, before = (
            fmean(m[key][k] for k in poor) for key in (f"{size}, rate {rate:g}", f"all rows, rate {rate:g}", "before")
        )
        shares.append((theirs - ours) / (before - min(m["before"])))
    return estimate(shares)


def _rates(runs: Runs) -> list[float]:
    return list(next(iter(runs["poor minima"].values()))["rates"])


def judge(runs: Runs) -> Verdict:
    """Sentence by sentence."""
    return conclude([_noise_falls(runs), *_unstable(runs), *_at_saddle(runs), *_from_minima(runs)])


def _noise_falls(runs: Runs) -> Statement:
    slope = estimate(measured(runs, "noise", "slope"))
    inside, outside = slope.low > -0.55 and slope.high < -0.45, slope.high < -0.55 or slope.low > -0.45
    text = f"The noise of the gradient falls as one over the root of the batch's size: as its power {slope}"
    return Statement(text, True if inside else False if outside else None)


def _unstable(runs: Runs) -> list[Statement]:
    found = []
    for rate, what in (("shared", f"at one rate, {SHARED:g}"), ("own", "each at its own rate")):
        rises = {name: measured(runs, f"descent, {name}, {rate} rate", "rises") for name in SIZES}
        more = [paired(rises["one row"], rises[other]).above_zero for other in ("32 rows", "all rows")]
        shares = ", ".join(f"{fmean(v):.0%} with {name}" for name, v in rises.items())
        text = f"SGD on one row is unstable ({what}): of its steps {shares} raise the loss of all"
        found.append(Statement(text, False if False in more else None if None in more else True))
    return found


def _at_saddle(runs: Runs) -> list[Statement]:
    def seeds(place: str, *sizes: str) -> list[Measures]:
        return [m for size in sizes for m in runs[f"{place}, {size}"].values()]

    def moved(m: Measures) -> float:
        """By how much the loss was another on average, relative."""
        return fmean(abs(v / m["losses"][0] - 1) for v in m["losses"][1:])

    small = ("one row", "32 rows")
    stays = [moved(m) for place in (RANDOM, ZERO) for m in seeds(place, "all rows")]
    jitter = [moved(m) for place in (RANDOM, ZERO) for m in seeds(place, *small)]
    from_random, from_zero = ([m["out"] is not None for m in seeds(place, *small)] for place in (RANDOM, ZERO))
    single = [m["out"] for m in runs.get(SINGLE, {}).values() if m["out"] is not None]
    # In the reduced form rounding has no time to grow.
    rounding = f"until rounding has grown: in single precision it is out after {min(single)} steps" if single else ""
    noise = "where the batches' noise points along the way out, which at all-zero weights it doesn't"
    return [
        Statement(
            f"At a critical point descent on all rows stops: its loss is another by {max(stays):.1g} of itself at most",
            max(stays) < 1e-6,
            rounding,
        ),
        Statement(
            f"There mini-batches jitter: their loss is another by {min(jitter):.1g} of itself or more",
            min(jitter) > 1e-6,
        ),
        Statement(
            f"Small batches get out of a saddle: {sum(from_random)} of {len(from_random)} runs where hidden biases are "
            f"as drawn, {sum(from_zero)} of {len(from_zero)} where everything is zero",
            True if all(from_random) else None if any(from_random) else False,
            "" if all(from_zero) else noise,
        ),
    ]


def _from_minima(runs: Runs) -> list[Statement]:
    found = []
    for size in ("one row", "32 rows"):
        gains = {rate: _gain(runs, size, rate) for rate in _rates(runs)}
        away, here = (any(g.low > SHARE for g in gains.values()), all(g.high < SHARE for g in gains.values()))
        got = "; ".join(f"{_percent(gain)} at rate {rate:g}" for rate, gain in gains.items())
        text = (
            f"Batches of {size} get out of poor minima: further than all rows by {got} of the way to the best minimum"
        )
        found.append(Statement(text, True if away else False if here else None))
    return found


def _percent(gain: Estimate) -> str:
    return f"{gain.mean:.0%} [{gain.low:.0%}, {gain.high:.0%}]"


def tables(runs: Runs) -> list[Table]:
    """Steps and time, saddles, minima."""
    head = ["", "rate", "steps to half the loss", "rows seen", "ms a step (here)", "steps that raise the loss"]
    descent = [head]
    for cell in (c for c in runs if c.startswith("descent")):
        steps, rows = ([v for v in measured(runs, cell, key) if v is not None] for key in ("to target", "rows"))
        late = len(runs[cell]) - len(steps)
        rate, seconds = (median(measured(runs, cell, key)) for key in ("rate", "seconds per step"))
        counts = [f"{median(steps):,.0f}", f"{median(rows):,.0f}"] if not late else [f"{late} not there", ""]
        rises = f"{fmean(measured(runs, cell, 'rises')):.0%}"
        descent.append([cell.removeprefix("descent, "), f"{rate:.2g}", *counts, f"{1000 * seconds:.2g}", rises])
    saddles = [["", "what it is", "least curvature", "gradient", "left after steps", "loss at the end"]]
    for cell in (c for c in runs if c.startswith("saddle")):
        first = next(iter(runs[cell].values()))
        out = ", ".join("never" if step is None else f"{step}" for step in measured(runs, cell, "out"))
        end = f"{fmean(v[-1] for v in measured(runs, cell, 'losses')):.3g}"
        saddles.append([cell, first["kind"], f"{first['lowest']:.3g}", f"{first['gradient']:.1g}", out, end])
    minima = [["", "further than all rows, of the way to the best minimum"]]
    for size in ("one row", "32 rows"):
        minima += [[f"{size}, rate {rate:g}", _percent(_gain(runs, size, rate))] for rate in _rates(runs)]
    return [
        Table("Descent (medians over seeds)", descent),
        Table("From a saddle", saddles),
        Table("From the poorer half of the minima, with each size for a while", minima),
    ]


def figures(runs: Runs) -> dict[str, go.Figure]:
    """The noise by size; the loss from the saddle, over the way gone."""
    noise = {"measured": (NOISE_SIZES, measured(runs, "noise", "noise"))}
    first = fmean(v[0] for v in measured(runs, "noise", "noise"))
    noise["1/√rows"] = (NOISE_SIZES, [[first / math.sqrt(size) for size in NOISE_SIZES]])
    escape = {}
    for place in (RANDOM, ZERO):
        for name in SIZES:
            losses = measured(runs, f"{place}, {name}", "losses")
            length = min(map(len, losses))
            escape[f"{place.removeprefix('saddle, ')}, {name}"] = (
                [WAY * k / (length - 1) for k in range(length)], [v[:length] for v in losses],
            )  # fmt: skip
    return {
        "noise": lines("rows in a batch", "noise of the gradient, relative", noise, log_x=True, log_y=True),
        "saddle": lines("rate × step", "loss of all rows", escape),
    }


def _setup(quick: bool) -> str:
    rows, starts, rates = ("400 rows of ", 8, "0.03") if quick else ("", 48, "0.01 and 0.03")
    return (
        f"A net of one hidden layer (32 tanh units) on {rows}the handwritten digits, plain SGD with batches of one "
        f"row, 32 and all. Descent: at rate {SHARED:g} and at each size's own rate by the range test, until the loss "
        "of all rows is half the first, and 50 steps more. Saddles: 16 units, all weights zero, output biases at the "
        "classes' frequencies, hidden biases as drawn or zero, checked by the Hessian's spectrum, in double precision; "
        f"one rate for all sizes (the range test's for 32 rows and ordinary weights), {WAY:g}/rate steps. Minima: "
        f"{starts} nets of 3 tanh units on the diabetes data, settled on all rows with momentum, trained on with each "
        f"size at rate {rates}, settled again."
    )


EXPERIMENT = Experiment(
    id="X3",
    title="Small and large batches",
    claim=(
        "Small batches get out of where training would be stuck (D1). At a critical point descent on all rows stops, "
        "while mini-batches jitter (D2). SGD on one row is unstable (D0). Gradients of small batches are noisier (D1)."
    ),
    source="D0, D1, D2; for noise at saddles Ge, Huang, Jin & Yuan (2015)",
    setup=_setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.3, 3),
)
