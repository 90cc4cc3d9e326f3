"""X14: shares and levels by hand, a verdict that follows, and each part on a training small enough to check."""

from __future__ import annotations

from typing import Any

from gradwise.lab.experiment import DOES_NOT_HOLD, Bench, Verdict
from gradwise.lab.x14_learning_rate import EXPERIMENT, IMPORTANCE, MINIMA, OUTLIERS, OVERFITS, SPACE, reached

BENCH = Bench(quick=True)


def minima(small: list[float | None], large: list[float | None], scheduled: list[float | None]) -> dict[str, Any]:
    ends = {"small": small, "large": large, "cosine": scheduled}
    return {"rate": 1.0, "start": 2.0, "ends": ends, "settled": {way: [True] * len(v) for way, v in ends.items()}}


def test_the_best_minimum_is_the_lowest_loss_of_all_ways() -> None:
    m = minima([1.0, 1.04, 1.06, None], [1.5] * 4, [1.0] * 4)
    assert reached(m) == {"small": 0.5, "large": 0.0, "cosine": 1.0}


def runs(eta: float = 0.8, small: float = 0.4, big: float = 0.3, found: dict[str, Any] | None = None) -> dict[str, Any]:
    one = found or minima([1.0, 1.0], [1.5, 1.0], [1.0, 1.5])
    shares = dict.fromkeys(SPACE, 0.1) | {"lr": eta}
    pair = {"rate": 1.0, "small": small, "large": big, "reached": 1.0}
    parts = {IMPORTANCE: {"importance": shares}, OVERFITS: pair, MINIMA: one, OUTLIERS: pair}
    return {f"{part}, digits": dict.fromkeys(range(3), measured) for part, measured in parts.items()}


def held(verdict: Verdict) -> list[bool | None]:
    return [s.held for s in verdict.statements]


def test_each_sentence_is_judged_by_its_own_part() -> None:
    #                                     important, over-fits, trapped, helps, outliers, sure
    assert held(EXPERIMENT.judge(runs())) == [True, True, False, True, False, False]
    assert held(EXPERIMENT.judge(runs(eta=0.05))) == [False, True, False, True, False, False]
    assert held(EXPERIMENT.judge(runs(small=0.2))) == [True, False, False, True, True, False]
    other = minima([1.5, 1.5], [1.0, 1.5], [1.0, 1.0])
    assert held(EXPERIMENT.judge(runs(found=other))) == [True, True, True, False, False, True]


def test_both_readings_of_a_small_rate_cannot_hold() -> None:
    alike = minima([1.0, 1.5], [1.5, 1.0], [1.0, 1.5])
    verdict = EXPERIMENT.judge(runs(found=alike))
    assert held(verdict)[2:4] == [None, None]
    worst = minima([1.5, 1.5], [1.0, 1.0], [1.0, 1.5])
    assert EXPERIMENT.judge(runs(eta=0.0, small=0.2, found=worst)).word != DOES_NOT_HOLD


def test_one_settled_run_elsewhere_refutes_that_a_schedule_is_sure_one_under_way_does_not() -> None:
    one = minima([1.0, 1.0], [1.0, 1.0], [1.0, 1.5])
    assert held(EXPERIMENT.judge(runs(found=one)))[-1] is False
    one["settled"]["cosine"] = [True, False]
    assert held(EXPERIMENT.judge(runs(found=one)))[-1] is True


def test_the_importance_of_a_rate_that_decides_alone() -> None:
    settings = {"part": IMPORTANCE, "task": "breast_cancer", "trials": 12, "steps": 5}
    found = EXPERIMENT.measure(settings, 0, BENCH)
    assert set(found["importance"]) == set(SPACE)
    assert 0 < sum(found["importance"].values()) <= 1 + 1e-6


def test_losses_are_compared_where_the_training_loss_is_down_to_the_target() -> None:
    settings = {"part": OVERFITS, "task": "breast_cancer", "rows": 60, "members": 2, "target": 0.3, "steps": 400}
    found = EXPERIMENT.measure(settings, 0, BENCH)
    assert found["reached"] == 1
    assert 0.05 < found["small"] < 0.7
    never = EXPERIMENT.measure({**settings, "target": 0.0, "steps": 20}, 0, BENCH)
    assert never == {"rate": found["rate"], "small": None, "large": None, "reached": 0}


def test_without_wrong_labels_there_is_no_influence() -> None:
    settings = {"part": OUTLIERS, "task": "digits", "rows": 60, "members": 2, "target": 1.5, "steps": 100}
    found = EXPERIMENT.measure(settings, 0, BENCH)
    assert 0 < found["small"] < 1
    assert 0 < found["large"] < 1
    assert found["reached"] == 1
    few = EXPERIMENT.measure({**settings, "rows": 9}, 0, BENCH)  # a tenth of nine rows is none
    assert few["small"] == few["large"] == 0


def test_what_could_not_be_compared_is_left_out_and_told() -> None:
    measured = runs()
    nothing = {"rate": 1.0, "small": None, "large": None, "reached": 0.0}
    measured["over-fitting, wine"] = dict.fromkeys(range(3), nothing)
    assert held(EXPERIMENT.judge(measured)) == held(EXPERIMENT.judge(runs()))
    del measured["over-fitting, digits"]
    assert held(EXPERIMENT.judge(measured))[1] is None
    assert ["over-fitting, wine", "–", "–", "–", "0%"] in EXPERIMENT.tables(measured)[1].rows


def test_minima_are_those_of_each_way_from_the_same_starts() -> None:
    settings = {"part": MINIMA, "task": "wine", "units": 1, "members": 3, "steps": 20, "schedules": ["cosine"]}
    found = EXPERIMENT.measure(settings, 1, BENCH)
    assert {way: len(ends) for way, ends in found["ends"].items()} == {"small": 3, "large": 3, "cosine": 3}
    assert found == EXPERIMENT.measure(settings, 1, BENCH)
    assert all(end < found["start"] for end in found["ends"]["small"])


def test_tables_and_figures() -> None:
    shares, pairs, ways = EXPERIMENT.tables(runs())
    assert shares.rows[1][1].startswith("0.8 ")
    assert pairs.rows[1][1:3] == ["0.400", "0.300"]
    assert ways.rows == [["net", "small", "large", "cosine"], ["minima, digits", "100%", "50%", "50%"]]
    assert set(EXPERIMENT.figures(runs())) == {"importance", "minima"}
    for quick in (True, False):
        assert {c.settings["part"] for c in EXPERIMENT.cells(quick)} == {IMPORTANCE, OVERFITS, MINIMA, OUTLIERS}
