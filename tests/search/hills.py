"""A function in place of a script: its lowest point is known, and runs take no time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gradwise.search.jobs import Job, OnValue, Result
from gradwise.search.space import Configuration, Space

SPACE = Space.of({"lr": "1e-4..1", "rule": "sgd,adam"}, {"hidden": "16..64"})


def hill(config: Configuration) -> float:
    """Lowest, 0, at a rate of 0.01 with adam and 32 units."""
    rate = math.log10(float(config["lr"])) + 2
    units = math.log2(float(config["hidden"])) - 5
    return rate**2 + 0.3 * units**2 + 0.5 * (config["rule"] == "sgd")


@dataclass
class Hill:
    """Evaluates `hill`, with luck that depends on the seed.

    Args:
        noise: of a run's end.
        own: what the script's own settings give.
        values: how many values a run reports on its way down.
        result: what becomes of a run beside that.
    """

    noise: float = 0.0
    own: float = 2.0
    values: int = 0
    result: Callable[[Job, Result], Result] = lambda job, result: result
    made: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, on_value: OnValue) -> Result:
        self.made.append(job)
        value = self.own if job.config is None else hill(job.config)
        value += self.noise * float(np.random.default_rng([job.seed, job.config is None]).standard_normal())
        for k in range(1, self.values + 1):
            if on_value(k, value + 3.0 / k):
                return Result(None, steps=k, pruned=True)
        return self.result(job, Result(value, start=5.0, steps=self.values, test=value + 1 if job.test else None))
