"""A step of every optimizer against torch's fastest way to make it: time, traffic and memory, interleaved medians.

    python benchmarks/optimizer_step.py                     # the step alone
    python benchmarks/optimizer_step.py --whole             # unscale, clip, decay, step, zero_grad, average
    python benchmarks/optimizer_step.py --telemetry         # with and without telemetry
    python benchmarks/optimizer_step.py --traffic           # as a fraction of what a copy reaches; extra memory
    python benchmarks/optimizer_step.py --only Adam --sizes 9610,12700000

The peer is the best of fused, foreach and single that torch has for the rule, chosen by trying each in the same run.
Times of ours and of the peer are taken in turns; quoted is the median of each, and their ratio. Gradients are read but
stay the same, so nothing but the step is timed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

import gradwise.optim as ours

Step = Callable[[], None]
# Models as lists of shapes, by their number of parameters.
MODELS: dict[int, list[tuple[int, ...]]] = {
    5_000: [(64, 64), (64,), (64, 10), (10,)],
    9_610: [(64, 128), (128,), (128, 10), (10,)],
    100_000: [(128, 128), (128,)] * 6,
    360_000: [(300, 300)] * 4,
    1_100_000: [(256, 256), (256,)] * 16 + [(256, 256)],
    12_700_000: [(512, 512), (512,)] * 48 + [(512, 10)],
    25_000_000: [(1000, 1000)] * 25,
    100_000_000: [(500, 500)] * 400,
}
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 1e-4}),
    "momentum": ("SGD", {"lr": 1e-4, "momentum": 0.9}),
    "Adagrad": ("Adagrad", {"lr": 1e-4}),
    "Adam": ("Adam", {"lr": 1e-4}),
    "AdamW": ("AdamW", {"lr": 1e-4}),
    "RMSprop": ("RMSprop", {"lr": 1e-4}),
    "Adadelta": ("Adadelta", {"lr": 1e-4}),
    "NAdam": ("NAdam", {"lr": 1e-4}),
    "RAdam": ("RAdam", {"lr": 1e-4}),
    "Adamax": ("Adamax", {"lr": 1e-4}),
    "ASGD": ("ASGD", {"lr": 1e-4}),
    "Rprop": ("Rprop", {"lr": 1e-4}),
}
FUSED = {"SGD", "momentum", "Adagrad", "Adam", "AdamW"}
# Numbers moved for each element: parameter and gradient read, parameter and states read and written; what is written
# is read into the cache first, and counted so (write-allocate is in the reads of what is updated in place).
STATES = {
    "SGD": 0, "momentum": 1, "Adagrad": 1, "Adam": 2, "AdamW": 2, "RMSprop": 1, "Adadelta": 2, "NAdam": 2, "RAdam": 2,
    "Adamax": 2, "ASGD": 1, "Rprop": 2,
}  # fmt: skip


def parameters(shapes: Sequence[tuple[int, ...]], seed: int = 0) -> list[nn.Parameter]:
    """Parameters with gradients."""
    random = torch.Generator().manual_seed(seed)
    made = [nn.Parameter(torch.randn(s, generator=random)) for s in shapes]
    for p in made:
        p.grad = torch.randn(p.shape, generator=random)
    return made


def interleaved(steps: Sequence[Step], seconds: float, least: int = 5) -> list[float]:
    """Median seconds of each, called in turns."""
    for step in steps:
        step()
        step()
    times: list[list[float]] = [[] for _ in steps]
    gc.collect()
    gc.disable()
    end = perf_counter() + seconds
    while perf_counter() < end or len(times[0]) < least:
        for step, taken in zip(steps, times, strict=True):
            began = perf_counter()
            step()
            taken.append(perf_counter() - began)
    gc.enable()
    return [statistics.median(t) for t in times]


def variants(name: str, settings: dict[str, Any], shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Torch's optimizers of this name, one for each way it can run on this device."""
    made = []
    for way in ({"fused": True}, {"foreach": True}, {"foreach": False}):
        try:
            made.append(getattr(torch.optim, name)(parameters(shapes), **settings, **way))
        except (TypeError, RuntimeError):
            continue
    return made


def best_peer(name: str, settings: dict[str, Any], shapes: Sequence[tuple[int, ...]]) -> Any:
    """The fastest of them here."""
    made = variants(name, settings, shapes)
    taken = interleaved([o.step for o in made], 0.05, least=3)
    return made[min(range(len(made)), key=taken.__getitem__)]


def alone(rule: str, shapes: Sequence[tuple[int, ...]], seconds: float) -> tuple[float, float]:
    name, settings = RULES[rule]
    mine = getattr(ours, name)(parameters(shapes), **settings)
    mine_s, peer_s = interleaved([mine.step, best_peer(name, settings, shapes).step], seconds)
    return mine_s, peer_s


def whole(rule: str, shapes: Sequence[tuple[int, ...]], seconds: float) -> tuple[float, float]:
    """All that a user pays for: unscaling, clipping by norm, decay, step, zero_grad, an average of the weights."""
    name, settings = RULES[rule]
    settings = {**settings, "weight_decay": 0.01} if name != "Rprop" else settings
    theirs = best_peer(name, settings, shapes)
    weights: list[Tensor] = theirs.param_groups[0]["params"]
    average = [p.detach().clone() for p in weights]
    mine = getattr(ours, name)(parameters(shapes), **settings, clip_norm=1.0, ema=0.999)
    own: list[Tensor] = mine.param_groups[0]["params"]
    grads = [p.grad for p in weights if p.grad is not None]
    our_grads = [p.grad for p in own]
    scale = torch.tensor(1024.0)

    def peer() -> None:
        for p, g in zip(weights, grads, strict=True):
            p.grad = g
        torch._foreach_mul_(grads, 1.0)  # unscale; by 1, for gradients to stay as they are
        nn.utils.clip_grad_norm_(weights, 1e9, foreach=True)
        theirs.step()
        theirs.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 0.001)

    def one_pass() -> None:
        for p, g in zip(own, our_grads, strict=True):
            p.grad = g
        mine.grad_scale, mine.found_inf = scale, None
        mine.step()
        mine.zero_grad()

    mine_s, peer_s = interleaved([one_pass, peer], seconds)
    return mine_s, peer_s


def telemetry(rule: str, shapes: Sequence[tuple[int, ...]], seconds: float) -> tuple[float, float]:
    name, settings = RULES[rule]
    on = getattr(ours, name)(parameters(shapes), **settings, telemetry=True)
    off = getattr(ours, name)(parameters(shapes), **settings)
    on_s, off_s = interleaved([on.step, off.step], seconds)
    return on_s, off_s


def traffic(rule: str, shapes: Sequence[tuple[int, ...]], seconds: float) -> tuple[float, float]:
    """Bytes a second of a step, and of a copy of as much memory (a copy reads, allocates and writes)."""
    name, settings = RULES[rule]
    mine = getattr(ours, name)(parameters(shapes), **settings)
    elements = sum(p.numel() for p in mine.param_groups[0]["params"])
    source, target = torch.randn(elements), torch.empty(elements)
    step_s, copy_s = interleaved([mine.step, lambda: _copy(source, target)], seconds)
    return elements * 4 * (3 + 2 * STATES[rule]) / step_s, elements * 4 * 3 / copy_s


def _copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)


def extra_memory(rule: str) -> float:
    """Bytes allocated by a step beside what it keeps, as a share of the parameters' bytes."""
    name, settings = RULES[rule]
    mine = getattr(ours, name)(parameters(MODELS[1_100_000]), **settings)
    mine.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        tracemalloc.start()
        mine.step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    allocated = sum(max(e.self_cpu_memory_usage, 0) for e in profile.key_averages())
    return float(allocated + peak) / (4 * 1_100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rules, by commas")
    parser.add_argument("--sizes", default="", help="numbers of parameters, by commas")
    parser.add_argument("--seconds", type=float, default=0.6, help="for each pair")
    for name in ("whole", "telemetry", "traffic"):
        parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args()
    sizes = [int(s) for s in args.sizes.split(",")] if args.sizes else list(MODELS)
    rules = args.only.split(",") if args.only else list(RULES)
    way = whole if args.whole else telemetry if args.telemetry else alone
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if args.traffic:
        print(f"{'rule':10}{'parameters':>12}{'GB/s':>8}{'copy':>8}{'share':>7}")
        for rule in rules:
            for size in [s for s in sizes if s >= 12_000_000]:
                got, most = traffic(rule, MODELS[size], args.seconds)
                print(f"{rule:10}{size:12,}{got / 1e9:8.1f}{most / 1e9:8.1f}{got / most:7.2f}", flush=True)
            print(f"{rule:10}{'':12}extra memory {100 * extra_memory(rule):.2f} % of the parameters", flush=True)
        return
    print(f"{'rule':10}{'parameters':>12}{'tensors':>9}{'ours µs':>11}{'peer µs':>11}{'ratio':>7}")
    for rule in rules:
        for size in sizes:
            mine, peer = way(rule, MODELS[size], args.seconds)
            n = len(MODELS[size])
            print(f"{rule:10}{size:12,}{n:9}{1e6 * mine:11.1f}{1e6 * peer:11.1f}{mine / peer:7.2f}", flush=True)


if __name__ == "__main__":
    main()
