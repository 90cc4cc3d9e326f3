"""Batches as an engine of the search: who trains together, who leaves early, who is confirmed."""

from __future__ import annotations

from typing import Any

import pytest

import gradwise
from batched.nets import double, training
from gradwise.batched import loop
from gradwise.batched.engine import Batched, width
from gradwise.search.jobs import Job
from gradwise.search.methods import Method

SPACE: dict[str, Any] = {"lr": "1e-3..1", "rule": ["sgd", "momentum", "adam"]}


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each batch had that was trained."""
    made: list[int] = []

    class Counted(loop._Batch):
        def __init__(self, task: Any, rows: Any) -> None:
            made.append(len(rows))
            super().__init__(task, rows)

    monkeypatch.setattr(loop, "_Batch", Counted)
    return made


def test_a_search_finds_what_one_after_another_finds(batches: list[int]) -> None:
    with double():
        given: dict[str, Any] = {"method": "random", "trials": 12, "baseline": {"lr": 0.001}}
        together = gradwise.tune(training(), SPACE, **given)
        one_by_one = gradwise.tune(training(rows=1), SPACE, **given)
    # All trials at once, whatever their rule; then three pairs of winner and baseline.
    assert batches == [12, 6]
    assert [t["config"] for t in together.trials] == [t["config"] for t in one_by_one.trials]
    assert [t["value"] for t in together.trials] == pytest.approx([t["value"] for t in one_by_one.trials], rel=1e-9)
    assert together.config == one_by_one.config
    assert together.better
    assert together.test == pytest.approx(one_by_one.test, rel=1e-9)


def test_architectures_and_batch_sizes_form_batches(batches: list[int]) -> None:
    space = {"lr": [0.01, 0.1], "hidden": [4, 8], "batch_size": [8, 16]}
    gradwise.tune(training(), space, method="grid", trials=8)
    assert batches == [2, 2, 2, 2]


def test_rows_that_fall_behind_leave_the_batch() -> None:
    steps: list[int] = []

    class Counted(loop.Rows):
        def step(self, grads: Any) -> None:
            steps.append(len(self.params[0]))
            super().step(grads)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "Rows", Counted)
        found = gradwise.tune(
            training(epochs=9), {"lr": "1e-4..1"}, method="random", trials=24, pruning="halving", seed=1
        )
    states = [t["state"] for t in found.trials]
    assert states.count("pruned") > 12
    assert states.count("complete") >= 1
    assert steps[0] == 24
    assert steps[-1] == states.count("complete")
    assert found.value == min(t["value"] for t in found.trials if t["state"] == "complete")


def next_done(engine: Batched) -> str:
    done = engine.next_done(lambda job, k, value: False)
    assert done is not None
    return done[0].key


def test_a_method_that_learns_gets_several_batches() -> None:
    assert width(Method("random", trials=100), 64) == 64
    assert width(Method("tpe", trials=60), 64) == 10
    assert width(Method("nsga-ii", trials=60), 64) == 15
    assert width(Method("tpe", trials=3), 64) == 1
    # While results are handed out nobody asks for more, so that the next batch knows all of the last.
    engine = Batched(training(epochs=1), Method("tpe", trials=18), None, False)
    for k in range(3):
        engine.submit(Job(str(k), {"lr": 0.1 * (k + 1)}))
    assert engine.slots == 3
    keys = []
    for left in (2, 1):
        keys.append(next_done(engine))
        assert engine.slots == left
    keys.append(next_done(engine))
    assert keys == ["0", "1", "2"]
    assert engine.slots == 3


def test_a_training_has_test_data_of_its_own() -> None:
    with pytest.raises(ValueError, match="test data of its own"):
        gradwise.tune(training(), SPACE, test=lambda config: 1.0)


def test_more_is_better_and_pruning_knows_it() -> None:
    def accuracy(outputs: Any, targets: Any) -> Any:
        return (outputs.argmax(1) == targets).float().mean()

    task = training(score=accuracy, epochs=6)
    found = gradwise.tune(
        task, {"lr": "1e-4..1"}, method="random", trials=16, pruning="median", maximize=True, baseline={"lr": 1e-5}
    )
    assert found.better
    done = {t["value"] for t in found.trials if t["state"] == "complete"}
    assert found.value == max(done)
    assert found.test is not None
