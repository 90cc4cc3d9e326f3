"""X9: what each regularizer does for a net that learns its few training rows by heart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradwise import optim
from gradwise.finder import range_test
from gradwise.lab.data import Data, load
from gradwise.lab.drawing import dots, lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.models import mlp
from gradwise.lab.statistics import Estimate, estimate, paired
from gradwise.lab.training import History, evaluate, finite, fit, loss_of, seeded
from gradwise.regularization import decay_groups, early_stopping, penalty, sparsity

if TYPE_CHECKING:
    import plotly.graph_objects as go

NONE, STOP, L1, TERM = "none", "early stop", "L1", "L1 as a term of the loss"
# What is varied and how strongly. λ is of λΣ|w| and λΣw² (no ½), of weights only; "L1" is its proximal step.
WAYS: Mapping[str, Sequence[Mapping[str, float]]] = {
    NONE: [{}],
    L1: [{"l1": v} for v in (1e-2, 3e-2, 1e-1, 3e-1)],
    TERM: [{"term": v} for v in (1e-4, 3e-4, 1e-3)],
    "L2": [{"l2": v} for v in (3e-4, 1e-3, 3e-3)],
    "elastic net": [{"l1": v, "l2": v / 10} for v in (3e-3, 1e-2, 3e-2)],
    "dropout": [{"dropout": v} for v in (0.2, 0.5, 0.8)],
    "batch norm": [{"norm": 1}],
    "noise on inputs": [{"noise": v} for v in (0.3, 1.0)],
    "shifted inputs": [{"shift": v} for v in (1, 2)],
    STOP: [{"patience": 5}],
}
BATCH = 32


def _cells(quick: bool) -> list[Cell]:
    shared = {"data": "digits", "rows": 150, "hidden": 64, "epochs": 40}
    if not quick:
        shared = {"data": "fashion_mnist", "rows": 500, "hidden": 128, "epochs": 40}
    # Digits are standardized pixel by pixel: shifted they would be others.
    ways = {way: s for way, s in WAYS.items() if not (quick and way == "shifted inputs")}
    return [Cell(way, {**shared, "way": way, "strengths": strengths}) for way, strengths in ways.items()]


def _setup(quick: bool) -> str:
    cells = _cells(quick)
    s = cells[0].settings
    grids = "; ".join(f"{c.name} {_strengths(c.settings['strengths'])}" for c in cells if c.settings["strengths"][0])
    return (
        f"The first {s['rows']} training rows of {s['data']}, a net of one hidden layer of {s['hidden']} ReLU units, "
        f"{s['epochs']} epochs in batches of {BATCH} by Adam, in all cells at the rate that the range test finds for "
        f"the net without a regularizer. Strengths: {grids}. For each seed the strength with the lowest validation "
        "loss at the end is taken, and the test set read for it alone. The gap is the validation loss less that of the "
        "training rows, both as the net is used: nothing dropped, no noise."
    )


def _strengths(settings: Sequence[Mapping[str, float]]) -> str:
    return ", ".join(" + ".join(f"{value:g}" for value in s.values()) for s in settings)


def _net(data: Data, hidden: int, seed: int, **more: Any) -> nn.Module:
    inputs = int(torch.tensor(data.shape).prod())
    with seeded(seed):
        return mlp([inputs, hidden, data.classes], **more)


def _data(name: str, rows: int, bench: Bench) -> Data:
    """A data set with few rows to train on, and 1,000 at most to choose by."""
    data = load(name, bench.data_dir).first(rows)
    return replace(data, validation=data.validation.first(1000))


@lru_cache(maxsize=64)
def _rate(name: str, rows: int, hidden: int, epochs: int, seed: int, bench: Bench) -> float:
    """The range test's rate for the net without a regularizer."""
    data = _data(name, rows, bench)
    train, net, steps = data.train, _net(data, hidden, seed), epochs * -(-rows // BATCH)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    batches = [(train.x[k], train.y[k]) for k in order.split(BATCH)]  # type: ignore[no-untyped-call]
    found = range_test(net, batches, loss_of(train), optimizer=optim.Adam(net.parameters()), budget=400, horizon=steps)
    return 1e-3 if found.rate is None else found.rate


def _measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    about = [settings[name] for name in ("data", "rows", "hidden", "epochs")]
    data, rate = _data(settings["data"], settings["rows"], bench), _rate(*about, seed, bench)
    tried = []
    for k, strength in enumerate(settings["strengths"]):
        tried.append(_train(data, settings["hidden"], settings["epochs"], rate, strength, seed))
        bench.progress((k + 1) / len(settings["strengths"]))
    model, best = min(tried, key=lambda pair: pair[1]["validation"])
    test, accuracy = evaluate(model, data.test)
    chosen = settings["strengths"][[m for _, m in tried].index(best)]
    zeros = sparsity(model)
    return {
        "rate": rate, **best, "test": test, "accuracy": accuracy, "zeros": zeros.zeros / zeros.total,
        "dropped": len(zeros.dropped), "strength": dict(chosen), "tried": [m["validation"] for _, m in tried],
    }  # fmt: skip


def _train(
    data: Data, hidden: int, epochs: int, rate: float, strength: Mapping[str, float], seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """The net trained with one regularizer, as it is to be used, and what can be said of it without the test set."""
    model = _net(data, hidden, seed, norm="norm" in strength, dropout=strength.get("dropout", 0.0))
    groups = decay_groups(model, weight_decay=1.0)  # for what is a weight: here nothing decays
    l1, l2, term = (strength.get(name, 0.0) for name in ("l1", "l2", "term"))
    settings = [{"params": g["params"], "l1": l1 if g["weight_decay"] else 0.0} for g in groups]
    weights = [p for g in groups if g["weight_decay"] for p in g["params"]]
    kept, gaps = _Keeper(int(strength["patience"]), model) if "patience" in strength else None, []

    def after(epoch: int, history: History) -> bool:
        gaps.append(evaluate(model, data.train)[0])
        return kept is not None and kept(history.validation[-1])

    with seeded(seed):
        history = fit(
            model, optim.Adam(settings, lr=rate), data.train, batch=BATCH, epochs=epochs, seed=seed,
            validation=data.validation, augment=_augment(strength), each_epoch=after, keep_losses=False,
            penalty=(lambda: penalty(weights, l1=term, l2=l2)) if l2 or term else None,
        )  # fmt: skip
    if kept is not None:
        model.load_state_dict(kept.best)
    validation, train = evaluate(model, data.validation)[0], evaluate(model, data.train)[0]
    curves = {"curve": list(map(finite, history.validation)), "train_curve": list(map(finite, gaps))}
    return model, {"validation": validation, "train": train, **curves}


class _Keeper:
    """Early stopping that keeps the weights of the best epoch."""

    def __init__(self, patience: int, model: nn.Module) -> None:
        self.stopping, self.model = early_stopping(patience), model
        self.state, self.best = self.stopping.start, model.state_dict()

    def __call__(self, loss: float) -> bool:
        self.state, stop = self.stopping(self.state, loss)
        if self.state.wait == 0:
            self.best = copy.deepcopy(self.model.state_dict())
        return stop


def _augment(strength: Mapping[str, float]) -> Callable[[Tensor], Tensor] | None:
    """What is done to each batch's inputs: noise of that deviation, or a shift of up to so many pixels each way."""
    if "noise" in strength:
        return lambda x: x + strength["noise"] * torch.randn_like(x)
    if "shift" not in strength:
        return None
    reach = int(strength["shift"])

    def shift(x: Tensor) -> Tensor:
        away = torch.randint(-reach, reach + 1, (len(x), 2)).tolist()
        return torch.stack([torch.roll(image, move, (-2, -1)) for image, move in zip(x, away, strict=True)])

    return shift


def gap(m: Measures) -> float:
    """By how much the validation loss lies above that of the training rows."""
    return float(m["validation"] - m["train"])


def _against_none(runs: Runs, way: str, value: Callable[[Measures], float]) -> Estimate:
    """A value with a regularizer less that without, seed by seed."""
    seeds = sorted(set(runs[NONE]) & set(runs[way]))
    return paired([value(runs[way][s]) for s in seeds], [value(runs[NONE][s]) for s in seeds])


def _judge(runs: Runs) -> Verdict:
    statements = []
    for way in runs:
        if way != NONE:
            gaps, tests = _against_none(runs, way, gap), _against_none(runs, way, lambda m: m["test"])
            better = [None if e.above_zero is None else not e.above_zero for e in (gaps, tests)]
            held = False if False in better else None if None in better else True
            statements.append(
                Statement(f"{way[0].upper()}{way[1:]}: the gap changes by {gaps}, the test loss by {tests}.", held)
            )
    if L1 in runs and TERM in runs:
        zeros, term = (estimate([m["zeros"] for m in runs[way].values()]) for way in (L1, TERM))
        where = "by its proximal step, not as a term of the loss" if term.mean < zeros.low else ""
        text = f"L1 makes weights exactly zero: {zeros.mean:.0%} of them; as a term of the loss {term.mean:.0%}."
        statements.append(Statement(text, zeros.above_zero, where))
    before = estimate([gap(m) for m in runs[NONE].values()])
    return conclude(statements, f"Without a regularizer the gap is {before}.")


def _tables(runs: Runs) -> Sequence[Table]:
    rows = [["regularizer", "train loss", "validation loss", "gap", "test loss", "test accuracy", "zeros",
             "strengths chosen"]]  # fmt: skip
    for way, cell in runs.items():
        means = [fmean(m[name] for m in cell.values()) for name in ("train", "validation", "test", "accuracy", "zeros")]
        chosen = ", ".join(dict.fromkeys(_strengths([m["strength"]]) for m in cell.values()))
        train, validation, test, accuracy, zeros = means
        rows.append([way, f"{train:.3f}", f"{validation:.3f}", f"{validation - train:.3f}", f"{test:.3f}",
                     f"{accuracy:.2%}", f"{zeros:.0%}", chosen])  # fmt: skip
    changes = [["regularizer", "gap", "test loss", "test accuracy"]]
    for way in runs:
        if way != NONE:
            found = [_against_none(runs, way, value) for value in (gap, lambda m: m["test"], lambda m: m["accuracy"])]
            changes.append([way, *map(str, found)])
    return [Table("Means over seeds", rows), Table("Differences from none, paired (95 % interval)", changes)]


def _figures(runs: Runs) -> Mapping[str, go.Figure]:
    seen: dict[str, dict[str, list[float]]] = {"gap": {}, "test loss": {}}
    for way, cell in runs.items():
        name = way.replace(" ", "<br>", 1).replace(" of ", "<br>of ")
        seen["gap"][name] = [gap(m) for m in cell.values()]
        seen["test loss"][name] = [m["test"] for m in cell.values()]
    epochs = max(len(m["curve"]) for m in runs[NONE].values())
    drawn = {}
    for way in [w for w in (NONE, "L2", "dropout") if w in runs]:
        drawn[way] = (range(1, epochs + 1), [_numbers(m["curve"]) for m in runs[way].values()])
    drawn[f"{NONE}: training rows"] = (range(1, epochs + 1), [_numbers(m["train_curve"]) for m in runs[NONE].values()])
    return {"regularizers": dots("loss", seen), "curves": lines("epoch", "loss", drawn, log_y=True)}


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if v is None else v for v in values]


EXPERIMENT = Experiment(
    id="X9",
    title="Regularizers on a net that over-fits",
    claim=(
        "L1, L2, elastic net, dropout, batch normalization, data augmentation and early stopping each keep a net from "
        "over-fitting: the gap between training and validation narrows and the test loss falls; L1 makes weights zero."
    ),
    source="D2 on regularization (R1-R3); Zou & Hastie (2005), Srivastava et al. (2014), Ioffe & Szegedy (2015).",
    setup=_setup,
    cells=_cells,
    measure=_measure,
    judge=_judge,
    tables=_tables,
    figures=_figures,
    data=("fashion_mnist",),
    minutes=(0.2, 2),
)
