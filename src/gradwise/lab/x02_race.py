"""X2: D2's two animations as races: who leaves the saddle, who comes down the contours, and how soon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.lab.drawing import dots
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.race import RANGE_TEST, RULES, TEXTBOOK, USUAL, Lane, find_rate, sweep
from gradwise.lab.statistics import Estimate, paired
from gradwise.lab.surfaces import SURFACES, Surface

if TYPE_CHECKING:
    import plotly.graph_objects as go

ADAPTIVE = ("adagrad", "adadelta", "rmsprop", "adam")
OTHERS = ("sgd", "momentum", "nesterov")
HINDSIGHT = "best of a grid"
WAYS = (RANGE_TEST, TEXTBOOK, HINDSIGHT)
PLACES = {"saddle": "at the saddle", "beale": "on the contours"}
TURNED = "turned-saddle"  # the saddle with other axes: a rate for each axis is a rate for what the axes happen to be
_ALL = {**PLACES, TURNED: "at the saddle, axes turned"}
_OUT = {"saddle": (0.0, 1.0), TURNED: (-math.sqrt(0.5), math.sqrt(0.5))}  # the directions in which they fall
_STARTS = 8  # of each seed; a range test has as many of its own
_BUDGET = 6  # of a range test, in lengths of the race
_AT_ONCE = 3  # "at once": which way a racer has gone after so many steps


def cells(quick: bool) -> list[Cell]:
    """The saddle, Beale's contours, and the saddle with its axes turned."""
    apart = 1.0 if quick else 1 / 8
    return [
        Cell(
            name,
            {"surface": name, "steps": _length(name, quick), "budget": _BUDGET * _length(name, quick), "apart": apart},
        )
        for name in _ALL
    ]


def _length(name: str, quick: bool) -> int:
    """Steps of the race; the way down the contours is longer than off the saddles."""
    return (90 if name == "beale" else 40) if quick else 400


def setup(quick: bool) -> str:
    """Surfaces, rates, what is counted."""
    grid = "a decade" if quick else "an eighth of a decade"
    saddle, beale = SURFACES["saddle"], SURFACES["beale"]
    return (
        f"{saddle.text} from about {saddle.start}, beside its ridge, the same with its axes turned by 45°, and Beale's "
        f"function from about {beale.start}; {_STARTS} scattered starts a seed, {_length('saddle', quick)} steps "
        f"({_length('beale', quick)} on the contours). Each rule at three rates: one that gradwise's range test finds "
        f"from eight other starts in {_BUDGET} times as many steps, the textbook's (Adadelta's is 1: it has no rate in "
        f"its paper), and, to tell rules from rates, the best in hindsight of these and of rates {grid} apart from "
        f"1e-4 to 1e3. Counted are steps to the goal, f ≤ {saddle.goal():.3g} (half-way down) and f ≤ "
        f"{beale.goal():.3g} (a thousandth of the way left), for good; who doesn't arrive counts as arriving one step "
        "after the end. Mean "
        f"decades over starts and rules are compared. Direction is judged after {_AT_ONCE} steps: the cosine between "
        "the way so far and the way to the nearest minimum (at a saddle: the direction in which it falls). A detour is "
        "the way's length over that of the straight line, until the goal. Momentum is 0.9, RMSprop's decay 0.9."
    )


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """All rules at all rates on one surface, from this seed's starts."""
    surface, steps = SURFACES[settings["surface"]], settings["steps"]
    starts = surface.starts(_STARTS + 1, seed=1000 + seed)[1:]
    found: dict[str, Any] = {}
    for k, rule in enumerate(USUAL):
        tested, textbook = _tested(rule, surface.name, steps, settings["budget"]), RULES[rule].textbook
        grid = [float(lr) for lr in 10 ** np.arange(-4, 3 + 1e-9, settings["apart"])]
        rates = [textbook, *grid, *([tested] if tested is not None else [])]
        runs = sweep(rule, surface, rates, starts, steps)
        lanes = [Lane(rule, lr, HINDSIGHT, None, *each) for lr, each in zip(rates, runs, strict=True)]
        ways = {TEXTBOOK: lanes[0], HINDSIGHT: min(lanes, key=lambda lane: _decades(lane, surface))}
        if tested is not None:
            ways[RANGE_TEST] = lanes[-1]
        found[rule] = {way: _counted(lane, surface) for way, lane in ways.items()}
        bench.progress((k + 1) / len(USUAL))
    return found


@lru_cache(maxsize=64)
def _tested(rule: str, name: str, steps: int, budget: int) -> float | None:
    """The rate of a range test from eight starts that are no seed's."""
    surface = SURFACES[name]
    found: float | None = find_rate(rule, surface, surface.starts(_STARTS), steps, budget).rate
    return found


def _steps(lane: Lane, surface: Surface) -> list[int]:
    """Steps to the goal from each start; one more than there were for who didn't arrive."""
    most = lane.heights.shape[1]
    return [most if k is None else max(k, 1) for k in lane.arrivals(surface.goal())]


def _decades(lane: Lane, surface: Surface) -> float:
    return fmean(math.log10(k) for k in _steps(lane, surface))


def _counted(lane: Lane, surface: Surface) -> dict[str, Any]:
    arrived = [k is not None for k in lane.arrivals(surface.goal())]
    ways = [path[: k + 1] for path, k in zip(lane.path, _steps(lane, surface), strict=True)]
    return {
        "lr": lane.lr,
        "steps": _steps(lane, surface),
        "arrived": sum(arrived),
        "detour": fmean(math.log10(_detour(way)) for way in ways),
        "direct": fmean(_direct(path, surface) for path in lane.path),
    }


def _detour(way: Any) -> float:
    """The way's length over that of the straight line; 1 for who never moved."""
    straight = float(np.linalg.norm(way[-1] - way[0]))
    return float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum()) / straight if straight > 0 else 1.0


def _direct(path: Any, surface: Surface) -> float:
    """From -1 to 1: how well the first steps point to where the surface is left or lowest."""
    gone = path[_AT_ONCE] - path[0]
    length = max(float(np.linalg.norm(gone)), 1e-300)
    if surface.saddle is not None:
        out = np.array(_OUT[surface.name])
        return float(gone @ out * np.sign(path[0] @ out)) / length
    wanted = np.array(surface.minima[0]) - path[0]
    return float(gone @ wanted) / (length * float(np.linalg.norm(wanted)))


# From here on: pure functions of what was measured.


def _mean(measures: Measures, rules: Sequence[str], way: str, what: str) -> float:
    """A mean over rules; of the steps in decades."""
    found = [measures[rule][way] for rule in rules if way in measures[rule]]
    if what == "steps":
        return fmean(fmean(math.log10(k) for k in each["steps"]) for each in found)
    return fmean(each[what] for each in found)


def _sooner(runs: Runs, place: str, way: str, what: str = "steps", ours: Sequence[str] = ADAPTIVE) -> Estimate:
    """The others' less the adaptive rules', seed by seed: above zero the adaptive ones need fewer."""
    seeds = sorted(runs[place])
    theirs = [_mean(runs[place][seed], OTHERS, way, what) for seed in seeds]
    return paired(theirs, [_mean(runs[place][seed], ours, way, what) for seed in seeds])


def _times(found: Estimate) -> str:
    low, high = (f"{10**v:.3g}" if math.isfinite(v) else "?" for v in (found.low, found.high))
    return f"{10**found.mean:.3g} [{low}, {high}]"


def judge(runs: Runs) -> Verdict:
    """Sooner, on both surfaces; at once; without detours: at range-tested rates, with what hindsight says of that."""
    statements = []
    for place, where in PLACES.items():
        tested, best = (_sooner(runs, place, way) for way in (RANGE_TEST, HINDSIGHT))
        slower = [rule for rule in ADAPTIVE if not _sooner(runs, place, RANGE_TEST, ours=(rule,)).above_zero]
        conditions = []
        if slower:
            conditions.append(f"not shown for {', '.join(slower)}")
        if not best.above_zero:
            conditions.append(f"not at the best rate of a grid, where the others need {_times(best)} times as many")
        turned = _sooner(runs, TURNED, HINDSIGHT)
        if place == "saddle" and not turned.above_zero:
            words = f"not where its axes are turned: there, at the best rates, they need {_times(turned)} times as many"
            conditions.append(words)
        statements.append(
            Statement(
                f"{where[0].upper()}{where[1:]} adaptive rules arrive sooner: the others need {_times(tested)} times "
                "as many steps at range-tested rates.",
                tested.above_zero, "; ".join(conditions) if tested.above_zero else "",
            )
        )  # fmt: skip
    for place, where in PLACES.items():
        direct = _sooner(runs, place, RANGE_TEST, "direct")
        direct = Estimate(-direct.mean, direct.spread, -direct.high, -direct.low, direct.n)
        statements.append(
            Statement(
                f"They find the direction at once {where}: after {_AT_ONCE} steps the cosine is higher by {direct}.",
                direct.above_zero,
            )
        )
    detour = _sooner(runs, "beale", RANGE_TEST, "detour")
    statements.append(
        Statement(
            f"The others take detours on the contours: their ways are {_times(detour)} times as long.",
            detour.above_zero,
        )
    )
    text = {place: _sooner(runs, place, TEXTBOOK) for place in PLACES}
    return conclude(
        statements,
        "Rates decide much of what the animations show. At textbooks' rates the others need "
        + " and ".join(f"{_times(text[place])} times as many steps {where}" for place, where in PLACES.items())
        + ": those of Adagrad, RMSprop and Adam are made for nets and hardly move a point a distance of 1. At the best "
        "rate of a grid it is "
        + " and ".join(f"{_times(_sooner(runs, place, HINDSIGHT))} {where}" for place, where in PLACES.items())
        + ". Where the saddle's axes are turned by 45°, so that on the ridge both coordinates have the same gradient, "
        f"it is {_times(_sooner(runs, TURNED, RANGE_TEST))} at range-tested rates and "
        f"{_times(_sooner(runs, TURNED, HINDSIGHT))} at the best: what adaptive rules see are axes, not directions.",
    )  # fmt: skip


def tables(runs: Runs) -> Sequence[Table]:
    """Steps to the goal, by rule and rate; and the differences."""
    made = []
    for place, where in _ALL.items():
        head = [where]
        for way in WAYS:
            head += [f"{way}: rate", "steps", "arrived"]
        rows = [head]
        for rule in USUAL:
            row = [rule]
            for way in WAYS:
                found = [m[rule][way] for m in runs[place].values() if way in m[rule]]
                if not found:
                    row += ["none found", "–", "–"]
                    continue
                steps = 10 ** fmean(math.log10(k) for each in found for k in each["steps"])
                rate = 10 ** fmean(math.log10(each["lr"]) for each in found)
                row += [
                    f"{rate:.3g}",
                    f"{steps:.3g}",
                    f"{sum(each['arrived'] for each in found)} of {_STARTS * len(found)}",
                ]
            rows.append(row)
        made.append(Table(f"Steps to the goal {where} (geometric means; who doesn't arrive counts as one more)", rows))
    rows = [["others / adaptive rules", *(f"steps {where}" for where in _ALL.values()), "ways on the contours"]]
    for way in WAYS:
        detour = _times(_sooner(runs, "beale", way, "detour"))
        rows.append([way, *(_times(_sooner(runs, place, way)) for place in _ALL), detour])
    return [*made, Table("How many times as many steps the others need, 95 % intervals over seeds", rows)]


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    """Steps to the goal of each rule at each rate."""
    made = {}
    for place, where in _ALL.items():
        drawn = {
            way: {
                rule: [
                    10 ** fmean(math.log10(k) for k in m[rule][way]["steps"])
                    for m in runs[place].values() if way in m[rule]
                ]
                for rule in USUAL
            }
            for way in WAYS
        }  # fmt: skip
        made[place] = dots("steps to the goal", drawn, log_y=True)
        made[place].update_layout(title=f"Steps to the goal {where}")
    return made


EXPERIMENT = Experiment(
    id="X2",
    title="Rules at a saddle and on contours",
    claim=(
        "At a saddle point and on contours Adagrad, Adadelta and RMSprop find the direction at once and go fast; SGD, "
        "momentum and NAG are slow or take detours. So adaptive methods, Adam counted in, suit such surfaces."
    ),
    source="D2, its two animations (Radford, 2014); Ruder, An overview of gradient descent optimization algorithms",
    setup=setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.3, 5),
)
