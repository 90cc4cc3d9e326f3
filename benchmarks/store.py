"""What a store costs: bytes per point, time to read 10^7 points of a series, time to add a flush to a run.

    python benchmarks/store.py [--points 10000000] [--folder DIR]

The bound to hold: at most 6 bytes a point on disk, database and all; a thinned read in under a second.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gradwise.recording.frames import Declaration, Points
from gradwise.recording.recording import Floats, Ints, RunInfo
from gradwise.recording.store import Store

FLUSH = 5_000

READ = """
import sys, time
from gradwise.recording.store import Store
store = Store.open(sys.argv[1], create=False)
run = store.resolve("last")
began = time.perf_counter()
store.read(run, sys.argv[2], max_points=None if sys.argv[3] == "all" else int(sys.argv[3]))
print(time.perf_counter() - began)
"""


def noisy_loss(n: int) -> Floats:
    t = np.arange(n) / n
    return 2.3 * np.exp(-5 * t) + 0.1 + 0.2 * np.random.default_rng(0).standard_normal(n) * np.exp(-t)


def step_times(n: int) -> Floats:
    return np.cumsum(0.003 + np.random.default_rng(0).gamma(4.0, 0.0005, n))


SERIES: dict[str, tuple[str, Callable[[int], Floats]]] = {
    "noisy loss, float32": ("loss/train", lambda n: noisy_loss(n).astype(np.float32).astype(np.float64)),
    "noisy loss, float64": ("loss/train", noisy_loss),
    "loss with NaN tail": ("loss/train", lambda n: np.where(np.arange(n) < 0.7 * n, noisy_loss(n), np.nan)),
    "times": ("time", step_times),
    "cosine rate each step": ("lr", lambda n: 0.05 * (1 + np.cos(np.pi * np.arange(n) / n))),
}


def on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))


def measure(name: str, points: int, folder: Path) -> None:
    signal, make = SERIES[name]
    path = folder / "runs.db"
    values, steps = make(points), np.arange(points)
    with Store.open(str(path)) as store:
        run = store.create(RunInfo(""))
        store.append(run, [Declaration(0, signal, 0)])
        began = time.process_time()
        for i in range(0, points, FLUSH):
            store.append(run, [Points(0, steps[i : i + FLUSH], values[i : i + FLUSH])])
        flush = (time.process_time() - began) / (points / FLUSH)
    size = on_disk(path) / points
    reads = {}
    for most in ("2000", "all"):
        command = [sys.executable, "-c", READ, str(path), signal, most]
        times = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
        reads[most] = f"{statistics.median(times):5.2f} ({max(times):.2f})"
    print(f"{name:22} {size:7.2f}   {reads['2000']:>13} {reads['all']:>13}   {flush * 1e3:6.2f}")
    for file in folder.iterdir():
        file.unlink()


def flushes(folder: Path) -> None:
    """A training as the supervisor sees it: 15 series, 100 tensors, a flush of 250 steps every quarter second."""
    tensors = tuple(f"layer{i}.weight" for i in range(100))
    rng = np.random.default_rng(0)
    with Store.open(str(folder / "runs.db")) as store:
        run = store.create(RunInfo(""))
        store.append(run, [Declaration(k, f"narrow/{k}", 0) for k in range(10)])
        store.append(run, [Declaration(k, f"wide/{k}", 0, tensors) for k in range(10, 15)])
        cpu, wall = [], []
        for flush in range(400):
            steps: Ints = np.arange(250 * flush, 250 * (flush + 1))
            frames = [Points(k, steps, rng.standard_normal(250)) for k in range(10)]
            frames += [Points(k, steps[::50], rng.standard_normal((5, 100))) for k in range(10, 15)]
            began, began_cpu = time.perf_counter(), time.process_time()
            store.append(run, frames)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - began_cpu)
    print(
        f"\none flush of 250 steps, 10 narrow series and 5 of 100 tensors: {statistics.mean(cpu) * 1e3:.1f} ms of CPU, "
        f"{statistics.median(wall) * 1e3:.1f} ms median, {max(wall) * 1e3:.0f} ms at worst"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--points", type=int, default=10_000_000)
    options.add_argument("--folder", help="where to put the store (default: the system's temporary folder)")
    chosen = options.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{chosen.points:,} points in flushes of {FLUSH:,}; reads in a fresh process: median (worst) of 3\n")
    print(f"{'series':22} {'B/point':>7}   {'2000 points, s':>13} {'all, s':>13}   {'ms/flush':>8}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for name in SERIES:
            measure(name, chosen.points, Path(folder))
        flushes(Path(folder))


if __name__ == "__main__":
    main()
