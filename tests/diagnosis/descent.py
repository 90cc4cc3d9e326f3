"""Gradient descent on a noisy quadratic, recorded as the probes would: training whose faults are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gradwise.recording import signals
from gradwise.recording.recording import OptimizerInfo, ParameterInfo, Place, Recording, RunInfo, Series

MADE = Place("train.py", 14, "main", "optimizer = SGD(model.parameters(), lr=lr)")


def descend(
    lr: float | Callable[[int], float],
    steps: int = 600,
    *,
    largest: float = 10.0,
    smallest: float = 0.5,
    dimensions: int = 40,
    noise: float = 0.0,
    momentum: float = 0.0,
    seed: int = 0,
    scale: float = 1.0,
    shift: float = 0.0,
    every: int = 8,
) -> Recording:
    """SGD on ½ Σ λ θ² with λ between `smallest` and `largest`: it diverges from lr = 2/`largest` on.

    `noise` is the standard deviation of each gradient component; the recorded loss is scale·loss + shift, and the
    rate is divided by `scale`, so that the path is the same.
    """
    rng = np.random.default_rng(seed)
    curvature = np.geomspace(largest, smallest, dimensions)
    theta = 1.0 + 0.1 * rng.standard_normal(dimensions)
    start, buffer = theta.copy(), np.zeros(dimensions)
    rate = lr if callable(lr) else lambda _step: lr
    rows: dict[str, list[tuple[int, float]]] = {}

    def put(signal: signals.Signal, step: int, value: float) -> None:
        rows.setdefault(signal.name, []).append((step, value))

    looked: tuple[np.ndarray, np.ndarray] | None = None
    with np.errstate(all="ignore"):
        for t in range(steps):
            xi = noise * rng.standard_normal(dimensions)
            gradient = curvature * theta + xi
            loss = 0.5 * float((curvature * theta**2).sum()) + float((xi * theta).sum())
            put(signals.LOSS, t, scale * loss + shift)
            put(signals.TIME, t, 1e-3 * t)
            if looked is not None:
                before, made = looked
                norms = np.linalg.norm(gradient) * np.linalg.norm(before)
                put(signals.COSINE, t, float(gradient @ before / norms))
                put(signals.KEPT, t, scale * float(-gradient @ made))
                looked = None
            buffer = momentum * buffer + gradient
            change = -rate(t) * buffer
            if t % every == 0:
                put(signals.PARAMETER, t, float(np.linalg.norm(theta)))
                put(signals.UPDATE, t, float(np.linalg.norm(change)))
                put(signals.TRAVEL, t, float(np.linalg.norm(theta - start)))
                put(signals.GRADIENT, t, scale * float(np.linalg.norm(gradient)))
                put(signals.PROGRESS, t, scale * float(-gradient @ change))
                looked = gradient, change
            put(signals.LR, t, rate(t) / scale)
            theta = theta + change
    put(signals.MOMENTUM, 0, momentum)
    return recording_of(rows)


def recording_of(rows: Mapping[str, list[tuple[int, float]]], *, kind: str = "SGD", source: int = 0) -> Recording:
    """A recording with the given points of one optimizer."""
    series = {
        (name, source): Series(np.array([s for s, _ in points]), np.array([v for _, v in points], np.float64))
        for name, points in rows.items()
    }
    rate = rows.get("lr", [(0, 0.1)])[0][1]
    optimizer = OptimizerInfo(
        source, kind, {"lr": rate}, ({"lr": rate},), (ParameterInfo("weight", (40, 1), 0),), MADE, MADE
    )
    run = RunInfo("test", script="train.py", status="finished", facts={"torch": "2.13.0"})
    return Recording(run, (optimizer,), series)


def of_losses(losses: np.ndarray) -> Recording:
    """A recording that has nothing but losses."""
    return recording_of({"loss/train": list(enumerate(losses)), "time": [(i, 1e-3 * i) for i in range(len(losses))]})
