"""How far is the suggested learning rate from the best one, and what does training at it lose?

    python benchmarks/lr_suggestion.py [--seeds N] [--only RULE]    against the stored grid, beside fastai's finders
    python benchmarks/lr_suggestion.py --grid                       compute lr_grid.json anew (about ten minutes)

Nine tasks (`lr_tasks.py`), four rules, 700 steps. The *best rate* is that of the lowest held-out loss after 700 steps,
mean of five seeds, on a grid of eight rates a decade; the distance is in decades and zero wherever the mean is within
one seed's standard deviation of the best. Each finder may use its own ramp; the suggestion is `range_test`'s with its
default budget of 1,200 steps and a horizon of 700: once as for a script that evaluates the held-out loss after each
epoch, once by the training loss alone. (The held-out rows are those that tell the best rate: what is measured is how
well short runs forecast long ones, not how well one held-out set stands for another.) fastai's finders are
re-implemented from their description: 100 steps from 1e-7 to 10, losses averaged exponentially (0.98, corrected),
stopped at four times the lowest; *valley*: the middle of the longest falling subsequence; *steepest*: the most negative
slope against log rate; *minimum/10*.
"""

from __future__ import annotations

import argparse
import json
import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lr_tasks import RULES, STEPS, TASKS, Task, train  # type: ignore[import-not-found]
from numpy.typing import NDArray

from gradwise import optim
from gradwise.diagnosis.suggestion import Suggestion
from gradwise.lab.p01_quadratic_deep import PUBLISHED, hessian
from gradwise.recording.recording import EMPTY, Series
from gradwise.schedules import Schedule
from gradwise.search.rates import Budget, Run, range_test

GRID = Path(__file__).parent / "lr_grid.json"
RANGES = {"sgd": (-4.0, 1.5), "momentum 0.9": (-5.0, 0.75), "momentum 0.99": (-6.0, 0.0), "adam": (-5.0, 0.5)}
MOMENTA = {"sgd": 0.0, "momentum 0.9": 0.9, "momentum 0.99": 0.99, "adam": 0.9}
GRID_SEEDS = 5
Floats = NDArray[np.float64]


def compute_grid() -> None:
    """Train on the whole grid and store what comes of it, with where it comes from."""
    results: dict[str, Any] = {}
    for name, task in TASKS.items():
        for rule in RULES:
            low, high = RANGES[rule]
            places = np.arange(round(8 * low), round(8 * high) + 1) / 8
            rates = torch.tensor(10 ** np.repeat(places, GRID_SEEDS), dtype=torch.float32)
            seeds = list(range(GRID_SEEDS)) * len(places)
            _, final, _ = train(task, rule, seeds, rates[:, None].expand(-1, STEPS), record=False)
            table = [
                [float(f"{v:.6g}") if np.isfinite(v) else None for v in row] for row in final.reshape(-1, GRID_SEEDS)
            ]
            results.setdefault(name, {})[rule] = {"log10_lr": places.tolist(), "final": table}
    GRID.write_text(json.dumps({"provenance": provenance(), "results": results}) + "\n")


def provenance() -> dict[str, Any]:
    """Where a grid's numbers come from."""
    return {
        "made by": "benchmarks/lr_suggestion.py --grid",
        "what": "held-out loss after training, [rate][seed]; null where it is not finite",
        "steps": STEPS,
        "seeds": list(range(GRID_SEEDS)),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


class Truth:
    """What the grid says of one task and rule."""

    def __init__(self, entry: dict[str, Any]) -> None:
        final = np.array([[np.nan if v is None else v for v in row] for row in entry["final"]], np.float64)
        places, mean = np.array(entry["log10_lr"]), np.where(np.isfinite(final).all(1), final.mean(1), np.inf)
        best = int(np.argmin(mean))
        self.loss, self.spread = float(mean[best]), float(final[best].std(ddof=1))
        good = places[mean <= self.loss + self.spread]
        self.best, self.low, self.high = places[best], good[0], good[-1]

    def distance(self, rate: float) -> float:
        """Decades above (positive) or below the rates that do as well as the best."""
        place = np.log10(rate)
        return float(place - np.clip(place, self.low, self.high))


class BatchTrack:
    """The range test's runs of one seed: asks for them, and waits until all seeds have asked."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.asked: tuple[Schedule, int] | None = None
        self.made: Run | None = None
        self.turn = threading.Semaphore(0)
        self.waits = threading.Semaphore(0)
        self.found: Suggestion | None = None
        self.failed: Exception | None = None

    def run(self, lr: Schedule, steps: int, what: str) -> Run:
        """One run from the start."""
        self.asked = lr, steps
        self.waits.release()
        self.turn.acquire()
        assert self.made is not None
        return self.made

    def search(self) -> None:
        """The whole range test, in a thread of its own."""
        try:
            self.found = range_test(self, Budget(horizon=STEPS))
        except Exception as error:
            self.failed = error
        self.asked = None
        self.waits.release()


def suggestions(task: Task, rule: str, seeds: list[int], validate: bool) -> list[Suggestion]:
    """`range_test` for each seed; runs that are asked for at the same time are trained together.

    Args:
        task: what to train.
        rule: how.
        seeds: of the parameters and of the batches.
        validate: whether the held-out loss is taken after each epoch, as a script that validates does.
    """
    epoch = len(task.data()[0]) // task.batch if validate else 0
    tracks = [BatchTrack(MOMENTA[rule]) for _ in seeds]
    for track in tracks:
        threading.Thread(target=track.search, daemon=True).start()
    running = list(zip(tracks, seeds, strict=True))
    while running:
        for track, _ in running:
            track.waits.acquire()
        running = [(track, seed) for track, seed in running if track.asked is not None]
        if not running:
            break
        longest = max(track.asked[1] for track, _ in running if track.asked)
        rates = np.zeros((len(running), longest))
        for row, (track, _) in zip(rates, running, strict=True):
            lr, steps = track.asked or (None, 0)
            row[:steps] = lr(np.arange(steps)) if lr else 0.0
        losses, _, held = train(
            task, rule, [seed for _, seed in running], torch.tensor(rates, dtype=torch.float32), every=epoch
        )
        for k, (track, _) in enumerate(running):
            assert track.asked is not None
            steps = track.asked[1]
            count = steps // epoch if epoch else 0
            series = Series(epoch * np.arange(1, count + 1), held[k, :count].astype(np.float64)) if count else EMPTY
            track.made = Run(losses[k, :steps].astype(np.float64), False, MOMENTA[rule], series)
            track.turn.release()
    for track in tracks:
        if track.failed is not None:
            raise track.failed
    return [track.found for track in tracks if track.found is not None]


def finders(task: Task, rule: str, seeds: list[int]) -> dict[str, list[float]]:
    """What fastai's finders suggest for each seed, from their own ramp."""
    rates = np.geomspace(1e-7, 10.0, 100)
    found: dict[str, list[float]] = {"fastai valley": [], "steepest": [], "minimum/10": []}
    for curve in train(task, rule, seeds, torch.tensor(rates, dtype=torch.float32).expand(len(seeds), -1))[0]:
        losses: list[float] = []
        average = 0.0
        for k, loss in enumerate(curve.astype(np.float64)):
            average = 0.98 * average + 0.02 * float(loss)
            smooth = average / (1 - 0.98 ** (k + 1))
            if not np.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
                break
            losses.append(smooth)
        y = np.array(losses)
        slope = np.gradient(y, np.log(rates[: len(y)]))
        found["fastai valley"].append(float(rates[valley(y)]))
        found["steepest"].append(float(rates[np.argmin(slope)]))
        found["minimum/10"].append(float(rates[np.argmin(y)]) / 10)
    return found


def valley(losses: Floats) -> int:
    """The middle of the longest falling subsequence."""
    length, start = np.ones(len(losses), int), np.arange(len(losses))
    for i in range(1, len(losses)):
        before = np.flatnonzero(losses[:i] > losses[i])
        if len(before):
            j = before[np.argmax(length[before])]
            length[i], start[i] = length[j] + 1, start[j]
    end = int(np.argmax(length))
    return int((start[end] + end) // 2)


def reproduce() -> None:
    """quadratic_deep's published final losses, with gradwise's optimizers."""
    task = TASKS["quadratic_deep"]
    x, _, held, energy = task.data()
    print("quadratic_deep, final test loss of 10 seeds: published, and with gradwise.optim")
    for rule, (lr, loss, spread) in PUBLISHED.items():
        finals = []
        for seed in range(10):
            theta = torch.nn.Parameter(torch.ones(100))
            momentum = 0.99 if rule.startswith("momentum") else 0.0
            optimizer = optim.Adam([theta], lr=lr) if rule == "Adam" else optim.SGD([theta], lr=lr, momentum=momentum)
            for rows in task.order(seed, STEPS):
                mean = x[rows].mean(0)
                with torch.no_grad():
                    theta.grad = hessian() @ (theta - mean)
                optimizer.step()
            finals.append(float(task.loss([theta.detach()[None]], held[None], energy[None])[0]))
        ours, scatter = float(np.mean(finals)), float(np.std(finals, ddof=1))
        within = "within" if abs(ours - loss) <= max(spread, scatter) else "NOT within"
        print(f"  {rule:14s} {loss:.4f} ± {spread:.4f}   {ours:.4f} ± {scatter:.4f}   {within} the larger deviation")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true", help="compute the grid anew")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=RULES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.grid:
        compute_grid()
        return
    reproduce()
    grid = json.loads(GRID.read_text())["results"]
    seeds = range(1000, 1000 + options.seeds)
    print(
        f"\nDistance from the best rate in decades (median; worst of {options.seeds} seeds), and the loss lost in one"
    )
    print("seed's standard deviations (median; 'div' counts runs that diverged)\n")
    for rule in [options.only] if options.only else RULES:
        totals: dict[str, list[float]] = {}
        print(rule)
        for name, task in TASKS.items():
            truth = Truth(grid[name][rule])
            suggested: dict[str, list[float]] = {}
            for column, validate in (("gradwise", True), ("gradwise, training loss", False)):
                found = suggestions(task, rule, list(seeds), validate)
                suggested[column] = [np.nan if f.rate is None else f.rate for f in found]
            suggested.update(finders(task, rule, list(seeds)))
            cells = []
            for finder, rates in suggested.items():
                away = np.array([abs(truth.distance(r)) if np.isfinite(r) else 9.0 for r in rates])
                totals.setdefault(finder, []).extend(away)
                cells.append(
                    f"{finder} {np.median(away):.2f}; {away.max():.2f} ({lost(task, rule, list(seeds), rates, truth)})"
                )
            print(f"  {name:26s} best {10**truth.best:.2g} [{10**truth.low:.2g}, {10**truth.high:.2g}]", flush=True)
            print("    " + "   ".join(cells), flush=True)
        print(
            "  all: " + "   ".join(f"{f} median {np.median(v):.2f}, worst {np.max(v):.2f}" for f, v in totals.items())
        )


def lost(task: Task, rule: str, seeds: list[int], rates: list[float], truth: Truth) -> str:
    """What training at the suggestions loses against the best."""
    usable = torch.tensor(np.nan_to_num(rates, nan=1e-12), dtype=torch.float32)
    _, final, _ = train(task, rule, seeds, usable[:, None].expand(-1, STEPS), record=False)
    begun = float(task.held_out(task.start([0]))[0])
    diverged = int(np.sum(~(final < begun + truth.spread)))
    words = f"{np.median(final - truth.loss) / truth.spread:+.1f} sd"
    return words + (f", {diverged} div" if diverged else "")


if __name__ == "__main__":
    main()
