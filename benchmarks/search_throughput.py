"""How many trials a second configurations make in batches, against one after another: `python
benchmarks/search_throughput.py` (minutes).

Each way trains the same 64 configurations, in turn, again and again; figures are medians of trials a second, and ratios
to the same loop with torch's optimizer, by the clock and by processor time, which a busy machine spoils less. One after
another is the loop as one writes it: tensors indexed by a shuffled order, no `DataLoader` (which would only make it
slower).
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

Config = Mapping[str, Any]


def perceptron(units: int) -> nn.Module:
    """One hidden layer on the digits' 64 pixels."""
    return nn.Sequential(nn.Linear(64, units), nn.Tanh(), nn.Linear(units, 10))


def lenet() -> nn.Module:
    """LeNet-5 on 28 × 28 pixels, with max pooling and ReLUs: 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def digits() -> Any:
    """scikit-learn's digits in three parts."""
    x, y = datasets.load_digits(return_X_y=True)
    return gradwise.split((torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)), seed=0)


def images() -> Any:
    """Random images: what they show makes no difference to speed."""
    x, y = torch.randn(320, 1, 28, 28), torch.randint(10, (320,))
    return [(x[:256], y[:256]), (x[256:], y[256:])]


TASKS: dict[str, tuple[Callable[[Config], nn.Module], Callable[[], Any], str, int]] = {
    "64-16-10, SGD, batch 16": (lambda config: perceptron(16), digits, "sgd", 16),
    "64-16-10, Adam, batch 32": (lambda config: perceptron(16), digits, "adam", 32),
    "64-32-10, Adam, batch 32": (lambda config: perceptron(32), digits, "adam", 32),
    "64-128-10, Adam, batch 32": (lambda config: perceptron(128), digits, "adam", 32),
    "LeNet, momentum, batch 32": (lambda config: lenet(), images, "momentum", 32),
}


def theirs(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimizer of a configuration as torch has it."""
    if config["rule"] == "adam":
        return torch.optim.Adam(model.parameters(), lr=config["lr"])
    return torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9 if config["rule"] == "momentum" else 0.0)


def ours(model: nn.Module, config: Config) -> Any:
    """The same, fused, of gradwise."""
    kinds = {"adam": gradwise.optim.Adam, "sgd": gradwise.optim.SGD}
    if config["rule"] == "momentum":
        return gradwise.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    return kinds[config["rule"]](model.parameters(), lr=config["lr"])


def one_by_one(task: gradwise.Training, configs: Sequence[Config], make: Callable[..., Any]) -> None:
    """The loop as one writes it."""
    (x, y), (held, answers) = task.data, task.held
    for config in configs:
        torch.manual_seed(0)
        model = task.model(config)
        optimizer, luck = make(model, config), torch.Generator().manual_seed(0)
        for _ in range(task.epochs):
            model.train()
            for chosen in torch.split(torch.randperm(len(x), generator=luck), task.batch_size):
                optimizer.zero_grad()
                task.loss(model(x[chosen]), y[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            model.eval()
            with torch.no_grad():
                task.loss(model(held), answers)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which medians are taken")
    parser.add_argument("--configurations", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8, help="how many of them run one after another in each round")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    args = parser.parse_args()
    print(f"{args.configurations} configurations; {torch.get_num_threads()} thread(s); trials a second\n")
    print(
        f"{'task':28} {'one by one, torch':>18} {'gradwise':>10} {'in batches':>11}   "
        f"{'against torch':>17} {'against gradwise':>17}"
    )
    for name in args.tasks:
        model, data, rule, size = TASKS[name]
        task = gradwise.Training(
            model, nn.functional.cross_entropy, data(), epochs=1 if "LeNet" in name else 5, batch_size=size
        )
        configs = [{"rule": rule, "lr": 10 ** -(1 + 2 * k / args.configurations)} for k in range(args.configurations)]
        few = configs[:: max(1, len(configs) // args.alone)]
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "torch": (lambda task=task, few=few: one_by_one(task, few, theirs), len(few)),  # type: ignore[misc]
            "gradwise": (lambda task=task, few=few: one_by_one(task, few, ours), len(few)),  # type: ignore[misc]
            "batched": (lambda task=task, configs=configs: task.train(configs), len(configs)),  # type: ignore[misc]
        }
        spent: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for k in range(args.repeats + 1):
            for way, (go, count) in ways.items():
                wall, cpu = time.perf_counter(), time.process_time()
                go()
                if k:  # the first round warms up
                    spent[way].append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
        rates = {way: 1 / statistics.median(wall for wall, _ in each) for way, each in spent.items()}
        against = [
            statistics.median(a[by] / b[by] for a, b in zip(spent[way], spent["batched"], strict=True))
            for way in ("torch", "gradwise")
            for by in (0, 1)
        ]
        print(
            f"{name:28} {rates['torch']:18.2f} {rates['gradwise']:10.2f} {rates['batched']:11.2f}   "
            f"{against[0]:8.1f}× ({against[1]:4.1f}×) {against[2]:8.1f}× ({against[3]:4.1f}×)",
            flush=True,
        )


if __name__ == "__main__":
    main()
