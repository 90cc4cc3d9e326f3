"""How many trials each method of `gradwise.tune` needs on real tasks: `python benchmarks/search_methods.py` (minutes).

A small network on three of scikit-learn's data sets; the space is learning rate × rule × hidden units × weight decay,
and configurations train in batches (`gradwise.Training`), which makes the exhaustive grid cheap.
An exhaustive grid says what can be had, the spread of its best point over seeds says what differences are noise. A
method has got there with the first trial whose validation loss is within that noise of the grid's best.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn import datasets  # type: ignore[import-untyped]
from torch import nn

import gradwise

SPACE: dict[str, Any] = {
    "lr": "1e-4..1",
    "rule": ["sgd", "momentum", "adam"],
    "hidden": [8, 32, 128],
    "weight_decay": [0.0, 1e-3, 1e-1],
}
GRID_POINTS = 9
METHODS = ("random", "quasi-random", "tpe", "gp", "cma-es", "nsga-ii")
TASKS = ("load_diabetes", "load_breast_cancer", "load_digits")
EPOCHS, BATCH = 10, 64
# Configurations that train at once. Methods that learn from trials are asked for as many at a time, and know no more of
# each other's outcomes than that.
ROWS = 16


def task(name: str, rows: int = ROWS) -> gradwise.Training:
    """A small network on a data set."""
    x, y = getattr(datasets, name)(return_X_y=True)
    numbers = y.dtype.kind == "f"
    x = torch.tensor((x - x.mean(0)) / (x.std(0) + 1e-8), dtype=torch.float32)
    y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None] if numbers else torch.tensor(y)
    outputs = 1 if numbers else int(y.max()) + 1

    def model(config: Mapping[str, Any]) -> nn.Module:
        units = config["hidden"]
        return nn.Sequential(nn.Linear(x.shape[1], units), nn.Tanh(), nn.Linear(units, outputs))

    train, validation, _ = gradwise.split((x, y), seed=0)
    loss = nn.functional.mse_loss if numbers else nn.functional.cross_entropy
    return gradwise.Training(model, loss, [train, validation], epochs=EPOCHS, batch_size=BATCH, rows=rows)


def needed(losses: Sequence[float], goal: float) -> int | None:
    """The first trial, from 1, that reached a loss; None where none did."""
    return next((k for k, loss in enumerate(losses, 1) if loss <= goal), None)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=120, help="budget of each method")
    parser.add_argument("--repeats", type=int, default=9, help="searches of each method, with seeds of their own")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    args = parser.parse_args()
    print(f"trials needed of {args.trials}, median of {args.repeats} searches (searches that got there)", flush=True)
    for name in args.tasks:
        objective, began = task(name), time.perf_counter()
        grid = gradwise.tune(task(name, rows=64), SPACE, method="grid", points=GRID_POINTS, trials=10_000)
        assert grid.config is not None
        assert grid.value is not None
        again = objective.train([grid.config] * 16, range(1, 17))
        noise = statistics.stdev(t.value if t.value is not None else float("inf") for t in again)
        print(
            f"\n{name}: the best of a grid of {len(grid.trials)} is {grid.value:.4f}, noise {noise:.4f} "
            f"({time.perf_counter() - began:.0f} s)",
            flush=True,
        )
        for method in args.methods:
            began, found = time.perf_counter(), list[int | None]()
            for seed in range(args.repeats):
                tuned = gradwise.tune(objective, SPACE, method=method, trials=args.trials, seed=seed)
                losses = [t["value"] if t["value"] is not None else float("inf") for t in tuned.trials]
                found.append(needed(losses, grid.value + noise))
            reached = [n for n in found if n is not None]
            middle = statistics.median(n if n is not None else args.trials + 1 for n in found)
            shown = f"{middle:g}" if middle <= args.trials else f"> {args.trials}"
            print(
                f"  {method:14} {shown:>6} ({len(reached)}/{args.repeats})   {time.perf_counter() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
