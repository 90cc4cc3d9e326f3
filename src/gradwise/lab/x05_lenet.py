"""X5 and S9: does lowering the rate on a plateau help Adam? LeNet-5 on CIFAR-10, with a high rate and a low one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from gradwise.lab import checkpoint
from gradwise.lab.data import Data, Split, load
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
from gradwise.lab.models import lenet5
from gradwise.lab.statistics import Estimate, estimate, paired
from gradwise.lab.training import History, evaluate, fit, seeded
from gradwise.optim import Adam
from gradwise.schedules import (
    Schedule,
    attach,
    constant,
    cosine,
    exponential,
    natural_exponential,
    reduce_on_plateau,
    sgdr,
    step,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

BATCH = 64
PATIENCE = 5
AFTER_CUT = 3  # epochs after the first cut whose accuracy is compared
# Decays over e epochs of n steps. The mildest of them ends at a factor of 0.13 after 40 epochs, the rest below 0.01.
DECAYS: Mapping[str, Callable[[int, int], Schedule]] = {
    "constant": lambda e, n: constant(),
    "step": lambda e, n: step(e // 8 * n, 0.5),
    "exponential": lambda e, n: exponential(0.13, e * n),
    "natural exponential": lambda e, n: natural_exponential(8.0, e * n),
    "cosine": lambda e, n: cosine(e * n),
    "SGDR": lambda e, n: sgdr(e // 4 * n, t_mult=3),
}
DOCUMENT = {
    ("high", True): 0.5617, ("high", False): 0.5476, ("low", True): 0.5636, ("low", False): 0.5688,
}  # fmt: skip
_NAMES = {(rate, plateau): f"η {rate}{', plateau' if plateau else ''}" for rate, plateau in DOCUMENT}


def setup(quick: bool) -> str:
    """Model, data, rules, rates, lengths."""
    if quick:
        what = (
            "LeNet-5 cut down to 8×8 images (3×3 convolutions), scikit-learn's digits (500 training rows), Adam, batch "
            "64, η 0.01 (high) and 0.001 (low), 24 epochs; decays over 8 epochs at the high rate. A fifth of the rows"
        )
    else:
        what = (
            "LeNet-5 (ReLU, max-pooling), CIFAR-10 (decoded from JPEG files where the original pixels are not given), "
            "no augmentation, Adam with batch 64, η 0.001 (high) and 0.0001 (low), 120 epochs; decays over 40 epochs "
            "at the high rate. A tenth of the training rows"
        )
    return (
        f"{what} is held out for validation; `reduce_on_plateau(0.1, patience={PATIENCE})` (Keras's rule) sees the "
        "validation loss after each epoch. The test set is read once, after the last epoch. With and without the "
        "plateau a seed has the same first weights and order of rows, so both are one run until the first cut. Decays "
        "of η: half every eighth of the run (step), to 0.13 (exponential), to e⁻⁸ (natural exponential), to 0 by a "
        "cosine, and by cosines over a quarter and three quarters (SGDR)."
    )


def cells(quick: bool) -> Sequence[Cell]:
    """Two rates with and without plateau; then the decays."""
    rates = {"high": 0.01, "low": 0.001} if quick else {"high": 0.001, "low": 0.0001}
    epochs, short = (24, 8) if quick else (120, 40)
    long = [
        Cell(name, {"lr": rates[rate], "epochs": epochs, "decay": "plateau" if plateau else "constant"})
        for (rate, plateau), name in _NAMES.items()
    ]
    return [*long, *(Cell(d, {"lr": rates["high"], "epochs": short, "decay": d}, rank=1) for d in DECAYS)]


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """One training, resumed from its last epoch where it was killed."""
    data = _data(bench)
    epochs, per_epoch = settings["epochs"], -(-len(data.train) // BATCH)
    with seeded(seed):
        model = lenet5(data.shape[0], data.classes, data.shape[1])
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = Adam(model.parameters(), lr=settings["lr"])
        plateau = settings["decay"] == "plateau"
        rule = reduce_on_plateau(0.1, PATIENCE) if plateau else DECAYS[settings["decay"]](epochs, per_epoch)
        scheduler = attach(optimizer, rule)
        history = _resumed(bench, model, optimizer, scheduler)

        def after(epoch: int, history: History) -> None:
            bench.progress(epoch / epochs)
            if bench.checkpoint is not None and epoch < epochs and not bench.quick:
                parts = [model.state_dict(), optimizer.state_dict(), scheduler.state_dict(), vars(history)]
                checkpoint.save(bench.checkpoint, [*map(dict, parts)])

        fit(
            model, optimizer, data.train, batch=BATCH, epochs=epochs, seed=seed,
            validation=data.validation, scheduler=scheduler, each_epoch=after, history=history, keep_losses=False,
        )  # fmt: skip
        test_loss, test_accuracy = evaluate(model, data.test)
    rounded = {key: [round(v, 5) for v in getattr(history, key)] for key in ("train", "validation", "accuracy")}
    return {
        "test accuracy": test_accuracy, "test loss": test_loss, **rounded,
        "lr": [float(f"{v:.6g}") for v in history.lr], "data": data.name, "note": data.note,
    }  # fmt: skip


def _data(bench: Bench) -> Data:
    """Images in channels-last order, in which convolutions are quicker on processors."""
    data = load("digits").first(500) if bench.quick else load("cifar10", bench.data_dir)
    last = {
        part: Split(split.x.contiguous(memory_format=torch.channels_last), split.y)
        for part, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }
    return Data(data.name, data.classes, **last, note=data.note)


def _resumed(bench: Bench, model: torch.nn.Module, optimizer: Adam, scheduler: Any) -> History:
    kept = checkpoint.load(bench.checkpoint) if bench.checkpoint is not None else None
    if kept is None:
        return History()
    weights, states, steps, history = kept
    model.load_state_dict(weights)
    optimizer.load_state_dict(states)
    scheduler.load_state_dict(steps)
    return History(**history)


def judge(runs: Runs) -> Verdict:
    """Five sentences; the last waits for the decays."""
    gain = {rate: _gain(runs, rate) for rate in ("high", "low")}
    more = paired(_pairs(runs, "high"), _pairs(runs, "low"))
    statements = [
        Statement(f"At the high rate the plateau raises test accuracy: by {gain['high']}.", gain["high"].above_zero),
        Statement(
            f"At the low rate it changes less than at the high one: by {gain['low']}, {more} less.", more.above_zero
        ),
        *(_jump(runs, rate) for rate in ("high", "low")),
        *_low_alone(runs),
    ]
    if "constant" in runs:
        statements.append(_decays(runs))
    else:
        statements.append(Statement("Decays by schedule: not yet run.", None))
    return conclude(statements)


def _accuracies(runs: Runs, cell: str) -> list[float]:
    return measured(runs, cell, "test accuracy")


def _pairs(runs: Runs, rate: str) -> list[float]:
    """With the plateau minus without, seed by seed."""
    both = zip(_accuracies(runs, _NAMES[rate, True]), _accuracies(runs, _NAMES[rate, False]), strict=True)
    return [a - b for a, b in both]


def _gain(runs: Runs, rate: str) -> Estimate:
    return estimate(_pairs(runs, rate))


def first_cut(lr: Sequence[float]) -> int | None:
    """The first epoch (from 0) with a lower rate; None where it never fell."""
    return next((k for k, rate in enumerate(lr) if rate < 0.5 * lr[0]), None)


def _jumps(runs: Runs, rate: str) -> list[float]:
    """Validation accuracy in the epochs after the first cut, minus that of the same run without a cut."""
    cut_runs, plain_runs = runs[_NAMES[rate, True]], runs[_NAMES[rate, False]]
    jumps = []
    for seed in sorted(cut_runs):
        cut = first_cut(cut_runs[seed]["lr"])
        if cut is not None:
            after = slice(cut, cut + AFTER_CUT)
            jumps.append(fmean(cut_runs[seed]["accuracy"][after]) - fmean(plain_runs[seed]["accuracy"][after]))
    return jumps


def _jump(runs: Runs, rate: str) -> Statement:
    jumps = _jumps(runs, rate)
    if not jumps:
        return Statement(f"Validation accuracy jumps after a cut ({rate} rate): no run was cut.", None)
    gain = estimate(jumps)
    text = f"Validation accuracy jumps after the first cut ({rate} rate), against the same run without it: by {gain}"
    return Statement(f"{text} ({gain.n} runs were cut).", gain.above_zero)


def _low_alone(runs: Runs) -> list[Statement]:
    low, high = _NAMES["low", False], _NAMES["high", False]
    better = paired(_accuracies(runs, low), _accuracies(runs, high))
    later = paired(_epochs_of_lowest(runs, low), _epochs_of_lowest(runs, high))
    return [
        Statement(f"A low rate alone gets there too: its test accuracy is higher by {better}.", better.above_zero),
        Statement(f"It is slower: its lowest validation loss comes {later} epochs later.", later.above_zero),
    ]


def _epochs_of_lowest(runs: Runs, cell: str) -> list[float]:
    return [float(_lowest(curve)) for curve in measured(runs, cell, "validation")]


def _lowest(validation: Sequence[float | None]) -> int:
    """The epoch (from 1) with the lowest validation loss."""
    seen = {epoch: value for epoch, value in enumerate(validation, 1) if value is not None}
    return min(seen, key=seen.__getitem__) if seen else len(validation)


def _decays(runs: Runs) -> Statement:
    gains = {d: paired(_accuracies(runs, d), _accuracies(runs, "constant")) for d in DECAYS if d != "constant"}
    said = "; ".join(f"{decay} {gain}" for decay, gain in gains.items())
    above = [decay for decay, gain in gains.items() if gain.above_zero]
    text = f"Decays by schedule raise Adam's test accuracy over a constant rate: {said}."
    if len(above) == len(gains):
        return Statement(text, True)
    if above:
        return Statement(text, True, f"shown for {', '.join(above)} only")
    return Statement(text, False if all(g.above_zero is False for g in gains.values()) else None)


def tables(runs: Runs) -> Sequence[Table]:
    """Test accuracies beside the document's, paired differences, decays."""
    document = all(m["data"] == "cifar10" for by_seed in runs.values() for m in by_seed.values())
    head = ["", "test accuracy", "spread", "each seed", "lowest validation loss at epoch"]
    first = [head + (["the document's"] if document else [])]
    for key, cell in _NAMES.items():
        first.append(_row(runs, cell) + ([f"{DOCUMENT[key]:.4f}"] if document else []))
    second = [["with plateau − without", "test accuracy", "95 % interval", "validation accuracy after the first cut"]]
    for rate in ("high", "low"):
        gain, jumps = _gain(runs, rate), _jumps(runs, rate)
        jump = str(estimate(jumps)) if jumps else "never cut"
        theirs = f" (the document's: {DOCUMENT[rate, True] - DOCUMENT[rate, False]:+.4f})" if document else ""
        second.append([f"η {rate}", f"{gain.mean:+.4f}{theirs}", f"[{gain.low:+.4f}, {gain.high:+.4f}]", jump])
    found = [Table("Test accuracy", first), Table("What the plateau changes", second)]
    if "constant" in runs:
        third = [[*head, "minus constant"]]
        for decay in DECAYS:
            gain = paired(_accuracies(runs, decay), _accuracies(runs, "constant"))
            third.append([*_row(runs, decay), "" if decay == "constant" else str(gain)])
        found.append(Table("Decays at the high rate", third))
    return found


def _row(runs: Runs, cell: str) -> list[str]:
    values = _accuracies(runs, cell)
    lowest = estimate(_epochs_of_lowest(runs, cell))
    mean = estimate(values)
    return [cell, f"{mean.mean:.4f}", f"{mean.spread:.4f}", ", ".join(f"{v:.4f}" for v in values), f"{lowest.mean:.0f}"]


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    """Validation accuracy and loss over the epochs, and accuracy under the decays."""
    found = {}
    for key, title in (("accuracy", "validation accuracy"), ("validation", "validation loss")):
        found[key] = lines("epoch", title, {cell: _curves(runs, cell, key) for cell in _NAMES.values()})
        found[key].update_layout(title=f"{title.capitalize()}: median and range over seeds")
    if "constant" in runs:
        drawn = {decay: _curves(runs, decay, "accuracy") for decay in DECAYS}
        found["decays"] = lines("epoch", "validation accuracy", drawn)
        found["decays"].update_layout(title="Validation accuracy under decays: median and range over seeds")
    return found


def _curves(runs: Runs, cell: str, key: str) -> tuple[list[float], list[list[float]]]:
    """Epochs, and the curve of each seed; NaN where it had diverged."""
    curves = measured(runs, cell, key)
    epochs = max(map(len, curves))
    padded = [[math.nan if v is None else v for v in c] + [math.nan] * (epochs - len(c)) for c in curves]
    return [float(k) for k in range(1, epochs + 1)], padded


EXPERIMENT = Experiment(
    id="X5",
    title="Lowering Adam's rate on a plateau",
    claim=(
        "LeNet-5 on CIFAR-10 with Adam: ReduceLROnPlateau(patience=5) raises test accuracy at η 0.001 (0.5617 against "
        "0.5476) and changes little at η 0.0001 (0.5636 against 0.5688); validation accuracy jumps after a cut; a low "
        "rate alone gets there too, only slower; schedules improve Adam."
    ),
    source="D3, its experiment and conclusion (S9); Loshchilov & Hutter, Decoupled weight decay regularization, 2019",
    setup=setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    data=("cifar10",),
    minutes=(0.2, 300),
)
