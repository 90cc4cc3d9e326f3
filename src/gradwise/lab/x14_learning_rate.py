"""X14: how important η is, what small and large ones do, and whether a schedule makes the best minimum sure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradwise import optim
from gradwise.finder import range_test
from gradwise.lab.data import Split
from gradwise.lab.drawing import dots
from gradwise.lab.ensemble import Ensemble
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.models import mlp
from gradwise.lab.statistics import Estimate, estimate, paired
from gradwise.lab.sweeps import Task, task
from gradwise.lab.training import evaluate, finite, fit, seeded
from gradwise.schedules import Schedule, constant, cosine, exponential, sgdr, step
from gradwise.search.importance import importances
from gradwise.tuner import tune

if TYPE_CHECKING:
    import plotly.graph_objects as go

IMPORTANCE, OVERFITS, MINIMA, OUTLIERS = "importance", "over-fitting", "minima", "outliers"
SMALLER = 10  # the small η is so many times below the large one
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
# D2's list of hyperparameters, with ranges as wide as are in use.
SPACE: Mapping[str, str] = {
    "lr": "1e-4..1", "momentum": "0..0.95", "weight_decay": "1e-6..1e-1", "batch": "8,16,32,64,128",
    "units": "8,16,32,64", "layers": "1,2,3", "activation": "relu,tanh",
}  # fmt: skip
SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {
    "cosine": lambda steps: cosine(steps),
    "exponential": lambda steps: exponential(1e-3, steps),
    "step": lambda steps: step(max(1, steps // 4)),
    "SGDR": lambda steps: sgdr(max(1, steps // 7), t_mult=2),
}


def _cells(quick: bool) -> list[Cell]:
    parts: list[tuple[str, str, dict[str, Any]]] = [
        (IMPORTANCE, "digits", {"trials": 30, "steps": 40}),
        (OVERFITS, "digits", {"rows": 100, "members": 6, "target": 0.1, "steps": 1500}),
        (MINIMA, "wine", {"units": 1, "members": 12, "steps": 400, "schedules": ["cosine", "exponential"]}),
        (OUTLIERS, "digits", {"rows": 200, "members": 6, "target": 0.3, "steps": 1500}),
    ]
    if not quick:
        parts = [(p, t, {**s, "steps": 3 * s["steps"]}) for p, t, s in parts]
        for part, _, settings in parts:
            settings |= {"trials": 60, "steps": 200} if part == IMPORTANCE else {"members": 12}
            settings |= {"schedules": list(SCHEDULES)} if part == MINIMA else {}
        parts += [
            (IMPORTANCE, "breast_cancer", parts[0][2]),
            (OVERFITS, "fashion_mnist", {**parts[1][2], "rows": 500}),
            (MINIMA, "digits", {**parts[2][2], "units": 3}),
            (MINIMA, "diabetes", {**parts[2][2], "units": 3}),
            (OUTLIERS, "fashion_mnist", {**parts[3][2], "rows": 500}),
        ]
    return [Cell(f"{part}, {t}", {"part": part, "task": t, **settings}) for part, t, settings in parts]


def _setup(quick: bool) -> str:
    by_part: dict[str, list[Mapping[str, Any]]] = {}
    for cell in _cells(quick):
        by_part.setdefault(cell.settings["part"], []).append(cell.settings)
    where = {part: ", ".join(s["task"] for s in those) for part, those in by_part.items()}
    first = {part: those[0] for part, those in by_part.items()}
    space = "; ".join(f"{name} {values}" for name, values in SPACE.items())
    trials, few, small, noisy = (first[part] for part in (IMPORTANCE, OVERFITS, MINIMA, OUTLIERS))
    return (
        f"SGD throughout. The large η is where a range test's ramp is lowest, the small one {SMALLER} times less.\n\n"
        f"Importance ({where[IMPORTANCE]}): {trials['trials']} trials of random search over {space}; fANOVA of the "
        f"validation loss after {trials['steps']} steps, capped at that of the untrained net, so that runs that "
        "diverge count no more than those that learn nothing.\n\n"
        f"Over-fitting ({where[OVERFITS]}): {few['members']} nets of 32 units on few rows ({few['rows']} of digits), "
        f"small η against large; the validation loss where the training loss first is {few['target']}.\n\n"
        f"Minima ({where[MINIMA]}): {small['members']} nets of 1 to 3 tanh units, with small η, large η, and schedules "
        f"from large η ({', '.join(small['schedules'])}), {small['steps']} steps in batches of 16, then all alike with "
        "momentum on all rows, so that basins are compared rather than noise. The best minimum is the lowest loss "
        "that any run of a seed got to; reached is at most 5 % of the fall above it. A run has settled that fell by "
        "less than 1 % of it at the end.\n\n"
        f"Outliers ({where[OUTLIERS]}): a tenth of the rows with wrong labels, against the same training with right "
        "ones; their influence is the mean distance (total variation) of the two nets' test predictions where the loss "
        f"of the other rows first is {noisy['target']}."
    )


def _measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    todo = task(settings["task"], bench)
    if "rows" in settings:
        todo = replace(todo, data=todo.data.first(settings["rows"]), batch=16)
    if "units" in settings:
        todo = replace(todo, widths=(settings["units"],), activation=nn.Tanh, batch=16)
    return _PARTS[settings["part"]](todo, settings, seed, bench)


def _importance(todo: Task, settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    inputs, data = math.prod(todo.data.shape), todo.data
    done, trials = [0], settings["trials"]

    def objective(config: Mapping[str, Any]) -> float:
        hidden = [config["units"]] * config["layers"]
        with seeded(seed):
            net = mlp([inputs, *hidden, data.classes], ACTIVATIONS[config["activation"]])
        start = evaluate(net, data.validation)[0]
        rule = optim.SGD(net.parameters(), **{key: config[key] for key in ("lr", "momentum", "weight_decay")})
        fit(net, rule, data.train, batch=config["batch"], steps=settings["steps"], seed=seed)
        loss = evaluate(net, data.validation)[0]
        done[0] += 1
        bench.progress(done[0] / trials)
        return min(loss, start) if math.isfinite(loss) else start

    found = tune(objective, SPACE, trials=trials, method="random", seed=seed)
    told = [(trial["config"], trial["value"]) for trial in found.trials if trial["value"] is not None]
    return {"importance": importances(told, SPACE, seed)}


def _large(todo: Task, seed: int, steps: int) -> float:
    """The rate at which a range test's ramp is lowest: the largest that still learns."""
    net = todo.net(seed)
    found = range_test(net, list(todo.batches(seed, 200)), todo.loss, optimizer=optim.SGD(net.parameters()),
                       budget=300, horizon=steps)  # fmt: skip
    return found.phases.lowest if math.isfinite(found.phases.lowest) else 0.1


def _until(nets: Ensemble, rule: Any, todo: Task, y: Tensor, known: Tensor, settings: Mapping[str, Any], seed: int,
           look: Callable[[], Tensor], bench: Bench) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What `look` sees of each net when its loss of the rows `known` first is down to the target, and whether it was.

    Args:
        nets: to be trained.
        rule: their optimizer.
        todo: gives the inputs and the order.
        y: targets of all training rows for each net, (nets, rows).
        known: the rows whose loss is watched.
        settings: with `target` and `steps`, the most there are.
        seed: of the order.
        look: at all nets, (copies, members, …).
        bench: to tell progress.
    """
    x, copies = todo.data.train.x, nets.copies * nets.members
    order = torch.Generator().manual_seed(seed)
    seen, reached = look(), torch.zeros(nets.copies, nets.members, dtype=torch.bool)
    for done in range(settings["steps"]):
        rows = torch.randint(len(x), (todo.batch,), generator=order)
        nets.backward(x[rows].expand(copies, *x[rows].shape), y[:, rows], shared=False)
        rule.step()
        if done % 10 == 9:
            now, loss = look(), nets.loss(x[known], todo.data.train.y[known])
            seen[~reached] = now[~reached]
            reached |= loss <= settings["target"]
            bench.progress((done + 1) / settings["steps"])
            if reached.all():
                break
    return seen, reached


def _overfits(todo: Task, settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    large, members = _large(todo, seed, settings["steps"]), settings["members"]
    nets = Ensemble([todo.net(1000 * seed + k) for k in range(members)], todo.loss, copies=2)
    rule = optim.SGD([{"params": nets.parameters(k), "lr": lr} for k, lr in enumerate((large / SMALLER, large))])
    train, held = todo.data.train, todo.data.validation
    known = torch.arange(len(train))
    y = train.y.expand(2 * members, *train.y.shape)
    seen, reached = _until(nets, rule, todo, y, known, settings, seed, lambda: nets.loss(held.x, held.y), bench)
    return {"rate": large, **_compared(seen[0], seen[1], reached)}


def _outliers(todo: Task, settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    large, members, train = _large(todo, seed, settings["steps"]), settings["members"], todo.data.train
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    wrong, known = order[: len(train) // 10], order[len(train) // 10 :]
    labels = train.y.clone()
    labels[wrong] = (
        labels[wrong] + torch.randint(1, todo.data.classes, wrong.shape, generator=generator)
    ) % todo.data.classes
    # Copies: small η and large η, each with the right labels and with the wrong ones.
    nets = Ensemble([todo.net(1000 * seed + k) for k in range(members)], todo.loss, copies=4)
    rates = (large / SMALLER, large / SMALLER, large, large)
    rule = optim.SGD([{"params": nets.parameters(k), "lr": lr} for k, lr in enumerate(rates)])
    y = torch.stack([train.y, labels, train.y, labels]).repeat_interleave(members, 0)
    test: Split = todo.data.test.first(500)
    seen, reached = _until(nets, rule, todo, y, known, settings, seed, lambda: nets.predict(test.x).softmax(-1), bench)
    small, big = ((seen[k] - seen[k + 1]).abs().sum(-1).mean(-1) / 2 for k in (0, 2))
    return {"rate": large, **_compared(small, big, reached)}


def _compared(small: Tensor, large: Tensor, reached: Tensor) -> dict[str, Any]:
    """Means over the members that got down to the target in all copies; None where none did."""
    both = reached.all(0)
    means = [part[both].mean().item() if both.any() else None for part in (small, large)]
    return {"small": means[0], "large": means[1], "reached": both.float().mean().item()}


def _minima(todo: Task, settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    steps, train, large = settings["steps"], todo.data.train, _large(todo, seed, settings["steps"])
    ways = {"small": large / SMALLER * constant(), "large": large * constant()}
    ways |= {name: large * SCHEDULES[name](steps) for name in settings["schedules"]}
    nets = Ensemble([todo.net(1000 * seed + k) for k in range(settings["members"])], todo.loss, copies=len(ways))
    start = float(nets.loss(train.x, train.y).mean())
    rule = optim.SGD([{"params": nets.parameters(k), "lr": rate} for k, rate in enumerate(ways.values())])
    for done, (x, y) in enumerate(todo.batches(seed, steps), 1):
        nets.backward(x, y)
        rule.step()
        bench.progress(done / steps)
    last = optim.SGD([{"params": nets.parameters(k)} for k in range(len(ways))], lr=large / SMALLER, momentum=0.9)
    for done in range(polish := steps // 4):
        losses = nets.backward(train.x, train.y)
        if done == polish * 3 // 4:
            before = losses
        last.step()
    ends = nets.loss(train.x, train.y)
    settled = before - ends < 0.01 * (start - ends.min())
    told = {way: list(map(finite, ends[k].tolist())) for k, way in enumerate(ways)}
    return {"rate": large, "start": start, "ends": told,
            "settled": {way: settled[k].tolist() for k, way in enumerate(ways)}}  # fmt: skip


_PARTS: Mapping[str, Callable[[Task, Mapping[str, Any], int, Bench], Measures]] = {
    IMPORTANCE: _importance, OVERFITS: _overfits, MINIMA: _minima, OUTLIERS: _outliers,
}  # fmt: skip


def reached(m: Measures) -> dict[str, float]:
    """The share of starts from which each way got to the best minimum, or at most 5 % of the fall above it."""
    level = _level(m)
    return {way: fmean(v is not None and v <= level for v in ends) for way, ends in m["ends"].items()}


def _level(m: Measures) -> float:
    lowest = min(v for ends in m["ends"].values() for v in ends if v is not None)
    return float(lowest + 0.05 * (m["start"] - lowest))


def _part(runs: Runs, part: str) -> list[Mapping[int, Measures]]:
    return [cell for name, cell in runs.items() if name.startswith(part)]


def _by_seed(cells: Sequence[Mapping[int, Measures]], value: Callable[[Measures], float]) -> list[float]:
    """The mean over a part's cells, for each seed that all have; without cells in which nothing could be compared."""
    told = [cell for cell in cells if all(m.get("small", 0) is not None for m in cell.values())]
    seeds = sorted(set.intersection(*(set(cell) for cell in told))) if told else []
    return [fmean(value(cell[seed]) for cell in told) for seed in seeds]


def _judge(runs: Runs) -> Verdict:
    fits, ends, outliers = (_part(runs, part) for part in (OVERFITS, MINIMA, OUTLIERS))
    worse = _small_less_large(fits, lambda m, way: float(m[way]))
    helped = _small_less_large(ends, lambda m, way: reached(m)[way])
    counts = _small_less_large(outliers, lambda m, way: -float(m[way]))
    higher, helps, more = (e.above_zero if e else None for e in (worse, helped, counts))
    missed = [share for cell in ends for m in cell.values() for share in _missed(m)]
    small, large = (fmean(_by_seed(ends, lambda m, way=way: reached(m)[way])) for way in ("small", "large"))  # type: ignore[misc]
    share = f"with it the best one is reached from {small:.0%} of starts, with a large η from {large:.0%}"
    trapped, sure = None if helps is None else not helps, not any(missed)
    statements = [
        _most_important(_part(runs, IMPORTANCE)),
        Statement(f"A small η over-fits: its validation loss at equal training loss is higher by {worse}.", higher),
        Statement(f"A small η is trapped in local minima: {share}, a difference of {helped}.", trapped),
        Statement(f"A small η helps reach the global one (the other reading): the same {helped}.", helps),
        Statement(f"A large η makes outliers count: they move predictions by {counts} more.", more),
        Statement(f"A schedule makes the global optimum sure: {fmean(missed):.0%} of its runs settle above it.", sure),
    ]
    return conclude(statements, f"How important η is depends on what it is searched over: here {SPACE['lr']}.")


def _small_less_large(
    cells: Sequence[Mapping[int, Measures]], value: Callable[[Measures, str], float]
) -> Estimate | None:
    """A value with the small η less that with the large one, paired by seed; None where nothing could be compared."""
    small, large = (_by_seed(cells, lambda m, way=way: value(m, way)) for way in ("small", "large"))  # type: ignore[misc]
    return paired(small, large) if small else None


def _missed(m: Measures) -> list[float]:
    """For each schedule the share of starts whose run came to rest above the best minimum."""
    level = _level(m)
    return [
        fmean(v is not None and v > level and rest for v, rest in zip(ends, m["settled"][way], strict=True))
        for way, ends in m["ends"].items()
        if way in SCHEDULES
    ]


def _most_important(cells: Sequence[Mapping[int, Measures]]) -> Statement:
    means = {name: _by_seed(cells, lambda m, name=name: m["importance"][name]) for name in SPACE}  # type: ignore[misc]
    rival = max((name for name in SPACE if name != "lr"), key=lambda name: fmean(means[name]))
    ahead = paired(means["lr"], means[rival])
    shares = f"{fmean(means['lr']):.0%} of the variance, and the best other, {rival}, {fmean(means[rival]):.0%}"
    return Statement(f"The rate is the most important hyperparameter: {shares}; ahead by {ahead}.", ahead.above_zero)


def _tables(runs: Runs) -> Sequence[Table]:
    shares = [["hyperparameter", *(n for n in runs if n.startswith(IMPORTANCE))]]
    for name in SPACE:
        found = [estimate([m["importance"][name] for m in cell.values()]) for cell in _part(runs, IMPORTANCE)]
        shares.append([name, *map(str, found)])
    pairs = [["part", "small η", "large η", "difference, small - large", "nets that got there"]]
    for name, cell in runs.items():
        if name.startswith((OVERFITS, OUTLIERS)):
            known = [m for m in cell.values() if m["small"] is not None]
            small, large = ([m[way] for m in known] for way in ("small", "large"))
            means = [f"{fmean(v):.3f}" if v else "–" for v in (small, large)]
            share = f"{fmean(m['reached'] for m in cell.values()):.0%}"
            pairs.append([name, *means, str(paired(small, large)) if known else "–", share])
    ways = list(dict.fromkeys(way for cell in _part(runs, MINIMA) for m in cell.values() for way in m["ends"]))
    minima = [["net", *ways]]
    for name, cell in runs.items():
        if name.startswith(MINIMA):
            minima.append([name, *(f"{fmean(reached(m)[way] for m in cell.values()):.0%}" for way in ways)])
    return [
        Table("Share of the validation loss' variance", shares),
        Table("Validation loss (over-fitting) and influence (outliers) at equal training loss", pairs),
        Table("Starts from which the best minimum was reached", minima),
    ]


def _figures(runs: Runs) -> Mapping[str, go.Figure]:
    shares = {
        name.partition(", ")[2]: {p: [m["importance"][p] for m in cell.values()] for p in SPACE}
        for name, cell in runs.items() if name.startswith(IMPORTANCE)
    }  # fmt: skip
    minima = {}
    for name, cell in runs.items():
        if name.startswith(MINIMA):
            found = [reached(m) for m in cell.values()]
            minima[name.partition(", ")[2]] = {way: [f[way] for f in found] for way in found[0]}
    return {
        "importance": dots("share of the variance", shares),
        "minima": dots("starts that reach the best", minima),
    }


EXPERIMENT = Experiment(
    id="X14",
    title="What the learning rate does",
    claim=(
        "The learning rate is the most important hyperparameter. A small one over-fits and is trapped in local minima "
        "(and, elsewhere, helps to reach the global one); a large one makes outliers count; a schedule makes the "
        "global optimum sure."
    ),
    source="D2 on the learning rate; fANOVA: Hutter, Hoos & Leyton-Brown (2014).",
    setup=_setup,
    cells=_cells,
    measure=_measure,
    judge=_judge,
    tables=_tables,
    figures=_figures,
    data=("fashion_mnist",),
    minutes=(0.3, 5),
)
