"""How many trials each method of `gradwise.tune` needs on real tasks: `python benchmarks/search_methods.py` (minutes).

A small network on three of scikit-learn's data sets; the space is learning rate × rule × hidden units × weight decay.
An exhaustive grid says what can be had, the spread of its best point over seeds says what differences are noise. A
method has got there with the first trial whose validation loss is within that noise of the grid's best.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
STEPS = 60


def task(name: str) -> Callable[..., float]:
    """Train on a data set for `STEPS` full batches: validation loss of a configuration."""
    x, y = getattr(datasets, name)(return_X_y=True)
    numbers = y.dtype.kind == "f"
    x = torch.tensor((x - x.mean(0)) / (x.std(0) + 1e-8), dtype=torch.float32)
    y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32) if numbers else torch.tensor(y)
    parts = gradwise.split((x, y), seed=0)
    (inputs, targets), (held, answers) = parts.train, parts.validation
    outputs = 1 if numbers else int(y.max()) + 1

    def loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(model(x)[:, 0], y) if numbers else nn.functional.cross_entropy(model(x), y)

    def objective(config: Mapping[str, Any], seed: int = 0) -> float:
        torch.manual_seed(seed)
        units = config["hidden"]
        model = nn.Sequential(nn.Linear(x.shape[1], units), nn.Tanh(), nn.Linear(units, outputs))
        optimizer = _optimizer(model, config)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(model, inputs, targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return float(loss(model, held, answers))

    return objective


def _optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    given = {"lr": config["lr"], "weight_decay": config["weight_decay"]}
    if config["rule"] == "adam":
        return torch.optim.AdamW(model.parameters(), **given)
    return torch.optim.SGD(model.parameters(), momentum=0.9 if config["rule"] == "momentum" else 0.0, **given)


def needed(losses: Sequence[float], goal: float) -> int | None:
    """The first trial, from 1, that reached a loss; None where none did."""
    return next((k for k, loss in enumerate(losses, 1) if loss <= goal), None)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40, help="budget of each method")
    parser.add_argument("--repeats", type=int, default=3, help="searches of each method, with seeds of their own")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    args = parser.parse_args()
    print(f"trials needed of {args.trials}, median of {args.repeats} searches (searches that got there)\n")
    print(f"{'task':20} {'grid’s best':>12} {'noise':>8} {'grid':>5} " + " ".join(f"{m:>14}" for m in METHODS))
    for name in args.tasks:
        objective, began = task(name), time.perf_counter()
        grid = gradwise.tune(objective, SPACE, method="grid", points=GRID_POINTS, trials=10_000)
        assert grid.config is not None
        assert grid.value is not None
        noise = statistics.stdev(objective(grid.config, seed) for seed in range(1, 9))
        cells = []
        for method in METHODS:
            found = []
            for seed in range(args.repeats):
                tuned = gradwise.tune(objective, SPACE, method=method, trials=args.trials, seed=seed)
                losses = [t["value"] if t["value"] is not None else float("inf") for t in tuned.trials]
                found.append(needed(losses, grid.value + noise))
            reached = [n for n in found if n is not None]
            middle = statistics.median(n if n is not None else args.trials + 1 for n in found)
            shown = f"{middle:g}" if middle <= args.trials else f"> {args.trials}"
            cells.append(f"{shown} ({len(reached)}/{args.repeats})")
        print(
            f"{name:20} {grid.value:12.4f} {noise:8.4f} {len(grid.trials):5} "
            + " ".join(f"{c:>14}" for c in cells)
            + f"   {time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
