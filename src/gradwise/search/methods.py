"""How a space is searched: methods by name, with all the settings that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna

METHODS = ("guess", "grid", "random", "quasi-random", "tpe", "gp", "cma-es", "nsga-ii")
PRUNING = ("none", "median", "halving", "hyperband")


@dataclass(frozen=True, slots=True)
class Method:
    """How a space is searched.

    Attributes:
        name: out of `METHODS`.
        pruning: out of `PRUNING`.
        trials: how many are planned; some methods divide them.
        points: values on each range, for a grid.
        seed: of its random numbers.
        slots: how many run at a time.
        evaluations: values that a whole run reports, for pruning.
    """

    name: str = "tpe"
    pruning: str = "none"
    trials: int = 30
    points: int = 5
    seed: int = 0
    slots: int = 1
    evaluations: int = 1

    def settings(self) -> dict[str, Any]:
        """All parameters that the method itself has, as they are set."""
        begin = max(4, min(10, self.trials // 3))
        each: dict[str, dict[str, Any]] = {
            "guess": {},
            "grid": {"points": self.points},
            "random": {},
            "quasi-random": {"qmc_type": "sobol", "scramble": True},
            "tpe": {
                "n_startup_trials": begin, "multivariate": True, "group": True, "n_ei_candidates": 24,
                "constant_liar": self.slots > 1,
            },
            "gp": {"n_startup_trials": begin, "deterministic_objective": False},
            "cma-es": {"n_startup_trials": 1},
            "nsga-ii": {"population_size": max(4, min(50, self.trials // 4)), "swapping_prob": 0.5},
        }  # fmt: skip
        return each[self.name]

    def pruning_settings(self) -> dict[str, Any]:
        """All parameters that pruning has."""
        least = max(1, self.evaluations // 9)
        return {
            "none": {},
            "median": {"n_startup_trials": 4, "n_warmup_steps": least},
            "halving": {"min_resource": least, "reduction_factor": 3},
            "hyperband": {"min_resource": least, "max_resource": self.evaluations, "reduction_factor": 3},
        }[self.pruning]


def sampler(method: Method, before: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for a method, in a study that has so many trials."""
    from optuna import samplers

    # A search that goes on must not draw again what it drew at its start.
    seed = int(np.random.SeedSequence([method.seed, before]).generate_state(1)[0])
    chance = samplers.RandomSampler(seed)
    given = method.settings()
    match method.name:
        case "tpe":
            return samplers.TPESampler(seed=seed, **given)
        case "gp":
            return samplers.GPSampler(seed=seed, independent_sampler=chance, warn_independent_sampling=False, **given)
        case "cma-es":
            return samplers.CmaEsSampler(
                seed=seed, independent_sampler=chance, warn_independent_sampling=False, **given
            )
        case "nsga-ii":
            return samplers.NSGAIISampler(seed=seed, **given)
        case "quasi-random":
            # Its points are numbered in the study; its scrambling must stay the same.
            return samplers.QMCSampler(
                seed=method.seed, independent_sampler=chance, warn_asynchronous_seeding=False,
                warn_independent_sampling=False, **given,
            )  # fmt: skip
        case _:
            return chance


def pruner(method: Method) -> optuna.pruners.BasePruner:
    """Optuna's pruner for a method."""
    from optuna import pruners

    kinds = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
    }
    made: optuna.pruners.BasePruner = kinds[method.pruning](**method.pruning_settings())
    return made
