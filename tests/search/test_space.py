"""Spaces: as written on the command line and in TOML, what they hold, and what makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise.schedules import Schedule
from gradwise.search.domains import Domain, Range, SpaceError
from gradwise.search.space import SHAPES, Space


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("1e-4..1", (Range(1e-4, 1.0, log=True),)),
        ("1..4", (Range(1, 4, whole=True),)),
        ("16..512", (Range(16, 512, log=True, whole=True),)),
        ("16..512:linear", (Range(16, 512, whole=True),)),
        ("0.5..0.99:log", (Range(0.5, 0.99, log=True),)),
        ("-1.0..1.0", (Range(-1.0, 1.0),)),
        ("0,1e-4..1e-1", (0, Range(1e-4, 1e-1, log=True))),
        ("relu,tanh", ("relu", "tanh")),
        ("32, 64", (32, 64)),
        ("a..b.txt" + ",x", None),
    ],
)
def test_a_domain_reads_as_written(text: str, pieces: tuple[object, ...] | None) -> None:
    if pieces is None:
        with pytest.raises(SpaceError, match="not both numbers"):
            Domain.parse(text)
        return
    domain = Domain.parse(text)
    assert domain.pieces == pieces
    assert Domain.parse(domain.text()) == domain
    assert Domain.from_json(domain.to_json()) == domain


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.booleans(), st.integers(2, 9))
def test_a_grid_runs_from_end_to_end_and_stays_inside(low: float, factor: float, log: bool, points: int) -> None:
    each = Range(low, low * factor, log)
    found = each.grid(points)
    assert (found[0], found[-1], len(found)) == (each.low, each.high, points)
    assert all(value in each for value in found)
    assert list(found) == sorted(found)


def test_a_grid_of_whole_numbers_has_each_once() -> None:
    assert Domain.parse("1..4").grid(9) == (1, 2, 3, 4)
    assert Domain.parse("1..1000").grid(4) == (1, 10, 100, 1000)
    assert True not in Range(0, 4, whole=True)
    assert 2.5 not in Range(0, 4, whole=True)


TOML = """
[tune]
momentum = { values = "0.5..0.99", when = { rule = ["momentum", "nesterov"] } }
lr = "1e-4..1"
rule = ["sgd", "momentum", "adam"]
weight_decay = [0, { low = 1e-4, high = 1e-1 }]

[args]
layers = "1..3"
units = { values = [16, 32], when = { layers = [2, 3] }, as = "model.units={}" }
"""


def test_a_file_with_conditions() -> None:
    text = TOML.replace('"momentum", "nesterov"]', '"momentum"]')
    space = Space.read(text)
    names = [p.name for p in space.parameters]
    assert names.index("rule") < names.index("momentum")
    assert Space.from_json(space.to_json()) == space
    grid = space.grid(2)
    assert all(("momentum" in point) == (point["rule"] == "momentum") for point in grid)
    assert all(("units" in point) == (point["layers"] > 1) for point in grid)
    # per rate: rules 1 + 2 + 1, decay 0 or either end, layers 1 (1), 2 or 3 (2 each); of 1..3 a grid of 2 has the ends
    assert len(grid) == 2 * 4 * 3 * (1 + 2)
    point = {"lr": 0.1, "rule": "adam", "weight_decay": 0, "layers": 2, "units": 32}
    space.check(point)
    assert space.words(point) == ("--layers", "2", "model.units=32")
    assert space.knobs(point) == {"lr": 0.1, "rule": "adam", "weight_decay": 0}
    for wrong, said in [
        ({**point, "lr": 5}, "lr = 5 is not among 0.0001..1"),
        ({**point, "momentum": 0.9}, "momentum does not count under its condition"),
        ({k: v for k, v in point.items() if k != "units"}, "units is missing"),
        ({**point, "width": 3}, "width is not in the space"),
    ]:
        with pytest.raises(SpaceError, match=said):
            space.check(wrong)


def test_arguments_are_handed_over_as_one_writes_them() -> None:
    space = Space.of({}, {"hidden": "32,64", "-n": "1..4"})
    assert space.words({"hidden": 64, "-n": 2}) == ("--hidden", "64", "-n", "2")


def test_of_two_spaces_the_second_wins() -> None:
    both = Space.of({"lr": "1e-4..1", "clip": "1"}).joined(Space.of({"lr": "0.1,0.2", "rule": "sgd"}))
    assert {p.name: p.domain.text() for p in both.parameters} == {"lr": "0.1,0.2", "clip": "1", "rule": "sgd"}


@pytest.mark.parametrize(
    ("knobs", "arguments", "said"),
    [
        ({}, {}, "the space is empty"),
        ({"lr": "1..0.1"}, {}, "lr has a range from 1 to 0.1, which does not rise"),
        ({"lr": "0..1"}, {}, "lr must be above 0"),
        ({"lr": "-1..1:log"}, {}, "must begin above 0"),
        ({"lr": "1e-4..1:cubic"}, {}, "neither log nor linear"),
        ({"lr": "fast"}, {}, "lr must be numbers"),
        ({"lr": "0.1,,0.2"}, {}, "empty place"),
        ({"lr": "0.1,0.1"}, {}, "names 0.1 twice"),
        ({"rule": "magic"}, {}, "rule must be out of sgd"),
        ({"schedule": "wavy"}, {}, "schedule must be out of constant"),
        ({"accumulation": "1.5"}, {}, "whole numbers"),
        ({"accumulation": "0..4"}, {}, "at least 1"),
        ({"momentum": "0.9,1.0"}, {}, "below 1"),
        ({"hidden": "32,64"}, {}, "goes under --arg"),
        ({"lr": "0.1"}, {"lr": "0.2"}, "lr is named twice"),
    ],
)
def test_what_makes_no_sense_is_said(knobs: dict[str, str], arguments: dict[str, str], said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        Space.of(knobs, arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr = 3 = 4", "no TOML"),
        ("[tuned]\nlr = 1", r"table \[tuned\]"),
        ("tune = 3", r"\[tune\] must be a table"),
        ("[tune]\nlr = { values = [0.1], if = 3 }", "lr has 'if'"),
        ("[tune]\nlr = { when = { rule = 'sgd' } }", "lr has no values"),
        ("[tune]\nlr = { values = 0.1, when = 'sgd' }", "condition that is no table"),
        ("[tune]\nlr = { values = 0.1, as = '--lr {}' }", "'as'"),
        ("[args]\nn = { values = 1, as = '-n' }", "no {}"),
        ("[args]\nn = { values = 1, when = { m = 1 } }", "depends on m, which is not in the space"),
        ("[args]\nn = { values = 1, when = { n = 1 } }", "n depends on itself"),
        ("[args]\nm = 1\nn = { values = 1, when = { m = 2 } }", "m = 2, which m never is"),
        ("[tune]\nlr = { low = 0.1 }", "not numbers"),
        ("[tune]\nlr = [[0.1]]", "neither a number nor text"),
        ("[tune]\nlr = [inf]", "neither a number nor text"),
    ],
)
def test_a_file_that_makes_no_sense(text: str, said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        Space.read(text)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 19, 300])
def test_shapes_last_for_the_whole_run(name: str, steps: int) -> None:
    shape = SHAPES[name](steps)
    assert Schedule.from_json(shape.to_json()) == shape
    factors = [shape(k) for k in range(steps)]
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) > 0.9 or steps < 3
