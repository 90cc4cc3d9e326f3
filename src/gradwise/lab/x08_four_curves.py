"""X8: four curves from too large, too small and just as large learning rates, and what the diagnosis says of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from torch import nn

from gradwise import optim
from gradwise.diagnosis.suggestion import Suggestion
from gradwise.finder import range_test
from gradwise.lab.drawing import lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.statistics import estimate
from gradwise.lab.sweeps import ROWS, Task, task
from gradwise.lab.training import evaluate, finite
from gradwise.schedules import Schedule, constant, rule_of_thumb
from gradwise.session import watch

if TYPE_CHECKING:
    import plotly.graph_objects as go

# What a curve looks like, the rate that makes it, and its cause in the catalogue of findings; None is a healthy run.
CURVES: Mapping[str, tuple[str, str, str | None]] = {
    "green": ("slides down and settles lowest", "right, and lowered later", None),
    "red": ("rises at first", "too large from the start", "lr-too-high"),
    "purple": ("falls hard, is soon flat, and ends higher", "too large later", "late-lr-too-high"),
    "yellow": ("is slow all along, and ends higher", "too small", "lr-too-low"),
    "run-away": ("falls, then suddenly climbs", "raised by a faulty schedule", "late-divergence"),
}
LOWER, BEYOND = 100, 3  # yellow: so many times below the best rate; red: so many times beyond the ramp's jump
MARKS = 20


def _cells(quick: bool) -> list[Cell]:
    tasks = ["linear diabetes", *([] if quick else ["linear digits", "digits", "california", "fashion_mnist"])]
    steps = 400 if quick else 1000
    return [Cell(f"{t}, {c}", {"task": t, "curve": c, "steps": steps}) for t in tasks for c in CURVES]


def _setup(quick: bool) -> str:
    cells = _cells(quick)
    tasks, steps = ", ".join(dict.fromkeys(c.settings["task"] for c in cells)), cells[0].settings["steps"]
    return (
        f"{tasks} (linear: no hidden layer, batches of 8; else 32 ReLU units and batches of 32, of {ROWS[0]} rows at "
        f"most), {steps} steps of SGD. The range test on the same net and batches gives the best rate, and the "
        "one at which its ramp jumps. Green: the best rate, by the rule of thumb held and then lowered 200-fold. "
        f"Yellow: {LOWER} times less, constant. Red: {BEYOND} times the ramp's jump, constant. Purple: midway (in "
        "decades) from the best to the jump, constant. Run-away: the best rate, and red's in the last third. A curve "
        f"is the loss of all training rows at {MARKS + 1} times; the diagnosis is `gradwise.watch`'s, of one run, "
        "without trials."
    )


def rates(curve: str, steps: int, best: float, jumps: float) -> Schedule:
    """The rate of a curve, from the range test's best rate and the one at which its ramp jumps."""
    if curve == "green":
        return best * rule_of_thumb(steps)
    if curve == "red":
        return BEYOND * jumps * constant()
    if curve == "purple":
        return math.sqrt(best * jumps) * constant()
    if curve == "yellow":
        return best / LOWER * constant()
    return best * constant(1.0, 2 * steps // 3) >> BEYOND * jumps * constant()


@lru_cache(maxsize=64)
def _tested(name: str, steps: int, seed: int, bench: Bench) -> Suggestion:
    todo = task(name, bench)
    net = todo.net(seed)
    optimizer = optim.SGD(net.parameters())
    return range_test(net, list(todo.batches(seed, steps)), todo.loss, optimizer=optimizer, budget=600, horizon=steps)


def _measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    todo, steps = task(settings["task"], bench), settings["steps"]
    tested = _tested(settings["task"], steps, seed, bench)
    if tested.rate is None or math.isnan(tested.phases.jumps):
        return {"rate": None}  # a ramp that shows no fall or no jump names no rates to build the curves from
    rate = rates(settings["curve"], steps, tested.rate, tested.phases.jumps)
    marks = {round(k * steps / MARKS) for k in range(MARKS + 1)}
    curve: list[float | None] = []

    def mark(net: nn.Module, done: int) -> None:
        if done in marks:
            curve.append(finite(evaluate(net, todo.data.train)[0]))
            bench.progress(done / steps)

    # Once unwatched for the curve, since the watcher would take these evaluations for the script's own; then watched.
    net = _train(todo, rate, seed, steps, mark)
    with watch() as run:
        _train(todo, rate, seed, steps, lambda net, done: None)
    report = run.diagnose()
    return {
        "rate": rate(0),
        "curve": curve,
        "validation": finite(evaluate(net, todo.data.validation)[0]),
        "verdict": report.verdict,
        "findings": [f.id for f in report.findings],
        "suspected": [f.id for f in report.diagnosis.suspicions],
    }


def _train(todo: Task, rate: Schedule, seed: int, steps: int, each: Callable[[nn.Module, int], None]) -> nn.Module:
    net = todo.net(seed)
    optimizer = optim.SGD(net.parameters(), lr=rate)
    each(net, 0)
    for done, (x, y) in enumerate(todo.batches(seed, steps), 1):
        optimizer.zero_grad()
        loss = todo.loss(net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        each(net, done)
    return net


def looks(curve: str, values: Sequence[float | None], green: Sequence[float | None]) -> bool:
    """Whether losses over a run look as a curve is described, in shares of the fall of the green one.

    Args:
        curve: which one they are to look like.
        values: losses at equal distances, the first before training; None where not finite.
        green: those of the green curve with the same first weights and batches.
    """
    start = float(values[0] or 0)
    fall = start - (math.inf if green[-1] is None else green[-1])
    down = [-math.inf if v is None else (start - v) / fall for v in values] if 0 < fall < math.inf else []
    if not down:
        return False
    done, size = down[-1], len(down) - 1
    # Where the rate holds up a floor, its last value alone is an accident of the last few batches.
    level, best = fmean(down[-size // 4 :]), fmean((start - (v or 0)) / fall for v in green[-size // 4 :])
    higher = level < best - 0.02
    if curve == "green":
        return done > 0 and abs(done - down[3 * size // 4]) < 0.05
    if curve == "red":
        return min(down[: size // 2]) < -0.1
    if curve == "purple":
        return higher and level > 0 and down[size // 4] > 0.8 * level
    if curve == "yellow":
        return higher and done > 0 and down[size // 2] < 0.75 * done
    return max(down) - done > 0.5


def _by_task(runs: Runs) -> dict[str, dict[str, Mapping[int, Measures]]]:
    """Task -> curve -> seed -> measures, without seeds whose range test named no rates."""
    found: dict[str, dict[str, Mapping[int, Measures]]] = {}
    for name, cell in runs.items():
        where, _, curve = name.rpartition(", ")
        found.setdefault(where, {})[curve] = {s: m for s, m in cell.items() if m["rate"] is not None}
    return found


def _named(curve: str, m: Measures) -> bool:
    """Whether the diagnosis names the curve's cause, or nothing at all where it is sound."""
    cause = CURVES[curve][2]
    return m["verdict"] == "healthy" if cause is None else cause in m["findings"]


def _judge(runs: Runs) -> Verdict:
    tasks, statements = _by_task(runs), []
    for curve, (shape, rate, cause) in CURVES.items():
        shown = {
            task: {s: looks(curve, m["curve"], c["green"][s]["curve"]) for s, m in c[curve].items() if s in c["green"]}
            for task, c in tasks.items()
        }
        told = {task: {s: _named(curve, m) for s, m in c[curve].items()} for task, c in tasks.items()}
        says = f"names its cause, {cause}" if cause else "calls it healthy"
        statements.append(_mostly(f"{curve.capitalize()}: where the rate is {rate}, the loss {shape}", shown))
        statements.append(_mostly(f"{curve.capitalize()}: the diagnosis {says}", told))
    return conclude(statements)


def _mostly(text: str, found: Mapping[str, Mapping[int, bool]]) -> Statement:
    """A sentence that holds in most runs: of the seeds' shares of tasks, the mean is above a half."""
    seeds = sorted({seed for runs in found.values() for seed in runs})
    if not seeds:
        return Statement(f"{text}: no range test named rates.", None)
    shares = estimate([fmean(runs[seed] for runs in found.values() if seed in runs) - 0.5 for seed in seeds])
    every = [held for runs in found.values() for held in runs.values()]
    held = shares.above_zero
    odd = [task for task, runs in found.items() if runs and fmean(runs.values()) < 0.5]
    return Statement(
        f"{text}: in {sum(every)} of {len(every)} runs.", held, f"not on {', '.join(odd)}" if held and odd else ""
    )


def _tables(runs: Runs) -> Sequence[Table]:
    rows = [["run", "rate at the start", "loss at the end (median)", "looks so", "verdict", "found", "only suspected"]]
    for where, curves in _by_task(runs).items():
        for curve, cell in curves.items():
            both = [s for s in cell if s in curves["green"]]
            shown = sum(looks(curve, cell[s]["curve"], curves["green"][s]["curve"]) for s in both)
            ends = [m["curve"][-1] for m in cell.values()]
            end = "not finite" if None in ends else f"{median(ends):.3g}" if ends else "–"
            rate = f"{math.exp(fmean(math.log(m['rate']) for m in cell.values())):.2g}" if cell else "–"
            said = (_counted([m[what] for m in cell.values()]) for what in ("verdict", "findings", "suspected"))
            rows.append([f"{where}, {curve}", rate, end, f"{shown} of {len(both)}", *said])
    return [Table("The curves and what the diagnosis says of them, over the seeds", rows)]


def _counted(answers: Sequence[Any]) -> str:
    flat = [a for answer in answers for a in ([answer] if isinstance(answer, str) else answer)]
    return ", ".join(f"{a} ({flat.count(a)})" for a in dict.fromkeys(flat)) or "–"


def _figures(runs: Runs) -> Mapping[str, go.Figure]:
    figures = {}
    colours = {"green": "#009988", "red": "#CC3311", "purple": "#882E72", "yellow": "#DDAA33", "run-away": "#33BBEE"}
    for where, curves in _by_task(runs).items():
        part = [100 * k / MARKS for k in range(MARKS + 1)]
        drawn = {c: (part, [_shown(m["curve"]) for m in cell.values()]) for c, cell in curves.items() if cell}
        figure = lines("share of the run, %", "loss of the training rows", drawn)
        for trace in figure.data:
            trace.update(fillcolor=colours[trace.legendgroup]) if trace.fill else None
            trace.line.color = colours[trace.legendgroup]
        figures[where.replace(" ", "-")] = figure
    return figures


def _shown(values: Sequence[float | None]) -> list[float]:
    """No higher than half above the start: beyond that it has only run off."""
    top = 1.5 * float(values[0] or 1)
    return [top if v is None else min(v, top) for v in values]


EXPERIMENT = Experiment(
    id="X8",
    title="Four curves of the loss",
    claim=(
        "A loss that rises at first tells of a learning rate too large, one that falls hard and is soon flat of a rate "
        "too large later on, one that is slow all along of a rate too small; a right one, lowered later, slides and "
        "settles. A sudden climb tells of a faulty schedule."
    ),
    source="D2 on reading a training run (C1-C4, C6).",
    setup=_setup,
    cells=_cells,
    measure=_measure,
    judge=_judge,
    tables=_tables,
    figures=_figures,
    data=("california", "fashion_mnist"),
    minutes=(0.2, 3),
)
