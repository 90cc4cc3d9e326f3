"""Whether inputs say anything about their labels: told from samples whose relation is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from watching import watched

from gradwise.probes.pairs import assess


def rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("features", [2, 30])
def test_independent_labels_are_at_chance(seed: int, classes: int, features: int) -> None:
    x = rows(400, features, seed)
    y = np.random.default_rng(100 + seed).integers(0, classes, 400).astype(float)
    found = assess(x, y, whole=True)
    assert found["classes"] == classes
    assert found["entropy"] == pytest.approx(np.log(classes), rel=0.03)
    assert abs(found["neighbours_z"]) < 4
    assert found["linear_z"] < 3.5


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_and_a_bent_relation_are_seen(seed: int) -> None:
    x = rows(400, 6, seed)
    linear = assess(x, (x[:, 0] + x[:, 1] > 0).astype(float))
    assert linear["linear_z"] > 6
    assert linear["linear"] > 0.85
    ring = assess(x[:, :2], ((x[:, :2] ** 2).sum(1) > 1.4).astype(float))
    assert ring["neighbours"] > 0.9
    assert ring["neighbours_z"] > 10


def test_numbers() -> None:
    x = rows(400, 1, 0)
    bent = assess(x, np.sin(3 * x[:, 0].astype(float)))
    assert bent["neighbours_left"] < 0.1
    assert bent["linear_left"] > 0.5
    noise = assess(x, np.random.default_rng(1).standard_normal(400))
    assert noise["neighbours_left"] == pytest.approx(1.2, abs=0.2)
    assert noise["linear_left"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_weak_relation_shows_beyond_chance_and_none_does_not(seed: int) -> None:
    x = rows(400, 6, seed)
    noise = np.random.default_rng(seed + 10).standard_normal(400)
    weak = 0.36 * x[:, 0] + noise  # a ninth of the variance
    assert assess(x, weak)["linear_z"] > 4
    assert assess(x, noise)["linear_z"] < 3
    assert assess(x, noise)["neighbours_z"] < 3
    rare = (x[:, 0] + noise > 2.2).astype(float)  # one row in fifteen: nobody's best guess
    assert assess(x, rare)["linear_agrees_z"] > 3
    assert assess(x, (noise > 1.5).astype(float))["linear_agrees_z"] < 3


def test_a_bent_relation_of_numbers_shows_in_neighbours() -> None:
    x = rows(400, 2, 0)
    bent = np.abs(x[:, 0]) + np.random.default_rng(1).standard_normal(400)
    assert assess(x, bent)["neighbours_z"] > 3


def test_a_row_met_twice_is_one_row() -> None:
    x = rows(150, 8, 0)
    y = np.random.default_rng(1).integers(0, 2, 150).astype(float)
    once, often = assess(x, y), assess(np.tile(x, (4, 1)), np.tile(y, 4))
    assert often["rows"] == 150
    assert often["neighbours_z"] == pytest.approx(once["neighbours_z"])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (rows(10, 3, 0), np.zeros(10)),
        (np.ones((200, 3), np.float32), np.arange(200.0)),
        (rows(200, 3, 0), np.zeros(200)),
        (np.zeros((0, 3), np.float32), np.zeros(0)),
    ],
)
def test_too_little_says_nothing(x: np.ndarray, y: np.ndarray) -> None:
    assert assess(x, y, whole=True) == {}


def test_a_sample_is_taken_while_training_and_draws_no_random_number() -> None:
    torch.manual_seed(0)
    images = torch.randn(320, 1, 8, 8)
    labels = (images[:, 0, 0, 0] > 0).long()
    with watched() as seen:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        state = torch.get_rng_state()
        for i in range(0, 320, 32):
            functional.cross_entropy(model(images[i : i + 32]), labels[i : i + 32]).backward()
            optimizer.step()
        for _ in range(60):
            functional.cross_entropy(model(images[:128]), labels[:128]).backward()
            optimizer.step()
        assert torch.equal(state, torch.get_rng_state())
    data = seen.recording.happened("pairs")[-1].data
    assert (data["features"], data["classes"]) == (64, 2)
    assert data["rows"] >= 128
    assert data["linear_z"] > 3


def test_inputs_that_do_not_belong_row_by_row_are_left_alone() -> None:
    with watched() as seen:
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(40):  # rows of seven make one label
            out = model(torch.randn(5, 7, 4)).mean(dim=1)
            functional.cross_entropy(out, torch.randint(0, 3, (5,))).backward()
            optimizer.step()
    assert not seen.recording.happened("pairs")


def test_several_numbers_a_row() -> None:
    x = rows(500, 6, 0)
    noise = np.random.default_rng(1).standard_normal((500, 3))
    both = assess(x, np.stack([x[:, 0] + x[:, 1], 5 * x[:, 2] + 3, np.ones(500)], axis=1).astype(float))
    assert (both["columns"], both["classes"]) == (3, 0)
    assert both["linear_left"] < 0.05
    assert both["neighbours_z"] > 10
    assert both["variance"] == pytest.approx((2 + 25 + 0) / 3, rel=0.15)
    none = assess(x, noise)
    assert none["linear_left"] == pytest.approx(1, abs=0.06)
    assert abs(none["linear_z"]) < 3.5
    assert none["deviation"] == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)


@pytest.mark.parametrize("copies", [1, 6])
def test_columns_that_say_the_same_count_once(copies: int) -> None:
    """The error of neighbours' agreement, told from a hundred draws of unrelated rows."""
    z = [
        assess(rows(200, 3, s), np.tile(np.random.default_rng(s + 500).standard_normal((200, 1)), (1, copies)))[
            "neighbours_z"
        ]
        for s in range(100)
    ]
    assert abs(np.mean(z)) < 0.35
    assert 0.6 < np.std(z) < 1.3


def test_rows_are_taken_between_examinations() -> None:
    """A run of 120 steps is examined a few times; rows of many batches are compared all the same."""
    generator = torch.Generator().manual_seed(0)
    with watched() as seen:
        model = nn.Linear(5, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(120):
            x = torch.randn(8, 5, generator=generator)
            functional.mse_loss(model(x), x[:, :2] - x[:, 2:4]).backward()
            optimizer.step()
            optimizer.zero_grad()
    data = seen.recording.happened("pairs")[-1].data
    assert data["rows"] > 180
    assert data["columns"] == 2
    assert data["linear_left"] < 0.05


def test_a_target_left_over_from_another_loss_is_not_paired() -> None:
    """Where what is differentiated comes of no loss function that was just called, its target isn't known."""
    generator = torch.Generator().manual_seed(0)
    with watched() as seen:
        model = nn.Linear(5, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        old = torch.randn(64, 1, generator=generator)
        functional.mse_loss(model(torch.randn(64, 5, generator=generator)), old).backward()
        for _ in range(60):
            model(torch.randn(64, 5, generator=generator)).cosh().log().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(e.data["rows"] <= 64 for e in seen.recording.happened("pairs"))
