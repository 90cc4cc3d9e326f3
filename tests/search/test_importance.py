"""Importances against functions whose variance can be taken apart by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwise.search.domains import SpaceError
from gradwise.search.importance import importances


def test_shares_of_a_sum_are_its_terms_variances() -> None:
    generator = np.random.default_rng(0)
    trials = []
    for _ in range(100):
        x, z = generator.uniform(0, 1, 2)
        trials.append(({"x": float(x), "z": float(z)}, float(2 * x + z)))
    found = importances(trials, {"x": "0..1", "z": "0..1"})
    assert found["x"] == pytest.approx(4 / 5, abs=0.08)
    assert found["z"] == pytest.approx(1 / 5, abs=0.08)


def test_on_a_logarithmic_range_equal_ratios_count_as_equally_far() -> None:
    # The score falls over the lowest two of four decades only: on a linear scale those are a hundredth of the range.
    generator = np.random.default_rng(1)
    trials = []
    for _ in range(80):
        rate, other = 10 ** generator.uniform(-4, 0), generator.uniform(0, 1)
        score = max(0.0, -2 - math.log10(rate)) + 0.5 * other
        trials.append(({"lr": float(rate), "other": float(other)}, score))
    found = importances(trials, {"lr": "1e-4..1", "other": "0..1"})
    assert found["lr"] > 0.8
    assert found["other"] < 0.2


def test_what_can_be_chosen_by_name_and_what_has_no_effect() -> None:
    trials = [({"kind": kind, "n": n}, float(kind == "b")) for kind in ("a", "b") for n in (1, 2, 3)]
    found = importances(trials, {"kind": "a,b", "n": "1,2,3"})
    assert found["kind"] == pytest.approx(1, abs=0.03)
    assert found["n"] == pytest.approx(0, abs=0.03)
    assert found == importances(trials, {"kind": "a,b", "n": "1,2,3"})


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="two trials"):
        importances([({"x": 1.0}, 0.0)], {"x": "0..1"})
    with pytest.raises(SpaceError, match="x has both"):
        importances([({"x": 0.1}, 0.0), ({"x": 0.2}, 1.0)], {"x": "0,1e-4..1e-1"})
