"""Order among batches, from recordings whose order is known: sorted, shuffled, drifting, alternating, carried on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from descent import recording_of

from gradwise.diagnosis.targets import Order, order_of, targets_of
from gradwise.recording.recording import Event, Recording, Series


def of_batches(
    batches: list[np.ndarray], classes: int = 0, seen: np.ndarray | None = None, **about: object
) -> Recording:
    """A recording of the targets of these batches: class indices, or numbers where `classes` is 0."""
    if classes:
        values = np.stack([np.bincount(b.astype(int), minlength=classes) for b in batches]).astype(float)
        name, labels = "target/classes", tuple(str(i) for i in range(classes))
    else:
        values = np.array([[len(b), b.mean(), b.var()] for b in batches])
        name, labels = "target", ("count", "mean", "variance")
    steps = np.arange(len(batches)) if seen is None else seen
    series = {(name, 0): Series(steps, values[steps], labels)}
    loss = "cross_entropy" if classes else "mse_loss"
    event = Event("targets", 0, 0, {"loss": loss, "classes": classes, "width": 1, "plain": True, **about})
    plain = recording_of({})
    return Recording(plain.run, plain.optimizers, series, (event,))


def order(batches: list[np.ndarray], classes: int = 0, seen: np.ndarray | None = None) -> Order:
    (targets,) = targets_of(of_batches(batches, classes, seen))
    found = order_of(targets)
    assert found is not None
    return found


def epochs(data: np.ndarray, batch: int, times: int) -> list[np.ndarray]:
    return [data[i : i + batch] for _ in range(times) for i in range(0, len(data), batch)]


@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("seed", range(4))
def test_batches_drawn_at_random_have_no_order(batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.integers(0, 5, batch) for _ in range(500)]
    found = order(batches, 5)
    assert abs(found.share) < 0.1
    assert found.sigmas < 5
    numbers = order([rng.standard_normal(batch) for _ in range(500)])
    assert abs(numbers.share) < 0.1
    assert numbers.sigmas < 5


@pytest.mark.parametrize("batch", [1, 8, 30])
def test_sorted_by_class_is_all_order_and_comes_back(batch: int) -> None:
    found = order(epochs(np.repeat(np.arange(4), 60), batch, 40), 4)
    assert found.share > 0.85
    assert found.sigmas > 50
    width = math.ceil(8 / batch)
    assert found.period == pytest.approx(240 / batch / width, abs=1)
    assert found.returns > 0.95


def test_a_fixed_order_that_is_random_comes_back_but_is_no_order() -> None:
    data = np.random.default_rng(0).integers(0, 4, 320)
    found = order(epochs(data, 32, 20), 4)
    assert found.share < 0.1


def test_targets_that_drift_never_come_back() -> None:
    rng = np.random.default_rng(0)
    found = order([i / 50 + rng.standard_normal(16) for i in range(400)])
    assert found.share > 0.5
    assert found.period == 0 or found.returns < 0.8


def test_batches_that_take_turns_are_no_epoch() -> None:
    found = order([np.full(16, i % 2) for i in range(200)], 2)
    assert found.share == pytest.approx(1.0, abs=0.02)
    assert found.period != 2


def test_an_order_is_seen_through_the_gaps_of_sampling() -> None:
    batches = epochs(np.repeat(np.arange(4), 160), 16, 40)
    steps = np.arange(len(batches))
    seen = steps[(steps < 128) | (steps % 400 < 32)]
    found = order(batches, 4, seen)
    assert (found.period, found.returns > 0.95) == (40, True)


@pytest.mark.parametrize(
    "batches",
    [[], [np.zeros(4)], [np.zeros(4)] * 50, [np.arange(4.0)] * 3],
    ids=["none", "one", "all the same", "few"],
)
def test_too_little_to_tell(batches: list[np.ndarray]) -> None:
    found = targets_of(of_batches(batches)) if batches else []
    assert all(order_of(t) is None for t in found)


def test_what_a_guess_that_knows_nothing_loses() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.choice(3, 64, p=[0.5, 0.25, 0.25]) for _ in range(200)]
    (targets,) = targets_of(of_batches(labels, 3))
    assert targets.uninformed == pytest.approx(1.04, abs=0.01)
    (weighted,) = targets_of(of_batches(labels, 3, plain=False))
    assert math.isnan(weighted.uninformed)
    numbers = [3 + 2 * rng.standard_normal(64) for _ in range(200)]
    (squares,) = targets_of(of_batches(numbers))
    assert squares.uninformed == pytest.approx(4, rel=0.05)
    (wide,) = targets_of(of_batches(numbers, width=7))
    assert math.isnan(wide.uninformed)
    coins = [(rng.random(64) < 0.2).astype(float) for _ in range(200)]
    (binary,) = targets_of(of_batches(coins, loss="binary_cross_entropy_with_logits"))
    assert binary.uninformed == pytest.approx(0.5, abs=0.02)
