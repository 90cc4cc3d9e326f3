"""P2: DeepOBS' fmnist_2c2d, the published accuracy of Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradwise.lab import checkpoint, files
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
from gradwise.lab.statistics import estimate
from gradwise.lab.training import History, evaluate, fit, seeded
from gradwise.optim import Adam

if TYPE_CHECKING:
    import plotly.graph_objects as go

BATCH, LR = 128, 2.5118864315e-4  # the best rate of the published sweep
PUBLISHED = 0.9234
# The published records give test accuracies epoch by epoch; these are two of the ten seeds after ten epochs.
AFTER_TEN = (0.9121, 0.9152)


def setup(quick: bool) -> str:
    """The task as published, or the motions of it."""
    if quick:
        return (
            "The same net on scikit-learn's 8×8 digits, three epochs: the motions only, nothing published to compare."
        )
    return (
        "Two convolutions of 5×5 (32 and 64 channels, ReLU, max-pooling of 2×2), 1024 units, 10 classes; weights from "
        "a normal distribution of 0.05 cut off at twice that, biases 0.05. Fashion-MNIST divided by 255, all 60,000 "
        f"rows for training, Adam at {LR:.4g}, batches of {BATCH}, no schedule; the last rows that make no whole batch "
        "are left out, in training and in testing. Ten epochs first, then the published 100. Reproduced is a figure "
        "that ours comes as near to as the larger of both deviations over seeds."
    )


def cells(quick: bool) -> Sequence[Cell]:
    """Ten epochs, which a processor can do; and the hundred of the published figure."""
    if quick:
        return [Cell("3 epochs", {"epochs": 3})]
    return [Cell("10 epochs", {"epochs": 10}), Cell("100 epochs", {"epochs": 100}, rank=1)]


def network(side: int) -> nn.Sequential:
    """The 2c2d net for square grey images."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (side // 4) ** 2, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(p, 0.05)
        else:
            nn.init.trunc_normal_(p, std=0.05, a=-0.1, b=0.1)
    return model


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """One training; test accuracy after each epoch, as in the published records."""
    train, test, note = _data(bench)
    epochs = settings["epochs"]
    with seeded(seed):
        model = network(train.x.shape[-1])
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = Adam(model.parameters(), lr=LR)
        kept = checkpoint.load(bench.checkpoint) if bench.checkpoint is not None else None
        history = History()
        if kept is not None:
            model.load_state_dict(kept[0])
            optimizer.load_state_dict(kept[1])
            history = History(**kept[2])

        def after(epoch: int, history: History) -> None:
            bench.progress(epoch / epochs)
            if bench.checkpoint is not None and not bench.quick and epoch < epochs:
                checkpoint.save(bench.checkpoint, [model.state_dict(), optimizer.state_dict(), dict(vars(history))])

        fit(
            model, optimizer, train, batch=BATCH, epochs=epochs, seed=seed, validation=test, each_epoch=after,
            history=history, keep_losses=False, drop_last=True,
        )  # fmt: skip
    accuracies = history.accuracy or [evaluate(model, test)[1]]
    return {"accuracy": [round(v, 5) for v in accuracies], "final": accuracies[-1], "data": note}


def _data(bench: Bench) -> tuple[Split, Split, str]:
    if bench.quick:
        data = load("digits").first(512)
        return data.train, data.test, "digits"
    raw = files.images("fashion_mnist", bench.data_dir)
    splits = []
    for x, y in ((raw.train_x, raw.train_y), (raw.test_x, raw.test_y)):
        scaled = (torch.from_numpy(x).float() / 255).contiguous(memory_format=torch.channels_last)
        splits.append(Split(scaled, torch.from_numpy(y).long()))
    return splits[0], splits[1].first(len(splits[1]) // BATCH * BATCH), "fashion_mnist"


def judge(runs: Runs) -> Verdict:
    """Near the published figures, or nothing to say."""
    if measured(runs, next(iter(runs)), "data")[0] == "digits":
        return conclude(
            [Statement("The published figure is of Fashion-MNIST; the quick form says nothing of it.", None)]
        )
    ten = estimate(measured(runs, "10 epochs", "final"))
    theirs = estimate(AFTER_TEN)
    near = abs(ten.mean - theirs.mean) <= max(ten.spread, theirs.spread) if ten.n > 1 else None
    said = f"{ten.mean:.4f} ± {ten.spread:.4f}, published {theirs.mean:.4f} ± {theirs.spread:.4f} (two seeds)"
    statements = [Statement(f"After 10 epochs: {said}.", near)]
    if "100 epochs" in runs:
        ours = estimate(measured(runs, "100 epochs", "final"))
        near = abs(ours.mean - PUBLISHED) <= ours.spread if ours.n > 1 else None
        statements.append(
            Statement(f"After 100 epochs: {ours.mean:.4f} ± {ours.spread:.4f}, published {PUBLISHED}.", near)
        )
    else:
        statements.append(Statement(f"After 100 epochs, published {PUBLISHED}: not yet run.", None))
    return conclude(statements)


def tables(runs: Runs) -> Sequence[Table]:
    """Ours beside the published ones."""
    published = {"10 epochs": ", ".join(f"{v:.4f}" for v in AFTER_TEN), "100 epochs": f"{PUBLISHED:.4f}"}
    rows = [["", "test accuracy", "spread", "each seed", "published"]]
    for cell in runs:
        values = measured(runs, cell, "final")
        found = estimate(values)
        spread = f"{found.spread:.4f}" if found.n > 1 else ""
        each = ", ".join(f"{v:.4f}" for v in values)
        rows.append([cell, f"{found.mean:.4f}", spread, each, published.get(cell, "")])
    return [Table("Test accuracy", rows)]


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    """Test accuracy over the epochs."""
    drawn = {}
    for cell in runs:
        curves = measured(runs, cell, "accuracy")
        drawn[cell] = ([float(k) for k in range(1, len(curves[0]) + 1)], curves)
    figure = lines("epoch", "test accuracy", drawn)
    figure.update_layout(title="Test accuracy: median and range over seeds")
    return {"accuracy": figure}


EXPERIMENT = Experiment(
    id="P2",
    title="DeepOBS' fmnist_2c2d",
    claim=f"Adam reaches a test accuracy of {PUBLISHED} on Fashion-MNIST with the 2c2d net in 100 epochs.",
    source="Schneider, Balles & Hennig, DeepOBS: a deep learning optimizer benchmark suite, ICLR 2019, its baselines",
    setup=setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    data=("fashion_mnist",),
    minutes=(0.2, 900),
)
