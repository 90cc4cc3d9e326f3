"""What watching costs: step time with and without, in turns within one run, as medians.

    python benchmarks/watch_overhead.py

Blocks of steps without and with the watcher follow each other; a pair gives one difference of mean step times, the
median over pairs is quoted. The budget is 2 % of the step or 30 µs, whichever is larger. Other work shows
in the spread: quote this on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch import nn
from torch.nn import functional as F

from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording.builder import FrameSink

Step = Callable[[torch.optim.Optimizer], None]


def mlp(width: int, rows: int) -> tuple[nn.Module, Step]:
    """An MLP on random numbers."""
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    return model, _stepper(model, torch.randn(rows, 64), torch.randint(0, 10, (rows,)))


def cnn(width: int, rows: int) -> tuple[nn.Module, Step]:
    """A convolutional network with batch normalization on random images."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(3):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 10))
    return model, _stepper(model, torch.randn(rows, 3, 32, 32), torch.randint(0, 10, (rows,)))


def transformer(width: int, rows: int) -> tuple[nn.Module, Step]:
    """A transformer encoder on random sequences."""
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, 10))
    return model, _stepper(model, torch.randn(rows, 16, width), torch.randint(0, 10, (rows, 16)))


def _stepper(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    def step(optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x).flatten(0, -2), y.flatten()))
        optimizer.step()

    return step


CASES: dict[str, Callable[[], tuple[nn.Module, Step]]] = {
    "mlp tiny": lambda: mlp(32, 32),
    "mlp large": lambda: mlp(4096, 2048),
    "cnn tiny": lambda: cnn(4, 4),
    "cnn large": lambda: cnn(32, 64),
    "transformer tiny": lambda: transformer(16, 4),
    "transformer large": lambda: transformer(128, 64),
}


def block(step: Step, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Mean seconds a step."""
    began = perf_counter()
    for _ in range(steps):
        step(optimizer)
    return (perf_counter() - began) / steps


def measure(model: nn.Module, step: Step, seconds: float, pairs: int) -> tuple[float, float, float]:
    """Median step time without, median difference with, and what the watcher says of itself, in seconds a step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    once = block(step, optimizer, 5)
    steps = max(20, int(seconds / once))
    plain, extra, claimed = [], [], []
    for _ in range(pairs):
        without = block(step, optimizer, steps)
        watcher = Watcher(torch, Recorder(FrameSink(lambda _frames: None)))
        watcher.install()
        try:
            watched = torch.optim.Adam(model.parameters(), lr=1e-4)
            block(step, watched, 2)  # start-up is reported apart
            extra.append(block(step, watched, steps) - without)
        finally:
            watcher.remove()
        plain.append(without)
        claimed.append(watcher.meter.spent / (steps + 2))
    return statistics.median(plain), statistics.median(extra), statistics.median(claimed)


def main() -> None:
    """Measure each case and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each block")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", default="", help="cases with this in their name")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'case':20}{'step µs':>10}{'extra µs':>10}{'extra %':>9}{'claimed µs':>12}{'budget µs':>11}")
    for name, make in CASES.items():
        if args.only not in name:
            continue
        torch.manual_seed(0)
        plain, extra, claimed = measure(*make(), args.seconds, args.pairs)
        budget = max(0.02 * plain, 30e-6)
        verdict = "within" if extra <= budget else "over"
        numbers = (
            f"{1e6 * plain:10.0f}{1e6 * extra:10.1f}{100 * extra / plain:9.2f}{1e6 * claimed:12.1f}{1e6 * budget:11.0f}"
        )
        print(f"{name:20}{numbers}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
