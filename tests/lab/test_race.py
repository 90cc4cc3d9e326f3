"""Races against recurrences worked out by hand, and what counts as arriving."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from gradwise.lab.race import GIVEN, RANGE_TEST, RULES, TEXTBOOK, USUAL, Lane, find_rate, race, run, sweep, typical
from gradwise.lab.surfaces import SURFACES

RAVINE = SURFACES["ravine"]
CURVATURE = np.array([1.0, 100.0])


def test_descent_on_a_quadratic_is_a_power() -> None:
    starts = RAVINE.starts(3)
    path, heights, left = run("sgd", RAVINE, 0.015, starts, 40)
    expected = starts.numpy()[:, None] * (1 - 0.015 * CURVATURE) ** np.arange(41)[:, None]
    assert path == pytest.approx(expected, abs=1e-12)
    assert heights == pytest.approx((CURVATURE * expected**2).sum(-1) / 2, abs=1e-12)
    assert left == (None, None, None)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_on_a_quadratic_is_its_recurrence(nesterov: bool) -> None:
    path, _, _ = run("nesterov" if nesterov else "momentum", RAVINE, 0.01, RAVINE.starts(1), 60)
    theta, b = np.array(RAVINE.start), np.zeros(2)
    for k in range(60):
        g = CURVATURE * theta
        b = 0.9 * b + g
        theta = theta - 0.01 * (g + 0.9 * b if nesterov else b)
        assert path[0, k + 1] == pytest.approx(theta, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "peer", "settings"),
    [
        ("adam", torch.optim.Adam, {}),
        ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9}),
        ("adagrad", torch.optim.Adagrad, {}),
        ("adadelta", torch.optim.Adadelta, {}),
        ("rprop", torch.optim.Rprop, {}),
    ],
)
def test_adaptive_rules_go_torchs_way(rule: str, peer: type, settings: dict[str, float]) -> None:
    beale = SURFACES["beale"]
    path, _, _ = run(rule, beale, 0.05, beale.starts(2), 30)
    for start, way in zip(beale.starts(2), path, strict=True):
        point = start.clone().requires_grad_()
        optimizer = peer([point], lr=0.05, **settings)
        for k in range(30):
            optimizer.zero_grad()
            beale.at(point[None]).sum().backward()
            optimizer.step()
            assert way[k + 1] == pytest.approx(point.detach().numpy(), abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_race_and_starts_do_not_know_each_other(rule: str) -> None:
    wells = SURFACES["wells"]
    starts = wells.starts(3)
    rate = 3 * RULES[rule].textbook
    together = sweep(rule, wells, [rate, 2 * rate], starts, 12)
    assert len(together) == 2
    alone = run(rule, wells, 2 * rate, starts[1:2], 12)
    assert together[1][0][1] == pytest.approx(alone[0][0], abs=1e-12)
    assert together[1][1][1] == pytest.approx(alone[1][0], abs=1e-12)
    assert np.isfinite(together[0][0]).all()
    assert not np.array_equal(together[0][0][0, 0], together[0][0][0, -1]), "it moved"


def test_noise_is_the_same_for_every_rule_and_another_for_each_start() -> None:
    noisy = SURFACES["noisy"]
    same = torch.tensor([noisy.start, noisy.start])
    steps = {}
    for rule in ("sgd", "momentum"):
        path, _, _ = run(rule, noisy, 0.01, same, 5)
        again, _, _ = run(rule, noisy, 0.01, same, 5)
        assert np.array_equal(path, again)
        assert not np.array_equal(path[0, 1], path[1, 1])
        steps[rule] = path[:, 1]
    assert np.array_equal(steps["sgd"], steps["momentum"])  # the first step is the same, noise and all
    quiet = np.array(noisy.start) * (1 - 0.01 * np.array([1, 10]))
    assert 0 < np.abs(steps["sgd"] - quiet).max() < 0.01 * 0.5 * 5


def lane(heights: list[list[float]], path: list[list[list[float]]] | None = None) -> Lane:
    places = np.zeros((len(heights), len(heights[0]), 2)) if path is None else np.array(path, float)
    return Lane("sgd", 0.1, GIVEN, None, places, np.array(heights, float), (None,) * len(heights))


def test_flying_past_is_not_arriving() -> None:
    seen = lane(
        [[9, 3, 1, 4, 1, 0], [9, 9, 9, 9, 9, 9], [0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 5], [9, 1, math.nan, 0, 0, 0]]
    )
    assert seen.arrivals(1.0) == [4, None, 0, None, 3]


def test_detours_are_lengths_over_the_straight_line() -> None:
    seen = lane([[1, 1, 1]] * 3, [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [2, 2]], [[0, 0], [1, 0], [0, 0]]])
    assert seen.detours == pytest.approx([2 / math.sqrt(2), 1.0, math.inf])


def test_the_typical_arrival_is_the_median() -> None:
    assert typical([30, 10, 20], 100) == 20
    assert typical([30, None, None], 100) == math.inf


def test_who_diverges_is_stopped_where_it_left_the_map() -> None:
    path, heights, left = run("sgd", RAVINE, 0.05, RAVINE.starts(1), 200)  # the factor across is −4
    assert left[0] is not None
    assert 1 <= left[0] < 10
    assert np.isfinite(path).all()
    assert np.isfinite(heights).all()
    assert (path[0, left[0] :] == path[0, left[0]]).all()
    assert Lane("sgd", 0.05, GIVEN, None, path, heights, left).arrivals(RAVINE.goal()) == [None]
    # Down an open saddle it leaves the map too, and has arrived.
    saddle = SURFACES["saddle"]
    gone = Lane("sgd", 0.3, GIVEN, None, *run("sgd", saddle, 0.3, saddle.starts(1), 200))
    assert gone.left[0] is not None
    (arrived,) = gone.arrivals(saddle.goal())
    assert arrived is not None
    # |y| grows 1.6 times a step from 0.01, x shrinks by 0.4.
    assert arrived == next(k for k in range(99) if 0.4 ** (2 * k) - (0.01 * 1.6**k) ** 2 <= saddle.goal())


def test_the_range_test_finds_a_rate_that_descends() -> None:
    found = find_rate("sgd", RAVINE, RAVINE.starts(8), 60, 400)
    assert found.rate is not None
    assert 1e-3 < found.rate < 0.02, "at 0.02 descent is at the edge of stability"
    _, heights, left = run("sgd", RAVINE, found.rate, RAVINE.starts(1), 60)
    assert left == (None,)
    _, slower, _ = run("sgd", RAVINE, found.rate / 10, RAVINE.starts(1), 60)
    assert heights[0, -1] < slower[0, -1]


def test_finding_a_rate_leaves_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    find_rate("adam", SURFACES["noisy"], SURFACES["noisy"].starts(2), 20, 120)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_race_has_each_rule_at_its_rates() -> None:
    said: list[str] = []
    over = race(
        SURFACES["wells"], ["adam", "sgd"], rates={"sgd": 0.1}, steps=40, seeds=2, budget=240, progress=said.append
    )
    assert [(each.rule, each.how) for each in over.lanes] == [("adam", RANGE_TEST), ("adam", TEXTBOOK), ("sgd", GIVEN)]
    tested, textbook, given = over.lanes
    assert tested.interval is not None
    assert tested.interval[0] <= tested.lr <= tested.interval[1]
    assert (textbook.lr, given.lr) == (0.001, 0.1)
    assert all(each.path.shape == (2, 41, 2) for each in over.lanes)
    assert over.goal == pytest.approx(-0.5)
    assert said[0] == "looking for a rate for adam"
    report = json.loads(json.dumps(over.to_json(), allow_nan=False))
    assert report["surface"]["minima"] == [[0.0, math.sqrt(2)], [0.0, -math.sqrt(2)]]
    assert [each["steps_to_goal"] for each in report["lanes"]] == [each.arrivals(over.goal) for each in over.lanes]
    assert "has left the saddle" in over.finish


def test_a_rate_that_cannot_be_found_is_said_and_the_textbooks_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        rate, why = None, ("In no ramp did the loss fall by more than its noise.",)

    monkeypatch.setattr("gradwise.lab.race.find_rate", lambda *_: Nothing())
    over = race(SURFACES["wells"], ["sgd"], steps=10)
    assert [each.how for each in over.lanes] == [TEXTBOOK]
    assert over.notes == ("For sgd the range test found no rate: In no ramp did the loss fall by more than its noise.",)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rules": ["sgd", "sdg"]}, "there is no rule 'sdg' to race; there are sgd, .*adam"),
        ({"rates": {"foo": 0.1}}, "there is no rule 'foo'"),
        ({"rates": {"sgd": 0.0}}, "the rate of sgd must be above 0, not 0"),
        ({"rates": {"sgd": math.nan}}, "the rate of sgd must be above 0, not nan"),
        ({"steps": 3}, "10 steps and 1 seed at least: got 7, 3, 1"),
        ({"seeds": 0}, "10 steps and 1 seed at least: got 7, 200, 0"),
        ({"rules": []}, "a race needs a rule"),
    ],
)
def test_what_cannot_be_raced(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        race(RAVINE, **{"rules": USUAL, **arguments})  # type: ignore[arg-type]
