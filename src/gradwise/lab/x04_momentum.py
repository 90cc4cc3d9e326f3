"""X4: momentum at a plateau, a saddle and a bad minimum, on functions made for it and in real networks.

There are two momentums to ask about. D1's adds up gradients, so that at the same rate it soon goes 1/(1−μ) times as
fast; D4's averages them, and goes as fast as descent does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradwise import optim
from gradwise.lab.data import Split, load
from gradwise.lab.drawing import dots, lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.statistics import Estimate, estimate
from gradwise.lab.stuck import Starts, at_saddle, ordinary_rate
from gradwise.lab.training import History, evaluate, finite, fit, seeded

if TYPE_CHECKING:
    import plotly.graph_objects as go

MU = 0.9
DESCENT, ADDED, AVERAGED = "descent", "momentum, added up", "momentum, averaged"
BALLS = (ADDED, AVERAGED)
RULES: dict[str, dict[str, Any]] = {
    DESCENT: {},
    ADDED: {"momentum": MU, "convention": "keras"},
    AVERAGED: {"momentum": MU, "convention": "ema"},
}
ALL = 10**9
RATE = 0.01  # on plateau and saddle: the rate that D2 says to begin with
OUT = 0.9  # of the saddle's loss: below it the saddle is left
# To end in better minima is to be at least this share of the way from descent's mean to the best one.
SHARE = 0.1
NEAR = 0.05  # of the same way: so near to the best minimum is in it


def cells(quick: bool) -> list[Cell]:
    """Three constructed places, two in real networks."""
    rows, starts, find = (200, 8, 120) if quick else (ALL, 48, 1000)
    return [
        Cell("plateau", {"part": "plateau"}),
        Cell("saddle", {"part": "saddle"}),
        Cell("landscapes", {"part": "landscapes", "landscapes": 100 if quick else 300, "steps": 300 if quick else 500}),
        Cell("saddle of a net", {"part": "net", "rows": rows}),
        Cell("minima of nets", {"part": "minima", "starts": starts, "find": find}),
    ]


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """One place for one seed, with each rule."""
    parts: dict[str, Callable[..., Measures]] = {
        "plateau": _plateau, "saddle": _saddle, "landscapes": _landscapes, "net": _net, "minima": _minima,
    }  # fmt: skip
    return parts[settings["part"]](settings, seed)


def _go(rule: str, start: Tensor, slope: Callable[[Tensor], Tensor], rate: float, steps: int) -> Tensor:
    """The way of a point, (steps + 1, …), on a function given by its gradient."""
    place = nn.Parameter(start.clone())
    optimizer = optim.SGD([place], lr=rate, **RULES[rule])
    way = [start]
    for _ in range(steps):
        place.grad = slope(place.detach())
        optimizer.step()
        way.append(place.detach().clone())
    return torch.stack(way)


def _plateau(settings: Mapping[str, Any], seed: int) -> Measures:
    """Down a slope of 1, then flat for a width, then down again: which widths are crossed."""
    widths = torch.linspace(0.02, 2.0, 100, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    start = -1 - torch.rand(1, generator=random, dtype=torch.float64).expand_as(widths)
    found: dict[str, Any] = {"widths": widths.tolist()}
    for rule in RULES:
        way = _go(rule, start, lambda x: -((x < 0) | (x > widths)).double(), RATE, 600)
        found[rule] = (way[-1] > widths).tolist()
    return found


def _saddle(settings: Mapping[str, Any], seed: int) -> Measures:
    """On ½(x² − y²) from x = 1: after how many steps |y| > 1, from beside the ridge and from right on it."""
    random = torch.Generator().manual_seed(seed)
    beside = 1e-3 * torch.randn(1, generator=random, dtype=torch.float64)
    found: dict[str, Any] = {}
    for rule in RULES:
        start = torch.tensor([[1.0, float(beside)], [1.0, 0.0]], dtype=torch.float64)
        away = _go(rule, start, lambda p: p * torch.tensor([1.0, -1.0], dtype=p.dtype), RATE, 3000)[:, :, 1].abs() > 1
        found[rule] = int(away[:, 0].int().argmax()) if bool(away[:, 0].any()) else None
        found[f"{rule}, on the ridge"] = bool(away[:, 1].any())
    return found


def _landscapes(settings: Mapping[str, Any], seed: int) -> Measures:
    """Many starts in random landscapes of waves in a bowl: how deep each ends, settled by descent."""
    random = torch.Generator().manual_seed(seed)
    lengths, phases = torch.rand(2, 6, settings["landscapes"], 1, generator=random, dtype=torch.float64)
    waves, phases = 1 + 4 * lengths, 2 * math.pi * phases
    start = 12 * torch.rand(settings["landscapes"], 50, generator=random, dtype=torch.float64) - 6

    def height(x: Tensor) -> Tensor:
        return 0.05 * x.square() + torch.sum((waves * x + phases).sin() / waves, 0)

    def slope(x: Tensor) -> Tensor:
        return 0.1 * x + torch.sum((waves * x + phases).cos(), 0)

    # One over the largest curvature there can be: descent never climbs.
    rate = 1 / (0.1 + float(waves.sum(0).max()))
    ends = {}
    for rule in RULES:
        end = _go(rule, start, slope, rate, settings["steps"])[-1]
        ends[rule] = height(_go(DESCENT, end, slope, rate, settings["steps"])[-1])
    x = torch.linspace(-6, 6, 241, dtype=torch.float64)
    return {**_depths(ends), "x": x.tolist(), "height": height(x.expand(settings["landscapes"], -1))[0].tolist()}


def _depths(ends: Mapping[str, Tensor]) -> dict[str, Any]:
    """From (landscapes, starts) per rule: mean depths, the best, and how many leave it that descent leads there."""
    best = torch.stack([end.amin(1) for end in ends.values()]).amin(0)
    scale = ends[DESCENT].mean(1) - best
    good = ends[DESCENT] < (best + NEAR * scale)[:, None]
    left = {rule: ((end > (best + 2 * NEAR * scale)[:, None]) & good).sum() / good.sum() for rule, end in ends.items()}
    return {
        "best": float(best.mean()),
        "depth": {rule: float(end.mean()) for rule, end in ends.items()},
        "left": {rule: finite(float(share)) for rule, share in left.items()},
    }


def _net(settings: Mapping[str, Any], seed: int) -> Measures:
    """A net started beside the saddle of `at_saddle`, and right on it: after how many steps on all rows it is left."""
    train = load("digits").train.first(settings["rows"])
    rate = ordinary_rate(train, 32, seed, RATE)
    train, longest = Split(train.x.double(), train.y), round(25 / rate)
    found: dict[str, Any] = {"rate": rate}
    for rule, options in RULES.items():
        for where, nudge in (("beside", 1e-3), ("on", 0.0)):
            net = at_saddle(train, 16, seed, biases=True)
            with seeded(seed), torch.no_grad():
                for p in net.parameters():
                    p.add_(nudge * torch.randn_like(p))
            optimizer, saddle = optim.SGD(net.parameters(), lr=rate, **options), evaluate(net, train)[0]

            def away(epoch: int, history: History, below: float = OUT * saddle) -> bool:
                return history.losses[-1] < below

            # Right on it twice as long as beside it: rounding has no time to grow.
            steps = longest if where == "beside" else min(longest, 2 * (found[f"{rule}, beside"] or longest))
            seen = fit(net, optimizer, train, batch=ALL, steps=steps, seed=seed, each_epoch=away)
            found[f"{rule}, {where}"] = seen.steps if away(0, seen) else None
            if where == "beside":
                found[f"{rule}, losses"] = seen.losses
    return found


def _minima(settings: Mapping[str, Any], seed: int) -> Measures:
    """Small nets from many starts on all rows: the loss where each ends, all settled in the same way."""
    train, find = load("diabetes").train, settings["find"]
    ends = {}
    for rule, options in RULES.items():
        nets = Starts(train.x.shape[1], 3, settings["starts"], seed)
        nets.train_on(train, optim.SGD(nets.parameters(), lr=0.1, **options), find, ALL, seed)
        nets.train_on(train, optim.SGD(nets.parameters(), lr=0.1, momentum=MU), 2 * find, ALL, seed)
        ends[rule] = nets.losses(train).detach()[None]
    return _depths(ends)


# From here on: pure functions of what was measured.


def widest(rate: float, mu: float) -> float:
    """How wide a flat stretch momentum crosses after a slope of 1: at full speed η/(1−μ), times μ + μ² + …"""
    return rate / (1 - mu) * mu / (1 - mu)


def _crossed(m: Measures, rule: str) -> float:
    """The widest flat stretch that was crossed."""
    return max((w for w, over in zip(m["widths"], m[rule], strict=True) if over), default=0.0)


def _sooner(runs: Runs, cell: str, rule: str, of: str = "") -> Estimate:
    """The decades by which a rule is away sooner than descent; nothing where one of them never is."""
    pairs = [(m[f"{DESCENT}{of}"], m[f"{rule}{of}"]) for m in runs[cell].values()]
    return estimate([math.log10(a / b) for a, b in pairs if a and b] or [0.0])


def _deeper(m: Measures, rule: str) -> float:
    """How much deeper than descent a rule ends on average, of the way from descent's mean to the best minima."""
    depth, best = m["depth"], m["best"]
    share: float = (depth[DESCENT] - depth[rule]) / (depth[DESCENT] - best)
    return share


def _lost(runs: Runs, cell: str, rule: str) -> float | None:
    """Of the starts from which descent finds the best minimum, the share that ends elsewhere; None if it never does."""
    shares = [m["left"][rule] for m in runs[cell].values() if m["left"][rule] is not None]
    return fmean(shares) if shares else None


def _percent(share: Estimate) -> str:
    return f"{share.mean:.0%} [{share.low:.0%}, {share.high:.0%}]"


def _times(log: Estimate) -> str:
    return f"{10**log.mean:.2g} [{10**log.low:.2g}, {10**log.high:.2g}] times"


def judge(runs: Runs) -> Verdict:
    """Place by place, for both momentums."""
    return conclude(
        [
            *(_over_plateau(runs, rule) for rule in BALLS),
            *(s for rule in BALLS for s in _from_saddles(runs, rule)),
            *(s for rule in BALLS for s in _from_minima(runs, rule)),
        ]
    )


def _over_plateau(runs: Runs, rule: str) -> Statement:
    ours, theirs = (max(_crossed(m, r) for m in runs["plateau"].values()) for r in (rule, DESCENT))
    return Statement(
        f"Over a plateau ({rule}): it crosses a flat stretch of up to {ours:.2g}, descent of {theirs:.2g}",
        ours > theirs,
        f"as far as its speed carries, at rate {RATE:g} and slope 1 that far" if ours > theirs else "",
    )


def _from_saddles(runs: Runs, rule: str) -> list[Statement]:
    made, net = _sooner(runs, "saddle", rule), _sooner(runs, "saddle of a net", rule, ", beside")
    ridge = any(m[f"{rule}, on the ridge"] for m in runs["saddle"].values())
    on = any(m[f"{rule}, on"] is not None for m in runs["saddle of a net"].values())
    rest = "" if ridge or on else "not from right on it, where there is no slope to roll down"
    return [
        Statement(
            f"Away from a saddle ({rule}): {_times(made)} as fast as descent",
            made.above_zero,
            rest if made.above_zero else "",
        ),
        Statement(
            f"Away from a net's saddle ({rule}): {_times(net)} as fast as descent",
            net.above_zero,
            rest if net.above_zero else "",
        ),
    ]


def _from_minima(runs: Runs, rule: str) -> list[Statement]:
    found = []
    for cell, where in (("landscapes", "in random landscapes"), ("minima of nets", "in nets")):
        gain, lost = estimate([_deeper(m, rule) for m in runs[cell].values()]), _lost(runs, cell, rule)
        text = f"Over bumps into better minima {where} ({rule}): {_percent(gain)} of the way from descent's to the best"
        held = True if gain.low > SHARE else False if gain.high < SHARE else None
        also = f"it rolls out of the best minimum too, from {lost or 0:.0%} of the starts that lead descent there"
        found.append(Statement(text, held, also if held and lost else ""))
    return found


def tables(runs: Runs) -> list[Table]:
    """Everything by rule."""
    head = ["", "widest plateau", "steps from a saddle", "from a net's", "right on it"]
    rows = [[*head, "landscapes: depth", "left the best", "nets: loss", "left the best"]]
    for rule in RULES:
        row = [f"{max(_crossed(m, rule) for m in runs['plateau'].values()):.2g}"]
        places = (("saddle", rule), ("saddle of a net", f"{rule}, beside"), ("saddle of a net", f"{rule}, on"))
        for cell, key in places:
            steps = [m[key] for m in runs[cell].values()]
            row.append("never" if None in steps else f"{median(steps):,.0f}")
        for cell in ("landscapes", "minima of nets"):
            depth, lost = fmean(m["depth"][rule] for m in runs[cell].values()), _lost(runs, cell, rule)
            row += [f"{depth:.4g}", "–" if lost is None else f"{lost:.0%}"]
        rows.append([rule, *row])
    return [Table("By rule (medians of steps, means of depths and losses)", rows)]


def figures(runs: Runs) -> dict[str, go.Figure]:
    """The loss from beside a net's saddle; how much deeper each momentum ends; one of the landscapes."""
    escape, deeper = {}, {}
    for rule in RULES:
        seeds = runs["saddle of a net"].values()
        longest = max(len(m[f"{rule}, losses"]) for m in seeds)
        # A run ends where the saddle is left; its line goes on level.
        losses = [
            m[f"{rule}, losses"] + m[f"{rule}, losses"][-1:] * (longest - len(m[f"{rule}, losses"])) for m in seeds
        ]
        escape[rule] = (range(longest), losses)
    for rule in BALLS:
        deeper[rule] = {
            cell: [_deeper(m, rule) for m in runs[cell].values()] for cell in ("landscapes", "minima of nets")
        }
    one = next(iter(runs["landscapes"].values()))
    return {
        "saddle": lines("step", "loss of all rows", escape),
        "minima": dots("of the way to the best minima", deeper),
        "landscape": lines("x", "height of a landscape", {"a landscape": (one["x"], [one["height"]])}),
    }


def _setup(quick: bool) -> str:
    landscapes, nets, rows = (100, 8, "200 rows of ") if quick else (300, 48, "")
    return (
        "Descent, momentum that adds up gradients (D1) and momentum that averages them (D4), "
        f"μ = {MU:g}, all at the same rate. Plateau: slope 1, flat for a width, slope 1 again, rate {RATE:g}. Saddle: "
        f"½(x² − y²) from x = 1 and y beside 0. Landscapes: {landscapes} of six waves in a bowl, 50 starts in each, "
        f"rate one over the largest curvature possible. A net (16 tanh units, {rows}the digits, all rows in a step) "
        "beside the saddle where all weights are zero, at the range test's rate for descent with 32 rows. "
        f"{nets} nets of 3 tanh units on the diabetes data at 0.1. Where minima are compared all are settled in the "
        "same way first."
    )


EXPERIMENT = Experiment(
    id="X4",
    title="Momentum, a ball over bumps",
    claim="Momentum carries over a critical point, like a ball over a bump: a plateau, a saddle, a bad minimum (D1).",
    source="D1; Polyak (1964); Sutskever et al. (2013)",
    setup=_setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.2, 2),
)
