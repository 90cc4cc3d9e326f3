"""X13: the steepest slope of the range test is the best η; 0.01 or 0.001 suits most networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.finder import range_test
from gradwise.lab.drawing import dots, lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.statistics import estimate
from gradwise.lab.sweeps import ROWS, RULES, sweep, task
from gradwise.lab.training import finite

if TYPE_CHECKING:
    import plotly.graph_objects as go

WITHIN = 0.5  # decades that count as the same rate: a factor of 3, a step of the usual grid 1, 3, 10, 30
COMMON = (0.01, 0.001)
WAYS = {"steepest": "the steepest slope", "suggested": "gradwise's range test", "common": "0.01 or 0.001"}


def _cells(quick: bool) -> list[Cell]:
    names = ["digits", "breast_cancer", *([] if quick else ["deep digits", "diabetes", "california", "fashion_mnist"])]
    rules = ["SGD", "momentum", "Adam"] if quick else ["SGD", "momentum", "Adagrad", "RMSprop", "Adam"]
    steps, spacing = (100, 0.5) if quick else (400, 0.25)
    return [Cell(n, {"task": n, "rules": rules, "steps": steps, "spacing": spacing}) for n in names]


def _setup(quick: bool) -> str:
    cell = _cells(quick)[0].settings
    return (
        'Nets of one hidden layer of 32 ReLU units ("deep": six of 24 tanh units), batches of 32, of '
        f"{ROWS[0]} rows at most, {cell['steps']} steps at a constant rate. A grid of rates {cell['spacing']} decades "
        "apart, widened until the best rate lies inside; best is the rate with the lowest validation loss at the end. "
        "From the same first weights and batches a range test: a ramp from 1e-7 upwards, the rate raised exponentially "
        "each step, whose steepest fall per decade is taken; and what gradwise's range test makes of it with "
        f"short runs at constant rates. A rate is the best one if it lies within {WITHIN} decades (a factor of 3) of "
        "the grid's."
    )


def _measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    todo, steps = task(settings["task"], bench), settings["steps"]
    swept = sweep(todo, settings["rules"], seed, steps=steps, spacing=settings["spacing"], marks=1)
    batches, found = list(todo.batches(seed, steps)), {}
    for k, (rule, grid) in enumerate(swept.items()):
        net = todo.net(seed)
        test = range_test(net, batches, todo.loss, optimizer=RULES[rule](net.parameters(), lr=1e-3),
                          budget=4 * steps, horizon=steps)  # fmt: skip
        found[rule] = {
            "rates": grid.rates.tolist(),
            "validation": [finite(v) for v in grid.validation[:, -1].tolist()],
            "start": grid.start,
            "steepest": finite(test.phases.steepest),
            "suggested": test.rate,
        }
        bench.progress((k + 1) / len(swept))
    return {"rules": found}


def distance(found: Mapping[str, Any], way: str) -> float | None:
    """Decades from the grid's best rate to that of a way to choose, above zero where it chose too high a one."""
    best = math.log10(_best(found)[0])
    if way == "common":
        return min((math.log10(rate) - best for rate in COMMON), key=abs)
    return None if found[way] is None else math.log10(found[way]) - best


def price(found: Mapping[str, Any], way: str) -> float | None:
    """The share of the best rate's fall of the validation loss that the rate chosen that way loses."""
    away = distance(found, way)
    if away is None:
        return None
    best, lowest = _best(found)
    near = int(np.argmin(np.abs(np.log10(found["rates"]) - math.log10(best) - away)))
    reached = found["validation"][near]
    return 1.0 if reached is None else min(1.0, (reached - lowest) / (found["start"] - lowest))


def _best(found: Mapping[str, Any]) -> tuple[float, float]:
    known = [(loss, rate) for rate, loss in zip(found["rates"], found["validation"], strict=True) if loss is not None]
    loss, rate = min(known)
    return rate, loss


def _judge(runs: Runs) -> Verdict:
    rules = list(dict.fromkeys(rule for seeds in runs.values() for m in seeds.values() for rule in m["rules"]))
    statements = [_steepest(runs, rule) for rule in rules]
    suits, far = [], []
    for seed in _seeds(runs):
        away = [distance(f, "common") for cell in runs.values() for f in cell[seed]["rules"].values()]
        suits.append(fmean(d is not None and _same(d) for d in away))
    share = estimate(suits)
    more = estimate([s - 0.5 for s in suits]).above_zero
    far = [f"{n} with {r}" for n, cell in runs.items() for r in rules if not _same(_mean(cell, r, "common"))]
    text = f"0.01 or 0.001 is within {WITHIN} decades of the best rate for {100 * share.mean:.0f} % of nets and rules"
    statements.append(Statement(f"{text} ({share}).", more, f"not for {', '.join(far)}" if more and far else ""))
    own = [abs(d) for cell in runs.values() for m in cell.values() for f in m["rules"].values()
           if (d := distance(f, "suggested")) is not None]  # fmt: skip
    way = "gradwise's own range test, which confirms by constant rates"
    return conclude(statements, f"{way}, is {fmean(own):.2f} decades off." if own else "")


def _steepest(runs: Runs, rule: str) -> Statement:
    apart, missing = [], 0
    for seed in _seeds(runs):
        found = [distance(cell[seed]["rules"][rule], "steepest") for cell in runs.values()]
        known = [abs(d) for d in found if d is not None]
        missing += len(found) - len(known)
        if known:
            apart.append(fmean(known))
    if not apart:
        return Statement(f"{rule}: no ramp showed a steep phase.", None)
    off, beyond = estimate(apart), estimate([d - WITHIN for d in apart]).above_zero
    gone = f"; {missing} ramps showed none" if missing else ""
    text = f"{rule}: the steepest slope is {off} decades from the best rate{gone}."
    return Statement(text, None if beyond is None else not beyond)


def _same(decades: float | None) -> bool:
    return decades is not None and abs(decades) <= WITHIN + 1e-9


def _seeds(runs: Runs) -> list[int]:
    """The seeds that all cells have."""
    return sorted(set.intersection(*(set(seeds) for seeds in runs.values())))


def _mean(cell: Mapping[int, Measures], rule: str, way: str, of: Any = distance) -> float | None:
    known = [d for m in cell.values() if (d := of(m["rules"][rule], way)) is not None]
    return fmean(known) if known else None


def _tables(runs: Runs) -> Sequence[Table]:
    rates = [["net, rule", "best η", *WAYS.values()]]
    losses = [["net, rule", *WAYS.values()]]
    for name, cell in runs.items():
        for rule in next(iter(cell.values()))["rules"]:
            best = 10 ** fmean(math.log10(_best(m["rules"][rule])[0]) for m in cell.values())
            off = [_mean(cell, rule, way) for way in WAYS]
            lost = [_mean(cell, rule, way, price) for way in WAYS]
            rates.append([f"{name}, {rule}", f"{best:.2g}", *("–" if d is None else f"{d:+.2f}" for d in off)])
            losses.append([f"{name}, {rule}", *("–" if p is None else f"{100 * p:.1f} %" for p in lost)])
    return [
        Table("Decades above the best rate of the grid (means over seeds)", rates),
        Table("What of the best rate's fall of the validation loss is lost by it", losses),
    ]


def _figures(runs: Runs) -> Mapping[str, go.Figure]:
    away: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS.values()}
    for name, cell in runs.items():
        for m in cell.values():
            for rule, found in m["rules"].items():
                for way, words in WAYS.items():
                    if (d := distance(found, way)) is not None:
                        away[words].setdefault(f"{rule}<br>{name}", []).append(d)
    figure = dots("decades above the best rate", away)
    figure.add_hrect(-WITHIN, WITHIN, fillcolor="#009988", opacity=0.15, line_width=0)
    first = next(iter(runs.values()))
    drawn = {}
    for rule in next(iter(first.values()))["rules"]:
        ends = [m["rules"][rule] for m in first.values()]
        rates = sorted(set.intersection(*(set(e["rates"]) for e in ends)))
        losses = [[_capped(e, rate) for rate in rates] for e in ends]
        drawn[rule] = (rates, losses)
    grid = lines("learning rate", f"validation loss at the end, {next(iter(runs))}", drawn, log_x=True)
    return {"distances": figure, "grid": grid}


def _capped(found: Mapping[str, Any], rate: float) -> float:
    """The loss at the end, no higher than it began: beyond that one is as bad as the next."""
    loss = found["validation"][found["rates"].index(rate)]
    return float(found["start"] if loss is None else min(loss, found["start"]))


EXPERIMENT = Experiment(
    id="X13",
    title="The range test's steepest slope, and two rates for all",
    claim="The best learning rate is where a range test's loss falls most steeply; 0.01 or 0.001 suits most networks.",
    source="D2, on finding the initial learning rate (L3), and its rule of thumb; Smith (2017).",
    setup=_setup,
    cells=_cells,
    measure=_measure,
    judge=_judge,
    tables=_tables,
    figures=_figures,
    data=("california", "fashion_mnist"),
    minutes=(0.2, 3),
)
