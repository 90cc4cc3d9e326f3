"""A replay is paid for from the budget, and what came of it is told either way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from bench import FakeBench

from gradwise.interventions import Intervention
from gradwise.recording.recording import Event
from gradwise.search.attempts import Attempts, OverError, Plan
from gradwise.search.replays import curvature_at
from gradwise.trials.runner import Trial

SADDLE = {"kind": "saddle", "smallest": {"value": -1.0, "residual": 0.01, "noise": 0.1}, "sharpness": 0.4}


@dataclass
class Replaying(FakeBench):
    """A bench whose replays tell `data`; None leaves no event."""

    data: Mapping[str, Any] | None = field(default_factory=lambda: SADDLE)
    problem: str = ""
    asked: list[tuple[Mapping[str, int], int, float]] = field(default_factory=list)

    def replay(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        self.asked.append((order, seed, timeout))
        recording = self.record(Intervention(), seed, order["step"])
        events = () if self.data is None else (Event("curvature", order["step"], order["source"], self.data),)
        return Trial(replace(recording, events=events), "", False, 7.0, self.problem)


def attempts(bench: FakeBench, budget: float = 100.0) -> Attempts:
    return Attempts(bench.watched(), Plan(bench.seconds, budget), bench)


def test_what_was_measured_is_handed_on_and_paid_for() -> None:
    bench = Replaying()
    trying = attempts(bench)
    found = curvature_at(trying, 120, source=1, products=10)
    assert (found.kind, found.data["sharpness"], found.problem, found.seconds) == ("saddle", 0.4, "", 7.0)
    assert trying.spent == 7.0
    [(order, seed, timeout)] = bench.asked
    assert order == {"step": 120, "source": 1, "products": 10, "batches": 4, "fresh": 4}
    assert seed == 0
    assert timeout <= 100.0
    assert trying.trials == []  # it compares with none


@pytest.mark.parametrize(
    ("data", "problem", "words"),
    [
        ({"problem": "the loss is nan"}, "", "the loss is nan"),
        (None, "", "the run ended before step 120"),
        (None, "the script failed: KeyError", "the script failed: KeyError"),
    ],
)
def test_where_nothing_was_measured_it_says_why(data: Any, problem: str, words: str) -> None:
    found = curvature_at(attempts(Replaying(data=data, problem=problem)), 120)
    assert (found.kind, found.data, found.problem) == ("inconclusive", {}, words)


def test_without_time_or_place_there_is_no_replay() -> None:
    bench = Replaying()
    # 2 s to start, 128 steps and 540 steps' worth of products, at 10 ms each.
    with pytest.raises(OverError, match=r"the budget of 5\.0 s was spent"):
        curvature_at(attempts(bench, 5.0), 120)
    assert bench.asked == []
    with pytest.raises(OverError, match="nowhere to replay"):
        curvature_at(attempts(FakeBench()), 120)
